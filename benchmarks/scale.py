"""A million and five million rows of 20 numeric columns through the whole default run."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from benchmarks.product import Outcome, run
from benchmarks.results import Cell, Grid, publish, say

COLUMNS = 20
CLUSTERS = 12
CLASSES = 4
#: Rows that are made, and held in memory, at a time.
CHUNK = 250_000
SEED = 0
NOTES = (
    f"Made rows: {CLUSTERS} Gaussian clusters in {COLUMNS} dimensions, {CLASSES} classes of three "
    "clusters each. `sanitize run ROWS --label label`, no plan, a new store: ingest, "
    "all sanitizers, decide, publish, report, start-up included.",
    "*Memory* is the largest sum of the resident memory of all processes of the run (Prefect's "
    "server among them), looked at every 0.1 s; *largest process* that of the biggest one. *Not "
    "sanitizers* is the share of the time during which no sanitizer was fitting or scoring.",
    "Lines to hold: a million rows in at most 180 s and 2,000 MB on two cores; from one to five "
    "million at most five times the seconds and 1.2 times the memory; not sanitizers at most 25 %.",
)


def make(path: Path, rows: int) -> None:
    """Write made rows as CSV or Parquet, by the ending of the path.

    Parameters
    ----------
    path : Path
    rows : int
    """
    rng = np.random.default_rng(SEED)
    centres = rng.normal(scale=1.5, size=(CLUSTERS, COLUMNS))
    names = [f"x{i}" for i in range(COLUMNS)]
    schema = pa.schema([*((name, pa.float64()) for name in names), ("label", pa.string())])
    writer = (
        pa.csv.CSVWriter(path, schema)
        if path.suffix == ".csv"
        else pa.parquet.ParquetWriter(path, schema)
    )
    with writer:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            cluster = rng.integers(CLUSTERS, size=count)
            values = np.round(centres[cluster] + rng.normal(size=(count, COLUMNS)), 4)
            labels = np.array([f"class{c}" for c in range(CLASSES)])[cluster % CLASSES]
            writer.write_table(pa.table([*values.T, labels], schema=schema))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 5_000_000])
    parser.add_argument("--format", choices=["csv", "parquet"], default="csv")
    parser.add_argument("--folder", type=Path, help="where the rows and the store lie meanwhile")
    given = parser.parse_args()
    outcomes: dict[int, Outcome] = {}
    for rows in given.rows:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            file = Path(folder) / f"rows.{given.format}"
            make(file, rows)
            outcomes[rows] = run(file, "--label", "label")
        say(f"{rows}: {outcomes[rows].seconds:.0f} s, {outcomes[rows].peak_mb:.0f} MB")
    title = f"{COLUMNS} numeric columns and a label, {given.format}"
    grids = [_whole(title, outcomes), _parts(outcomes)]
    command = f"python -m benchmarks.scale --format {given.format}"
    raw = {str(rows): outcome.record() for rows, outcome in outcomes.items()}
    publish("scale" if given.format == "csv" else "scale_parquet", command, grids, NOTES, raw)


def _whole(title: str, outcomes: dict[int, Outcome]) -> Grid:
    first = next(iter(outcomes.values()))
    rows: list[list[Cell]] = [
        [
            count,
            o.seconds,
            o.cpu_seconds,
            round(o.peak_mb),
            round(o.own_peak_mb),
            1 - o.sanitizing / o.seconds,
            o.result["quarantine"] / o.result["rows"],
            o.seconds / first.seconds,
            o.peak_mb / first.peak_mb,
        ]
        for count, o in outcomes.items()
    ]
    columns = ["rows", "seconds", "CPU seconds", "memory MB", "largest process MB"]
    return Grid(title, [*columns, "not sanitizers %", "quarantined %", "time x", "memory x"], rows)


def _parts(outcomes: dict[int, Outcome]) -> Grid:
    names = list(dict.fromkeys(name for o in outcomes.values() for name in o.sanitizers))
    rows: list[list[Cell]] = [
        [count, *(end - start for start, end in (o.sanitizers[name] for name in names))]
        for count, o in outcomes.items()
    ]
    return Grid("seconds of each sanitizer (they may overlap)", ["rows", *names], rows)


if __name__ == "__main__":
    main()
