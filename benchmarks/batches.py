"""What batches that join a history lose and show, beside a scan of the whole."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.poison import flip_labels
from benchmarks.results import Cell, Grid, mean, publish, say
from benchmarks.tables import FIVE, HALVES, Table, arguments, available, data_folder, load
from benchmarks.unorchestrated import run
from pipelines.job import Job
from pipelines.plan import Plan
from pipelines.split import SPLITS
from pipelines.store import Store
from sanitizers.core.verdicts import QUARANTINE

#: The share of the rows that come first, and how many batches the others come in.
HISTORY, BATCHES = 0.6, 4
RATE = 0.10
NOTES = (
    f"Rows of a table in random order: {HISTORY:.0%} come first, the others in {BATCHES} batches, "
    "each of which joins (`--grow`), no trusted rows, default plan. *Whole* is one scan of the "
    "same rows, of which the batches' share is counted. With flips, "
    f"{RATE:.0%} of the labels of the batches were replaced at random, none of the history's.",
    "A batch is scanned beside all clean rows of the release, as tables of this size are below the "
    "size of the sample.",
)


@dataclass(frozen=True)
class Joined:
    """Of the rows of the batches, what was set aside, by batches and by the whole."""

    table: str
    flipped: bool
    seed: int
    rows: int
    lost: float
    found: float | None
    whole_lost: float
    whole_found: float | None


def measure(table: Table, flipped: bool, seed: int) -> Joined:
    """Let the rows of a table come in batches, and at once.

    Parameters
    ----------
    table : Table
    flipped : bool
    seed : int
    """
    rng = np.random.default_rng(seed)
    frame = table.frame.iloc[rng.permutation(len(table.frame))].reset_index(drop=True)
    first = round(HISTORY * len(frame))
    late, bad = frame.iloc[first:], np.zeros(len(frame), dtype=bool)
    if flipped:
        late, truth = flip_labels(late.reset_index(drop=True), table.label, RATE, rng)
        bad[first:] = truth
    frame = pd.concat([frame.iloc[:first], late], ignore_index=True)
    frame.insert(0, "row_id", [f"r{i}" for i in range(len(frame))])
    cuts = np.linspace(first, len(frame), BATCHES + 1).round().astype(int)
    parts = [frame.iloc[:first], *(frame.iloc[a:b] for a, b in pairwise(cuts))]
    late_rows = np.arange(len(frame)) >= first
    by_batches, by_whole = _held(parts, table.label), _held([frame], table.label)

    def share(held: set[str], among: np.ndarray) -> float:
        ids = [f"r{i}" for i in np.flatnonzero(among)]
        return sum(row in held for row in ids) / max(len(ids), 1)

    clean, flips = late_rows & ~bad, late_rows & bad
    return Joined(
        table.name,
        flipped,
        seed,
        int(late_rows.sum()),
        share(by_batches, clean),
        share(by_batches, flips) if flipped else None,
        share(by_whole, clean),
        share(by_whole, flips) if flipped else None,
    )


def _held(parts: Sequence[pd.DataFrame], label: str) -> set[str]:
    """The ids of the rows in quarantine once all parts have come."""
    with tempfile.TemporaryDirectory() as place:
        landing = Path(place) / "landing"
        landing.mkdir()
        tables = {
            "dataset": {"name": "t", "source": str(landing), "grow": True},
            "roles": {"label": label, "id": "row_id"},
            "policy": {"budget": 1.0},
        }
        store = Store.open(Path(place) / "store", bytes(32))
        release = Path()
        for number, part in enumerate(parts):
            pq.write_table(
                pa.Table.from_pandas(part, preserve_index=False), landing / f"{number}.parquet"
            )
            release = Path(str(run(Job(Plan.make(tables), store)).release))
        files = (release / SPLITS[QUARANTINE]).glob("part-*")
        return {row for f in files for row in pq.read_table(f).column("row_id").to_pylist()}


def main() -> None:
    """Run the benchmark."""
    parser: argparse.ArgumentParser = arguments(str(__doc__))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    data = data_folder(given.data)
    found = []
    for name in available(HALVES[given.half], data):
        if name not in FIVE[given.half]:
            continue
        for flipped in (False, True):
            for seed in range(given.seeds):
                found.append(measure(load(name, data), flipped, seed))
                say(str(found[-1]))
    grids = [_grid("clean", [f for f in found if not f.flipped])]
    grids.append(_grid(f"{RATE:.0%} flips in the batches", [f for f in found if f.flipped]))
    name = "batches" if given.half == "report" else "batches_tuning"
    command = f"python -m benchmarks.batches --half {given.half} --seeds {given.seeds}"
    publish(name, command, grids, NOTES, [asdict(f) for f in found])


def _grid(title: str, found: Sequence[Joined]) -> Grid:
    rows: list[list[Cell]] = []
    names = list(dict.fromkeys(f.table for f in found))
    for name in [*names, "mean"]:
        mine = [f for f in found if name in {f.table, "mean"}]
        rows.append(
            [name, *(_mean(mine, k) for k in ("lost", "whole_lost", "found", "whole_found"))]
        )
    columns = ["table", "lost %", "by the whole %", "found %", "by the whole, found %"]
    return Grid(title, columns, rows)


def _mean(found: Sequence[Joined], key: str) -> float | None:
    values = [value for f in found if (value := getattr(f, key)) is not None]
    return mean(values) if values else None


if __name__ == "__main__":
    main()
