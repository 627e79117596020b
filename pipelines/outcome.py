"""What came of a run, in the few values that a command, a script or a server needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pipelines.manifest import MANIFEST, REPORT, Manifest
from sanitizers.risks import NOTE, PLANTED, Finding

if TYPE_CHECKING:
    from pipelines.decide import Decision

#: The keys of the object that ``--json`` prints, in their order.
JSON_KEYS = (
    "dataset",
    "version",
    "rows",
    "keep",
    "review",
    "quarantine",
    "held",
    "release",
    "manifest",
    "report",
    "onto",
)
#: Warnings and alarms that are told, and characters of each; the manifest has all.
FINDINGS, TOLD = 20, 500


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Parameters
    ----------
    dataset : str
    rows, keep, review, quarantine, unreadable : int
    held : bool
        Nothing was published, or what is published is more than the command allows.
    held_because : str
    found : mapping
        For each sanitizer the rows that it scored, abstained from, and found.
    not_run : list of (str, str)
        Sanitizers that did not run, each with the reason.
    trusted : bool
        Whether a person vouched for any row.
    version, release, manifest : str or None
        Of the release; None where there is none.
    report : str or None
    already : bool
        True where an earlier run had published exactly this.
    findings : tuple of (str, str, str)
        Warnings and alarms about columns and batches, and groups of rows that look planted:
        severity, risk, message.
    unscanned : tuple of str
        Columns that were carried through and that no sanitizer looked at.
    onto : str or None
        The release that the rows joined; the counts are those of the rows that did.
    place : str or None
        Where people find the release: its folder, or its URL where the store is a bucket.
    """

    dataset: str
    rows: int
    keep: int
    review: int
    quarantine: int
    unreadable: int
    held: bool
    held_because: str
    found: Mapping[str, Mapping[str, int]]
    not_run: tuple[tuple[str, str], ...]
    trusted: bool
    version: str | None = None
    release: str | None = None
    manifest: str | None = None
    report: str | None = None
    already: bool = False
    findings: tuple[tuple[str, str, str], ...] = ()
    unscanned: tuple[str, ...] = ()
    onto: str | None = None
    place: str | None = None

    @classmethod
    def of(
        cls,
        dataset: str,
        decision: Decision,
        not_run: tuple[tuple[str, str], ...],
        *,
        findings: Sequence[Finding] = (),
        unscanned: Sequence[str] = (),
        trusted: bool,
        release: Path | None,
        report: Path | None,
        already: bool = False,
        onto: str | None = None,
    ) -> Self:
        """Gather the outcome of a run from what its stages left.

        Parameters
        ----------
        dataset : str
        decision : Decision
        not_run : tuple of (str, str)
        findings : sequence of Finding
        unscanned : sequence of str
        trusted : bool
        release : Path or None
            The folder of the release.
        report : Path or None
            The report of a run without a release.
        already : bool
        onto : str or None
            The release that the rows joined.
        """
        return cls(
            dataset,
            decision.rows,
            decision.keep,
            decision.review,
            decision.quarantine,
            decision.unreadable,
            decision.held,
            decision.held_because,
            decision.found,
            not_run,
            trusted,
            release.name if release else None,
            str(release) if release else None,
            str(release / MANIFEST) if release else None,
            str(release / REPORT if release else report) if release or report else None,
            already,
            tuple((f.severity, f.risk, f.message[:TOLD]) for f in findings if _is_told(f))[
                :FINDINGS
            ],
            tuple(unscanned),
            onto,
        )

    @classmethod
    def of_release(cls, release: Path, manifest: Manifest, *, trusted: bool) -> Self:
        """What came of the run that made a release which nothing new joins."""
        counts = manifest.grown.counts if manifest.grown else manifest.counts
        found = {
            check.sanitizer: {
                "scored": check.scored,
                "abstained": check.abstained,
                "review": check.review,
                "quarantine": check.quarantine,
            }
            for check in manifest.checks
        }
        return cls(
            manifest.dataset,
            counts.rows,
            counts.keep,
            counts.review,
            counts.quarantine,
            counts.unreadable,
            False,
            "",
            found,
            tuple((one.sanitizer, one.why) for one in manifest.not_run),
            trusted,
            manifest.version,
            str(release),
            str(release / MANIFEST),
            str(release / REPORT),
            already=True,
            onto=manifest.grown.onto if manifest.grown else None,
        )

    @classmethod
    def load(cls, value: Mapping[str, Any]) -> Self:
        """Make an outcome from what `asdict` made of it and JSON kept."""
        pairs = tuple((name, why) for name, why in value["not_run"])
        findings = tuple((s, risk, text) for s, risk, text in value["findings"])
        unscanned = tuple(value["unscanned"])
        return cls(**{**value, "not_run": pairs, "findings": findings, "unscanned": unscanned})

    def to_json(self) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        value = asdict(self)
        if self.place:
            value |= {"release": self.place, "manifest": f"{self.place}/{MANIFEST}"}
        return {key: value[key] for key in JSON_KEYS}


def _is_told(finding: Finding) -> bool:
    """Notes are natural in most data; but nobody else tells of rows that look planted."""
    return finding.severity != NOTE or finding.risk == PLANTED
