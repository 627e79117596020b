"""The war game: every poison against every sanitizer, on real tables, with and without trust.

One line per poison and rate: what the default policy finds and what it costs, and how much
of the poison each sanitizer's ranking holds at 1 % of the clean rows.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from benchmarks.game import CLEAN, LOSS, ROWS, TRUSTED, Game, Result, play
from benchmarks.results import FOLDER, Cell, Grid, mean, publish, say
from benchmarks.tables import (
    FIVE,
    REGRESSION,
    Table,
    arguments,
    available,
    data_folder,
    load,
    load_regression,
)
from sanitizers.catalog import SANITIZERS
from sanitizers.core.policy import Policy

GAMES = (
    Game(CLEAN, 0.0),
    Game(CLEAN, 0.0, timed=True),
    Game("flip-random", 0.10),
    Game("flip-random", 0.20),
    Game("flip-pair", 0.10),
    Game("flip-target", 0.03),
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
    "*Recall* and *lost*: what the policy quarantines, by its default lines, of the poison and of "
    "the clean rows. "
    f"Under the name of a sanitizer: the share of the poison that its ranking holds at {LOSS:.0%} "
    "of the clean rows; – where it has not what it needs. In games with a time the order of the "
    "rows is their time.",
    "How each poison is made: `sanitize list`, and the docstrings in `sanitizers/poisons`.",
)


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--games", nargs="*", help="names of poisons; all by default")
    parser.add_argument("--trusted", type=int, nargs="*", default=[0, TRUSTED])
    parser.add_argument("--clean-loss", type=float, default=Policy.clean_loss)
    parser.add_argument("--add", action="store_true", help="to the games that the results hold")
    given = parser.parse_args()
    data = data_folder(given.data)
    labelled = [(load(n, data), False) for n in available(FIVE[given.half], data)]
    numeric = [(load_regression(n, data), True) for n in REGRESSION[given.half]]
    wanted = given.games or {game.poison for game in (*GAMES, *REGRESSIONS)}
    results: list[Result] = []
    for tables, games in ((labelled, GAMES), (numeric, REGRESSIONS)):
        chosen = [game for game in games if game.poison in wanted]
        results += _play_all(tables, chosen, given)
    name, command = _kept(given)
    if given.add:
        results = _in_order(_earlier(name), results)
    grids = [
        _grid(f"{kind}, {f'{trusted} trusted rows' if trusted else 'no trusted rows'}", mine)
        for kind, numbers in (("labels", False), ("numbers to predict", True))
        for trusted in sorted({r.trusted for r in results})
        if (mine := [r for r in results if r.trusted == trusted and _is_numeric(r) == numbers])
    ]
    publish(name, command, grids, NOTES, _raw(results))


def _earlier(name: str) -> list[Result]:
    """The games that a file of results holds."""
    file = FOLDER / f"{name}.json"
    found = json.loads(file.read_text()) if file.is_file() else []
    return [Result(Game(r.pop("poison"), r.pop("rate"), timed=r.pop("timed")), **r) for r in found]


def _in_order(earlier: Sequence[Result], later: Sequence[Result]) -> list[Result]:
    """All games, the later ones in the places of the same earlier ones."""
    found = {(r.game, r.trusted, r.table, r.seed): r for r in earlier}
    found |= {(r.game, r.trusted, r.table, r.seed): r for r in later}
    return list(found.values())


def _kept(given: argparse.Namespace) -> tuple[str, str]:
    """The name of the results, and the command that prints them again."""
    name = "quality" if given.half == "report" else "quality_tuning"
    command = f"python -m benchmarks.quality --half {given.half} --seeds {given.seeds}"
    if given.clean_loss != Policy.clean_loss:
        name += f"_{given.clean_loss:g}"
        command += f" --clean-loss {given.clean_loss:g}"
    if given.add:
        return name, command
    if given.games:
        name += "_some" if given.clean_loss == Policy.clean_loss else ""
        command += " --games " + " ".join(given.games)
    if given.trusted != [0, TRUSTED]:
        command += " --trusted " + " ".join(map(str, given.trusted))
    return name, command


def _is_numeric(result: Result) -> bool:
    return any(result.table in names for names in REGRESSION.values())


def _play_all(
    tables: Sequence[tuple[Table, bool]],
    games: Sequence[Game],
    given: argparse.Namespace,
) -> list[Result]:
    """Play all games, a process for each processor."""
    os.environ["OMP_NUM_THREADS"] = "1"
    results = []
    with ProcessPoolExecutor(os.cpu_count(), initializer=_quietly) as pool:
        waiting = [
            pool.submit(
                partial(play, target=target, clean_loss=given.clean_loss), table, game, trust, seed
            )
            for seed in range(given.seeds)
            for table, target in tables
            for game in games
            for trust in given.trusted
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
