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
NOTES = (
    "The rows of the benchmark `scale`, once by `sanitize run` and once by the same functions in "
    "the same order with threads of our own, each in a process and a store of its own, in turn; "
    "medians. *Prefect's share*: by how much the first is longer, over the whole of it: importing "
    "Prefect, its own server, its engine, and all that a flow says to the server.",
    "*Again*: `sanitize run` on the same store with another budget, which uses all the evidence. "
    "*Database*: the SQLite file in the store, with its log.",
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
    runs: dict[str, list[Took]] = {"with": [], "without": [], "again": []}
    bases: list[Database] = []
    for number in range(given.times):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            file, store = Path(folder) / "rows.csv", Path(folder) / "store"
            make(file, given.rows)
            plain = [sys.executable, "-m", "benchmarks.unorchestrated", str(file)]
            runs["without"].append(_took(plain, str(Path(folder) / "plain"), str(WORKERS)))
            command = [sys.executable, "-c", COMMAND, "run", str(file), "--label", "label"]
            command += ["--quiet", "--store", str(store)]
            runs["with"].append(_took(command))
            bases.append(Database.of(store))
            runs["again"].append(_took(command, "--budget", "0.3"))
            bases.append(Database.of(store))
        say(f"{number}: {runs['with'][-1]}, without Prefect {runs['without'][-1]}")
    _publish(given.rows, runs, bases)


def _publish(count: int, runs: dict[str, list[Took]], bases: list[Database]) -> None:
    rows: list[list[Cell]] = []
    for what, of in (("seconds", "seconds"), ("CPU seconds", "cpu")):
        with_, without, again = (median(getattr(t, of) for t in took) for took in runs.values())
        rows.append([what, with_, without, 1 - without / with_, again])
    columns = [f"{count:,} rows", "sanitize run", "without Prefect", "Prefect's share %", "again"]
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
