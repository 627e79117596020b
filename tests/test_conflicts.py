"""Rows with equal features and different labels: the rule against an obvious reference."""

from __future__ import annotations

import datetime
import decimal
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sanitizers import conflicts
from sanitizers.conflicts import Conflicts
from sanitizers.core.counts import CELLS, Blotter, Counts, Tally
from sanitizers.core.data import Dataset, MemoryShard, Roles
from sanitizers.core.errors import PlanError
from sanitizers.core.lines import Line, Rule, ScoreSummary, draw
from sanitizers.core.policy import Policy

ROLES = Roles(label="y", features=("x",))
Pair = tuple[Any, str | None]


def rows(*groups: tuple[Any, str | None, int]) -> list[Pair]:
    """So many rows of each value and label."""
    return [(value, label) for value, label, count in groups for _ in range(count)]


def plain(count: int, times: int = 1) -> list[Pair]:
    """Contents without conflict, each so many times."""
    return rows(*((f"plain-{times}-{i}", "a", times) for i in range(count)))


def dataset(pairs: Sequence[Pair], roles: Roles = ROLES, **more: Any) -> Dataset:
    values, labels = zip(*pairs, strict=True)
    table = pa.table({"x": pa.array(values), "y": pa.array(labels, pa.string())} | more)
    return Dataset.from_table(table, roles, salt=b"conflicts")


def scored(data: Dataset, recipe: Conflicts | None = None) -> NDArray[np.float64]:
    scorer = (recipe or Conflicts()).fit(data)
    return np.concatenate([scorer.score(batch) for batch in data.batches()])


def verdicts(data: Dataset, policy: Policy | None = None) -> list[str]:
    """The verdict of every row, by the default lines unless a policy has others."""
    scores = scored(data)
    summary = ScoreSummary(data.rows)
    summary.add(scores, np.full(len(scores), np.nan), np.zeros(len(scores), np.uint64))
    line = draw("conflicts", (policy or Policy()).rule("conflicts", trusted=False), summary)
    quarantine = np.inf if line.quarantine is None else line.quarantine
    review = np.inf if line.review is None else line.review
    return ["quarantine" if s > quarantine else "review" if s > review else "keep" for s in scores]


def sentences(data: Dataset) -> list[str]:
    scorer = Conflicts().fit(data)
    batch = next(data.batches())
    pairs = zip(scorer.score(batch), scorer.hint(batch), strict=True)
    return [Conflicts().reason(float(s), h) for s, h in pairs]


# ------------------------------------------------------------------ the rule


def reference(pairs: Sequence[Pair], coarse: float) -> list[float]:
    """The rule, slowly: row by row, from the definition."""
    known = [p for p in pairs if p[1] is not None]
    held = Counter(known)
    repeats = len(known) - len({content for content, _ in held}) - 20
    found = []
    for value, label in pairs:
        if label is None or repeats > coarse * len(known):
            found.append(np.nan)
            continue
        others = [n for (content, other), n in held.items() if content == value and other != label]
        most = max(others, default=0)
        found.append(min(most / (most + held[value, label]), 0.99))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 60, 200).astype(str)
    labels = np.where(rng.random(200) < 0.3, rng.choice(["b", "c"], 200), "a")
    pairs = [
        (v, str(y) if rng.random() < 0.9 else None) for v, y in zip(values, labels, strict=True)
    ]
    for coarse in (1.0, 0.1):
        found = scored(dataset(pairs), Conflicts(coarse=coarse))
        np.testing.assert_allclose(found, reference(pairs, coarse), rtol=0, atol=1e-12)


def test_a_tie_has_one_score_of_two_labels_as_of_three() -> None:
    two = scored(dataset([*rows(("p", "a", 1), ("p", "b", 1)), *plain(9)]))
    three = scored(dataset([*rows(("p", "a", 1), ("p", "b", 1), ("p", "c", 1)), *plain(9)]))
    assert two.tolist() == [0.5] * 2 + [0.0] * 9
    assert three.tolist() == [0.5] * 3 + [0.0] * 9


