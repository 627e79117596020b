"""Consensus: sums of surprises, calibrated on trusted rows, against slow references and laws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy.stats import kstest

from sanitizers.catalog import sanitizer
from sanitizers.core.calibration import ConformalNull
from sanitizers.core.consensus import CONSENSUS, CalibratedSum, Consensus, leave_one_out
from sanitizers.core.data import Dataset, MemoryShard
from sanitizers.core.errors import PlanError
from sanitizers.core.evidence import SCHEMA
from sanitizers.core.lines import Line, Rule, ScoreSummary, draw
from sanitizers.core.policy import SHARES, Policy, default_rule
from sanitizers.testing import ROLES, clean_data

NAMES = ("one", "two", "three")
Floats = NDArray[np.float64]


def agreeing(rng: np.random.Generator, rows: int, sanitizers: int = 3) -> Floats:
    """Scores of sanitizers that agree with one another, with tails of different weight."""
    common = rng.normal(size=(rows, 1))
    scores = 0.7 * common + rng.normal(size=(rows, sanitizers))
    scores[:, 0] = np.exp(scores[:, 0])
    return np.asarray(scores)


def by_name(scores: Floats) -> dict[str, Floats]:
    return {NAMES[i]: column for i, column in enumerate(scores.T)}


def p_values(trusted: Floats, fresh: Floats) -> Floats:
    """Conformal p-values of fresh rows, by each sanitizer."""
    pairs = zip(trusted.T, fresh.T, strict=True)
    columns = [ConformalNull.fit(theirs).p_value(mine) for theirs, mine in pairs]
    return np.where(np.isnan(fresh), np.nan, np.column_stack(columns))


def evidence(p: Floats) -> dict[str, pa.Table]:
    ids = pa.array([f"r{i}" for i in range(len(p))])
    return {
        NAMES[i]: pa.table(
            [
                ids,
                pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(p), np.int8)), [NAMES[i]]),
                pa.array(-column, mask=np.isnan(column)),
                pa.array(column, mask=np.isnan(column)),
                pa.nulls(len(p), pa.string()).dictionary_encode(),
            ],
            schema=SCHEMA,
        )
        for i, column in enumerate(p.T)
    }


# ---------------------------------------------------------------- references


@pytest.mark.parametrize("rows", [0, 1, 2, 60, 100, 101, 102, 250, 333])
@pytest.mark.parametrize("ties", [False, True])
def test_a_score_left_out_is_judged_by_a_null_of_the_others(rows: int, ties: bool) -> None:
    scores = np.random.default_rng(rows).standard_t(3, rows)
    scores = np.round(scores, 1) if ties else scores
    scores[::7] = np.nan
    slow = [
        ConformalNull.fit(np.delete(scores, i)).p_value(scores[i : i + 1])[0]
        if not np.isnan(scores[i])
        else np.nan
        for i in range(rows)
    ]
    assert leave_one_out(scores) == pytest.approx(slow, nan_ok=True, abs=1e-12)


def test_sums_are_those_of_a_slow_reference() -> None:
    rng = np.random.default_rng(0)
    trusted, fresh = agreeing(rng, 200), agreeing(rng, 60)
    trusted[rng.random(trusted.shape) < 0.1] = np.nan
    fresh[rng.random(fresh.shape) < 0.3] = np.nan
    fresh[:2] = np.nan
    p = p_values(trusted, fresh)
    found = CalibratedSum.fit(by_name(trusted)).p_value(p)
    for row, given in enumerate(p):
        there = [i for i in range(3) if not np.isnan(given[i])]
        sums = []
        for k in range(200):
            if there and not any(np.isnan(trusted[k, i]) for i in there):
                mine = 0.0
                for i in there:
                    others = ConformalNull.fit(np.delete(trusted[:, i], k))
                    mine -= np.log(others.p_value(trusted[k : k + 1, i])[0])
                sums.append(round(mine, 9))
        own = round(sum(-np.log(given[i]) for i in there), 9)
        slow = ConformalNull.fit(np.array(sums)).p_value(np.array([own]))[0] if there else np.nan
        assert found[row] == pytest.approx(slow, nan_ok=True, rel=1e-9)


# ---------------------------------------------------------------- laws


@pytest.mark.parametrize("missing", [(0.0, 0.0), (0.5, 0.1), (0.1, 0.5)])
def test_p_values_of_fresh_clean_rows_are_uniform(missing: tuple[float, float]) -> None:
    """Also where a sanitizer abstains from trusted rows more often than from fresh ones."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(160):
        trusted, fresh = agreeing(rng, 250), agreeing(rng, 4)
        for rows, share in zip((trusted, fresh), missing, strict=True):
            rows[rng.random(len(rows)) < share, 2] = np.nan
        fitted = CalibratedSum.fit(by_name(trusted))
        found.append(fitted.p_value(p_values(trusted, fresh)))
    pooled = np.concatenate(found)
    assert kstest(pooled, "uniform").pvalue > 0.05
    for level in (0.1, 0.03, 0.01):
        spread = np.sqrt(level * (1 - level) / len(pooled))
        assert abs(np.mean(pooled <= level) - level) < 3 * spread


