"""The fence: no change may make the defences worse on a small slice of the war game."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.game import Game
from benchmarks.judged import recall_at
from benchmarks.quality_slice import GAMES, baseline, key, measure

#: How far recall may fall, and how many more clean rows may be lost.
FALL, LOSS = 0.05, 0.01


@pytest.mark.parametrize(("name", "game", "trusted"), GAMES, ids=[key(*g) for g in GAMES])
def test_recall_does_not_fall(name: str, game: Game, trusted: int) -> None:
    before = baseline()[key(name, game, trusted)]
    now = measure(name, game, trusted)
    told = {"recall": now.recall, **now.at_loss}
    fallen = {
        what: f"{was:.3f} -> {told.get(what) or 0.0:.3f}"
        for what, was in before.items()
        if what != "lost" and was is not None and (told.get(what) or 0.0) < was - FALL
    }
    assert not fallen, "worse than the committed figures; see benchmarks/quality_slice.py"
    assert now.lost <= (before["lost"] or 0.0) + LOSS


def test_the_fence_holds_every_game() -> None:
    assert set(baseline()) == {key(*game) for game in GAMES}


def test_recall_at_a_loss_is_the_mean_over_random_orders_of_ties() -> None:
    """Against drawing orders of the ties."""
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, 200).astype(float)
    scores[::17] = np.nan
    truth = rng.random(200) < 0.2
    for loss in (0.01, 0.05, 0.3):
        drawn = []
        for _ in range(4_000):
            order = np.lexsort([rng.random(200), -np.nan_to_num(scores, nan=-1.0)])
            lost = np.cumsum(~truth[order]) / (~truth).sum()
            take = order[: int((lost <= loss).sum())]
            drawn.append(truth[take][~np.isnan(scores[take])].sum() / truth.sum())
        assert recall_at(scores, truth, loss) == pytest.approx(np.mean(drawn), abs=0.03)