@pytest.mark.parametrize(("right", "wrong"), [(1, 1), (1, 2), (1, 20), (3, 1), (20, 1), (1, 500)])
def test_without_trusted_rows_every_conflict_is_for_review_and_no_more(
    right: int, wrong: int
) -> None:
    pairs = [*rows(("p", "a", right), ("p", "b", wrong)), *plain(300, 2), *plain(5_000)]
    assert verdicts(dataset(pairs)) == ["review"] * (right + wrong) + ["keep"] * 5_600


def test_a_plan_can_quarantine_the_minority() -> None:
    pairs = [*rows(("p", "a", 3), ("p", "b", 1), ("q", "a", 1), ("q", "b", 1)), *plain(50)]
    own = Rule(Line.parse("score > 0.5"), Line.parse("score > 0.49"))
    assert verdicts(dataset(pairs), Policy(rules={"conflicts": own})) == [
        *["keep"] * 3,
        "quarantine",
        *["review"] * 2,
        *["keep"] * 50,
    ]


def test_coarse_features_are_abstained_from() -> None:
    natural = [*plain(40, 2), *rows(("p", "a", 1), ("p", "b", 1))]
    assert np.isnan(scored(dataset(natural))).all()
    assert not np.isnan(scored(dataset([*natural, *plain(300)]))).any()


def test_missing_labels_neither_count_nor_are_judged() -> None:
    pairs = [*rows(("p", "a", 1), ("p", None, 3), ("p", "b", 1)), *plain(30)]
    found = scored(dataset(pairs))
    assert found[[0, 4]].tolist() == [0.5, 0.5]
    assert np.isnan(found[1:4]).all()
    assert sentences(dataset(pairs))[0].startswith("its exact twin is labelled 'b'")


def test_a_label_with_too_many_classes_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = rows(*(("p", f"class {i}", 1) for i in range(12)))
    assert not np.isnan(scored(dataset(pairs))).any()
    monkeypatch.setattr(conflicts, "MOST_CLASSES", 11)
    assert np.isnan(scored(dataset(pairs))).all()


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_the_setting_is_a_share(share: float) -> None:
    with pytest.raises(PlanError, match=r"conflicts: coarse=.*; expected a share in \[0, 1\]"):
        Conflicts(coarse=share)


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("loss", [1e-6, 0.01, 1.0])
def test_the_lines_are_those_of_the_rule_whatever_may_be_lost(trusted: bool, loss: float) -> None:
    rule = Policy(clean_loss=loss).rule("conflicts", trusted=trusted)
    assert (str(rule.quarantine), str(rule.review)) == ("score > 0.99", "score > 0")
    assert rule.basis


# ------------------------------------------------------------------ trusted rows


def test_the_label_of_a_trusted_row_wins_against_any_number() -> None:
    pairs = [*rows(("p", "a", 1), ("p", "b", 20), ("q", "a", 1), ("q", "b", 1)), *plain(400)]
    roles = Roles(label="y", features=("x",), trusted="vouched")
    vouched = pa.array([True] + [False] * 22 + [None] * 400)
    data = dataset(pairs, roles, vouched=vouched)
    assert scored(data)[:23].tolist() == [0.0] + [1.0] * 20 + [0.5, 0.5]
    assert sentences(data)[1] == "a trusted row with the same values is labelled 'a'"


def test_trusted_rows_of_a_file_decide_also_where_the_data_agree() -> None:
    data = dataset([*rows(("p", "b", 1), ("q", "a", 1)), *plain(40)])
    table = pa.table(
        {"x": ["p", "q", "r", "p"], "y": ["a", "a", "a", None], "row_id": list("1234")}
    )
    trusted = Dataset(data.shards, ROLES, data.salt, (MemoryShard(table),))
    assert scored(trusted).tolist() == [1.0] + [0.0] * 41


def test_trusted_rows_that_differ_allow_each_of_their_labels() -> None:
    pairs = [*rows(("p", "a", 1), ("p", "b", 1), ("p", "c", 1)), *plain(40)]
    roles = Roles(label="y", features=("x",), trusted="vouched")
    vouched = pa.array([True, True] + [False] * 41)
    assert scored(dataset(pairs, roles, vouched=vouched))[:3].tolist() == [0.0, 0.0, 1.0]


