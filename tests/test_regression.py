"""Regression: the trimmed fit, what it leaves alone, and what its parts compute."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from sanitizers.core.data import Dataset, Roles
from sanitizers.core.errors import PlanError
from sanitizers.core.kernels import robust_scale
from sanitizers.core.policy import HARMLESS, Policy
from sanitizers.core.sanitizer import Influence, Influential
from sanitizers.poisons import poison
from sanitizers.regression import PENALTIES, Regression, deviation, fit_boosted, fit_ridge

Floats = NDArray[np.float64]
NAMES = tuple(f"x{i}" for i in range(6))


def linear(seed: int, rows: int = 900) -> pa.Table:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, 6))
    y = X @ np.array([3.0, -2.0, 1.0, 0.0, 0.5, 1.5]) + rng.normal(size=rows)
    return pa.table({name: X[:, i] for i, name in enumerate(NAMES)} | {"y": y})


def bent(seed: int, rows: int = 900) -> pa.Table:
    table = linear(seed, rows)
    x = [table.column(name).to_numpy() for name in NAMES]
    noise = np.random.default_rng(seed).normal(size=rows)
    y = 2 * x[0] - x[1] + 4 * np.abs(x[2]) + 3 * np.sin(2 * x[3]) + 0.5 * noise
    return table.set_column(6, "y", pa.array(y))


def scores(table: pa.Table, recipe: Regression | None = None) -> tuple[Floats, float]:
    data = Dataset.from_table(table, Roles(target="y", features=NAMES))
    scorer = (recipe or Regression()).fit(data)
    assert isinstance(scorer, Influential)
    return np.concatenate([scorer.score(b) for b in data.batches()]), scorer.influence.moved


def marked(
    name: str, table: pa.Table, rate: float, seed: int
) -> tuple[pa.Table, NDArray[np.bool_]]:
    made = poison(name).poison(table, Roles(target="y", features=NAMES), rate, seed)
    bad = np.zeros(made.table.num_rows, dtype=bool)
    bad[made.truth.column("row").to_numpy()] = True
    return made.table, bad


@pytest.mark.parametrize("attack", ["statistical", "gradient"])
@pytest.mark.parametrize("rate", [0.04, 0.2])
@pytest.mark.parametrize("make", [linear, bent])
def test_poison_is_found_without_its_number(attack, rate, make) -> None:  # type: ignore[no-untyped-def]
    table, bad = marked(attack, make(1), rate, 1)
    found, influence = scores(table)
    assert (found[bad] > 6).mean() > 0.9
    assert (found[~bad] > 6).mean() < 0.02
    assert influence > HARMLESS


@pytest.mark.parametrize("make", [linear, bent])
def test_clean_rows_stay_and_do_no_harm(make) -> None:  # type: ignore[no-untyped-def]
    found, influence = scores(make(2))
    assert (found > 6).mean() < 0.01
    assert influence < HARMLESS


def heavy(seed: int, rows: int = 1500) -> pa.Table:
    """Most targets near the line, and a fifth of them far less so."""
    table = linear(seed, rows)
    rng = np.random.default_rng(seed)
    wide = rng.random(rows) < 0.2
    noise = np.where(wide, rng.normal(0, 3, rows), rng.normal(0, 0.5, rows))
    return table.set_column(6, "y", pa.array(table.column("x0").to_numpy() + noise))


@pytest.mark.parametrize("seed", [0, 1])
def test_rows_that_follow_another_law_are_the_datas_own_tail_and_poison_is_not(seed: int) -> None:
    table = linear(seed, 1500)
    rng = np.random.default_rng(seed)
    y = table.column("x0").to_numpy() + rng.normal(0, 0.1, 1500)
    y = np.where(rng.random(1500) < 0.1, y + rng.lognormal(0, 1.2, 1500), y)
    table = table.set_column(6, "y", pa.array(y))
    roles = Roles(target="y", features=NAMES)
    clean = Regression().fit(Dataset.from_table(table, roles)).influence
    assert clean.moved > HARMLESS
    assert np.isinf(clean.tail)
    mixed, bad = marked("gradient", table, 0.08, seed)
    data = Dataset.from_table(mixed, roles)
    scorer = Regression().fit(data)
    found = np.concatenate([scorer.score(b) for b in data.batches()])
    assert (found[bad] > scorer.influence.tail).mean() > 0.9
    assert (found[~bad] > scorer.influence.tail).mean() < 0.03


@pytest.mark.parametrize("seed", [0, 1])
def test_clean_rows_in_heavy_tails_stay(seed: int) -> None:
    table, bad = marked("statistical", heavy(seed), 0.04, seed)
    assert (scores(table)[0][~bad] > 6).mean() < 0.01


def test_the_deviation_is_the_usual_one_but_for_heavy_tails() -> None:
    rng = np.random.default_rng(10)
    normal, tails = rng.normal(3, 2, 100_000), rng.standard_t(2, 100_000)
    assert deviation(normal) == pytest.approx((3.0, 2.0), abs=0.03)
    near = np.quantile(np.abs(tails - np.median(tails)), 0.95)
    assert deviation(tails)[1] == pytest.approx(near / 1.95996, rel=1e-4)
    assert deviation(tails)[1] > 1.5 * robust_scale(tails)[1]
    assert deviation(np.array([])) == (0.0, 1.0)


def test_trimming_stands_where_huber_falls() -> None:
    table, bad = marked("gradient", linear(3), 0.25, 3)
    trimmed, huber = (scores(table, Regression(method=m))[0] for m in ("trimmed", "huber"))
    assert (trimmed[bad] > 6).mean() > (huber[bad] > 6).mean()


def test_harmless_finds_are_for_review_only() -> None:
    usual = Policy().rule("regression", trusted=False)
    calm = Policy().rule("regression", trusted=False, influence=Influence(HARMLESS / 2))
    assert calm.quarantine is None
    assert str(calm.review) == f"{usual.quarantine} and top 0.75%"
    assert Policy().rule("regression", trusted=False, influence=Influence(2 * HARMLESS)) == usual


def test_finds_of_the_tail_are_for_review_only_and_few_of_them() -> None:
    usual = Policy().rule("regression", trusted=False)
    tail = Policy().rule("regression", trusted=False, influence=Influence(9.0, np.inf))
    assert tail.quarantine is None
    assert str(tail.review) == f"{usual.quarantine} and top 0.75%"
    apart = Policy().rule("regression", trusted=False, influence=Influence(9.0, 21.3))
    assert str(apart.quarantine) == "score > 21.3"
    assert str(apart.review) == "score > 10.65"
    assert "scores less than 21.3" in apart.basis


def test_trusted_rows_give_p_values_and_find_more() -> None:
    roles = Roles(target="y", features=NAMES, trusted="known")
    table, bad = marked("statistical", linear(4, 1200), 0.3, 4)
    known = np.zeros(len(table), dtype=bool)
    known[np.flatnonzero(~bad)[:250]] = True
    data = Dataset.from_table(table.append_column("known", pa.array(known)), roles)
    scorer = Regression().fit(data)
    assert scorer.null is not None
    found = np.concatenate([scorer.score(b) for b in data.batches()])
    p = scorer.null.p_value(found)
    assert (p[bad] <= 0.01).mean() > 0.95
    assert (p[~bad & ~known] <= 0.01).mean() < 0.03


def test_rows_without_a_target_and_small_data_are_not_judged() -> None:
    table = linear(5)
    y = table.column("y").to_numpy().copy()
    y[:20] = np.nan
    found, _ = scores(table.set_column(6, "y", pa.array(y, from_pandas=True)))
    assert np.isnan(found[:20]).all()
    assert not np.isnan(found[20:]).any()
    assert np.isnan(scores(linear(6, 200))[0]).all()


def test_the_side_is_said() -> None:
    table = linear(7)
    y = table.column("y").to_numpy().copy()
    y[0], y[1] = 100.0, -100.0
    data = Dataset.from_table(
        table.set_column(6, "y", pa.array(y)), Roles(target="y", features=NAMES)
    )
    scorer = Regression().fit(data)
    batch = next(data.batches())
    hints = scorer.hint(batch)
    assert (hints[0], hints[1]) == ("too high", "too low")
    assert "too high" in Regression().reason(float(scorer.score(batch)[0]), hints[0])


def test_ridge_is_the_textbook_one_at_its_best_penalty() -> None:
    rng = np.random.default_rng(8)
    X = rng.normal(size=(400, 5))
    y = X @ rng.normal(size=5) + rng.normal(size=400)
    ours = fit_ridge(X, y)(X)
    assert min(np.abs(ours - Ridge(alpha=a).fit(X, y).predict(X)).max() for a in PENALTIES) < 1e-8


def test_boosting_goes_on_straight_where_there_are_no_rows() -> None:
    rng = np.random.default_rng(9)
    X = rng.normal(size=(2000, 1))
    predict = fit_boosted(X, 5 * X[:, 0] + 0.1 * rng.normal(size=2000))
    assert predict(np.array([[10.0]]))[0] == pytest.approx(50, rel=0.1)


@pytest.mark.parametrize(
    "settings", [{"method": "magic"}, {"folds": 1}, {"trim": 0.6}, {"cutoff": 0.0}]
)
def test_wrong_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(PlanError):
        Regression(**settings)  # type: ignore[arg-type]
