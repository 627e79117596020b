"""What a run came to, in numbers, for machines that watch: JSON per run, Prometheus per dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.disk import write_bytes, write_json
from pipelines.examined import read_kept
from pipelines.manifest import parse_json, read_limited
from sanitizers.core.keepsake import TRIGGER
from sanitizers.risks import SEVERITIES

if TYPE_CHECKING:
    from pipelines.outcome import Outcome
    from pipelines.store import Store
    from pipelines.work import Work

#: In the folder of the run.
METRICS = "metrics.json"
#: In the folder of the dataset; what its last run came to.
PROMETHEUS = "metrics.prom"

#: Labels of a value, beside that of the dataset.
Labels = tuple[tuple[str, str], ...]
#: A metric: its name, what it says, and its values.
Family = tuple[str, str, dict[Labels, float]]


@dataclass(frozen=True)
class Metrics:
    """What a run came to.

    Parameters
    ----------
    dataset, run : str
    ended : str
        UTC, ISO 8601.
    version : str or None
        Of the release; None where nothing was published.
    held : bool
    held_because : str
    rows, keep, review, quarantine, unreadable : int
    sanitizers : mapping
        For each sanitizer the rows that it scored, abstained from, and found.
    seconds : mapping of str to float
        For each stage that this run worked at; one that an earlier run had done is not there.
    whole_seconds : float
        From the first stage to the last.
    findings : mapping of str to int
        Of columns and batches, by how grave they are.
    triggers : int
        Backdoor triggers that were confirmed.
    """

    dataset: str
    run: str
    ended: str
    version: str | None
    held: bool
    held_because: str
    rows: int
    keep: int
    review: int
    quarantine: int
    unreadable: int
    sanitizers: Mapping[str, Mapping[str, int]]
    seconds: Mapping[str, float]
    whole_seconds: float
    findings: Mapping[str, int]
    triggers: int

    @classmethod
    def of(
        cls, work: Work, outcome: Outcome, seconds: Mapping[str, float], whole_seconds: float
    ) -> Metrics:
        """Gather what a run came to, once it is published or held.

        Parameters
        ----------
        work : Work
        outcome : Outcome
        seconds : mapping of str to float
        whole_seconds : float
        """
        grave = Counter(finding.severity for finding in work.findings)
        kept = [one.kind for folder in work.evidence.values() for one in read_kept(folder)]
        return cls(
            outcome.dataset,
            work.key,
            datetime.now(UTC).isoformat(timespec="seconds"),
            outcome.version,
            outcome.held,
            outcome.held_because,
            outcome.rows,
            outcome.keep,
            outcome.review,
            outcome.quarantine,
            outcome.unreadable,
            {name: dict(found) for name, found in outcome.found.items()},
            {name: round(took, 3) for name, took in seconds.items()},
            round(whole_seconds, 3),
            {severity: grave[severity] for severity in SEVERITIES},
            kept.count(TRIGGER),
        )

    @classmethod
    def load(cls, folder: Path) -> Metrics:
        """Read what a run came to, from its folder.

        Raises
        ------
        IntegrityError
            If it is missing or malformed.
        """
        return parse_json(cls, read_limited(folder / METRICS), folder / METRICS)

    def write(self, store: Store) -> None:
        """Write both files, each whole or not at all.

        Raises
        ------
        StoreError
            If the store cannot be written.
        """
        write_json(store.run(self.dataset, self.run) / METRICS, asdict(self))
        write_bytes(store.dataset(self.dataset) / PROMETHEUS, self.prometheus())

    def prometheus(self) -> bytes:
        """The text that Prometheus reads, for instance through node_exporter's textfile collector.

        The help texts never change with the dataset, so that files of many datasets go together.
        """
        from prometheus_client import CollectorRegistry, Gauge, generate_latest

        registry = CollectorRegistry()
        for name, told, values in self._families():
            labels = [label for label, _ in next(iter(values), ())]
            if not values:
                continue
            gauge = Gauge(name, told, ["dataset", *labels], registry=registry)
            for given, value in values.items():
                gauge.labels(self.dataset, *(text for _, text in given)).set(value)
        return bytes(generate_latest(registry))

    def _families(self) -> Iterator[Family]:
        verdicts = {"keep": self.keep, "review": self.review, "quarantine": self.quarantine}
        yield "sanitize_rows", "Rows of the last run.", _by("verdict", verdicts)
        yield "sanitize_unreadable_rows", "Rows that could not be read.", {(): self.unreadable}
        found: dict[Labels, float] = {
            (("sanitizer", name), ("found", what)): float(rows)
            for name, counts in self.sanitizers.items()
            for what, rows in counts.items()
        }
        yield "sanitize_sanitizer_rows", "Rows that a sanitizer scored and found.", found
        yield "sanitize_findings", "Findings by severity.", _by("severity", self.findings)
        yield "sanitize_confirmed_triggers", "Confirmed backdoor triggers.", {(): self.triggers}
        yield "sanitize_held", "1 where nothing was published.", {(): float(self.held)}
        yield "sanitize_run_seconds", "Seconds of the last run.", {(): self.whole_seconds}
        yield "sanitize_stage_seconds", "Seconds of its stages.", _by("stage", self.seconds)
        ended = datetime.fromisoformat(self.ended).timestamp()
        yield "sanitize_run_ended_timestamp_seconds", "When it ended.", {(): ended}
        which: Labels = (("version", self.version or ""), ("run", self.run))
        yield "sanitize_run_info", "The last run, and its release if any.", {which: 1.0}


def _by(label: str, values: Mapping[str, float]) -> dict[Labels, float]:
    return {((label, name),): float(value) for name, value in values.items()}
