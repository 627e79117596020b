"""Comparing contenders: recall at a loss, ties without favour, our own order."""

from __future__ import annotations

from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.answers import Answer, Cost, compare, recall_at
from benchmarks.growth import ROLES, make_shards
from benchmarks.measure import in_own_process
from benchmarks.ours import rank
from pipelines.shards import ParquetShard
from sanitizers.core.data import ROW_ID
from sanitizers.core.policy import CLEAN_ABOVE, SHARES, Policy

ROWS = st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=2, max_size=6)
COST = Cost(seconds=1.0, cpu_seconds=1.0, peak_mb=1.0)


def brute(scores: list[int], truth: list[bool], lost: int) -> float:
    """The mean, over all orders of rows with equal scores, of what is removed in time."""
    found = []
    for order in permutations(range(len(scores))):
        if any(scores[a] < scores[b] for a, b in pairwise(order)):
            continue
        left, removed = lost, 0
        for row in order:
            left -= not truth[row]
            if left < 0:
                break
            removed += truth[row]
        found.append(removed / sum(truth))
    return float(np.mean(found))


@given(ROWS, st.integers(0, 4))
@settings(max_examples=150, deadline=None)
def test_recall_at_a_loss_is_the_mean_over_all_orders_of_ties(
    rows: list[tuple[int, bool]], lost: int
) -> None:
    scores, truth = [s for s, _ in rows], [bad for _, bad in rows]
    if not any(truth) or all(truth):
        return
    value = recall_at(np.array(scores, dtype=float), np.array(truth), lost)
    assert value == pytest.approx(brute(scores, truth, lost))


def test_rows_without_a_score_go_last_and_all_go_when_all_may_be_lost() -> None:
    scores = np.array([np.nan, 3.0, 2.0, np.nan])
    truth = np.array([True, True, False, False])
    assert recall_at(scores, truth, 0) == 0.5
    assert recall_at(scores, truth, 1) == pytest.approx(0.5 + 0.5 / 2)
    assert recall_at(scores, truth, 2) == 1.0


def test_a_contender_is_read_at_our_loss_and_we_at_its_loss() -> None:
    truth = np.array([True, True, False, False, False])
    ours = Answer(truth & [True, False, False, False, False], np.array([5.0, 3.0, 4.0, 2.0, 1.0]))
    theirs = Answer(np.array([False, True, True, False, False]), np.array([1.0, 5, 4, 3, 2]))
    outcome = compare(theirs, truth, ours, COST)
    assert outcome.recall == 0.5
    assert outcome.lost == pytest.approx(1 / 3)
    assert outcome.at_our_loss == 0.5  # we lose nothing; its first row is poison
    assert outcome.ours_at_its_loss == 1.0  # at one clean row lost we have both
    own = compare(ours, truth, ours, COST)
    assert own.at_our_loss == own.ours_at_its_loss == own.recall == 0.5
    alone = compare(theirs, truth, None, COST)
    assert alone.at_our_loss is None
    assert alone.ours_at_its_loss is None


def test_an_answer_is_read_as_it_was_saved(tmp_path: Path) -> None:
    flags = np.array([True, False])
    Answer(flags, np.array([1.0, np.nan]), {"labels": ~flags}).save(tmp_path / "a.npz")
    again = Answer.load(tmp_path / "a.npz")
    assert again.flags.tolist() == [True, False]
    assert again.scores[0] == 1.0
    assert {k: v.tolist() for k, v in again.parts.items()} == {"labels": [False, True]}


@pytest.mark.parametrize("name", CLEAN_ABOVE)
def test_a_row_on_the_default_line_ranks_as_the_promise_whatever_the_sanitizer(name: str) -> None:
    """The rank is the log of promise over expected clean rows: the same at every line."""
    rule = Policy().rule(name, trusted=False).quarantine
    assert rule is not None
    line = np.array([rule.conditions[0].value])
    assert rank(name, line, np.array([np.nan]))[0] == pytest.approx(-np.log(0.01), abs=0.05)


def test_ranks_rise_with_the_score_far_beyond_the_curve_and_fall_with_the_p_value() -> None:
    grid = np.linspace(-5, 100, 50)
    for name in CLEAN_ABOVE:
        assert (np.diff(rank(name, grid, np.full(50, np.nan))) > 0).all()
    p = np.array([0.2 * SHARES["labels"], np.nan, 1e-9])
    ranks = rank("labels", np.zeros(3), p)
    assert ranks[0] == pytest.approx(-np.log(0.2))
    assert np.isnan(ranks[1])
    assert ranks[2] > ranks[0]


def test_a_process_that_takes_too_long_is_ended() -> None:
    assert in_own_process("growth", "labels", "nowhere", limit=0.001) is None


def test_shards_for_growth_hold_every_row_once_in_the_order_of_time(tmp_path: Path) -> None:
    make_shards(tmp_path, 1_000, shard_rows=300)
    shards = [ParquetShard(file) for file in sorted(tmp_path.glob("*.parquet"))]
    assert [shard.rows for shard in shards] == [300, 300, 300, 100]
    whole = pa.concat_tables([shard.read() for shard in shards])
    assert whole.column("time").to_pylist() == list(range(1_000))
    assert len(set(whole.column(ROW_ID).to_pylist())) == 1_000
    assert set(ROLES.columns) <= set(whole.column_names)
