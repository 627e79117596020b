"""Lines: read back as written, drawn as brute force draws them, and the default ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sanitizers.core import lines
from sanitizers.core.data import row_keys
from sanitizers.core.errors import PlanError
from sanitizers.core.lines import Condition, Line, Rule, ScoreSummary, draw
from sanitizers.core.policy import CLEAN_ABOVE, REVIEW_FACTOR, SHARES, Policy, default_rule

NAMES = [*SHARES, "module:Name"]

shares = st.floats(1e-9, 1 - 1e-9)
conditions = st.one_of(
    st.builds(Condition, st.sampled_from(["p", "fdr", "top"]), shares),
    st.builds(
        Condition,
        st.sampled_from(["score", "mad"]),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
)


# ---------------------------------------------------------------- words


@settings(max_examples=300, deadline=None, derandomize=True)
@given(conditions)
def test_a_condition_is_read_back_as_it_is_written(condition: Condition) -> None:
    assert Condition.parse(str(condition)) == condition


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(conditions, min_size=1, max_size=4))
def test_a_line_is_read_back_as_it_is_written(parts: list[Condition]) -> None:
    line = Line(tuple(parts))
    assert Line.parse(str(line)) == line


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("score > 0.5", "score", 0.5),
        ("score > -3", "score", -3.0),
        ("score>1e3", "score", 1000.0),
        ("  p <= 0.002 ", "p", 0.002),
        ("p <= 0.2%", "p", 0.002),
        ("fdr<=.1", "fdr", 0.1),
        ("mad > 6", "mad", 6.0),
        ("top 0.3%", "top", 0.003),
        ("top 0.003", "top", 0.003),
    ],
)
def test_conditions_as_people_write_them(text: str, kind: str, value: float) -> None:
    found = Condition.parse(text)
    assert found.kind == kind
    assert found.value == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize("text", ["score > 3", "p <= 0.002", "fdr <= 0.1", "mad > 6", "top 0.3%"])
def test_the_examples_in_the_message_are_lines(text: str) -> None:
    assert str(Line.parse(text)) == text


EXPECTED = "expected 'score > 0.5', 'p <= 0.002', 'fdr <= 0.1', 'mad > 6' or 'top 0.3%'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"'' is not a line; {EXPECTED}"),
        ("score", f"'score' is not a line; {EXPECTED}"),
        ("score < 3", f"'score < 3' is not a line; {EXPECTED}"),
        ("score >= 3", f"'score >= 3' is not a line; {EXPECTED}"),
        ("score <= 3", f"'score <= 3' is not a line; {EXPECTED}"),
        ("p > 0.1", f"'p > 0.1' is not a line; {EXPECTED}"),
        ("top > 3%", f"'top > 3%' is not a line; {EXPECTED}"),
        ("Score > 3", f"'Score > 3' is not a line; {EXPECTED}"),
        ("z > 3", f"'z > 3' is not a line; {EXPECTED}"),
        ("score > nan", f"'score > nan' is not a line; {EXPECTED}"),
        ("score > 1; p <= 0.1", f"'score > 1; p <= 0.1' is not a line; {EXPECTED}"),
        ("score > 1 and", f"'score > 1 and' is not a line; {EXPECTED}"),
        ("score > 1 and zzz", f"'zzz' is not a line; {EXPECTED}"),
        ("score > 1.2.3", "'1.2.3' in the line 'score > 1.2.3' is not a number"),
        ("score > --", "'--' in the line 'score > --' is not a number"),
        ("score > 1e999", "the line 'score > 1e999' is out of range; expected a finite number"),
        ("p <= 0", "the line 'p <= 0' is out of range; expected a share in (0, 1)"),
        ("p <= 1", "the line 'p <= 1' is out of range; expected a share in (0, 1)"),
        ("fdr <= -0.1", "the line 'fdr <= -0.1' is out of range; expected a share in (0, 1)"),
        ("top 100%", "the line 'top 100%' is out of range; expected a share in (0, 1)"),
        ("top 3", "the line 'top 3' is out of range; expected a share in (0, 1)"),
    ],
)
def test_a_wrong_line_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(PlanError) as raised:
        Line.parse(text)
    assert str(raised.value) == message


# ---------------------------------------------------------------- drawing


def summary(
    scores: NDArray[np.float64], p: NDArray[np.float64] | None = None, parts: int = 3
) -> ScoreSummary:
    p = np.full(len(scores), np.nan) if p is None else p
    keys = row_keys([str(i) for i in range(len(scores))], b"salt")
    held = ScoreSummary(len(scores))
    for part in np.array_split(np.arange(len(scores)), parts):
        held.add(scores[part], p[part], keys[part])
    return held


def over(line: str, held: ScoreSummary, scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    cut = draw("toy", Rule(Line.parse(line), None), held).quarantine
    return np.zeros(len(scores), dtype=bool) if cut is None else scores > cut


def falling(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """P-values that fall with the score, equal for equal scores."""
    return np.where(np.isnan(scores), np.nan, np.exp(-np.nan_to_num(scores)))


def brute(line: str, scores: NDArray[np.float64], p: NDArray[np.float64]) -> list[bool]:
    """The definition of every kind of line, row by row."""
    condition = Condition.parse(line)
    known = sorted(s for s in scores if not math.isnan(s))

    def meets(score: float, own: float) -> object:
        if math.isnan(score):
            return False
        if condition.kind == "score":
            return score > condition.value
        if condition.kind == "p":
            return own <= condition.value
        if condition.kind == "fdr":
            ps = [v for v in p if not math.isnan(v)]
            fine = [v for v in ps if v <= condition.value * sum(w <= v for w in ps) / len(ps)]
            return own <= max(fine, default=-1.0)
        if condition.kind == "top":  # as many as fit into the share, equal scores all or none
            return sum(s >= score for s in known) <= condition.value * len(known) + 1e-9
        middle = float(np.median(known))
        spread = 1.4826 * float(np.median([abs(s - middle) for s in known]))
        spread = spread or float(np.std(scores[~np.isnan(scores)])) or 1.0
        return score > middle + condition.value * spread

    return [bool(meets(float(s), float(v))) for s, v in zip(scores, p, strict=True)]


LINES = ["score > 1", "p <= 0.05", "fdr <= 0.1", "mad > 2.5", "top 10%", "top 4%"]


@pytest.mark.parametrize("line", LINES)
@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(st.just(math.nan), st.integers(0, 12).map(float), st.floats(0, 12)),
        max_size=60,
    )
)
def test_a_line_is_drawn_as_its_definition_says(line: str, values: list[float]) -> None:
    scores = np.array(values, dtype=float)
    p = falling(scores)
    assert over(line, summary(scores, p), scores).tolist() == brute(line, scores, p)


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_drawn_as_its_definition_says_on_many_rows(line: str) -> None:
    scores = np.random.default_rng(0).exponential(2, size=150)
    scores[::10] = np.nan
    found = over(line, summary(scores, falling(scores)), scores)
    assert found.tolist() == brute(line, scores, falling(scores))
    assert found.any()


def test_a_row_is_over_a_line_when_it_meets_all_its_conditions() -> None:
    scores = np.random.default_rng(1).exponential(2, size=300)
    p = falling(scores)
    both = over("p <= 0.05 and fdr <= 0.1", summary(scores, p), scores)
    each = [over(c, summary(scores, p), scores) for c in ("p <= 0.05", "fdr <= 0.1")]
    assert both.tolist() == (each[0] & each[1]).tolist()


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("scores", [np.empty(0), np.full(7, np.nan)], ids=["no rows", "no scores"])
def test_nothing_is_over_a_line_where_nothing_was_scored(
    line: str, scores: NDArray[np.float64]
) -> None:
    held = summary(scores)
    threshold = draw("toy", Rule(Line.parse(line), Line.parse(line)), held)
    assert (threshold.quarantine, threshold.review) == (None, None)
    assert (held.scored, held.abstained) == (0, len(scores))


@pytest.mark.parametrize("line", ["p <= 0.5", "fdr <= 0.5"])
def test_without_p_values_nothing_is_over_a_line_on_them(line: str) -> None:
    scores = np.random.default_rng(0).normal(size=50)
    assert not over(line, summary(scores), scores).any()


@pytest.mark.parametrize("line", ["mad > 0.5", "top 50%"])
def test_scores_that_are_all_equal_are_all_kept(line: str) -> None:
    scores = np.full(40, 2.0)
    assert not over(line, summary(scores), scores).any()


def test_mostly_equal_scores_do_not_make_every_other_row_an_outlier() -> None:
    scores = np.array([0.0] * 60 + [0.1] * 39 + [9.0])
    assert over("mad > 6", summary(scores), scores).tolist() == [False] * 99 + [True]


def test_a_rule_without_lines_draws_none_and_keeps_its_words() -> None:
    scores = np.arange(10.0)
    threshold = draw("toy", Rule(None, Line.parse("top 20%"), "because"), summary(scores))
    assert threshold.quarantine is None
    assert (threshold.quarantine_line, threshold.review_line) == ("", "top 20%")
    assert (threshold.sanitizer, threshold.basis, threshold.review) == ("toy", "because", 7.0)


# ---------------------------------------------------------------- more rows than are held


@pytest.fixture
def small_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "SUMMARY_ROWS", 2000)
    monkeypatch.setattr(lines, "SUMMARY_TOP", 50)


@pytest.mark.usefixtures("small_summary")
def test_beyond_the_limit_rows_are_held_by_their_keys() -> None:
    scores = np.random.default_rng(0).normal(size=20_000)
    scores[::100] = np.nan
    held = summary(scores, falling(scores), parts=7)
    assert (held.scored, held.abstained) == (19_800, 200)
    assert abs(len(held.scores) - 1980) < 4.5 * np.sqrt(1980)
    keys = row_keys([str(i) for i in range(20_000)], b"salt")
    below = keys < np.uint64(2**64 // 10)
    assert held.scores.tolist() == scores[below & ~np.isnan(scores)].tolist()
    assert sorted(held.top[0]) == sorted(scores[~np.isnan(scores)])[-50:]


@pytest.mark.usefixtures("small_summary")
def test_beyond_the_limit_lines_are_nearly_those_of_all_rows() -> None:
    scores = np.random.default_rng(0).exponential(2, size=30_000)
    p = falling(scores)
    held = summary(scores, p)
    for line, share in (("top 10%", 0.1), ("mad > 2.5", None), ("p <= 0.05", None)):
        exact = share or float(np.mean(brute_many(line, scores, p)))
        assert over(line, held, scores).mean() == pytest.approx(exact, rel=0.25)


def brute_many(line: str, scores: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.bool_]:
    if line.startswith("p"):
        return p <= Condition.parse(line).value
    middle = float(np.median(scores))
    spread = 1.4826 * float(np.median(np.abs(scores - middle)))
    return scores - middle > Condition.parse(line).value * spread


@pytest.mark.usefixtures("small_summary")
@pytest.mark.parametrize("found", [0, 1, 3, 20])
def test_beyond_the_limit_a_row_is_found_by_its_p_value_not_by_luck(found: int) -> None:
    """Rows that are not held must not be found because all that are held score less."""
    rng = np.random.default_rng(found)
    for _ in range(5):
        scores = rng.exponential(2, size=20_000)
        level = float(np.exp(-np.sort(scores)[len(scores) - found])) if found else 1e-300
        p = falling(scores)
        held = summary(scores, p)
        assert over(f"p <= {level!r}", held, scores).tolist() == (p <= level).tolist()
        assert not over("p <= 0.9", summary(scores), scores).any()


@pytest.mark.usefixtures("small_summary")
def test_what_is_held_does_not_depend_on_the_sharding() -> None:
    scores = np.round(np.random.default_rng(0).exponential(2, size=9000), 1)
    one, many = (summary(scores, falling(scores), parts=parts) for parts in (1, 40))
    assert one.scores.tolist() == many.scores.tolist()
    assert one.p_values.tolist() == many.p_values.tolist()
    assert [t.tolist() for t in one.top] == [t.tolist() for t in many.top]


# ---------------------------------------------------------------- default lines


def cuts(name: str, clean_loss: float, **more: Any) -> list[float]:
    rule = default_rule(name, clean_loss, **{"trusted": False} | more)
    assert rule.quarantine is not None
    assert rule.review is not None
    return [rule.quarantine.conditions[0].value, rule.review.conditions[0].value]


LOSSES = [1e-6, 1e-4, 0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("trusted", [False, True])
def test_who_may_lose_more_clean_rows_gets_a_lower_line(name: str, trusted: bool) -> None:
    found = np.array([cuts(name, loss, trusted=trusted) for loss in LOSSES])
    kinds = {c.kind for line in lines_of(name, trusted) for c in line.conditions}
    steps = np.diff(found, axis=0)
    assert np.all(steps <= 0) if "score" in kinds else np.all(steps >= 0)
    assert np.all(steps[3:6] != 0), "the usual range is no constant"
    quarantine, review = found.T  # the review line is never the stricter one
    assert np.all(review <= quarantine) if "score" in kinds else np.all(review >= quarantine)


def lines_of(name: str, trusted: bool) -> list[Line]:
    rule = default_rule(name, 0.01, trusted=trusted)
    return [line for line in (rule.quarantine, rule.review) if line is not None]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_default_line_is_a_line_that_a_plan_can_say(
    name: str, trusted: bool, loss: float
) -> None:
    rule = default_rule(name, loss, trusted=trusted)
    for line in (rule.quarantine, rule.review):
        assert line is not None
        assert Line.parse(str(line)) == line
        assert len(str(line)) < 45, "a line is read by people"
    assert rule.basis


@pytest.mark.parametrize("name", CLEAN_ABOVE)
def test_measured_lines_hold_what_was_measured_and_end_where_it_ends(name: str) -> None:
    scores, above = np.array(CLEAN_ABOVE[name]).T
    assert np.all(np.diff(scores) > 0)
    assert np.all(np.diff(above) < 0)
    for score, share in CLEAN_ABOVE[name]:
        loss = share / SHARES[name]
        if loss <= 1:
            assert cuts(name, loss)[0] == pytest.approx(score, abs=0.011)
    assert cuts(name, 1.0)[0] >= scores[0]  # never looser than anything measured
    if SHARES[name] >= above[0]:
        assert cuts(name, 1.0)[0] == scores[0]
    assert cuts(name, 1e-9)[0] == scores[-1]
    for left in (0, len(scores) - 2):  # straight in the logarithm
        middle = np.sqrt(above[left] * above[left + 1]) / SHARES[name]
        if middle <= 1:
            expected = scores[left : left + 2].mean()
            assert cuts(name, middle)[0] == pytest.approx(expected, abs=0.011)


def test_the_shares_of_all_sanitizers_are_at_most_what_may_be_lost() -> None:
    assert sum(SHARES.values()) <= 1
    assert REVIEW_FACTOR > 1


@pytest.mark.parametrize("trusted", [False, True])
def test_a_stranger_never_quarantines_without_p_values(trusted: bool) -> None:
    scores = np.random.default_rng(0).normal(size=2000) ** 3
    rule = Policy().rule("somebody:Else", trusted=trusted)
    threshold = draw("somebody:Else", rule, summary(scores))
    assert threshold.quarantine is not None
    assert not (scores > threshold.quarantine).any()
    with_p = draw("somebody:Else", rule, summary(np.abs(scores), falling(np.abs(scores))))
    assert with_p.quarantine is not None
    assert (np.abs(scores) > with_p.quarantine).any()


# ---------------------------------------------------------------- policy


def test_a_plans_rule_wins_over_the_default() -> None:
    own = Rule(Line.parse("score > 3"), None)
    policy = Policy(rules={"outliers": own})
    assert policy.rule("outliers", trusted=True) is own
    assert policy.rule("labels", trusted=False) == default_rule("labels", 0.01, trusted=False)


@pytest.mark.parametrize("field", ["clean_loss", "budget"])
@pytest.mark.parametrize("value", [0.0, -0.1, 1.1, math.nan, math.inf])
def test_shares_of_a_policy_are_shares(field: str, value: float) -> None:
    with pytest.raises(PlanError, match=rf"policy\.{field} is .*; expected a share in \(0, 1\]"):
        Policy(**{field: value})  # type: ignore[arg-type]
