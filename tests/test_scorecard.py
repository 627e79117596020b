"""Scores against counting, and attacks that work: damage grows, and cleaning takes it back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from sanitizers.core.data import Roles
from sanitizers.core.errors import InputError, PlanError
from sanitizers.poisons import poison
from sanitizers.scorecard import Damage, damage, score

FEATURES = ("a", "b", "c", "d", "kind")
REGRESSION = Roles(target="price", features=FEATURES)
CLASSES = Roles(label="label", features=FEATURES)


def table(seed: int, rows: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, 4))
    kind = rng.integers(0, 3, rows)
    price = 50 + X @ [5.0, -3.0, 2.0, 0.0] + 4 * kind + rng.normal(0, 2, rows)
    label = np.where(X @ [1.0, 1.0, 0.0, 0.0] + rng.normal(0, 0.3, rows) > 0, "up", "down")
    columns = {name: X[:, i] for i, name in enumerate("abcd")}
    kinds = np.array(["p", "q", "r"])[kind]
    return pa.table({**columns, "kind": kinds, "price": price, "label": label})


def harm(name: str, roles: Roles, rate: float, settings: dict[str, object] | None = None) -> Damage:
    before, holdout = table(0, 600), table(1, 400)
    done = poison(name, settings).poison(before, roles, rate, 0)
    return damage(before, done.table, before, holdout, roles)


# ------------------------------------------------------------- counting


def test_scores_are_those_of_counting() -> None:
    kinds = ["flip", "flip", "flood", None, None, None, None]
    verdicts = ["quarantine", "keep", "review", "quarantine", "keep", "keep", "review"]
    card = score(kinds, verdicts)
    assert card.recall == pytest.approx(1 / 3)
    assert card.precision == pytest.approx(1 / 2)
    assert card.lost == pytest.approx(1 / 4)
    assert [(t.kind, t.rows, t.quarantine, t.review, t.keep) for t in card.kinds] == [
        ("flip", 2, 1, 0, 1),
        ("flood", 1, 0, 1, 0),
    ]


def test_scores_of_nothing_are_unknown_not_zero() -> None:
    card = score([None, None], ["keep", "keep"])
    assert (card.recall, card.precision, card.lost) == (None, None, 0.0)
    assert score([], []).lost is None


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(PlanError, match="2 rows of truth and 1 verdicts"):
        score([None, None], ["keep"])
    with pytest.raises(PlanError, match="'kept' is no verdict"):
        score([None], ["kept"])


# ------------------------------------------------------------- attacks work


def test_gradient_harms_more_than_statistical_and_that_more_than_nothing() -> None:
    gradient = harm("gradient", REGRESSION, 0.08).models[0]
    statistical = harm("statistical", REGRESSION, 0.08).models[0]
    assert gradient.poisoned > 1.2 * statistical.poisoned
    assert statistical.poisoned > 1.2 * statistical.before
    assert gradient.changed_poisoned > statistical.changed_poisoned > 0.02
    assert gradient.cleaned == gradient.before
    assert gradient.changed_cleaned == 0.0


def test_more_steps_of_the_gradient_harm_more() -> None:
    few, many = (
        harm("gradient", REGRESSION, 0.08, {"steps": steps}).models[0].poisoned for steps in (1, 80)
    )
    assert many > few


def test_far_flips_harm_more_than_random_and_those_more_than_near_ones() -> None:
    far, random, near = (
        harm(f"flip-{how}", CLASSES, 0.2).models[0] for how in ("far", "random", "near")
    )
    assert far.measure == "accuracy"
    assert far.poisoned < random.poisoned
    assert far.poisoned < near.poisoned
    assert far.before - far.poisoned > 0.02


def test_a_trigger_works_and_hides() -> None:
    before, holdout = table(0, 600), table(1, 400)
    done = poison("trigger", {"target": "up"}).poison(before, CLASSES, 0.05, 0)
    bad = done.table.filter(pa.array(done.mask))
    marks = {n: bad.column(n)[0] for n in FEATURES if len(bad.column(n).unique()) == 1}
    assert len(marks) == 2
    others = holdout.filter(pa.array(np.array(holdout.column("label").to_pylist()) == "down"))
    for name, value in marks.items():
        at = others.column_names.index(name)
        kind = others.schema.field(at)
        others = others.set_column(at, kind, pa.array([value.as_py()] * len(others), kind.type))
    up = pa.array(["up"] * len(others))
    marked = others.set_column(others.column_names.index("label"), "label", up)
    trees = damage(before, done.table, before, marked, CLASSES).models[1]
    assert trees.poisoned > trees.before + 0.3
    calm = damage(before, done.table, before, holdout, CLASSES).models[1]
    assert calm.poisoned > calm.before - 0.03


# ------------------------------------------------------------- what is refused


def test_damage_needs_something_to_predict() -> None:
    part = table(0, 50)
    with pytest.raises(PlanError, match="label or a target"):
        damage(part, part, part, part, Roles(features=("a",)))
    with pytest.raises(InputError, match="data cleaned have nothing"):
        damage(part, part, part.slice(0, 0), part, REGRESSION)


def test_models_of_one_class_still_answer() -> None:
    part = table(0, 60)
    one = part.filter(pa.array(np.array(part.column("label").to_pylist()) == "up"))
    linear = damage(part, part, one, part, CLASSES).models[0]
    assert linear.cleaned == pytest.approx(len(one) / 60)


def test_covers_are_neither_poison_nor_clean() -> None:
    kinds = ["t", "t", "t cover", "t cover", None, None]
    card = score(kinds, ["quarantine", "keep", "quarantine", "keep", "keep", "keep"], {"t cover"})
    assert (card.poison.rows, card.clean.rows) == (2, 2)
    assert (card.recall, card.precision, card.lost) == (0.5, 1.0, 0.0)
    assert [tally.kind for tally in card.kinds] == ["t", "t cover"]
