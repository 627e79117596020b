"""Poisoned regression: recall and clean rows lost, and what clean tables cost at each line."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.results import Cell, Grid, publish, say
from benchmarks.tables import REGRESSION, Table, arguments, data_folder, load_regression, sample
from sanitizers.core.data import Dataset, Roles
from sanitizers.core.lines import ScoreSummary, draw
from sanitizers.core.policy import Policy
from sanitizers.poisons import poison
from sanitizers.regression import Regression, RegressionScorer

ROWS = 1_500
LINES = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 15.0)
ATTACKS = ("statistical", "gradient")
RATES = (0.04, 0.08, 0.2)
NOTES = (
    f"At most {ROWS:,} rows of a table, drawn by the seed; no trusted rows, and the number of "
    "poisoned rows is not told. *Influence* is how far predictions move when the rows that are "
    "not believed are let in; below 1 the default policy sends finds to review only.",
    "Line to hold: recall at least 94 % at 4 to 20 % poison, at most 2 % of clean rows lost.",
)

Judged = tuple[NDArray[np.float64], NDArray[np.bool_], RegressionScorer]


def judge(data: Dataset) -> Judged:
    """Score a dataset; the scores, what the default policy quarantines, and the scorer."""
    scorer = Regression().fit(data)
    scores = np.concatenate([scorer.score(batch) for batch in data.batches()])
    summary = ScoreSummary(data.rows)
    keys = np.concatenate([batch.keys for batch in data.batches()])
    summary.add(scores, np.full(len(scores), np.nan), keys)
    rule = Policy().rule(Regression.name, trusted=False, influence=scorer.influence)
    line = draw(Regression.name, rule, summary).quarantine
    return scores, scores > (np.inf if line is None else line), scorer


def prepared(table: Table, seed: int) -> tuple[pa.Table, Roles]:
    """Draw rows of a table."""
    frame = sample(table, ROWS, seed).frame
    features = tuple(str(c) for c in frame.columns if c != table.label)
    roles = Roles(target=table.label, features=features)
    return pa.Table.from_pandas(frame, preserve_index=False), roles


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__))
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    data = data_folder(given.data)
    tables = [load_regression(name, data) for name in REGRESSION[given.half]]
    clean = [_clean(table, given.seeds) for table in tables]
    poisoned = [row for table in tables for row in _poisoned(table, given.seeds)]
    columns = ["table", *(f"above {line:g} %" for line in LINES), "influence", "lost %"]
    shares = np.array([row[1 : len(LINES) + 1] for row in clean], dtype=float)
    bound = shares.mean(axis=0) + 2 * shares.std(axis=0, ddof=1) / np.sqrt(len(shares))
    clean.append(["mean", *map(float, shares.mean(axis=0)), "", ""])
    clean.append(["bound", *map(float, bound), "", ""])
    grids = [
        Grid(f"clean tables, {given.half} half", columns, clean),
        Grid(
            f"poisoned tables, {given.half} half",
            ["table", "poison", "rate", "recall %", "lost %", "influence"],
            poisoned,
        ),
        _means(poisoned),
    ]
    name = "regression" if given.half == "report" else "regression_tuning"
    command = f"python -m benchmarks.regression --half {given.half} --seeds {given.seeds}"
    publish(name, command, grids, NOTES, {"clean": clean, "poisoned": poisoned})


def _clean(table: Table, seeds: int) -> list[Cell]:
    found = []
    for seed in range(seeds):
        rows, roles = prepared(table, seed)
        scores, quarantined, scorer = judge(Dataset.from_table(rows, roles))
        shares = [float((scores > line).mean()) for line in LINES]
        found.append([*shares, scorer.influence, float(quarantined.mean())])
    say(f"{table.name}: clean")
    return [table.name, *map(float, np.mean(found, axis=0))]


def _poisoned(table: Table, seeds: int) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for attack in ATTACKS:
        for rate in RATES:
            found = []
            for seed in range(seeds):
                clean, roles = prepared(table, seed)
                made = poison(attack).poison(clean, roles, rate, seed)
                bad = np.zeros(made.table.num_rows, dtype=bool)
                bad[made.truth.column("row").to_numpy()] = True
                _, hit, scorer = judge(Dataset.from_table(made.table, roles))
                found.append([hit[bad].mean(), hit[~bad].mean(), scorer.influence])
            recall, lost, influence = map(float, np.mean(found, axis=0))
            rows.append([table.name, attack, f"{rate:.0%}", recall, lost, influence])
            say(f"{table.name}: {attack} {rate:g}: recall {recall:.3f}, lost {lost:.4f}")
    return rows


def _means(rows: list[list[Cell]]) -> Grid:
    found: list[list[Cell]] = []
    for attack in ATTACKS:
        for rate in RATES:
            mine = np.array(
                [r[3:5] for r in rows if r[1:3] == [attack, f"{rate:.0%}"]], dtype=float
            )
            found.append([attack, f"{rate:.0%}", *map(float, mine.mean(axis=0))])
    return Grid("means over the tables", ["poison", "rate", "recall %", "lost %"], found)


if __name__ == "__main__":
    main()
