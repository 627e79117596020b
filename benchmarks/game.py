"""One game: a poison on a real table, and what the default lines make of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from benchmarks.judged import Flags, any_of, dataset, judge, recall_at
from benchmarks.tables import Table, sample
from sanitizers.core.data import Dataset, Roles
from sanitizers.core.policy import Policy
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
    table: Table,
    game: Game,
    trusted: int,
    seed: int,
    *,
    target: bool,
    rows: int = ROWS,
    clean_loss: float = Policy.clean_loss,
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
    clean_loss : float
        The share of clean rows that the policy may lose.
    """
    data, truth = board(table, game, trusted, seed, target=target, rows=rows)
    judged = judge(data, clean_loss=clean_loss)
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
) -> tuple[Dataset, Flags]:
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
