"""How many clean rows score above each line: where the default lines of the policy come from."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.results import Cell, Grid, publish, say
from benchmarks.tables import HALVES, Table, arguments, available, data_folder, load, sample
from sanitizers.catalog import SANITIZERS, missing_roles, sanitizer
from sanitizers.core.data import Dataset, Roles

ROWS = 5_000
WHEN = "arrival"
LINES = (3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0, 10.0)
#: These have p-values of their own, need a target (`benchmarks.regression` measures those) or
#: pictures (`benchmarks.backdoors`), or count instead of measuring.
ELSEWHERE = ("labels", "regression", "backdoors", "conflicts")
NOTES = (
    f"At most {ROWS:,} rows of each table, drawn and put in order by the seed. Sanitizers that "
    "need a time get that order. A line is chosen on the bound over the tables of the tuning half: "
    "the mean share and two standard errors of it, since other tables differ from these.",
)


def scores(table: Table, name: str) -> NDArray[np.float64]:
    """Score a clean table with one sanitizer as it comes."""
    frame = table.frame.assign(**{WHEN: np.arange(len(table.frame), dtype=float)})
    features = tuple(c for c in frame.columns if c not in (table.label, WHEN))
    recipe = sanitizer(name)
    roles = Roles(label=table.label, features=features)
    if missing_roles(recipe, roles):
        roles = Roles(label=table.label, features=features, time=WHEN)
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
    """The share of the rows above each line, the mean over the seeds."""
    found = [scores(sample(table, ROWS, seed), name) for seed in range(seeds)]
    shares = [[float((s > line).mean()) for line in LINES] for s in found]
    return np.asarray(np.mean(shares, axis=0), dtype=np.float64)


def _grid(name: str, above: dict[str, NDArray[np.float64]]) -> Grid:
    shares = np.array(list(above.values()))
    rows: list[list[Cell]] = [
        [
            f"{line:g}",
            f"{column.mean():.5f}",
            f"{column.mean() + 2 * column.std(ddof=1) / np.sqrt(len(column)):.5f}",
            float(column.max()),
            *map(float, column),
        ]
        for line, column in zip(LINES, shares.T, strict=True)
    ]
    tables = [f"{table} %" for table in above]
    return Grid(
        f"{name}: clean rows above the line",
        ["line", "mean share", "bound", "worst %", *tables],
        rows,
    )


if __name__ == "__main__":
    main()