def test_trusted_rows_judged_by_a_null_with_themselves_would_not_do() -> None:
    """Why they are left out: else poison-free rows are found too often, far out above all."""
    rng = np.random.default_rng(6)
    ratios = []
    for _ in range(40):
        trusted, fresh = agreeing(rng, 150), agreeing(rng, 150)
        fitted = CalibratedSum.fit(by_name(trusted))
        with_self = replace(fitted, trusted=-np.log(p_values(trusted, trusted)))
        p = p_values(trusted, fresh)
        ratios.append([(f.p_value(p) <= 0.01).mean() for f in (fitted, with_self)])
    honest, naive = np.mean(ratios, axis=0)
    assert honest < 0.013
    assert naive > honest


def test_small_surprises_of_three_are_found_by_their_sum_alone() -> None:
    rng = np.random.default_rng(7)
    trusted, rows = rng.normal(size=(400, 3)), rng.normal(size=(3_000, 3))
    odd = np.arange(3_000) < 60
    rows[odd] = 2.3 + 0.1 * rows[odd]  # one clean row in a hundred, to each
    p = p_values(trusted, rows)
    policy = Policy().summing(NAMES)
    joint = CalibratedSum.fit(by_name(trusted)).evidence(evidence(p))
    for table, name, rule in [
        *((t, n, default_rule(n, 0.01, trusted=True)) for n, t in evidence(p).items()),
        (joint, CONSENSUS, policy.rule(CONSENSUS, trusted=True)),
    ]:
        over = above(table, name, rule)
        if name == CONSENSUS:
            assert over[odd].mean() > 0.95
            assert over[~odd].mean() <= 0.003
        else:
            assert over[odd].mean() < 0.1


def above(table: pa.Table, name: str, rule: Rule) -> NDArray[np.bool_]:
    scores, p = (table.column(c).to_numpy().astype(float) for c in ("score", "p_value"))
    summary = ScoreSummary(len(scores))
    summary.add(scores, p, np.zeros(len(scores), dtype=np.uint64))
    line = draw(name, rule, summary).quarantine
    assert line is not None
    return np.asarray(scores > line)


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_the_sharding_and_the_order_of_the_sanitizers_change_nothing(cut: int) -> None:
    rng = np.random.default_rng(8)
    trusted, fresh = agreeing(rng, 150), agreeing(rng, 100)
    fresh[rng.random(fresh.shape) < 0.2] = np.nan
    p = p_values(trusted, fresh)
    whole = CalibratedSum.fit(by_name(trusted)).evidence(evidence(p))
    turned = CalibratedSum.fit(dict(reversed(by_name(trusted).items())))
    parts = [
        turned.evidence({n: t.slice(at, cut) for n, t in evidence(p).items()})
        for at in range(0, 100, cut)
    ]
    for column in ("row_id", "score", "p_value"):
        joined = pa.chunked_array([c for t in parts for c in t.column(column).chunks])
        assert joined.to_pylist() == whole.column(column).to_pylist()


