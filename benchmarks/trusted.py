"""What the default policy quarantines of clean real tables when some rows are vouched for."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.results import Cell, Grid, mean, publish, say
from benchmarks.tables import HALVES, Table, arguments, available, data_folder, load, sample
from sanitizers.catalog import SANITIZERS, missing_roles, sanitizer
from sanitizers.core.data import Dataset, MemoryShard, Roles
from sanitizers.core.evidence import examine_batch
from sanitizers.core.lines import ScoreSummary, draw
from sanitizers.core.policy import Policy

ROWS, TRUSTED, SMALL = 4_300, 300, 1_200
NOTES = (
    f"At most {ROWS:,} rows of a table, of which {TRUSTED} are vouched for and not judged (half "
    f"as many where the table has fewer than {SMALL:,}). Nothing is poisoned.",
)


def dataset(table: Table, seed: int) -> Dataset:
    """Draw rows, and vouch for the first of them."""
    frame = sample(table, ROWS, seed).frame
    trusted = TRUSTED if len(frame) >= SMALL else TRUSTED // 2
    rows = pa.Table.from_pandas(frame, preserve_index=False)
    rows = rows.append_column("row_id", pa.array([f"row-{i}" for i in range(len(frame))]))
    features = tuple(str(c) for c in frame.columns if c != table.label)
    shards = MemoryShard(rows.slice(trusted)), MemoryShard(rows.slice(0, trusted))
    return Dataset(shards[:1], Roles(label=table.label, features=features), b"bench", shards[1:])


def quarantined(data: Dataset) -> dict[str, NDArray[np.bool_]]:
    """For every sanitizer the rows over its default line."""
    batch = next(data.batches())
    found = {}
    for name in SANITIZERS:
        recipe = sanitizer(name)
        if missing_roles(recipe, data.roles):
            continue
        evidence = examine_batch(name, recipe.fit(data), batch)
        columns = (evidence.column(c).to_numpy() for c in ("score", "p_value"))
        scores, p_values = (np.asarray(c, dtype=np.float64) for c in columns)
        summary = ScoreSummary(data.rows)
        summary.add(scores, p_values, batch.keys)
        rule = Policy().rule(name, trusted=not np.isnan(p_values).all())
        line = draw(name, rule, summary).quarantine
        found[name] = scores > (np.inf if line is None else line)
    return found


def main() -> None:
    """Run the benchmark."""
    given = arguments(str(__doc__)).parse_args()
    data = data_folder(given.data)
    rows: list[list[Cell]] = []
    names: list[str] = []
    for name in available(HALVES[given.half], data):
        found = quarantined(dataset(load(name, data), 0))
        names = list(found)
        shares = [float(hit.mean()) for hit in found.values()]
        rows.append([name, float(np.any(list(found.values()), axis=0).mean()), *shares])
        say(f"{name}: {rows[-1][1]:.4f}")
    shares = [float(str(row[1])) for row in rows]
    rows.append(["mean", mean(shares), *("" for _ in names)])
    rows.append(["worst", max(shares), *("" for _ in names)])
    columns = ["table", "quarantined %", *(f"{name} %" for name in names)]
    kept = "trusted" if given.half == "report" else "trusted_tuning"
    grid = Grid(f"clean tables with trusted rows, {given.half} half", columns, rows)
    publish(kept, f"python -m benchmarks.trusted --half {given.half}", [grid], NOTES, rows)


if __name__ == "__main__":
    main()