def test_trusted_rows_are_recognised_whatever_the_type_of_their_numbers() -> None:
    data = dataset([(1.0, "b"), (2.5, "a"), (None, "b"), (3.0, "a")])
    table = pa.table({"x": pa.array([1, None]), "y": ["a", "a"], "row_id": ["1", "2"]})
    trusted = Dataset(data.shards, ROLES, data.salt, (MemoryShard(table),))
    assert scored(trusted).tolist() == [1.0, 0.0, 1.0, 0.0]


# ------------------------------------------------------------------ what equal means

VALUES: dict[str, pa.Array] = {
    "floats": pa.array([0.0, -0.0, 1.5]),
    "NaN": pa.array([np.nan, np.nan, 1.5]),
    "NaN and missing": pa.array([np.nan, None, 1.5], from_pandas=False),
    "missing numbers": pa.array([None, None, 0]),
    "missing texts": pa.array([None, None, ""]),
    "long numbers": pa.array([2**60 + 1, 2**60 + 1, 2**60]),
    "unsigned": pa.array([2**64 - 1, 2**64 - 1, 0], pa.uint64()),
    "decimals": pa.array([decimal.Decimal(f"1234567890123456789012345.{d}") for d in (1, 1, 2)]),
    "categories": pa.array(["u", "u", "v"]).dictionary_encode(),
    "views": pa.array(["u", "u", "v"], pa.string_view()),
    "bytes": pa.array([b"\xff", b"\xff", b"\xfe"]),
    "times": pa.array([1, 1, 1001], pa.timestamp("ns")),
    "dates": pa.array([datetime.date(2020, 1, d) for d in (1, 1, 2)]),
    "yes and no": pa.array([True, True, False]),
    "lists": pa.array([[1.0, np.nan], [1.0, np.nan], [1.0]]),
    "records": pa.array([{"a": 1}, {"a": 1}, {"a": None}]),
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_of_any_type_are_equal_where_nothing_tells_them_apart(kind: str) -> None:
    table = pa.table({"x": VALUES[kind], "z": [1, 1, 1], "y": ["a", "b", "b"]})
    data = Dataset.from_table(table, Roles(label="y", features=("x", "z")))
    assert scored(data).tolist() == [0.5, 0.5, 0.0]


def test_every_one_of_very_many_columns_counts() -> None:
    X = np.zeros((4, 3_000))
    X[3, 1_234] = 1e-300
    table = pa.table({f"x{i}": X[:, i] for i in range(3_000)} | {"y": list("abcb")})
    data = Dataset.from_table(table, Roles(label="y", features=tuple(table.column_names[:-1])))
    assert scored(data).tolist() == [0.5, 0.5, 0.5, 0.0]


def test_when_and_where_a_row_came_from_does_not_tell_it_apart() -> None:
    roles = Roles(id="n", label="y", target="u", time="t", source="s", features=("x",))
    columns = {name: pa.array([1, 2]) for name in ("n", "u", "t")} | {"s": pa.array(["k", "l"])}
    assert (
        scored(dataset(rows(("p", "a", 1), ("p", "b", 1)), roles, **columns)).tolist() == [0.5] * 2
    )


# ------------------------------------------------------------------ what is said


def test_a_reason_counts_the_twins_and_says_that_nothing_decides() -> None:
    unknown = ", and no trusted row says which label is right"
    said = sentences(dataset([*rows(("p", "good", 3), ("p", "bad", 2)), *plain(50)]))
    assert said[3] == "3 of its 4 exact twins are labelled 'good'" + unknown
    assert said[0] == "2 of its 4 exact twins are labelled 'bad'" + unknown
    assert said[5] == "no row with the same values in every feature has another label"
    flood = sentences(dataset([*rows(("p", "a", 1), ("p", "b", 20)), *plain(300)]))
    assert flood[0] == "20 of its 20 exact twins are labelled 'b'" + unknown
    assert flood[1] == "1 of its 20 exact twins is labelled 'a'" + unknown


def test_of_labels_that_come_as_often_the_first_of_the_alphabet_is_named() -> None:
    said = sentences(dataset([*rows(("p", "c", 1), ("p", "b", 1), ("p", "a", 1)), *plain(9)]))
    named = [f"1 of its 2 exact twins is labelled {who!r}" for who in "aab"]
    assert [sentence.partition(",")[0] for sentence in said[:3]] == named


# ------------------------------------------------------------------ more rows than are kept


def many(seed: int, count: int) -> tuple[Dataset, NDArray[np.bool_]]:
    """Rows that do not repeat, a few of them copied with another label; where the copies are."""
    rng = np.random.default_rng(seed)
    values = np.append(np.arange(count), rng.choice(count, count // 50, replace=False))
    copies = np.arange(len(values)) >= count
    order = rng.permutation(len(values))
    labels = np.where(copies, "b", "a")
    pairs = list(zip(values[order].tolist(), labels[order].tolist(), strict=True))
    return dataset(pairs), copies[order]


def test_every_conflict_is_found_among_more_contents_than_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, copies = many(0, 5_000)
    whole = scored(data)
    assert (whole[copies] == 0.5).all()
    assert (whole > 0).sum() == 2 * copies.sum()
    monkeypatch.setattr(conflicts, "MOST_CONTENTS", 400)
    assert scored(data).tolist() == whole.tolist()
    table = data.shards[0].read()
    parts = tuple(MemoryShard(table.slice(i, 333)) for i in range(0, len(table), 333))
    assert scored(Dataset(parts[::-1], ROLES, data.salt)).sum() == whole.sum()


def test_trusted_rows_decide_among_more_contents_than_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = dataset(plain(2_000))
    table = pa.table({"x": ["plain-1-7", "plain-1-9"], "y": ["b", "a"], "row_id": ["1", "2"]})
    trusted = Dataset(data.shards, ROLES, data.salt, (MemoryShard(table),))
    monkeypatch.setattr(conflicts, "MOST_CONTENTS", 100)
    assert np.flatnonzero(scored(trusted)).tolist() == [7]


PAIRS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2)), max_size=120)


