"""What it costs to add a batch to a history, beside a scan of the whole."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq

from benchmarks.product import COMMAND
from benchmarks.results import Cell, Grid, publish, say
from benchmarks.scale import COLUMNS, make
from pipelines.timing import WAIT

#: How many batches are added to each history, one after the other.
BATCHES = 3
NOTES = (
    f"Made rows, those of `benchmarks.scale`, {COLUMNS} columns and a label, as Parquet. *Whole* "
    "is the first `sanitize run FOLDER --grow --label label`, which scans the whole history; "
    "*batch* is the same command after a file has come, the median of three. Both as a user runs "
    "them, with the start of Python, of Prefect and of its server; *start-up* is the same command "
    "where nothing is new to do but to find that out, with no flow.",
    "*Scan* is the time of the stages alone, as `metrics.json` of the run has it, less the time "
    "that it waited for a Prefect server of its own: what a server that runs already takes, with "
    "the start of no process in it.",
    "Line to hold: 10,000 rows onto 1,000,000 take at most 15 % of the time of the whole.",
)


@dataclass(frozen=True)
class Added:
    """Seconds of the runs on one history."""

    history: int
    batch: int
    whole: float
    whole_scan: float
    added: tuple[float, ...]
    scans: tuple[float, ...]
    nothing: float
    quarantined: int

    @property
    def batch_scan(self) -> float:
        """The median scan of the batches."""
        return median(self.scans)


def measure(history: int, batch: int, place: Path | None) -> Added:
    """Make a history and add batches to it.

    Parameters
    ----------
    history, batch : int
        Rows.
    place : Path or None
        Where the rows and the store lie meanwhile.
    """
    with tempfile.TemporaryDirectory(dir=place) as folder:
        landing, store = Path(folder) / "landing", Path(folder) / "store"
        landing.mkdir()
        rows = Path(folder) / "rows.parquet"
        make(rows, history + BATCHES * batch)
        table = pq.read_table(rows)
        pq.write_table(table.slice(0, history), landing / "history.parquet")
        whole, _ = _run(landing, store)
        whole_scan = _scan(store)
        added, scans, quarantined = [], [], 0
        for number in range(BATCHES):
            part = table.slice(history + number * batch, batch)
            pq.write_table(part, landing / f"batch{number}.parquet")
            seconds, said = _run(landing, store)
            added.append(seconds)
            scans.append(_scan(store))
            quarantined += said["quarantine"]
        nothing, _ = _run(landing, store)
    times = (whole, whole_scan, tuple(added), tuple(scans), nothing)
    return Added(history, batch, *times, quarantined)


def _scan(store: Path) -> float:
    """Seconds of the stages of the latest run."""
    last = max(store.glob("*/runs/*/metrics.json"), key=lambda path: path.stat().st_mtime)
    told = json.loads(last.read_bytes())
    return float(told["whole_seconds"]) - float(told["seconds"].get(WAIT, 0.0))


def _run(landing: Path, store: Path) -> tuple[float, dict[str, int]]:
    words = ["run", str(landing), "--grow", "--label", "label", "--json", "--store", str(store)]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"sanitize run ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return time.perf_counter() - started, json.loads(done.stdout)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--history", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--batch", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where the rows and the store lie meanwhile")
    given = parser.parse_args()
    found = []
    for history in given.history:
        found.append(measure(history, given.batch, given.folder))
        say(str(found[-1]))
    rows: list[list[Cell]] = [
        [
            one.history,
            one.whole,
            median(one.added),
            median(one.added) / one.whole,
            one.whole_scan,
            one.batch_scan,
            one.batch_scan / one.whole_scan,
            one.nothing,
            one.quarantined / (BATCHES * one.batch),
        ]
        for one in found
    ]
    columns = ["history, rows", "whole s", "batch s", "batch of whole %", "whole scan s"]
    columns += ["batch scan s", "scan of scan %", "start-up s", "quarantined %"]
    sizes = " ".join(map(str, given.history))
    command = f"python -m benchmarks.additions --history {sizes} --batch {given.batch}"
    grid = Grid(f"{given.batch:,} rows onto a history", columns, rows)
    publish("additions", command, [grid], NOTES, [asdict(one) for one in found])


if __name__ == "__main__":
    main()
