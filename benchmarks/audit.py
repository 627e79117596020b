"""What a run finds and loses before and after somebody has audited 300 rows.

The oracle goes through the draw of the review as a person would: it keeps rows whose label was
left alone, and quarantines the others. What is counted are the rows that it did not look at.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.game import CLEAN, ROWS, Game, board
from benchmarks.results import Cell, Grid, mean, publish, say
from benchmarks.tables import FIVE, Table, arguments, available, data_folder, load
from benchmarks.unorchestrated import run
from pipelines.audit import ENOUGH
from pipelines.job import Job
from pipelines.plan import Plan
from pipelines.review.desk import Desk
from pipelines.split import SPLITS
from pipelines.store import Store
from sanitizers.core.data import ROW_ID
from sanitizers.core.verdicts import KEEP, QUARANTINE

GAMES = (Game(CLEAN, 0.0), Game("flip-random", 0.10), Game("flip-far", 0.10))
NOTES = (
    f"Tables of one half, at most {ROWS:,} rows each, one seed, default plan, no other trusted "
    f"rows. A run; then {ENOUGH} rows of the audit, ruled on by an oracle through the log of the "
    "review; then a run again. *Found* and *lost*: the shares of the flipped and of the other rows "
    "that lie in quarantine, of the rows that were not audited.",
)


@dataclass(frozen=True)
class Audited:
    """One game on one table, before and after the audit."""

    poison: str
    table: str
    kept: int
    found: float | None
    found_after: float | None
    lost: float
    lost_after: float


def measure(table: Table, game: Game, seed: int) -> Audited:
    """Run, audit, and run again."""
    data, truth = board(table, game, 1, seed, target=False, rows=ROWS)
    rows = pa.concat_tables([shard.read() for shard in data.judged])
    names = [name for name in rows.column_names if name in data.roles.columns]
    ids = [f"r{i}" for i in range(rows.num_rows)]
    whole = rows.select(names).append_column(ROW_ID, pa.array(ids))
    bad = {row for row, is_bad in zip(ids, truth, strict=True) if is_bad}
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "rows.parquet"
        pq.write_table(whole, source)
        tables = {
            "dataset": {"name": "t", "source": str(source)},
            "roles": {"label": data.roles.label, "id": ROW_ID},
            "policy": {"budget": 1.0},
        }
        store = Store.open(Path(place) / "store", bytes(32))
        before = _held(Job(Plan.make(tables), store))
        asked, kept = _audit(store, bad)
        after = _held(Job(Plan.make(tables), store))
    good = set(ids) - bad - asked
    left = bad - asked

    def share(held: set[str], among: set[str]) -> float | None:
        return len(held & among) / len(among) if among else None

    found = share(before, left), share(after, left)
    lost = share(before, good) or 0.0, share(after, good) or 0.0
    return Audited(game.poison, table.name, kept, *found, *lost)


def _audit(store: Store, bad: set[str]) -> tuple[set[str], int]:
    """Rule on the rows of the draw; which they were, and how many were kept."""
    desk = Desk(store)
    seat, asked = desk.seat("t"), set[str]()
    while len(asked) < ENOUGH and (due := seat.due) is not None:
        verdict = QUARANTINE if due.row_id in bad else KEEP
        values = seat.values_of(due)
        seat.queue.rule([due.row_id], verdict, who="oracle", why="known", group="", drawn=values)
        asked.add(due.row_id)
    kept = seat.audited[1]
    desk.close()
    return asked, kept


def _held(job: Job) -> set[str]:
    files = (Path(str(run(job).release)) / SPLITS[QUARANTINE]).glob("part-*")
    return {row for f in files for row in pq.read_table(f).column(ROW_ID).to_pylist()}


def _grid(poison: str, found: Sequence[Audited]) -> Grid:
    mine = [one for one in found if one.poison == poison]
    rows: list[list[Cell]] = [[o.table, o.kept, *_cells([o])] for o in mine]
    rows.append(["mean", round(np.mean([o.kept for o in mine])), *_cells(mine)])
    columns = ["table", "kept rows", "found %", "after, found %", "lost %", "after, lost %"]
    return Grid(poison, columns, rows)


def _cells(found: Sequence[Audited]) -> list[float | None]:
    cells: list[float | None] = []
    for key in ("found", "found_after", "lost", "lost_after"):
        values = [value for one in found if (value := getattr(one, key)) is not None]
        cells.append(mean(values) if values else None)
    return cells


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__))
    parser.add_argument("--tables", nargs="+")
    given = parser.parse_args()
    data = data_folder(given.data)
    names = given.tables or available(FIVE[given.half], data)
    found = []
    for name in names:
        for game in GAMES:
            found.append(measure(load(name, data), game, 0))
            say(str(found[-1]))
    name = "audit" if given.half == "report" else "audit_tuning"
    command = f"python -m benchmarks.audit --half {given.half} --tables {' '.join(names)}"
    grids = [_grid(game.poison, found) for game in GAMES]
    publish(name, command, grids, NOTES, [asdict(one) for one in found])


if __name__ == "__main__":
    main()