def hashed(pairs: Sequence[tuple[int, int]]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    numbers = np.array([c for c, _ in pairs], np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return numbers, np.array([label for _, label in pairs], np.int64)


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.integers(1, 50), st.integers(1, 40))
def test_a_tally_keeps_what_it_keeps_exactly_whatever_the_parts(
    pairs: list[tuple[int, int]], most: int, size: int
) -> None:
    one, many_parts = Tally(most), Tally(most)
    one.add(*hashed(pairs))
    for i in range(0, len(pairs), size):
        many_parts.add(*hashed(pairs[::-1][i : i + size]))
    whole, found = Counts.of(*hashed(pairs)), one.counts()
    again = many_parts.counts()
    for name in ("content", "label", "rows"):
        assert getattr(found, name).tolist() == getattr(again, name).tolist()
    assert len(found) <= most
    assert one.complete == (len(whole) <= most)
    # Contents are kept together or not at all, the lowest hashes first.
    kept = whole.content <= (found.content.max() if len(found) else 0)
    assert whole.rows[kept].tolist() == found.rows.tolist() or not len(found)


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.integers(1, 40))
def test_a_blotter_never_overlooks_a_conflict(pairs: list[tuple[int, int]], size: int) -> None:
    blotter, small = Blotter(), Blotter(np.zeros(8, np.uint16))
    for i in range(0, len(pairs), size):
        for each in (blotter, small):
            each.add(*hashed(pairs[i : i + size]))
    labels: dict[int, set[int]] = {}
    for number, label in pairs:
        labels.setdefault(number, set()).add(label)
    content, _ = hashed(pairs)
    truth = np.array([len(labels[c]) > 1 for c, _ in pairs], bool)
    assert blotter.blotted(content).tolist() == truth.tolist()
    assert small.blotted(content)[truth].all()
    assert len(blotter.cells) == CELLS
