"""The same run with its shards scored in one process, in several, and on a Ray cluster here."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.product import Outcome, run
from benchmarks.results import Cell, Grid, publish, say
from benchmarks.scale import make

#: So that all runs draw the same folds.
SALT = "00112233445566778899aabbccddeeff"
NOTES = (
    "Made rows as in `scale`; `sanitize run ROWS --label label --runner RUNNER`, a new store, "
    "start-up included, one run each. Shards have 100,000 rows.",
    "*Memory* is the largest sum of the resident memory of all processes of the run, pages that "
    "they share counted for each. Fits are in the first process with every runner; only scoring "
    "is handed out, and on a machine with as many cores as a fit uses there is little to win.",
    "*Load* is how many processes wanted a core at the end of a run: figures of runs under "
    "different loads cannot be compared, and above the number of cores they measure no speed.",
    "Line to hold: every file of rows is the same, byte for byte, with every runner.",
)


def main() -> None:
    """Run the benchmark; end with 1 where runs differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--runners", nargs="+", default=["local", "processes:2", "ray:2"])
    parser.add_argument("--folder", type=Path, help="where the rows and the store lie meanwhile")
    given = parser.parse_args()
    outcomes: dict[str, Outcome] = {}
    loads: list[float] = []
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        file = Path(folder) / "rows.parquet"
        make(file, given.rows)
        for runner in given.runners:
            words = ("--label", "label", "--salt", SALT, "--runner", runner)
            outcomes[runner] = run(file, *words)
            loads.append(os.getloadavg()[0])
            say(f"{runner}: {outcomes[runner].seconds:.0f} s, load {loads[-1]:.1f}")
    alike = [
        _digests(outcome) == _digests(outcomes[given.runners[0]]) for outcome in outcomes.values()
    ]
    grids = [_whole(given.rows, outcomes, loads, alike), _parts(outcomes)]
    raw = {runner: outcome.record() for runner, outcome in outcomes.items()}
    publish("runners", f"python -m benchmarks.runners --rows {given.rows}", grids, NOTES, raw)
    if not all(alike):
        sys.exit("the runs differ")


def _digests(outcome: Outcome) -> dict[str, str]:
    files = outcome.release["files"]
    return {f["path"]: f["sha256"] for f in files if f["path"].endswith(".parquet")}


def _whole(rows: int, outcomes: dict[str, Outcome], loads: list[float], alike: list[bool]) -> Grid:
    cells: list[list[Cell]] = [
        [name, o.seconds, load, round(o.peak_mb), "yes" if same else "no"]
        for (name, o), load, same in zip(outcomes.items(), loads, alike, strict=True)
    ]
    columns = ["runner", "seconds", "load at the end", "memory MB", "the same files"]
    return Grid(f"{rows:,} rows, 20 numeric columns and a label", columns, cells)


def _parts(outcomes: dict[str, Outcome]) -> Grid:
    names = list(dict.fromkeys(name for o in outcomes.values() for name in o.sanitizers))
    cells: list[list[Cell]] = [
        [runner, *(end - start for start, end in (o.sanitizers[name] for name in names))]
        for runner, o in outcomes.items()
    ]
    return Grid("seconds of each sanitizer (two at a time)", ["runner", *names], cells)


if __name__ == "__main__":
    main()
