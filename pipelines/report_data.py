"""The numbers of a report, gathered from the files of a run so that rendering is pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote

from pipelines.charts import Histogram
from pipelines.ingest import SourceFile
from pipelines.manifest import Audited, Counts
from pipelines.report_facts import Previous, RunFacts, SanitizerCard
from pipelines.report_limits import Limit, limits
from pipelines.report_rows import Unreadable, WorstRow, unreadable_rows, worst_rows
from pipelines.report_scan import histogram, scan_scores
from pipelines.report_swaps import Swaps, swaps
from pipelines.report_text import Text, cut
from pipelines.report_triggers import Triggers, triggers
from pipelines.report_where import Breakdown, Slices, Timeline, where
from pipelines.shards import shard_name
from sanitizers.core.lines import Threshold
from sanitizers.core.promise import Promise
from sanitizers.core.verdicts import QUARANTINE, REVIEW

#: Input files and lines of the plan in their tables.
FILES, PLAN_LINES = 200, 200
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
    triggers: Triggers
    breakdowns: tuple[Breakdown, ...]
    timeline: Timeline | None
    slices: Slices | None
    swaps: Swaps | None
    promise: Promise | None
    uncounted: tuple[str, ...]
    risks: Risks
    unreadable: Unreadable
    limits: tuple[Limit, ...]
    trusted_rows: int
    audited: Audited | None
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
    onto: str | None
    earlier: int


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
    found = where(facts)
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
        triggers=triggers(facts),
        breakdowns=found.breakdowns,
        timeline=found.timeline,
        slices=found.slices,
        swaps=swaps(facts),
        promise=facts.promise,
        uncounted=found.uncounted,
        risks=_risks(facts),
        unreadable=unreadable_rows(facts),
        limits=limits(facts),
        trusted_rows=facts.trusted_rows,
        audited=facts.audited,
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
        onto=source.onto,
        earlier=sum(shard.rows for shard in source.earlier),
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


def _roles(facts: RunFacts) -> tuple[tuple[str, Text], ...]:
    held = ((role, getattr(facts.roles, role)) for role in sorted(facts.roles.present))
    named = [(role, columns) for role, columns in held if columns]
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
