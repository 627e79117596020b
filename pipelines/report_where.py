"""Where rows were held back: by class, by source and by time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from pipelines.charts import TimeBins
from pipelines.report_counts import TimeCounts, ValueCounts, time_counts
from pipelines.report_facts import RunFacts
from pipelines.report_scan import read
from pipelines.report_text import Text, cut
from pipelines.shards import shard_name
from pipelines.slice_chart import MISSING, SliceBar
from sanitizers.core.encoder import as_numbers

#: Classes and sources in a table.
VALUES = 20


@dataclass(frozen=True)
class ValueCount:
    """Verdicts of the rows with one value; `severity` where finds come from a source."""

    value: Text
    keep: int
    review: int
    quarantine: int
    severity: str = ""

    @property
    def rows(self) -> int:
        """All rows with the value."""
        return self.keep + self.review + self.quarantine

    @property
    def share(self) -> float:
        """The share in quarantine."""
        return self.quarantine / max(self.rows, 1)


@dataclass(frozen=True)
class Breakdown:
    """Verdicts by the values of one column, worst first.

    Parameters
    ----------
    role : str
    column : Text
    values : int
        How many different values there are.
    partial : bool
        True where there were too many to count every one.
    worst : tuple of ValueCount
    """

    role: str
    column: Text
    values: int
    partial: bool
    worst: tuple[ValueCount, ...]


@dataclass(frozen=True)
class Timeline:
    """Verdicts over time; rows without a time, and those in the outermost bars by force."""

    column: Text
    bins: TimeBins
    missing: int
    outside: int


@dataclass(frozen=True)
class Slices:
    """Slices of time of equal size; `usual` is the share in quarantine in the median one."""

    column: Text
    bars: tuple[SliceBar, ...]
    usual: float


@dataclass(frozen=True)
class Where:
    """Where rows were held back.

    Parameters
    ----------
    breakdowns : tuple of Breakdown
    timeline : Timeline or None
    slices : Slices or None
    uncounted : tuple of str
        What could not be counted, and why.
    """

    breakdowns: tuple[Breakdown, ...]
    timeline: Timeline | None
    slices: Slices | None
    uncounted: tuple[str, ...]


def where(facts: RunFacts) -> Where:
    """Count verdicts by class, source and time, in one pass over rows and verdicts."""
    source, roles = facts.ingested, facts.roles
    files = [source.folder / shard.name for shard in source.shards]
    rows = [shard.rows for shard in source.shards]
    grouped = [(role, getattr(roles, role)) for role in ("label", "source")]
    counts = {(role, column): ValueCounts() for role, column in grouped if column}
    uncounted = list[str]()
    times = time_counts(files, rows, roles.time) if roles.time else None
    if roles.time and times is None:
        uncounted.append(f"time: the values of {roles.time} have no order in time")
    wanted = [column for _, column in counts] + ([roles.time] if times and roles.time else [])
    for number, path in enumerate(files if wanted else ()):
        verdicts = read(
            facts.runs_folder / shard_name(number, "verdicts"), ["verdict"], rows[number]
        )
        verdict = verdicts.column("verdict").cast(pa.string())
        table = read(path, wanted, rows[number])
        _count_values(counts, uncounted, table, verdict)
        if times and roles.time:
            times.add(as_numbers(table.column(roles.time)), verdict)
    breakdowns = tuple(
        _breakdown(role, column, c, _crowded(facts, role)) for (role, column), c in counts.items()
    )
    timeline = _timeline(roles.time, times)
    return Where(breakdowns, timeline, _slices(facts), tuple(uncounted))


def _count_values(
    counts: dict[tuple[str, str], ValueCounts],
    uncounted: list[str],
    table: pa.Table,
    verdict: pa.ChunkedArray,
) -> None:
    """Count a shard; a column whose values are no plain values is given up, and said so."""
    for role, column in list(counts):
        try:
            counts[role, column].add(table.column(column), verdict)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            del counts[role, column]
            uncounted.append(f"{role}: values of type {table.column(column).type} are not counted")


def _crowded(facts: RunFacts, role: str) -> dict[str | None, str]:
    """The values of a role in which finds crowd, with their severity."""
    cut_by = facts.alarms.cuts.get(role) if facts.alarms else None
    return {s.first: s.severity for s in cut_by.slices if s.severity} if cut_by else {}


def _breakdown(
    role: str, column: str, counts: ValueCounts, crowded: Mapping[str | None, str]
) -> Breakdown:
    worst = (
        ValueCount(
            Text(None) if value is None else cut(value, 60),
            keep,
            review,
            bad,
            crowded.get(value, ""),
        )
        for value, keep, review, bad in counts.worst(VALUES)
    )
    return Breakdown(role, cut(column), counts.values, counts.partial, tuple(worst))


def _timeline(column: str | None, counts: TimeCounts | None) -> Timeline | None:
    if column is None or counts is None:
        return None
    return Timeline(cut(column), counts.bins, counts.missing, counts.outside)


def _slices(facts: RunFacts) -> Slices | None:
    """The slices of time, where there are any and a row in them was held back."""
    cut_by = facts.alarms.cuts.get("time") if facts.alarms else None
    if cut_by is None or not any(s.quarantine + s.review for s in cut_by.slices):
        return None
    bars = (
        SliceBar(s.first or MISSING, s.last or "", s.rows, s.review, s.quarantine, s.severity)
        for s in cut_by.slices
    )
    return Slices(cut(cut_by.column), tuple(bars), cut_by.usual)
