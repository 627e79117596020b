"""Files that are dropped while a process serves and is killed; each must be taken once."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.killing import left_behind
from benchmarks.serving import NAME, ROWS, Serving, table, wait
from pipelines.manifest import Manifest
from pipelines.store import Store
from pipelines.verify import verify

#: Seconds that may pass without any progress, and until a file that came alone is published.
PATIENCE, ALONE = 240.0, 120.0
#: One file in so many is followed by a copy under another name, and by a touch.
COPIES = 5


@dataclass
class Dropper:
    """Drops files, whole, growing or marked, with copies and touches among them.

    Parameters
    ----------
    inbox : Path
    rng : random.Random
    """

    inbox: Path
    rng: random.Random
    dropped: dict[str, str] = field(default_factory=dict)
    copies: int = 0

    def drop(self, number: int) -> None:
        """Drop a file that has not been there yet."""
        text, path = table(number + 1), self.inbox / f"{number:05d}.csv"
        ways = (self._whole, self._growing, self._marked)
        self.rng.choice(ways)(path, text)
        self.dropped[hashlib.sha256(text.encode()).hexdigest()] = path.name
        if number % COPIES == COPIES - 1:
            self.copies += 1
            shutil.copy(path, self.inbox / f"copy-{number:05d}.csv")
            os.utime(self.inbox / self.rng.choice(list(self.dropped.values())))

    def _whole(self, path: Path, text: str) -> None:
        beside = path.with_name(f".{path.name}")
        beside.write_text(text)
        beside.rename(path)

    def _growing(self, path: Path, text: str) -> None:
        with path.open("w") as file:
            for part in (text[:700], text[700:]):
                file.write(part)
                file.flush()
                time.sleep(0.3)

    def _marked(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.with_name(path.name + ".done").touch()


@dataclass(frozen=True)
class Trial:
    """What became of files that were dropped.

    Parameters
    ----------
    files, copies, kills : int
    releases : int
    missing, twice : int
        Contents whose rows no release holds, and whose rows one holds twice.
    states : dict of str to int
        How many contents the ledger knows in each state.
    rows, ids : int
        Rows of the last release, and row ids in it that differ.
    intact : bool
        Whether all releases verify.
    left : int
        Processes that lived on after a kill.
    seconds : float
    """

    files: int
    copies: int
    kills: int
    releases: int
    missing: int
    twice: int
    states: dict[str, int]
    rows: int
    ids: int
    intact: bool
    left: int
    seconds: float

    @property
    def is_good(self) -> bool:
        """Whether every content was taken once, and nothing else."""
        return (
            (self.missing, self.twice, self.left, self.intact) == (0, 0, 0, True)
            and self.states == {"published": self.files}
            and self.releases == self.files
            and self.rows == self.ids == self.files * ROWS
        )


def drop_and_kill(serving: Serving, files: int, kills: int, rng: random.Random) -> Trial:
    """Drop files at random moments, while the process is killed and started at random ones.

    The process serves when this ends.

    Parameters
    ----------
    serving : Serving
        Prepared, and not started.
    files, kills : int
    rng : random.Random
    """
    began = time.monotonic()
    dropper = Dropper(serving.inbox, random.Random(rng.random()))
    waits = [rng.uniform(0.0, 1.2) for _ in range(files)]

    def drop_all() -> None:
        for number, seconds in enumerate(waits):
            time.sleep(seconds)
            dropper.drop(number)

    thread = threading.Thread(target=drop_all, daemon=True)
    thread.start()
    left = 0
    serving.start()
    for number in range(kills):
        _live(serving, files * (number + 1) // (kills + 2), rng, soon=number % 3 == 2)
        serving.kill(group=rng.random() < 0.5)
        left += left_behind(serving.store)
        time.sleep(rng.uniform(0.0, 2.0))
        serving.start()
    serving.ready()
    thread.join()
    _until_quiet(serving, files)
    return _trial(serving, dropper, files, kills, left, time.monotonic() - began)


def alone(serving: Serving, number: int) -> tuple[float, float]:
    """Drop one file while nothing is at work.

    Returns
    -------
    (float, float)
        Seconds from its last byte until a run started, and until its rows were published.
    """
    busy = ("PENDING", "RUNNING")
    wait(lambda: not serving.runs(NAME, *busy), ALONE, lambda: "a run does not end")
    text = table(number + 1)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    written = time.time()
    (serving.inbox / f"{number:05d}.csv").write_text(text)

    def is_published() -> bool:
        found = serving.ledger.get(sha256)
        return found is not None and found.is_final

    wait(is_published, ALONE, lambda: serving.said)
    published = time.time() - written
    starts = [datetime.fromisoformat(run["start_time"]).timestamp() for run in _started(serving)]
    return min(start for start in starts if start > written) - written, published


def _started(serving: Serving) -> list[dict[str, str]]:
    return [run for run in serving.runs(NAME) if run["start_time"]]


def _live(serving: Serving, target: int, rng: random.Random, *, soon: bool) -> None:
    """Let the process live until some files are published; or kill it while it starts."""
    if soon:
        time.sleep(rng.uniform(0.0, 8.0))
        return
    serving.ready()
    until = time.monotonic() + PATIENCE
    while _published(serving) < target and time.monotonic() < until:
        time.sleep(0.2)
    time.sleep(rng.uniform(0.0, 4.0))


def _published(serving: Serving) -> int:
    return len(Store.open(serving.store, create=False).releases(NAME))


def _until_quiet(serving: Serving, files: int) -> None:
    """Wait until all is published, or nothing has happened for long."""
    seen, since = -1, time.monotonic()
    while seen < files and time.monotonic() - since < PATIENCE:
        found = sum(arrival.is_final for arrival in serving.ledger)
        if found > seen:
            seen, since = found, time.monotonic()
        time.sleep(0.5)
    # A content that is taken twice is taken after the others.
    time.sleep(2.0)


def _trial(
    serving: Serving, dropper: Dropper, files: int, kills: int, left: int, seconds: float
) -> Trial:
    releases = Store.open(serving.store, create=False).releases(NAME)
    last = Manifest.load(releases[-1])
    held = Counter(file.sha256 for file in last.source.files)
    ids: set[str] = set()
    for file in last.files:
        if file.path.endswith(".parquet") and file.rows:
            ids |= set(pq.read_table(releases[-1] / file.path, columns=["row_id"])[0].to_pylist())
    return Trial(
        files=files,
        copies=dropper.copies,
        kills=kills,
        releases=len(releases),
        missing=len(set(dropper.dropped) - set(held)),
        twice=sum(count > 1 for count in held.values()),
        states=dict(Counter(arrival.state for arrival in serving.ledger)),
        rows=last.counts.rows,
        ids=len(ids),
        intact=all(verify(release).ok for release in (releases[0], releases[-1])),
        left=left,
        seconds=seconds,
    )
