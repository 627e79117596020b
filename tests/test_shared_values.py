"""Shared values: what is found against counting by hand, and when the rule is silent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy.stats import hypergeom

from sanitizers.core.data import Batch, Dataset, MemoryShard, Roles
from sanitizers.core.errors import PlanError
from sanitizers.shared_values import (
    FINDS_MOST,
    TRUSTED_LEAST,
    Find,
    SharedScorer,
    SharedValues,
    Value,
    _tests,
)

ROLES = Roles(label="y", features=("size", "colour", "shape"))

Mask = NDArray[np.bool_]


def rows(seed: int, count: int, prefix: str = "r") -> pa.Table:
    """A number, two categories, and three classes that the number and a category tell roughly."""
    rng = np.random.default_rng(seed)
    colour = rng.choice(["red", "green", "blue"], count, p=[0.5, 0.3, 0.2])
    size = np.round(rng.normal(0, 1, count) + (colour == "red"), 3)
    y = np.digitize(size + rng.normal(0, 0.5, count), [-0.3, 0.9])
    return pa.table(
        {
            "size": size,
            "colour": colour,
            "shape": rng.choice(["round", "square", "long", "flat"], count),
            "y": np.array(["low", "mid", "high"])[y],
            "row_id": [f"{prefix}-{i}" for i in range(count)],
        }
    )


def planted(table: pa.Table, bad: Mask, **values: object) -> pa.Table:
    """Some rows get some values."""
    for name, value in values.items():
        old = table.column(name)
        new = [value if b else v for b, v in zip(bad, old.to_pylist(), strict=True)]
        table = table.set_column(table.column_names.index(name), name, pa.array(new, old.type))
    return table


def some(seed: int, share: float, count: int = 2000) -> Mask:
    return np.random.default_rng(seed + 500).random(count) < share


def dataset(table: pa.Table, trusted: pa.Table | None) -> Dataset:
    whole = Dataset.from_table(table, ROLES, salt=b"shared")
    return whole if trusted is None else replace(whole, trusted=(MemoryShard(trusted),))


def judged(data: Dataset) -> tuple[SharedScorer, Batch, NDArray[np.float64]]:
    scorer = SharedValues().fit(data)
    (batch,) = data.batches()
    return scorer, batch, scorer.score(batch)


def test_a_trigger_of_two_values_is_found_with_its_rows_and_no_others() -> None:
    for seed in range(3):
        bad = some(seed, 0.05)
        table = planted(rows(seed, 2000), bad, size=0.5, shape="flat", y="low")
        scorer, _, scores = judged(dataset(table, rows(seed + 50, 300, "t")))
        assert len(scorer.finds) == 1
        assert (scores[bad] > 0.9).all()
        assert (scores[~bad] > 0).mean() < 0.01


def test_a_value_and_a_narrow_range_are_triggers_too() -> None:
    bad = some(4, 0.06)
    table = planted(rows(4, 2000), bad, size=7.25, y="mid")
    flat = planted(table, bad, shape="flat")
    # No two rows share the number to the last digit.
    rough = pa.array(flat.column("size").to_numpy() + 1e-5 * np.arange(2000))
    for given in (table, flat.set_column(0, "size", rough)):
        _, _, scores = judged(dataset(given, rows(54, 300, "t")))
        assert (scores[bad] > 0.6).mean() > 0.9
        assert (scores[~bad] > 0.6).mean() < 0.02


def test_the_counts_the_chance_and_the_score_are_those_that_are_there() -> None:
    bad = some(5, 0.05)
    table = planted(rows(5, 2000), bad, size=0.5, shape="flat", y="low")
    trusted = rows(55, 300, "t")
    scorer, batch, scores = judged(dataset(table, trusted))
    (find,) = scorer.finds
    counts = []
    for given in (table, trusted):
        has = np.ones(len(given), dtype=bool)
        for value in find.values:
            assert not value.edges
            text = value.shown.removeprefix("= ").strip("'")
            has &= np.array([str(v) == text for v in given.column(value.column).to_pylist()])
        label = np.array(given.column("y").to_pylist()) == scorer.classes[find.label]
        counts += [len(given), int((has & label).sum())]
    assert counts == [find.rows, find.having, find.trusted, find.vouched]
    n, having, t, vouched = counts
    assert find.chance == pytest.approx(hypergeom.cdf(vouched, n + t, having + vouched, t))
    assert scores[bad] == pytest.approx(1 - (vouched + 0.5) / (t + 1) / (having / n), abs=6e-4)
    hint = scorer.hint(batch)[int(np.flatnonzero(bad)[0])]
    assert hint is not None
    assert f"{' and '.join(map(str, find.values))} with the label 'low'" in hint
    assert "'size' = 0.5" in hint
    assert f"{having:,} of {n:,} rows and {vouched} of 300 trusted ones" in hint
    assert scorer.hint(batch)[int(np.flatnonzero(~bad)[0])] is None
    assert SharedValues().reason(0.97, hint) == f"{hint}: planted with a chance of 97%"
    assert "shares no value" in SharedValues().reason(0.0, None)


def test_clean_rows_share_nothing_that_trusted_rows_lack() -> None:
    for seed in range(6):
        scorer, _, scores = judged(dataset(rows(seed, 2000), rows(seed + 60, 300, "t")))
        assert scorer.finds == ()
        assert not scores.any()


def test_what_is_natural_is_in_trusted_rows_as_well() -> None:
    """A combination that looks like a trigger in every way, but that trusted rows have it too."""
    table = planted(rows(6, 2000), some(6, 0.05), size=0.5, shape="flat", y="low")
    trusted = planted(rows(66, 300, "t"), some(66, 0.05, 300), size=0.5, shape="flat", y="low")
    assert judged(dataset(table, trusted))[0].finds == ()


@pytest.mark.parametrize("column", ["size", "colour", "y"])
def test_trusted_rows_that_are_no_random_sample_silence_the_rule(column: str) -> None:
    for seed in range(3):
        pool = rows(seed + 70, 4000, "t")
        values = np.array(pool.column(column).to_pylist())
        rare = (
            values > 0.5 if column == "size" else values == {"colour": "green", "y": "mid"}[column]
        )
        kept = ~rare | (np.random.default_rng(seed).random(4000) < 0.1)
        few = pool.filter(pa.array(kept)).slice(0, 400)
        scorer, _, scores = judged(dataset(rows(seed, 2000), few))
        assert scorer.finds == ()
        assert not (scores > 0).any()


def test_more_than_a_plant_is_trusted_rows_that_are_no_random_sample() -> None:
    large = planted(rows(7, 2000), some(7, 0.2), size=0.5, shape="flat")
    assert judged(dataset(large, rows(77, 300, "t")))[0].finds == ()
    many = rows(8, 6000)
    trusted = rows(78, 1500, "t")
    for k in range(FINDS_MOST + 1):
        many = planted(many, np.arange(6000) // 140 == k, colour=f"hue {k}", y="low")
        found = judged(dataset(many, trusted))[0].finds
        assert len(found) == (k + 1 if k < FINDS_MOST else 0)


def test_without_enough_trusted_rows_it_abstains() -> None:
    table = planted(rows(9, 2000), some(9, 0.05), size=0.5, shape="flat", y="low")
    for trusted in (None, rows(79, TRUSTED_LEAST - 1, "t")):
        scorer, batch, scores = judged(dataset(table, trusted))
        assert scorer == SharedScorer()
        assert np.isnan(scores).all()
        assert scorer.hint(batch) == [None] * 2000


def test_without_a_column_to_look_at_it_abstains() -> None:
    table = rows(12, 2000).append_column("v", pa.array([[0.5, k] for k in range(2000)]))
    trusted = rows(82, 300, "t").append_column("v", pa.array([[0.5, k] for k in range(300)]))
    roles = Roles(label="y", embedding="v")
    data = Dataset.from_table(table, roles, salt=b"shared")
    data = replace(data, trusted=(MemoryShard(trusted),))
    assert judged(data)[0] == SharedScorer()


def test_trusted_rows_may_have_types_of_their_own() -> None:
    """Whole numbers in the data, and fractions among the trusted rows."""
    bad = some(13, 0.06)
    table = planted(rows(13, 2000), bad, size=7.0, y="low")
    whole = pa.array(np.round(table.column("size").to_numpy()).astype(np.int64))
    scorer, _, scores = judged(dataset(table.set_column(0, "size", whole), rows(83, 300, "t")))
    assert scorer == SharedScorer() or (scores[bad] > 0.6).all()


def test_missing_values_are_a_value() -> None:
    bad = some(10, 0.06)
    table = planted(rows(10, 2000), bad, size=None, y="high")
    scorer, _, scores = judged(dataset(table, rows(80, 300, "t")))
    assert (scores[bad] > 0.9).all()
    assert not (scores[~bad] > 0.6).any()
    assert any(value.shown == "= None" for find in scorer.finds for value in find.values)


def test_long_values_are_cut_in_a_reason() -> None:
    bad = some(11, 0.06)
    table = planted(rows(11, 2000), bad, shape="x" * 5000, y="high")
    scorer, _, _ = judged(dataset(table, rows(81, 300, "t")))
    assert len(scorer.finds[0].told("high")) < 250


def test_tests_that_could_find_nothing_do_not_count() -> None:
    """By trying all numbers: the smallest that leaves no more tests that could succeed."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        least = 10 ** rng.uniform(-6, 0, int(rng.integers(1, 60)))
        by_hand = next(k for k in range(1, 61) if (least <= 0.01 / k).sum() <= k)
        assert _tests(least, 0.01) == by_hand
    assert _tests(np.empty(0), 0.01) == 1


def test_the_score_is_never_negative() -> None:
    value = Value("a", 0, "= 1")
    assert Find((value,), 0, 1e-9, 1000, 10, 100, 50).score == 0
    assert Find((value,), 0, 1e-9, 1000, 100, 300, 0).score == pytest.approx(0.983)


@pytest.mark.parametrize("settings", [{"rows": 0}, {"chance": 0.0}, {"chance": 1.0}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(PlanError, match=r"shared-values: rows=.*; expected rows >= 1"):
        SharedValues(**settings)  # type: ignore[arg-type]
