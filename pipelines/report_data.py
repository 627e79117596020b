"""The numbers of a report, gathered from the files of a run so that rendering is pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote

import pyarrow as pa

from pipelines.charts import Histogram, TimeBins
from pipelines.ingest import SourceFile
from pipelines.manifest import Counts
from pipelines.report_counts import TimeCounts, ValueCounts, time_counts
from pipelines.report_facts import Previous, RunFacts, SanitizerCard
from pipelines.report_limits import Limit, limits
from pipelines.report_rows import Unreadable, WorstRow, unreadable_rows, worst_rows
from pipelines.report_scan import histogram, read, scan_scores
from pipelines.report_text import Text, cut
from pipelines.shards import shard_name
from sanitizers.core.encoder import as_numbers
from sanitizers.core.lines import Threshold
from sanitizers.core.verdicts import QUARANTINE, REVIEW

#: Classes and sources in a table, input files and lines of the plan in theirs.
VALUES, FILES, PLAN_LINES = 20, 200, 200
#: Findings about columns and batches.
FINDINGS = 60


@dataclass(frozen=True)
class Section:
    """What one sanitizer found.

    Parameters
    ----------
    name : str
    card : SanitizerCard or None
    scored, abstained, review, quarantine : int
        Rows.
    threshold : Threshold or None
        The lines drawn, and from which measurement they come.
    histogram : Histogram or None
        All scores; None where it scored no row.
    worst : tuple of WorstRow
    """

    name: str
    card: SanitizerCard | None
    scored: int
    abstained: int
    review: int
    quarantine: int
    threshold: Threshold | None
    histogram: Histogram | None
    worst: tuple[WorstRow, ...]


@dataclass(frozen=True)
class ValueCount:
    """Verdicts of the rows with one value."""

    value: Text
    keep: int
    review: int
    quarantine: int

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
class FindingRow:
    """A finding about a column or a batch, as the report shows it."""

    severity: str
    risk: str
    subject: Text
    message: Text


@dataclass(frozen=True)
class Risks:
    """Findings about columns and batches.

    Parameters
    ----------
    use : tuple of str
        What was looked for; empty where nothing was.
    reference : str or None
        The release that new rows were held against.
    findings : tuple of FindingRow
        The gravest first.
    more : int
        How many are not shown.
    """

    use: tuple[str, ...]
    reference: str | None
    findings: tuple[FindingRow, ...]
    more: int


@dataclass(frozen=True)
class ReportData:
    """All that a report says."""

    dataset: str
    version: str | None
    created: str
    counts: Counts
    held: bool
    held_because: str
    sections: tuple[Section, ...]
    breakdowns: tuple[Breakdown, ...]
    timeline: Timeline | None
    uncounted: tuple[str, ...]
    risks: Risks
    unreadable: Unreadable
    limits: tuple[Limit, ...]
    trusted_rows: int
    roles: tuple[tuple[str, Text], ...]
    roles_notes: tuple[Text, ...]
    files: tuple[SourceFile, ...]
    more_files: int
    source_digest: str
    salt_digest: str
    plan: tuple[tuple[Text, Text], ...]
    run: str
    tool_version: str
    release: str
    previous: Previous | None


def gather(facts: RunFacts) -> ReportData:
    """Read everything that the report of a run says, in memory set by a shard.

    Parameters
    ----------
    facts : RunFacts

    Raises
    ------
    IntegrityError
        If evidence or verdicts are missing, or are about other rows than the input.
    """
    decision, source = facts.decision, facts.ingested
    breakdowns, timeline, uncounted = _verdict_counts(facts)
    return ReportData(
        dataset=facts.dataset,
        version=facts.version,
        created=facts.created,
        counts=Counts(
            decision.rows, decision.keep, decision.review, decision.quarantine, decision.unreadable
        ),
        held=decision.held,
        held_because=decision.held_because,
        sections=_sections(facts),
        breakdowns=breakdowns,
        timeline=timeline,
        uncounted=uncounted,
        risks=_risks(facts),
        unreadable=unreadable_rows(facts),
        limits=limits(facts),
        trusted_rows=facts.trusted_rows,
        roles=_roles(facts),
        roles_notes=tuple(cut(note, 500) for note in facts.roles_notes),
        files=source.files[:FILES],
        more_files=max(len(source.files) - FILES, 0),
        source_digest=source.digest,
        salt_digest=source.salt_digest,
        plan=tuple(_flat(facts.plan))[:PLAN_LINES],
        run=facts.run,
        tool_version=facts.tool_version,
        release=quote(facts.release) if facts.release else "",
        previous=facts.previous,
    )


def _risks(facts: RunFacts) -> Risks:
    looked = facts.looked
    if looked is None:
        return Risks((), None, (), 0)
    told = (
        FindingRow(f.severity, f.risk, cut(f.subject, 80), cut(f.message, 500))
        for f in looked.findings[:FINDINGS]
    )
    more = max(len(looked.findings) - FINDINGS, 0)
    return Risks(looked.use, looked.reference, tuple(told), more)


def _sections(facts: RunFacts) -> tuple[Section, ...]:
    lines = {threshold.sanitizer: threshold for threshold in facts.decision.thresholds}
    rows = [shard.rows for shard in facts.ingested.shards]
    charts, candidates = {}, {}
    for name, folder in facts.evidence.items():
        files = [folder / shard_name(i, "evidence") for i in range(len(rows))]
        scan = scan_scores(files, rows)
        candidates[name] = scan.worst
        charts[name] = histogram(files, rows, scan, _drawn(lines.get(name)))
    worst = worst_rows(facts, candidates)
    sections = [_section(facts, name, lines.get(name), charts[name], worst[name]) for name in worst]
    return tuple(sorted(sections, key=lambda s: (-s.quarantine, -s.review)))


def _section(
    facts: RunFacts,
    name: str,
    threshold: Threshold | None,
    chart: Histogram | None,
    worst: tuple[WorstRow, ...],
) -> Section:
    found = facts.decision.found.get(name, {})
    return Section(
        name,
        facts.cards.get(name),
        found.get("scored", sum(chart.counts) if chart else 0),
        found.get("abstained", 0),
        found.get(REVIEW, 0),
        found.get(QUARANTINE, 0),
        threshold,
        chart,
        worst,
    )


def _drawn(threshold: Threshold | None) -> list[float]:
    lines = (threshold.review, threshold.quarantine) if threshold else ()
    return [line for line in lines if line is not None]


def _verdict_counts(
    facts: RunFacts,
) -> tuple[tuple[Breakdown, ...], Timeline | None, tuple[str, ...]]:
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
    breakdowns = tuple(_breakdown(role, column, c) for (role, column), c in counts.items())
    return breakdowns, _timeline(roles.time, times), tuple(uncounted)


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


def _breakdown(role: str, column: str, counts: ValueCounts) -> Breakdown:
    worst = (
        ValueCount(Text(None) if value is None else cut(value, 60), keep, review, bad)
        for value, keep, review, bad in counts.worst(VALUES)
    )
    return Breakdown(role, cut(column), counts.values, counts.partial, tuple(worst))


def _timeline(column: str | None, counts: TimeCounts | None) -> Timeline | None:
    if column is None or counts is None:
        return None
    return Timeline(cut(column), counts.bins, counts.missing, counts.outside)


def _roles(facts: RunFacts) -> tuple[tuple[str, Text], ...]:
    named = [(role, getattr(facts.roles, role)) for role in sorted(facts.roles.present)]
    return tuple(
        (role, cut(", ".join(v) if isinstance(v, tuple) else v, 1_000)) for role, v in named
    )


def _flat(plan: Mapping[str, object], above: str = "") -> Iterator[tuple[Text, Text]]:
    """The lines of a plan, with dotted names."""
    for name, value in plan.items():
        key = f"{above}.{name}" if above else str(name)
        if isinstance(value, Mapping):
            yield from _flat(value, key)
        elif value is None:
            continue
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            yield cut(key), cut(", ".join(map(str, value)) or "(none)", 1_000)
        else:
            yield cut(key), cut(str(value), 1_000)
