"""Runs of a plan that are killed at given moments, and what they leave."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.product import COMMAND
from pipelines.carrying import release_at
from pipelines.disk import canonical
from pipelines.manifest import Manifest
from pipelines.verify import verify

ROOT = Path(__file__).resolve().parent.parent
NAME = "killed"
SALT = "5a" * 32
SHARDS, ROWS = 4, 1_500
#: The folders of a dataset that the stages make, in the order of the stages.
STAGES = {"ingest": "inputs", "examine": "evidence", "decide": "runs", "publish": "releases"}
#: Before the first of them, and after the release has appeared.
START, AFTER = "start", "after"
#: Seconds between two looks at a folder.
LOOK = 0.002
#: Seconds after a kill until every process of the run must have ended.
GONE = 10.0


@dataclass(frozen=True)
class Bench:
    """A plan whose runs are killed.

    Parameters
    ----------
    folder : Path
        Holds the data and the stores.
    environment : mapping of str to str
        Of the runs.
    """

    folder: Path
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def prepare(self, rows: int = ROWS) -> None:
        """Write the rows and the plan."""
        data = self.folder / "data"
        data.mkdir()
        rng = np.random.default_rng(0)
        for shard in range(SHARDS):
            kind = rng.integers(3, size=rows)
            values = np.round(4.0 * kind[:, None] + rng.normal(size=(rows, 4)), 4)
            label = np.where(rng.random(rows) < 0.03, (kind + 1) % 3, kind)
            columns: dict[str, Any] = {f"x{i}": values[:, i] for i in range(4)}
            columns |= {"label": label.astype(str), "when": shard * rows + np.arange(rows)}
            pq.write_table(pa.table(columns), data / f"{shard}.parquet")
        (self.folder / "plan.toml").write_text(
            f'[dataset]\nname = "{NAME}"\nsource = "data"\n'
            '[roles]\nlabel = "label"\ntime = "when"\n'
        )

    def store(self, number: int) -> Path:
        """The root of a store of its own."""
        return self.folder / f"store-{number}"

    def start(self, store: Path) -> subprocess.Popen[bytes]:
        """Start a run as its user would, in a process group of its own."""
        words = ["run", "plan.toml", "--salt", SALT, "--json", "--quiet"]
        words += ["--store", self.said(store)]
        own = {"PYTHONPATH": str(ROOT), "SANITIZE_STORE": str(store)}
        # Into files: who reads a pipe to its end waits for all that have it open.
        with self._told("out").open("wb") as out, self._told("err").open("wb") as err:
            return subprocess.Popen(
                [sys.executable, "-c", COMMAND, *words],
                cwd=self.folder,
                env={**self.environment, **own, "SANITIZE_WORK": str(store.parent)},
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def result(self, process: subprocess.Popen[bytes]) -> str:
        """Wait for the end of a run; return the digest of what it has published."""
        if process.wait():
            said = self._told("err").read_text(errors="replace")[-3000:]
            raise RuntimeError(f"the run ended with {process.returncode}:\n{said}")
        with release_at(json.loads(self._told("out").read_bytes())["release"]) as release:
            return digest(release)

    def finish(self, store: Path) -> str:
        """Run to the end; return the digest of what was published."""
        return self.result(self.start(store))

    def said(self, store: Path) -> str:
        """What a run is told of a store whose folder on this machine is given."""
        return str(store)

    def _told(self, what: str) -> Path:
        return self.folder / f"{what}.txt"


@dataclass(frozen=True)
class Moment:
    """When to kill.

    Parameters
    ----------
    stage : str
        From the first change in the folder of this stage; `START` from the start.
    seconds : float
    """

    stage: str
    seconds: float

    def kill(self, process: subprocess.Popen[bytes], store: Path, *, group: bool) -> bool:
        """Wait for the moment, then kill; False where the run has ended before.

        Parameters
        ----------
        process : subprocess.Popen
        store : Path
        group : bool
            Kill its group, not the process alone.
        """
        before = written(store, self.stage)
        while self.stage != START and process.poll() is None:
            if written(store, self.stage) != before:
                break
            time.sleep(LOOK)
        until = time.monotonic() + self.seconds
        while process.poll() is None and time.monotonic() < until:
            time.sleep(LOOK)
        if process.poll() is not None:
            return False
        (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        return True


@dataclass(frozen=True)
class Undisturbed:
    """What a run comes to that nobody disturbs.

    Parameters
    ----------
    digest : str
    seconds : float
    stages : mapping of str to (float, float)
        When each stage began, and how long it took.
    """

    digest: str
    seconds: float
    stages: Mapping[str, tuple[float, float]]

    @classmethod
    def measure(cls, bench: Bench, store: Path) -> Undisturbed:
        """Run once, and watch its folders appear."""
        began = time.monotonic()
        process = bench.start(store)
        seen: dict[str, float] = {}
        while process.poll() is None:
            for stage, folder in STAGES.items():
                if stage not in seen and (store / NAME / folder).exists():
                    seen[stage] = time.monotonic() - began
            if AFTER not in seen and released(store):
                seen[AFTER] = time.monotonic() - began
            time.sleep(LOOK)
        seconds = time.monotonic() - began
        ends = [*seen.values(), seconds][1:]
        spans = {stage: (at, end - at) for (stage, at), end in zip(seen.items(), ends, strict=True)}
        return cls(bench.result(process), seconds, spans)

    def moments(self, count: int, random_: random.Random) -> list[Moment]:
        """Draw moments: half of them over the whole time, the others in each stage in turn.

        Each is a time since its stage began, so that it is hit on a busier machine too.
        """
        spread = count - count // 2
        found = [
            self._moment((i + random_.random()) / spread * self.seconds) for i in range(spread)
        ]
        for i in range(count // 2):
            stage = list(STAGES)[i % len(STAGES)]
            found.append(Moment(stage, random_.random() * self.stages[stage][1]))
        random_.shuffle(found)
        return found

    def _moment(self, at: float) -> Moment:
        begun = {stage: start for stage, (start, _) in self.stages.items() if start <= at}
        last = max(begun, key=lambda stage: begun[stage], default=START)
        return Moment(last, at - begun.get(last, 0.0))


def written(store: Path, stage: str) -> set[str]:
    """What lies in the folder of a stage."""
    if stage == AFTER:
        return {path.name for path in released(store)}
    folder = store / NAME / STAGES.get(stage, "none")
    try:
        return {str(path) for path in folder.rglob("*")}
    except FileNotFoundError:
        # Something was renamed meanwhile; the next look tells.
        return set()


def digest(release: Path) -> str:
    """Name what was published, by its rows: neither by its time nor by its report."""
    manifest = Manifest.load(release)
    files = [(f.path, f.sha256, f.rows) for f in manifest.files if f.rows is not None]
    whole = [manifest.version, manifest.run, vars(manifest.counts), files]
    return hashlib.sha256(canonical(whole)).hexdigest()


def released(store: Path) -> list[Path]:
    """What lies under ``releases/`` for a reader to see."""
    return [p for p in (store / NAME / "releases").glob("*") if not p.name.startswith(".")]


def partial(store: Path) -> list[Path]:
    """The releases that are not whole."""
    return [p for p in released(store) if not verify(p).ok]


def reached(store: Path) -> str:
    """Which stage a killed run had reached."""
    if released(store):
        return AFTER
    there = [stage for stage, folder in STAGES.items() if (store / NAME / folder).exists()]
    return there[-1] if there else START


def left_behind(store: Path) -> int:
    """How many processes of runs in a store live on, after a while."""
    until = time.monotonic() + GONE
    while (found := sum(1 for _ in processes(store))) and time.monotonic() < until:
        time.sleep(0.1)
    return found


def processes(store: Path) -> Iterator[psutil.Process]:
    """The living processes that were started for a store."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("SANITIZE_STORE") == str(store):
                yield process
        except psutil.Error:
            continue
