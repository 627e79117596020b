"""Deviations that are a tail, and those that lie apart."""

from __future__ import annotations

import numpy as np
import pytest

from sanitizers.core.tails import FAR, tail_end


def tail(seed: int, rows: int, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of heavy tails, and targets that have nothing to do with them."""
    rng = np.random.default_rng(seed)
    return np.abs(rng.standard_t(degrees, rows)), 20 * rng.normal(size=rows)


@pytest.mark.parametrize("degrees", [1.0, 1.5, 3.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_heavy_tails_have_no_end(seed: int, degrees: float) -> None:
    assert np.isinf(tail_end(*tail(seed, 3_000, degrees)))


@pytest.mark.parametrize("rate", [0.02, 0.2])
@pytest.mark.parametrize("degrees", [1.5, 3.0, 30.0])
def test_rows_that_lie_apart_end_it_before_them(degrees: float, rate: float) -> None:
    scores, targets = tail(4, 3_000, degrees)
    planted = int(3_000 * rate)
    scores[:planted] = np.random.default_rng(5).uniform(150, 300, planted)
    end = tail_end(scores, targets)
    assert FAR <= end <= 150
    assert np.mean(scores[planted:] > end) < 0.02


def test_far_rows_whose_targets_are_alike_are_no_tail() -> None:
    scores, targets = tail(6, 3_000, 30.0)
    planted = slice(0, 120)
    scores[planted] = np.random.default_rng(7).uniform(5, 13, 120)
    targets[planted] = np.random.default_rng(8).uniform(0, 100, 120)
    assert np.isinf(tail_end(scores, targets))
    targets[planted] = 100.0
    assert tail_end(scores, targets) == 0.0
    scores[:60] *= -1  # too low
    assert tail_end(scores, targets) == 0.0
    targets[:60] = -30.0
    assert tail_end(scores, targets) == 0.0


def test_fewer_than_a_group_are_a_tail() -> None:
    scores, targets = tail(8, 3_000, 30.0)
    scores[:20] = 300.0
    assert np.isinf(tail_end(scores, targets))


def test_what_is_not_finite_does_not_count() -> None:
    scores, targets = tail(9, 3_000, 3.0)
    end = tail_end(scores, targets)
    odd = np.array([np.nan, np.inf, -np.inf])
    assert tail_end(np.append(scores, odd), np.append(targets, odd)) == end
    assert np.isinf(tail_end(odd, odd))


@pytest.mark.parametrize("scores", [[], [0.5, 3.0], [0.0] * 10])
def test_without_far_rows_all_is_tail(scores: list[float]) -> None:
    assert np.isinf(tail_end(np.array(scores), np.zeros(len(scores))))
