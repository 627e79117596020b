"""How many clean rows score above each line: where the default lines of the policy come from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.results import Cell, Grid, bound, publish, say
from benchmarks.tables import HALVES, Table, arguments, available, data_folder, load, sample
from sanitizers.catalog import SANITIZERS, missing_roles, sanitizer
from sanitizers.core.data import Dataset, Roles
from sanitizers.core.sanitizer import Sanitizer

ROWS = 5_000
WHEN = "arrival"
LINES = (3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0, 10.0, 12.0, 15.0)
#: These have p-values of their own, need a target (`benchmarks.regression` measures those) or
#: pictures (`benchmarks.backdoors`), or count instead of measuring.
ELSEWHERE = ("labels", "label-regions", "shared-values", "regression", "backdoors", "conflicts")
#: How much of the order of time is chance, and not a column: the data drift, and drift less.
CHANCE = (1 / 3, 1 / 2, 3 / 4, 1.0)
NOTES = (
    f"At most {ROWS:,} rows of each table, drawn by the seed. Sanitizers that need a time get "
    "clean rows that drift: they are ordered by the rank in one of their columns, which the seed "
    f"draws, and by chance, which has a weight of {', '.join(f'{c:.2g}' for c in CHANCE)} in turn; "
    "the share is the mean of all. A line is chosen on the bound over the tables of the tuning "
    "half: the mean share and two standard errors of it, since other tables differ from these.",
)


def scores(table: Table, name: str, seed: int) -> list[NDArray[np.float64]]:
    """Score a clean table with one sanitizer as it comes; in each order, where it needs a time."""
    features = tuple(c for c in table.frame.columns if c != table.label)
    recipe, roles = sanitizer(name), Roles(label=table.label, features=features)
    if not missing_roles(recipe, roles):
        return [_scored(recipe, table.frame, roles)]
    roles = Roles(label=table.label, features=features, time=WHEN)
    timed = {WHEN: np.arange(len(table.frame), dtype=float)}
    return [_scored(recipe, f.assign(**timed), roles) for f in _drifting(table, seed)]


def _drifting(table: Table, seed: int) -> Iterator[pd.DataFrame]:
    """The rows in the order of a column, and more and more in any order."""
    rng = np.random.default_rng(seed)
    numbers = table.frame.drop(columns=table.label).select_dtypes("number")
    rank = numbers[rng.choice(numbers.columns)].rank(pct=True).to_numpy()
    for chance in CHANCE:
        mixed = (1 - chance) * rank + chance * rng.random(len(rank))
        yield table.frame.iloc[np.argsort(mixed, kind="stable")]


def _scored(recipe: Sanitizer, frame: pd.DataFrame, roles: Roles) -> NDArray[np.float64]:
    data = Dataset.from_table(pa.Table.from_pandas(frame, preserve_index=False), roles)
    scorer = recipe.fit(data)
    return np.concatenate([scorer.score(batch) for batch in data.batches()])


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__))
    parser.add_argument("--seeds", type=int, default=2)
    parser.set_defaults(half="tuning")
    given = parser.parse_args()
    data = data_folder(given.data)
    tables = [load(name, data) for name in available(HALVES[given.half], data)]
    grids, raw = [], {}
    for name in SANITIZERS:
        if name in ELSEWHERE:
            continue
        above = {t.name: _above(t, name, given.seeds) for t in tables}
        raw[name] = {table: shares.tolist() for table, shares in above.items()}
        grids.append(_grid(name, above))
        say(grids[-1].text())
    kept = "lines" if given.half == "tuning" else "lines_report"
    publish(kept, f"python -m benchmarks.lines --half {given.half}", grids, NOTES, raw)


def _above(table: Table, name: str, seeds: int) -> NDArray[np.float64]:
    """The share of the rows above each line, the mean over the seeds and the orders."""
    found = [s for seed in range(seeds) for s in scores(sample(table, ROWS, seed), name, seed)]
    shares = [[float((s > line).mean()) for line in LINES] for s in found]
    return np.asarray(np.mean(shares, axis=0), dtype=np.float64)


def _grid(name: str, above: dict[str, NDArray[np.float64]]) -> Grid:
    shares = np.array(list(above.values()))
    rows: list[list[Cell]] = [
        [
            f"{line:g}",
            f"{column.mean():.5f}",
            f"{most:.5f}",
            float(column.max()),
            *map(float, column),
        ]
        for line, column, most in zip(LINES, shares.T, bound(shares), strict=True)
    ]
    tables = [f"{table} %" for table in above]
    return Grid(
        f"{name}: clean rows above the line",
        ["line", "mean share", "bound", "worst %", *tables],
        rows,
    )


if __name__ == "__main__":
    main()
