"""Seconds and memory: ours beside cleanlab's at 100,000 rows, and how each sanitizer grows."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.answers import Flags
from benchmarks.contenders import DEFAULT
from benchmarks.growth import Growth, can_run, costs
from benchmarks.poison import flip_labels
from benchmarks.results import Cell, Grid, publish, say
from benchmarks.scale import COLUMNS, make
from benchmarks.tables import Table
from benchmarks.trials import AT_LOSS, Trial, raw, run
from sanitizers.catalog import SANITIZERS

RATE = 0.10
LIMIT = 900.0
CONTENDERS = (
    DEFAULT,
    "labels alone",
    "label not predicted",
    "cleanlab find_label_issues",
    "cleanlab Datalab, labels without features",
    "cleanlab Datalab, labels",
)
NOTES = (
    f"Made rows, those of `benchmarks.scale`: clusters in {COLUMNS} dimensions, 4 classes. For the "
    f"comparison {RATE:.0%} of the labels are flipped. Each contender has a process of its own, "
    "all processors, and the rows in memory; importing is not timed. *CPU seconds* are those of "
    "all processors. *x ours*: seconds, as a multiple of *all sanitizers*.",
    "*label not predicted* is scikit-learn's ExtraTreesClassifier, five folds, and nothing else: "
    "what the probabilities cost that all of cleanlab's contenders need first, and that count in "
    "their seconds. *cleanlab Datalab, labels* is the whole default `find_issues` with features "
    "and probabilities. Beside wrong labels and outliers it looks for near duplicates, rows that "
    "are not independent, groups that a model fails on, rare classes and missing values: more "
    "than is compared here. *without features* it looks for wrong labels alone. *All sanitizers*: "
    "wrong labels, outliers, votes of slices, conflicting copies.",
    AT_LOSS,
    "Growth: each sanitizer reads the rows from shards of 100,000, with a label, a time and a "
    "number to predict; fits, and scores every row. *x seconds* and *x memory*: as a multiple of "
    "the line above.",
    "Lines to hold: Datalab takes at least 20 times our seconds at 100,000 rows; from 100,000 to "
    "1,000,000 rows seconds grow about ten times, and memory hardly.",
)


def poison(table: Table, seed: int) -> tuple[Table, Flags]:
    """Flip labels of a table."""
    frame, truth = flip_labels(table.frame, table.label, RATE, np.random.default_rng(seed))
    return Table(table.name, frame, table.label), truth


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the comparison")
    parser.add_argument("--growth", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for each process")
    parser.add_argument("--folder", type=Path, help="where the rows lie meanwhile")
    given = parser.parse_args()
    table = _made(given.rows, given.folder)
    trials = run("speed", poison, [table], 1, CONTENDERS, limit=given.limit)
    names = tuple(name for name in SANITIZERS if can_run(name))
    growth: dict[int, dict[str, Growth]] = {}
    for rows in given.growth:
        growth[rows] = costs(names, rows, given.folder, given.limit)
        say(f"{rows}: {growth[rows]}")
    title = f"{given.rows:,} rows, {COLUMNS} columns"
    grids = [_comparison(title, trials, given.limit), *_growth(growth, names)]
    figures = {
        "trials": raw(trials),
        "growth": {str(rows): {n: asdict(c) for n, c in g.items()} for rows, g in growth.items()},
    }
    sizes = " ".join(map(str, given.growth))
    command = f"python -m benchmarks.speed --rows {given.rows} --growth {sizes}"
    publish("speed", command, grids, NOTES, figures)


def _made(rows: int, folder: Path | None) -> Table:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        file = Path(place) / "rows.parquet"
        make(file, rows)
        return Table("made", pq.read_table(file).to_pandas(), "label")


def _comparison(title: str, trials: Sequence[Trial], limit: float) -> Grid:
    """One line per contender, those too that took too long."""
    outcomes = {t.contender: t.outcome for t in trials}
    ours = outcomes[DEFAULT].cost.seconds if DEFAULT in outcomes else None
    rows: list[list[Cell]] = []
    for contender in CONTENDERS:
        o = outcomes.get(contender)
        if o is None:
            least = limit / ours if ours else None
            rows.append([f"{contender} (ended then)", limit, None, least, *[None] * 4])
            continue
        times = o.cost.seconds / ours if ours else None
        took = [o.cost.seconds, o.cost.cpu_seconds, times, round(o.cost.peak_mb)]
        rows.append([contender, *took, o.recall, o.lost, o.at_our_loss])
    columns = ["contender", "seconds", "CPU seconds", "x ours", "peak MB"]
    return Grid(title, [*columns, "recall %", "clean lost %", "at our loss %"], rows)


def _growth(growth: Mapping[int, Mapping[str, Growth]], names: Sequence[str]) -> list[Grid]:
    """One table per sanitizer would be too many: all in one, a line per number of rows."""
    rows: list[list[Cell]] = []
    for name in names:
        before: Growth | None = None
        for count, found in growth.items():
            cost = found.get(name)
            if cost is None:
                rows.append([name, count, *[None] * 7])
                continue
            taken = [cost.fit, cost.score, cost.seconds, cost.cpu, round(cost.peak_mb)]
            seconds = cost.seconds / before.seconds if before else None
            memory = cost.peak_mb / before.peak_mb if before else None
            rows.append([name, count, *taken, seconds, memory])
            before = cost
    columns = ["sanitizer", "rows", "fit s", "score s", "seconds", "CPU seconds", "peak MB"]
    return [Grid("growth", [*columns, "x seconds", "x memory"], rows)] if rows else []


if __name__ == "__main__":
    main()
