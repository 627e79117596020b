"""Crowded slices told as findings: neighbours in time as one, with their range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanitizers.risks.crowding import Crowds, crowds
from sanitizers.risks.finding import ALARM, WARNING, Finding

#: The name of this risk.
CROWDING = "crowding"
#: What a finding counts.
COUNTED = ("rows", "review", "quarantine")
#: Sources that are told one by one, those with the most finds.
MOST_TOLD = 10
#: Times further apart than this are told as dates.
_DAYS = timedelta(days=2)
#: Characters of a source that a message names.
_NAME = 80


@dataclass(frozen=True)
class Slice:
    """Rows of a span of time or of one source, and how many of them were not kept.

    Parameters
    ----------
    first, last : object
        The least and the greatest time; or the source, twice. None where the rows have none.
    rows, review, quarantine : int
    review_by_row, quarantine_by_row : int
        Those of them that were found for what they are themselves, not only for the slice
        that they are in.
    """

    first: Any
    last: Any
    rows: int
    review: int
    quarantine: int
    review_by_row: int
    quarantine_by_row: int


@dataclass(frozen=True)
class Judged:
    """Slices, and which of them are crowded.

    Parameters
    ----------
    slices : tuple of Slice
    quarantine : Crowds
        Of rows in quarantine: an alarm.
    held : Crowds
        Of rows in quarantine or up for review: a warning.
    """

    slices: tuple[Slice, ...]
    quarantine: Crowds
    held: Crowds

    @classmethod
    def of(cls, slices: Sequence[Slice]) -> Judged:
        """Hold the counts of every slice against those of the others."""

        def counts(*names: str) -> NDArray[np.int64]:
            values = [sum(getattr(s, name) for name in names) for s in slices]
            return np.array(values, dtype=np.int64)

        rows = counts("rows")
        held = counts("quarantine", "review"), counts("quarantine_by_row", "review_by_row")
        quarantine = crowds(rows, counts("quarantine"), counts("quarantine_by_row"))
        return cls(tuple(slices), quarantine, crowds(rows, *held))

    @cached_property
    def severities(self) -> tuple[str, ...]:
        """For every slice ``alarm``, ``warning``, or nothing."""
        pairs = zip(self.quarantine.crowded, self.held.crowded, strict=True)
        return tuple(ALARM if bad else WARNING if odd else "" for bad, odd in pairs)


def told(role: str, column: str, judged: Judged) -> Iterator[Finding]:
    """Tell the crowded slices: spans of time as one each, sources one by one.

    Parameters
    ----------
    role : str
        ``time`` or ``source``.
    column : str
    judged : Judged
        In the order of time; rows without one come last.
    """
    groups = list(_groups(judged, neighbours=role == "time"))
    calm = [s for s, bad in zip(judged.slices, judged.severities, strict=True) if not bad]
    elsewhere = {name: sum(getattr(s, name) for s in calm) for name in COUNTED}
    alarms = [group for severity, group in groups if severity == ALARM]
    near = {i + step for group in alarms for i in group for step in (-1, 1)}
    for severity, group in groups:
        # What lies beside a span in alarm is its border, and told with it.
        if severity == ALARM or role != "time" or not near & set(group):
            yield _finding(role, column, judged, severity, group, elsewhere)


def most_told(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings about sources, where there are too many to tell each."""
    if len(findings) <= MOST_TOLD:
        return tuple(findings)
    ordered = sorted(findings, key=lambda f: (f.severity != ALARM, -f.detail["quarantine"]))
    kept, rest = ordered[:MOST_TOLD], ordered[MOST_TOLD:]
    names = [f.subject for f in rest]
    last = Finding(
        CROWDING,
        rest[0].severity,
        f"{len(rest):,} more sources",
        rest[0].value,
        rest[0].line,
        f"finds crowd in {len(rest):,} more sources than those told one by one",
        {"sources": names[:1000], "more": max(len(names) - 1000, 0)},
    )
    return (*kept, last)


def _groups(judged: Judged, *, neighbours: bool) -> Iterator[tuple[str, list[int]]]:
    """The crowded slices of one severity that are told together."""
    group: list[int] = []
    for i, severity in enumerate(judged.severities):
        joined = neighbours and group and judged.slices[i].first is not None
        if group and not (joined and severity == judged.severities[group[0]]):
            yield judged.severities[group[0]], group
            group = []
        if severity:
            group.append(i)
    if group:
        yield judged.severities[group[0]], group


def _finding(
    role: str,
    column: str,
    judged: Judged,
    severity: str,
    group: Sequence[int],
    elsewhere: Mapping[str, int],
) -> Finding:
    grave = severity == ALARM
    inside = [judged.slices[i] for i in group]
    counts = {name: sum(getattr(s, name) for s in inside) for name in COUNTED}
    found, others = (c["quarantine"] + (0 if grave else c["review"]) for c in (counts, elsewhere))
    rows, first, last = counts["rows"], inside[0].first, inside[-1].last
    most = (judged.quarantine if grave else judged.held).most[list(group)].sum()
    where = "in quarantine" if grave else "in quarantine or up for review"
    return Finding(
        CROWDING,
        severity,
        _subject(role, column, first, last),
        found / rows,
        float(most + 1) / rows,
        f"{found:,} of {rows:,} rows {_place(role, first, last)} are {where}; "
        f"elsewhere {one_in(others, elsewhere['rows'])}",
        {
            "column": column,
            "role": role,
            "first": _plain(first),
            "last": _plain(last),
            "slices": list(group) if role == "time" else [],
            **counts,
        },
    )


def named(first: Any, last: Any) -> tuple[str, str]:
    """Two values of a column as people write them: dates as dates, where days tell them apart.

    Parameters
    ----------
    first, last : object
    """
    if isinstance(first, datetime) and isinstance(last, datetime):
        days = last - first >= _DAYS
        form = "%Y-%m-%d" if days else "%Y-%m-%d %H:%M:%S"
        return first.strftime(form), last.strftime(form)
    if isinstance(first, float) and isinstance(last, float):
        return f"{first:.10g}", f"{last:.10g}"
    return str(first), str(last)


def one_in(found: int, rows: int) -> str:
    """Say a share as people count: ``1 in 300``."""
    return f"1 in {round(rows / found):,}" if found else f"none of {rows:,}"


def _place(role: str, first: Any, last: Any) -> str:
    if first is None:
        return f"without a {role}"
    start, end = named(first, last)
    if role != "time":
        return f"of source {_short(start)!r}"
    return f"at {start}" if start == end else f"between {start} and {end}"


def _subject(role: str, column: str, first: Any, last: Any) -> str:
    if first is None:
        return f"no {column}"
    start, end = named(first, last)
    return start if role != "time" else f"{column} {start} to {end}"


def _short(name: str) -> str:
    return name if len(name) <= _NAME else name[:_NAME] + "…"


def _plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, date):
        return value.isoformat()
    return value if isinstance(value, int | float | None) else str(value)
