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
        files = list((store / ".prefect").glob("prefect.db*"))
        with closing(sqlite3.connect(store / ".prefect" / "prefect.db")) as base:
            tasks, events = (
                int(base.execute(f"select count(*) from {table}").fetchone()[0])
                for table in ("task_run", "events")
            )
        return cls(sum(file.stat().st_size for file in files), tasks, events)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the rows and the stores lie meanwhile")
    given = parser.parse_args()
    with_, without, bases = [], [], []
    for number in range(given.times):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            file, store = Path(folder) / "rows.csv", Path(folder) / "store"
            make(file, given.rows)
            plain = [sys.executable, "-m", "benchmarks.unorchestrated", str(file)]
            without.append(_seconds(plain, str(Path(folder) / "plain"), str(WORKERS)))
            command = [sys.executable, "-c", COMMAND, "run", str(file), "--label", "label"]
            command += ["--quiet", "--store", str(store)]
            with_.append(_seconds(command))
            bases.append(Database.of(store))
            again = _seconds(command, "--budget", "0.3")
            bases.append(Database.of(store))
        say(f"{number}: {with_[-1]:.1f} s, without Prefect {without[-1]:.1f} s")
    share = 1 - median(without) / median(with_)
    row: list[Cell] = [given.rows, median(with_), median(without), share, again]
    columns = ["rows", "seconds", "without Prefect", "Prefect's share %", "again"]
    lines: list[list[Cell]] = [
        [name, base.tasks, base.events, base.bytes / 2**20]
        for name, base in zip(("one", "two"), bases[-2:], strict=True)
    ]
    grids = [
        Grid("seconds", columns, [row]),
        Grid("database", ["runs", "task runs", "events", "MiB"], lines),
    ]
    raw = {"with": with_, "without": without, "databases": [asdict(base) for base in bases]}
    publish(
        "prefect_share",
        f"python -m benchmarks.prefect_share --rows {given.rows}",
        grids,
        NOTES,
        raw,
    )


def _seconds(command: list[str], *more: str) -> float:
    began = time.perf_counter()
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"{command} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