@pytest.mark.parametrize("name", ["outliers", "micro-votes", "regression"])
def test_a_null_from_trusted_rows_is_made_of_the_scores_that_these_get(name: str) -> None:
    """Else their sums were not like those of fresh rows: no model judges its own rows."""
    rows = Dataset.from_table(clean_data(1, 400), ROLES).shards[0].read()
    inside = rows.slice(120).append_column("vouched", pa.array(np.arange(280) < 60))
    beside = rows.slice(0, 120).append_column("vouched", pa.array([True] * 120))
    shards = (MemoryShard(inside),)
    data = Dataset(shards, replace(ROLES, trusted="vouched"), b"salt", (MemoryShard(beside),))
    scorer, trusted = sanitizer(name).fit(data), data.trusted_rows
    assert trusted is not None
    assert len(trusted) == 180
    assert isinstance(scorer.null, ConformalNull)
    scores = scorer.score(trusted)
    known = np.sort(scores[~np.isnan(scores)])
    assert known == pytest.approx(scorer.null.scores, abs=2e-3)


# ---------------------------------------------------------------- evidence and rules


def test_evidence_names_who_contributed() -> None:
    rng = np.random.default_rng(9)
    trusted = rng.normal(size=(300, 3))
    p = np.array([[0.004, 0.02, 0.01], [0.001, 0.9, np.nan], [0.5, 0.5, 0.5], [np.nan] * 3])
    table = CalibratedSum.fit(by_name(trusted)).evidence(evidence(p))
    assert table.schema.equals(SCHEMA)
    assert table.column("hint").to_pylist() == [
        "one (p 0.004), three (p 0.01) and two (p 0.02)",
        "one (p 0.001)",
        None,
        None,
    ]
    scores, ps = table.column("score").to_pylist(), table.column("p_value").to_pylist()
    assert scores[3] is None
    assert ps[3] is None
    assert scores[:3] == pytest.approx(-np.log10(ps[:3]), abs=1e-6)
    assert scores[0] > scores[1] > scores[2] > 0


@pytest.mark.parametrize(
    ("score", "hint", "says"),
    [
        (4.3, "a (p 0.004) and b (p 0.01)", "a (p 0.004) and b (p 0.01) together are this "),
        (4.3, "a (p 0.004) and b (p 0.01)", "surprising for 1 in 20,000 clean rows"),
        (4.3, "a (p 0.004)", "a (p 0.004) is this surprising for 1 in 20,000 clean rows"),
        (0.0, None, "all sanitizers together find it this surprising for 1 in 1 clean rows"),
        (300.0, None, "for fewer than 1 in 1,000,000 clean rows"),
    ],
)
def test_a_reason_is_a_sentence(score: float, hint: str | None, says: str) -> None:
    assert says in Consensus().reason(score, hint)


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ({}, "0 trusted rows have p-values by any sanitizer"),
        ({"one": np.arange(99.0)}, "99 trusted rows have p-values by one,"),
        ({"one": np.arange(120.0), "two": np.r_[np.arange(60.0), [np.nan] * 60]}, "60 trusted"),
    ],
)
def test_too_few_trusted_rows_are_refused(scores: Mapping[str, Floats], says: str) -> None:
    with pytest.raises(PlanError, match=says) as raised:
        CalibratedSum.fit(scores)
    assert "at least 100" in str(raised.value)


def test_the_sum_may_take_what_its_sanitizers_may_take() -> None:
    own = Rule(Line.parse("p <= 0.001"), None)
    policy = Policy(0.02, rules={"outliers": own}).summing(("outliers", "micro-votes"))
    share = 0.02 * (SHARES["outliers"] + SHARES["micro-votes"])
    rule = policy.rule(CONSENSUS, trusted=True)
    assert str(rule.quarantine) == f"p <= {share:g} and fdr <= 0.1"
    assert policy.rule("outliers", trusted=True) == own
    votes = policy.rule("micro-votes", trusted=True)
    assert (votes.quarantine, votes.review) == (None, None)
    assert policy.rule("labels", trusted=True) == Policy(0.02).rule("labels", trusted=True)
    drawn = replace(policy, rules={CONSENSUS: own}).summing(("outliers",))
    assert drawn.rule(CONSENSUS, trusted=True) == own


def test_a_wrong_word_is_answered_with_the_right_one() -> None:
    with pytest.raises(PlanError, match=r"'summ'; expected 'worst' or 'sum'; did you mean 'sum'"):
        Policy(consensus="summ")
