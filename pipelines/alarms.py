"""Alarms: whether the finds of a run crowd in some span of time, or come from some source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.disk import write_json
from pipelines.ingest import Ingested
from pipelines.manifest import parse_json, read_limited
from pipelines.progress import SILENT, Progress
from pipelines.slice_counts import count_slices
from sanitizers.core.data import Roles
from sanitizers.risks import ALARM, CROWDING, RISKS, Finding, RiskSettings, in_order
from sanitizers.risks.crowd_findings import Judged, Slice, most_told, named, told

#: Counts up when alarms change their meaning.
ALARMS_FORMAT = 1
MARKER = "alarms.json"
#: Sources that are shown, those in alarm and the largest.
SHOWN = 20


@dataclass(frozen=True)
class SliceCount:
    """One slice as the report shows it.

    Parameters
    ----------
    first, last : str or None
        The least and the greatest time in it, or the source; None where the rows have none.
    rows, review, quarantine : int
    severity : str
        ``alarm``, ``warning``, or nothing.
    """

    first: str | None
    last: str | None
    rows: int
    review: int
    quarantine: int
    severity: str


@dataclass(frozen=True)
class Cut:
    """Rows cut by time or by source.

    Parameters
    ----------
    column : str
    slices : tuple of SliceCount
        In order of time; or the sources that are in alarm and the largest others.
    more : int
        How many sources are not among them.
    usual : float
        The share in quarantine in the median slice.
    """

    column: str
    slices: tuple[SliceCount, ...]
    more: int
    usual: float


@dataclass(frozen=True)
class Alarms:
    """How the finds of a run lie in time and among the sources.

    Parameters
    ----------
    cuts : mapping of str to Cut
        By ``time`` and by ``source``, as far as there are such columns.
    findings : tuple of Finding
        The slices and sources in which finds crowd, the gravest first.
    """

    cuts: Mapping[str, Cut]
    findings: tuple[Finding, ...]

    @classmethod
    def load(cls, folder: Path) -> Alarms:
        """Read what was found.

        Raises
        ------
        IntegrityError
            If it is missing or malformed.
        """
        return parse_json(cls, read_limited(folder / MARKER), folder / MARKER)


#: Where there is nothing to cut by, or nobody wants to know.
NO_ALARMS = Alarms({}, ())


def is_watched(settings: RiskSettings, roles: Roles) -> bool:
    """Whether there is a time or a source, and crowds are looked for."""
    return CROWDING in settings.use and bool(roles.time or roles.source)


def raise_alarms(
    ingested: Ingested,
    roles: Roles,
    salt: bytes,
    folder: Path,
    *,
    progress: Progress = SILENT,
) -> Alarms:
    """Look where the verdicts of a run crowd; what is finished is loaded.

    One pass over times, sources and verdicts. The result depends on the set of rows, their
    verdicts and the salt only.

    Parameters
    ----------
    ingested : Ingested
    roles : Roles
    salt : bytes
    folder : Path
        Where the verdicts lie, and where the result goes.
    progress : Progress

    Raises
    ------
    IntegrityError
        If verdicts are missing or about other rows.
    """
    if (folder / MARKER).is_file():
        return Alarms.load(folder)
    with progress.stage("alarms", ingested.rows, len(ingested.shards)) as stage:
        counted = count_slices(ingested, roles, salt, folder, stage)
    cuts, findings = {}, list[Finding]()
    for role, slices in counted.items():
        column, judged = str(getattr(roles, role)), Judged.of(slices)
        cuts[role] = _cut(role, column, judged)
        found = tuple(told(role, column, judged))
        findings += found if role == "time" else most_told(found)
    write_json(folder / MARKER, asdict(Alarms(cuts, in_order(findings, RISKS))))
    return Alarms.load(folder)


def _cut(role: str, column: str, judged: Judged) -> Cut:
    pairs = list(zip(judged.slices, judged.severities, strict=True))
    if role == "source":
        pairs.sort(key=lambda p: (p[1] != ALARM, p[1] == "", -p[0].quarantine, -p[0].rows))
        pairs = pairs[:SHOWN]
    shown = tuple(_shown(one, severity) for one, severity in pairs)
    return Cut(column, shown, len(judged.slices) - len(shown), judged.quarantine.usual)


def _shown(one: Slice, severity: str) -> SliceCount:
    first, last = named(one.first, one.last) if one.first is not None else (None, None)
    return SliceCount(first, last, one.rows, one.review, one.quarantine, severity)
