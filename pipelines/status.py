"""How the datasets of a store stand: releases, what is held, what waits, who is at work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.at_work import Owner
from pipelines.decide import Decision
from pipelines.ledger import ARRIVED, FAILED, Ledger
from pipelines.manifest import REPORT, RUN, Counts, Manifest, Run
from pipelines.metrics import METRICS, Metrics
from pipelines.rulings import Rulings
from pipelines.shards import ParquetShard
from pipelines.split import SPLITS
from pipelines.store import Store
from sanitizers.core.data import ROW_ID
from sanitizers.core.errors import SanitizeError
from sanitizers.core.verdicts import REVIEW

#: Releases of a dataset that are shown, the last ones.
RELEASES = 3
#: Runs of a dataset that are looked at, the last ones.
RUNS = 20
#: Why a run published nothing that was not held.
STOPPED = "stopped before it was published; the same command goes on"


@dataclass(frozen=True)
class ReleaseState:
    """One release.

    Parameters
    ----------
    version : str
    created : str
        UTC, ISO 8601; empty where the manifest cannot be read.
    counts : Counts or None
    damaged : str
        Why the manifest cannot be read; empty where it can.
    """

    version: str
    created: str
    counts: Counts | None
    damaged: str = ""


@dataclass(frozen=True)
class HeldRun:
    """A run after the last release that published nothing.

    Parameters
    ----------
    run : str
    created : str
        UTC, ISO 8601.
    why : str
    report : str or None
    """

    run: str
    created: str
    why: str
    report: str | None


@dataclass(frozen=True)
class Waiting:
    """What has arrived at a dataset that is served, and was not published yet.

    Parameters
    ----------
    arrived : int
        Contents that no run has ended for yet.
    failed : int
        Those of a run that failed; they are tried again.
    given_up : int
        Those that failed so often that a person must look.
    oldest : float or None
        When the first of them came, in seconds since 1970.
    why : str
        Of the last failure.
    damaged : str
        Why the ledger cannot be read; empty where it can.
    """

    arrived: int
    failed: int
    given_up: int
    oldest: float | None
    why: str
    damaged: str = ""

    @classmethod
    def of(cls, store: Store, dataset: str) -> Waiting:
        """Look into the ledger of a dataset."""
        try:
            known = [one for one in Ledger.of(store, dataset) if not one.is_final]
        except SanitizeError as error:
            return cls(0, 0, 0, None, "", str(error))
        failed = sorted((one for one in known if one.state == FAILED), key=lambda one: one.tried)
        return cls(
            sum(one.state == ARRIVED for one in known),
            sum(not one.is_given_up for one in failed),
            sum(one.is_given_up for one in failed),
            min((one.arrived for one in known), default=None),
            failed[-1].why if failed else "",
        )


@dataclass(frozen=True)
class DatasetState:
    """How one dataset stands.

    Parameters
    ----------
    dataset : str
    releases : tuple of ReleaseState
        The last ones, the last first.
    held : tuple of HeldRun
        The last first.
    review : int
        Rows of the last release that wait for a person: up for review, and nobody has ruled.
    arrivals : Waiting
    at_work : Owner or None
        The run that is at work now.
    """

    dataset: str
    releases: tuple[ReleaseState, ...]
    held: tuple[HeldRun, ...]
    review: int
    arrivals: Waiting
    at_work: Owner | None

    @classmethod
    def of(cls, store: Store, dataset: str) -> DatasetState:
        """Look at a dataset, without waiting for anybody."""
        known = [_release(folder) for folder in store.releases(dataset)[-RUNS:]]
        releases = tuple(state for state, _ in reversed(known))
        runs = {run for _, run in known}
        worker = store.worker(dataset)
        held = _held(store, dataset, runs, releases)
        if worker is not None:
            # What is not published yet may be what it works at.
            held = (one for one in held if one.why != STOPPED)
        last = releases[0].counts if releases else None
        review = _unruled(store, dataset, last.review) if last else 0
        waiting = Waiting.of(store, dataset)
        return cls(dataset, releases[:RELEASES], tuple(held), review, waiting, worker)

    def to_json(self) -> dict[str, Any]:
        """The same, as JSON can hold it."""
        value = asdict(self)
        if self.at_work is not None:
            value["at_work"] = {
                name: value["at_work"][name] for name in ("host", "pid", "since", "command")
            }
        return value


def _unruled(store: Store, dataset: str, rows: int) -> int:
    """How many of the rows up for review in the last release nobody has ruled on."""
    ruled = pa.array(Rulings.of(store, dataset).standing(), pa.string())
    if not len(ruled):
        return rows
    folder = store.release(dataset, store.releases(dataset)[-1].name) / SPLITS[REVIEW]
    columns = [ParquetShard(p).read([ROW_ID]).column(0) for p in sorted(folder.glob("part-*"))]
    return sum(len(i) - (pc.sum(pc.is_in(i, value_set=ruled)).as_py() or 0) for i in columns)


def states(store: Store, dataset: str | None = None) -> tuple[DatasetState, ...]:
    """Look at one dataset, or at all of a store.

    Raises
    ------
    PlanError
        If there is no such dataset.
    """
    names = store.datasets() if dataset is None else (store.known(dataset),)
    return tuple(DatasetState.of(store, name) for name in names)


def _release(folder: Path) -> tuple[ReleaseState, str]:
    try:
        manifest = Manifest.load(folder)
    except SanitizeError as error:
        return ReleaseState(folder.name, "", None, str(error)), ""
    return ReleaseState(folder.name, manifest.created, manifest.counts), manifest.run


def _held(
    store: Store, dataset: str, published: Iterable[str], releases: Sequence[ReleaseState]
) -> Iterator[HeldRun]:
    last = next((release.created for release in releases if release.created), "")
    found = []
    for folder in sorted(store.runs(dataset), key=_written)[-RUNS:]:
        try:
            run = Run.load(folder)
        except SanitizeError:
            continue
        # A later release has taken the place of an earlier run.
        if run.key not in published and run.created >= last:
            report = folder / REPORT
            there = str(report) if report.is_file() else None
            found.append(HeldRun(run.key, run.created, _why(folder), there))
    yield from sorted(found, key=lambda held: held.created, reverse=True)


def _written(run: Path) -> float:
    return (run / RUN).stat().st_mtime


def _why(run: Path) -> str:
    try:
        if (run / METRICS).is_file():
            return Metrics.load(run).held_because or STOPPED
        return Decision.load(run).held_because or STOPPED
    except SanitizeError as error:
        return str(error)
