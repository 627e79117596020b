"""What Prefect takes of a run: seconds, tasks and bytes of its database."""

from __future__ import annotations

import argparse
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.product import COMMAND
from benchmarks.results import Cell, Grid, publish, say
from benchmarks.scale import make
from benchmarks.usage import cpu_seconds

#: Sanitizers that a flow fits at once, as `pipelines.flows` says.
WORKERS = 2
#: Rows of the dataset that is run before in a store.
SMALL = 1000
NOTES = (
    "The rows of the benchmark `scale`, by `sanitize run` and by the same functions in the same "
    "order with threads of our own, each in a process and a store of its own, in turn; medians. "
    "*First run*: in a new store, where Prefect's server makes its database, which takes some ten "
    "seconds of a processor; *later run*: in a store where another dataset has been run before. "
    "*Prefect's share*: by how much each is longer than without Prefect, over the whole of it: "
    "importing Prefect, its own server, its engine, and all that a flow says to the server.",
    "*Again*: `sanitize run` on the same store with another budget, which uses all the evidence. "
    "*Database*: the SQLite file in the store of the first run, with its log.",
    "Lines to hold: Prefect's share at most 10 % of a million rows; a few dozen tasks.",
)


@dataclass(frozen=True)
class Database:
    """What lies in the database of Prefect's own server.

    Parameters
    ----------
    bytes, tasks, events : int
    """

    bytes: int
    tasks: int
    events: int

    @classmethod
    def of(cls, store: Path) -> Database:
        """Look into the database of a store."""
        with closing(sqlite3.connect(store / ".prefect" / "prefect.db")) as base:
            tasks, events = (
                int(base.execute(f"select count(*) from {table}").fetchone()[0])
                for table in ("task_run", "events")
            )
        # Its log may go with the last connection.
        files = list((store / ".prefect").glob("prefect.db*"))
        return cls(sum(file.stat().st_size for file in files), tasks, events)


@dataclass(frozen=True)
class Took:
    """Seconds, by the clock and of all processors."""

    seconds: float
    cpu: float


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the rows and the stores lie meanwhile")
    given = parser.parse_args()
    runs: dict[str, list[Took]] = {"without": [], "first": [], "later": [], "again": []}
    bases: list[Database] = []
    for number in range(given.times):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            place = Path(folder)
            file, small = place / "rows.csv", place / "small.csv"
            make(file, given.rows)
            make(small, SMALL)
            plain = [sys.executable, "-m", "benchmarks.unorchestrated", str(file)]
            runs["without"].append(_took(plain, str(place / "plain"), str(WORKERS)))
            runs["first"].append(_took(_sanitize(file, place / "new")))
            bases.append(Database.of(place / "new"))
            runs["again"].append(_took(_sanitize(file, place / "new"), "--budget", "0.3"))
            bases.append(Database.of(place / "new"))
            _took(_sanitize(small, place / "used"))
            runs["later"].append(_took(_sanitize(file, place / "used")))
        say(f"{number}: " + ", ".join(f"{name} {took[-1]}" for name, took in runs.items()))
    _publish(given.rows, runs, bases)


def _sanitize(file: Path, store: Path) -> list[str]:
    command = [sys.executable, "-c", COMMAND, "run", str(file), "--label", "label"]
    return [*command, "--quiet", "--store", str(store)]


def _publish(count: int, runs: dict[str, list[Took]], bases: list[Database]) -> None:
    rows: list[list[Cell]] = []
    for what, of in (("seconds", "seconds"), ("CPU seconds", "cpu")):
        took = {name: median(getattr(t, of) for t in times) for name, times in runs.items()}
        shares = [1 - took["without"] / took[name] for name in ("first", "later")]
        rows.append([what, took["without"], took["first"], took["later"], *shares, took["again"]])
    columns = [f"{count:,} rows", "without Prefect", "first run", "later run"]
    columns += ["share of the first %", "share of a later %", "again"]
    lines: list[list[Cell]] = [
        [name, base.tasks, base.events, base.bytes / 2**20]
        for name, base in zip(("one", "two"), bases[-2:], strict=True)
    ]
    grids = [
        Grid("what a run takes", columns, rows),
        Grid("database", ["runs", "task runs", "events", "MiB"], lines),
    ]
    raw = {
        "runs": {name: [asdict(one) for one in took] for name, took in runs.items()},
        "databases": [asdict(base) for base in bases],
    }
    command = f"python -m benchmarks.prefect_share --rows {count}"
    publish("prefect_share", command, grids, NOTES, raw)


def _took(command: list[str], *more: str) -> Took:
    began, cpu = time.perf_counter(), cpu_seconds()
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"{command} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return Took(time.perf_counter() - began, cpu_seconds() - cpu)


if __name__ == "__main__":
    main()
