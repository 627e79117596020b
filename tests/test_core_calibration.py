"""Nulls against counting and simulation, and Benjamini-Hochberg against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import genpareto, kstest

from sanitizers.core.calibration import (
    TAIL_LEAST,
    ConformalNull,
    ModelNull,
    benjamini_hochberg,
)

SCORES = st.floats(-1e6, 1e6, width=32)


# ---------------------------------------------------------------- conformal


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(SCORES, max_size=60), st.lists(SCORES, min_size=1, max_size=20))
def test_few_trusted_scores_are_counted(trusted: list[float], scores: list[float]) -> None:
    null = ConformalNull.fit(np.array(trusted, dtype=float))
    counted = [(1 + sum(c >= s for c in trusted)) / (len(trusted) + 1) for s in scores]
    assert null.p_value(np.array(scores)).tolist() == counted


def test_below_the_tail_many_trusted_scores_are_counted_too() -> None:
    trusted = np.random.default_rng(0).normal(size=1000)
    null = ConformalNull.fit(trusted)
    grid = np.linspace(-5, null.start, 200)
    counted = [(1 + int((trusted >= s).sum())) / 1001 for s in grid]
    assert null.p_value(grid) == pytest.approx(counted, rel=1e-12)
    assert 0.05 < np.mean(trusted > null.start) <= 0.1


@pytest.mark.parametrize("law", ["normal", "exponential", "uniform", "lognormal", "ties", "pareto"])
def test_p_values_fall_with_the_score_and_are_shares(law: str) -> None:
    rng = np.random.default_rng(0)
    draws = {
        "normal": rng.normal(size=700),
        "exponential": rng.exponential(size=700),
        "uniform": rng.random(700),
        "lognormal": rng.lognormal(size=700),
        "ties": np.round(rng.exponential(size=700)),
        "pareto": rng.pareto(1.1, size=700),
    }[law]
    null = ConformalNull.fit(draws)
    grid = np.unique(np.concatenate([draws, np.linspace(-3, 3 * draws.max(), 3000), [1e300]]))
    p = null.p_value(grid)
    assert np.all(np.diff(p) <= 0)
    assert np.all((p > 0) & (p <= 1))


@pytest.mark.parametrize("shape", [0.0, 0.2, 0.4])
def test_the_tail_starts_where_counting_ends(shape: float) -> None:
    trusted = genpareto.rvs(shape, size=2000, random_state=0)
    null = ConformalNull.fit(trusted)
    assert null.scale > 0
    above = (1 + int((trusted > null.start).sum())) / 2001
    just_above = null.p_value(np.array([np.nextafter(null.start, np.inf)]))[0]
    assert just_above == pytest.approx(above, rel=1e-9)


@pytest.mark.parametrize("shape", [0.0, 0.25])
def test_the_tail_is_the_generalised_pareto_law(shape: float) -> None:
    trusted = genpareto.rvs(shape, size=20_000, random_state=1)
    null = ConformalNull.fit(trusted)
    assert null.shape == pytest.approx(shape, abs=0.06)
    far = genpareto.isf([1e-3, 1e-4, 1e-5], shape)
    assert np.log10(null.p_value(far)) == pytest.approx([-3, -4, -5], abs=0.35)
    # And it is SciPy's survival function, from the parameters that were fitted.
    share = (1 + int((trusted > null.start).sum())) / (len(trusted) + 1)
    expected = share * genpareto.sf(far - null.start, null.shape, scale=null.scale)
    assert null.p_value(far) == pytest.approx(expected, rel=1e-6)


def test_p_values_of_exchangeable_rows_are_uniform() -> None:
    rng = np.random.default_rng(3)
    p = []
    for _ in range(40):
        both = rng.standard_t(5, size=1000)
        p.append(ConformalNull.fit(both[:500]).p_value(both[500:]))
    pooled = np.concatenate(p)
    assert kstest(pooled, "uniform").statistic < 0.02
    for level in (0.2, 0.05, 0.01, 0.002):
        assert np.mean(pooled <= level) == pytest.approx(level, rel=0.3)


def test_counting_never_gives_too_small_a_p_value() -> None:
    """The conformal guarantee: at most a share `v` of exchangeable rows has ``p <= v``."""
    rng = np.random.default_rng(4)
    found = []
    for _ in range(2000):
        both = rng.normal(size=30)
        found.append(ConformalNull.fit(both[:29]).p_value(both[29:])[0])
    for level in (0.1, 0.2, 0.5):
        assert np.mean(np.array(found) <= level) <= level + 3 * np.sqrt(level / 2000)


def test_missing_scores_are_left_out_and_no_scores_know_nothing() -> None:
    scores = np.array([1.0, np.nan, 2.0])
    assert ConformalNull.fit(scores).scores.tolist() == [1.0, 2.0]
    empty = ConformalNull.fit(np.full(3, np.nan))
    assert empty.p_value(np.array([-1e9, 0.0, 1e9])).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("rows", [TAIL_LEAST - 1, TAIL_LEAST, 5 * TAIL_LEAST])
def test_alike_scores_carry_no_tail(rows: int) -> None:
    null = ConformalNull.fit(np.ones(rows))
    assert null.scale == 0
    assert null.p_value(np.array([1.0, 2.0])).tolist() == [1.0, 1 / (rows + 1)]


def test_a_tail_is_fitted_from_a_hundred_scores_on() -> None:
    draws = np.random.default_rng(0).normal(size=TAIL_LEAST)
    assert ConformalNull.fit(draws).scale > 0
    assert ConformalNull.fit(draws[1:]).scale == 0


# ---------------------------------------------------------------- model


def test_a_model_null_is_the_step_below_the_score() -> None:
    null = ModelNull(np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.3, 0.1]))
    scores = np.array([-1.0, 0.0, 0.5, 1.0, 1.999, 2.0, 99.0])
    assert null.p_value(scores).tolist() == [1.0, 1.0, 1.0, 0.3, 0.3, 0.1, 0.1]


def test_a_model_null_of_draws_is_their_survival() -> None:
    draws = np.sort(np.random.default_rng(0).normal(size=500))
    survival = np.array([(draws >= d).mean() for d in draws])
    p = ModelNull(draws, survival).p_value(draws)
    assert p == pytest.approx(survival)
    between = (draws[:-1] + draws[1:]) / 2  # never smaller than the truth
    assert np.all(
        ModelNull(draws, survival).p_value(between) >= (draws >= between[:, None]).mean(1)
    )


# ---------------------------------------------------------------- Benjamini-Hochberg


def by_definition(p: list[float], q: float) -> float:
    level = 0.0
    for value in p:
        found = sum(v <= value for v in p)
        if value <= q * found / len(p):
            level = max(level, value)
    return level


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.001, 0.01, 0.5])), max_size=25),
    st.sampled_from([0.01, 0.05, 0.1, 0.5]),
)
def test_benjamini_hochberg_is_its_definition(p: list[float], q: float) -> None:
    assert benjamini_hochberg(np.array(p, dtype=float), q) == by_definition(p, q)
    with_gaps = np.array([*p, np.nan, np.nan], dtype=float)
    assert benjamini_hochberg(with_gaps, q) == by_definition(p, q)


def test_the_share_of_false_finds_is_as_promised() -> None:
    rng = np.random.default_rng(0)
    false = []
    for _ in range(300):
        p = np.concatenate([rng.random(900), rng.random(100) * 1e-4])
        found = p <= benjamini_hochberg(p, 0.1)
        false.append(found[:900].sum() / max(found.sum(), 1))
    assert np.mean(false) == pytest.approx(0.1 * 0.9, abs=0.01)
