"""What `labels` finds and costs by the number of rows that are vouched for.

The same rows are judged every time; the first so many of the same trusted rows stand beside them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

from benchmarks.game import CLEAN, ROWS, Game, board
from benchmarks.judged import judge
from benchmarks.results import Cell, Grid, mean, publish, say
from benchmarks.tables import FIVE, Table, arguments, available, data_folder, load
from sanitizers.core.data import MemoryShard

GAMES = (Game(CLEAN, 0.0), Game("flip-random", 0.10), Game("flip-far", 0.10))
NAME = "labels"
NOTES = (
    f"Tables of one half, at most {ROWS:,} rows each, drawn and shuffled by the seed; the trusted "
    "rows are drawn at random beside them, and not judged. What the default policy quarantines by "
    f"`{NAME}` alone: of the flipped rows, and of the others.",
)


@dataclass(frozen=True)
class Result:
    """What came of one game on one table with so many trusted rows."""

    poison: str
    table: str
    seed: int
    trusted: int
    recall: float | None
    lost: float


def play(table: Table, game: Game, seed: int, counts: Sequence[int]) -> list[Result]:
    """Judge the rows of one game with each number of trusted rows."""
    data, truth = board(table, game, max(counts), seed, target=False, rows=ROWS)
    pool, results = data.trusted[0].read(), []
    for count in counts:
        vouched = (MemoryShard(pool.slice(0, count)),) if count else ()
        found = judge(replace(data, trusted=vouched), (NAME,))[NAME].quarantined
        recall = float(found[truth].mean()) if truth.any() else None
        lost = float(found[~truth].mean())
        results.append(Result(game.poison, table.name, seed, count, recall, lost))
        say(f"{results[-1]}")
    return results


def grids(results: Sequence[Result]) -> list[Grid]:
    """For each poison: a line for each number of trusted rows."""
    return [_grid(p, [r for r in results if r.poison == p]) for p in _distinct(results)]


def _distinct(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(r.poison for r in results))


def _grid(poison: str, results: Sequence[Result]) -> Grid:
    tables = list(dict.fromkeys(r.table for r in results))
    rows: list[list[Cell]] = []
    for count in sorted({r.trusted for r in results}):
        mine = [r for r in results if r.trusted == count]
        lost = [mean([r.lost for r in mine if r.table == t]) for t in tables]
        recalls = [r.recall for r in mine if r.recall is not None]
        each = [_cell([r for r in mine if r.table == t]) for t in tables]
        rows.append([count, mean(recalls) if recalls else None, mean(lost), max(lost), *each])
    columns = ["trusted rows", "recall %", "lost %", "worst table %"]
    rate = "".join(f", {g.rate:.0%}" for g in GAMES if g.poison == poison and g.rate)
    return Grid(f"{poison}{rate}; tables: recall / lost %", [*columns, *tables], rows)


def _cell(results: Sequence[Result]) -> str:
    recalls = [r.recall for r in results if r.recall is not None]
    recall = f"{100 * mean(recalls):.1f} / " if recalls else ""
    return f"{recall}{100 * mean([r.lost for r in results]):.2f}"


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--counts", type=int, nargs="+", default=[0, 100, 150, 300])
    given = parser.parse_args()
    data = data_folder(given.data)
    tables = [load(name, data) for name in available(FIVE[given.half], data)]
    os.environ["OMP_NUM_THREADS"] = "1"
    # The warnings of libraries stay out of what a worker says.
    quietly = partial(warnings.simplefilter, "ignore")
    with ProcessPoolExecutor(os.cpu_count(), initializer=quietly) as pool:
        waiting = [
            pool.submit(play, table, game, seed, given.counts)
            for seed, table, game in product(range(given.seeds), tables, GAMES)
        ]
        results = [result for future in waiting for result in future.result()]
    name = "vouching" if given.half == "report" else "vouching_tuning"
    counts = " ".join(map(str, given.counts))
    command = (
        f"python -m benchmarks.vouching --half {given.half} --seeds {given.seeds} --counts {counts}"
    )
    publish(name, command, grids(results), NOTES, [vars(r) for r in results])


if __name__ == "__main__":
    main()
