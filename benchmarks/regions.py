"""How often `label-regions` finds regions in clean tables, and what of clusters, by its chance."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product

from benchmarks.game import CLEAN, ROWS, TRUSTED, Game, board
from benchmarks.judged import judge_by
from benchmarks.results import Cell, Grid, mean, publish, say
from benchmarks.tables import HALVES, Table, arguments, available, data_folder, load
from sanitizers.label_regions import LabelRegions

GAMES = (Game(CLEAN, 0.0), Game("flip-cluster", 0.05), Game("flip-cluster", 0.10))
CHANCES = (0.05, 0.2, 0.5, 0.9)
NOTES = (
    f"At most {ROWS:,} rows of each table, drawn and shuffled by the seed, and {TRUSTED} trusted "
    f"ones drawn beside them. What the default line of `{LabelRegions.name}` quarantines, alone. "
    "*With regions*: the share of draws in which any region was found.",
)


@dataclass(frozen=True)
class Result:
    """What came of one game on one table with one chance."""

    poison: str
    rate: float
    table: str
    seed: int
    chance: float
    regions: int
    recall: float | None
    lost: float


def play(table: Table, game: Game, seed: int) -> list[Result]:
    """Judge the rows of one game with each chance."""
    data, truth = board(table, game, TRUSTED, seed, target=False, rows=ROWS)
    results = []
    for chance in CHANCES:
        scorer = LabelRegions(chance=chance).fit(data)
        found = judge_by(LabelRegions.name, scorer, data).quarantined
        recall = float(found[truth].mean()) if truth.any() else None
        lost = float(found[~truth].mean())
        of = (game.poison, game.rate, table.name, seed, chance, len(scorer.regions))
        results.append(Result(*of, recall, lost))
        say(f"{results[-1]}")
    return results


def grid(game: Game, results: Sequence[Result]) -> Grid:
    """A line for each chance."""
    rows: list[list[Cell]] = []
    for chance in CHANCES:
        of = (game.poison, game.rate, chance)
        mine = [r for r in results if (r.poison, r.rate, r.chance) == of]
        recalls = [r.recall for r in mine if r.recall is not None]
        lost = [r.lost for r in mine]
        seen = mean([float(r.regions > 0) for r in mine])
        recall = mean(recalls) if recalls else None
        rows.append([f"{chance:g}", len(mine), seen, recall, mean(lost), max(lost)])
    columns = ["chance", "draws", "with regions %", "recall %", "lost %", "worst draw %"]
    return Grid(f"{game.poison}{f', {game.rate:.0%}' if game.rate else ''}", columns, rows)


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__))
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    data = data_folder(given.data)
    tables = [load(name, data) for name in available(HALVES[given.half], data)]
    os.environ["OMP_NUM_THREADS"] = "1"
    # The warnings of libraries stay out of what a worker says.
    quietly = partial(warnings.simplefilter, "ignore")
    with ProcessPoolExecutor(os.cpu_count(), initializer=quietly) as pool:
        waiting = [
            pool.submit(play, table, game, seed)
            for seed, table, game in product(range(given.seeds), tables, GAMES)
        ]
        results = [result for one in waiting for result in one.result()]
    name = "regions" if given.half == "report" else "regions_tuning"
    command = f"python -m benchmarks.regions --half {given.half} --seeds {given.seeds}"
    grids = [grid(game, results) for game in GAMES]
    publish(name, command, grids, NOTES, [asdict(one) for one in results])


if __name__ == "__main__":
    main()
