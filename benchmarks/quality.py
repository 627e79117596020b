"""The war game: every poison against every sanitizer, on real tables, with and without trust.

One line per poison and rate: what the default policy finds and what it costs, and how much
of the poison each sanitizer's ranking holds at 1 % of the clean rows.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from benchmarks.judged import any_of, dataset, judge, recall_at
from benchmarks.results import Cell, Grid, mean, publish, say
from benchmarks.tables import (
    FIVE,
    REGRESSION,
    Table,
    arguments,
    available,
    data_folder,
    load,
    load_regression,
    sample,
)
from sanitizers.catalog import SANITIZERS
from sanitizers.core.data import Dataset, Roles
from sanitizers.poisons import poison

ROWS, TRUSTED = 3_000, 300
#: Where the ranking of a sanitizer is read.
LOSS = 0.01
WHEN = "arrival"
#: Nothing is poisoned.
CLEAN = "none"


@dataclass(frozen=True)
class Game:
    """One attack, and what the defence is told.

    Parameters
    ----------
    poison : str
        Its name, or `CLEAN`.
    rate : float
    timed : bool
        Whether rows have a time: their order.
    """

    poison: str
    rate: float
    timed: bool = False


GAMES = (
    Game(CLEAN, 0.0),
    Game(CLEAN, 0.0, timed=True),
    Game("flip-random", 0.10),
    Game("flip-random", 0.20),
    Game("flip-pair", 0.10),
    Game("flip-near", 0.10),
    Game("flip-far", 0.10),
    Game("flip-cluster", 0.05),
    Game("far-corner", 0.05),
    Game("trigger", 0.05),
    Game("dense-cluster", 0.05, timed=True),
    Game("duplicate-flood", 0.05, timed=True),
    Game("feature-shift", 0.05, timed=True),
    Game("skew-batch", 0.05, timed=True),
    Game("skew-batch", 0.20, timed=True),
)
REGRESSIONS = (
    Game(CLEAN, 0.0),
    Game("statistical", 0.08),
    Game("statistical", 0.20),
    Game("gradient", 0.08),
    Game("gradient", 0.20),
)
NOTES = (
    f"Tables of one half, at most {ROWS:,} rows each, drawn and shuffled by the seed; means over "
    f"tables and seeds. With trust, {TRUSTED} more rows are vouched for and are not judged. "
    "*Recall* and *lost*: what the default policy quarantines of the poison and of the clean rows. "
    f"Under the name of a sanitizer: the share of the poison that its ranking holds at {LOSS:.0%} "
    "of the clean rows; – where it has not what it needs. In games with a time the order of the "
    "rows is their time.",
    "How each poison is made: `sanitize list`, and the docstrings in `sanitizers/poisons`.",
)


@dataclass(frozen=True)
class Result:
    """What came of one game on one table.

    Parameters
    ----------
    game : Game
    trusted : int
    table : str
    seed : int
    recall : float or None
        None where nothing was poisoned.
    lost : float
    at_loss : dict of str to float
        For each sanitizer the recall of its ranking at `LOSS`.
    lost_by : dict of str to float
        For each sanitizer the share of the clean rows that it quarantines.
    """

    game: Game
    trusted: int
    table: str
    seed: int
    recall: float | None
    lost: float
    at_loss: dict[str, float]
    lost_by: dict[str, float]


def play(
    table: Table, game: Game, trusted: int, seed: int, *, target: bool, rows: int = ROWS
) -> Result:
    """Draw rows, poison them, and judge them by the default policy.

    Parameters
    ----------
    table : Table
    game : Game
    trusted : int
        Rows that are vouched for; they are drawn besides.
    seed : int
    target : bool
        Whether the answer is a number to predict.
    rows : int
        How many are drawn, at most.
    """
    data, truth = board(table, game, trusted, seed, target=target, rows=rows)
    judged = judge(data)
    found = any_of(judged, data.rows)
    poisoned = bool(truth.any())
    return Result(
        game,
        trusted,
        table.name,
        seed,
        float(found[truth].mean()) if poisoned else None,
        float(found[~truth].mean()),
        {n: recall_at(j.scores, truth, LOSS) for n, j in judged.items()} if poisoned else {},
        {n: float(j.quarantined[~truth].mean()) for n, j in judged.items()},
    )


def board(
    table: Table, game: Game, trusted: int, seed: int, *, target: bool, rows: int
) -> tuple[Dataset, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """The poisoned dataset, and which of its rows are poison."""
    frame = sample(table, rows + trusted, seed).frame
    features = tuple(str(c) for c in frame.columns if c != table.label)
    if game.timed:
        frame = frame.assign(**{WHEN: np.arange(len(frame), dtype=float)})
    roles = Roles(
        target=table.label if target else None,
        label=None if target else table.label,
        time=WHEN if game.timed else None,
        features=features,
    )
    drawn = pa.Table.from_pandas(frame, preserve_index=False)
    vouched, judged = drawn.slice(0, trusted), drawn.slice(trusted)
    truth = np.zeros(judged.num_rows, dtype=bool)
    if game.poison != CLEAN:
        made = poison(game.poison).poison(judged, roles, game.rate, seed)
        judged, truth = made.table, made.mask
    return dataset(judged, vouched if trusted else None, roles), truth


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--games", nargs="*", help="names of poisons; all by default")
    parser.add_argument("--trusted", type=int, nargs="*", default=[0, TRUSTED])
    given = parser.parse_args()
    data = data_folder(given.data)
    labelled = [(load(n, data), False) for n in available(FIVE[given.half], data)]
    numeric = [(load_regression(n, data), True) for n in REGRESSION[given.half]]
    wanted = given.games or {game.poison for game in (*GAMES, *REGRESSIONS)}
    results: list[Result] = []
    for tables, games in ((labelled, GAMES), (numeric, REGRESSIONS)):
        chosen = [game for game in games if game.poison in wanted]
        results += _play_all(tables, chosen, given.trusted, range(given.seeds))
    grids = [
        _grid(f"{kind}, {f'{trusted} trusted rows' if trusted else 'no trusted rows'}", mine)
        for kind, numbers in (("labels", False), ("numbers to predict", True))
        for trusted in given.trusted
        if (mine := [r for r in results if r.trusted == trusted and _is_numeric(r) == numbers])
    ]
    name = "quality" if given.half == "report" else "quality_tuning"
    command = f"python -m benchmarks.quality --half {given.half} --seeds {given.seeds}"
    if given.games:
        for grid in grids:
            print(grid.text())
    else:
        publish(name, command, grids, NOTES, _raw(results))


def _is_numeric(result: Result) -> bool:
    return any(result.table in names for names in REGRESSION.values())


def _play_all(
    tables: Sequence[tuple[Table, bool]],
    games: Sequence[Game],
    trusted: Sequence[int],
    seeds: Iterable[int],
) -> list[Result]:
    """Play all games, a process for each processor."""
    os.environ["OMP_NUM_THREADS"] = "1"
    results = []
    with ProcessPoolExecutor(os.cpu_count(), initializer=_quietly) as pool:
        waiting = [
            pool.submit(partial(play, table, game, trust, seed, target=target))
            for seed in seeds
            for table, target in tables
            for game in games
            for trust in trusted
        ]
        for future in waiting:
            result = future.result()
            results.append(result)
            recall = "–" if result.recall is None else f"{result.recall:.3f}"
            say(
                f"{result.table} {result.seed} {result.game.poison} {result.game.rate:g} "
                f"trusted {result.trusted}: recall {recall}, lost {result.lost:.4f}"
            )
    return results


def _quietly() -> None:
    """Keep the warnings of libraries out of what a worker says."""
    warnings.simplefilter("ignore")


def _grid(title: str, results: Sequence[Result]) -> Grid:
    names = [n for n in SANITIZERS if any(n in r.lost_by for r in results)]
    rows: list[list[Cell]] = []
    for game in dict.fromkeys(r.game for r in results):
        mine = [r for r in results if r.game == game]
        lost = {t: mean([r.lost for r in mine if r.table == t]) for t in {r.table for r in mine}}
        recalls = [r.recall for r in mine if r.recall is not None]
        rows.append(
            [
                game.poison + (", timed" if game.timed and game.poison == CLEAN else ""),
                f"{game.rate:.0%}" if game.rate else "",
                mean(recalls) if recalls else None,
                mean(list(lost.values())),
                max(lost.values()),
                *(_mean_of(mine, name) for name in names),
            ]
        )
    columns = ["poison", "rate", "recall %", "lost %", "worst table %", *(f"{n} %" for n in names)]
    return Grid(title, columns, rows)


def _mean_of(results: Sequence[Result], name: str) -> float | None:
    known = [r.at_loss[name] for r in results if name in r.at_loss]
    return mean(known) if known else None


def _raw(results: Sequence[Result]) -> list[dict[str, object]]:
    return [
        {
            "poison": r.game.poison,
            "rate": r.game.rate,
            "timed": r.game.timed,
            "trusted": r.trusted,
            "table": r.table,
            "seed": r.seed,
            "recall": None if r.recall is None else round(r.recall, 4),
            "lost": round(r.lost, 5),
            "at_loss": {n: round(v, 4) for n, v in r.at_loss.items()},
            "lost_by": {n: round(v, 5) for n, v in r.lost_by.items()},
        }
        for r in results
    ]


if __name__ == "__main__":
    main()
