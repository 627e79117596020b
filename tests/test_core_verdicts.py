"""Verdicts: the worst over all sanitizers, every reason kept, trusted rows kept."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanitizers.core.data import Dataset
from sanitizers.core.evidence import SCHEMA
from sanitizers.core.lines import Threshold
from sanitizers.core.sanitizer import Scorer
from sanitizers.core.verdicts import VERDICT_SCHEMA, VERDICTS, judge


@dataclass(frozen=True)
class Toy:
    """A recipe that can say what a score means."""

    name: ClassVar[str] = "toy"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    word: str = "toy"

    def fit(self, data: Dataset) -> Scorer:
        raise AssertionError("a verdict fits nothing")

    def reason(self, score: float, hint: str | None) -> str:
        return f"{self.word} {score:.2f} {hint}"


def evidence(name: str, scores: list[float | None], chunks: int = 1) -> pa.Table:
    n = len(scores)
    table = pa.table(
        [
            pa.array([f"r{i}" for i in range(n)]),
            pa.array([name] * n, pa.string()).dictionary_encode().cast(SCHEMA.field(1).type),
            pa.array(scores, pa.float64()),
            pa.array([None if s is None or s < 2 else 0.1**s for s in scores], pa.float64()),
            pa.array(
                [None if i % 2 else f"h{i % 3}" for i in range(n)], pa.string()
            ).dictionary_encode(),
        ],
        schema=SCHEMA,
    )
    ends = np.linspace(0, n, chunks + 1).astype(int)
    return pa.concat_tables([table.slice(a, b - a) for a, b in itertools.pairwise(ends)])


def threshold(name: str, quarantine: float | None, review: float | None) -> Threshold:
    return Threshold(name, quarantine, review, "", "", "")


def slow(
    scores: dict[str, list[float | None]],
    cuts: dict[str, tuple[float | None, float | None]],
    trusted: list[bool],
) -> list[dict[str, Any]]:
    """The definition, row by row and sanitizer by sanitizer."""
    rows = []
    for i, vouched in enumerate(trusted):
        worst, reasons = 0, []
        for name, values in scores.items():
            score = values[i]
            for level, cut in ((2, cuts[name][0]), (1, cuts[name][1])):
                if vouched or score is None or cut is None or not score > cut:
                    continue
                worst = max(worst, level)
                hint = None if i % 2 else f"h{i % 3}"
                reasons.append(
                    {
                        "sanitizer": name,
                        "score": score,
                        "p_value": None if score < 2 else 0.1**score,
                        "threshold": cut,
                        "message": f"{name} {score:.2f} {hint}",
                    }
                )
                break
        rows.append({"row_id": f"r{i}", "verdict": VERDICTS[worst], "reasons": reasons})
    return rows


SCORES = st.one_of(st.none(), st.floats(0, 6), st.integers(0, 6).map(float))
CUTS = st.one_of(st.none(), st.integers(0, 6).map(float))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.data(), st.integers(1, 12), st.integers(1, 3))
def test_verdicts_are_what_their_definition_says(data: st.DataObject, n: int, chunks: int) -> None:
    names = data.draw(st.permutations(["a", "b", "c"]))
    scores = {k: data.draw(st.lists(SCORES, min_size=n, max_size=n)) for k in names}
    cuts = {k: (data.draw(CUTS), data.draw(CUTS)) for k in names}
    trusted = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    found = judge(
        {k: evidence(k, v, chunks) for k, v in scores.items()},
        {k: threshold(k, *cut) for k, cut in cuts.items()},
        {k: Toy(k) for k in names},
        np.array(trusted),
    )
    assert found.schema.equals(VERDICT_SCHEMA)
    assert found.to_pylist() == slow(scores, cuts, trusted)


def test_the_worst_verdict_counts_and_reasons_come_in_the_order_of_sanitizers() -> None:
    found = judge(
        {"b": evidence("b", [1.0, 3.0, 5.0]), "a": evidence("a", [5.0, 3.0, None])},
        {"b": threshold("b", 4.0, 2.0), "a": threshold("a", 4.0, 2.0)},
        {"b": Toy("b"), "a": Toy("a")},
        np.zeros(3, dtype=bool),
    )
    assert found.column("verdict").to_pylist() == ["quarantine", "review", "quarantine"]
    said = [[r["sanitizer"] for r in reasons] for reasons in found.column("reasons").to_pylist()]
    assert said == [["a"], ["b", "a"], ["b"]]


def test_a_score_on_the_line_is_not_over_it() -> None:
    line = threshold("a", 2.0, 1.0)
    scores = [2.0, float(np.nextafter(2, 3)), 1.0, float(np.nextafter(1, 2))]
    found = judge({"a": evidence("a", [*scores])}, {"a": line}, {"a": Toy()}, np.zeros(4, bool))
    assert found.column("verdict").to_pylist() == ["review", "quarantine", "keep", "review"]


def test_trusted_rows_are_kept_without_a_reason() -> None:
    found = judge(
        {"a": evidence("a", [9.0, 9.0])},
        {"a": threshold("a", 1.0, 0.5)},
        {"a": Toy()},
        np.array([True, False]),
    )
    assert found.column("verdict").to_pylist() == ["keep", "quarantine"]
    assert [len(r) for r in found.column("reasons").to_pylist()] == [0, 1]


@pytest.mark.parametrize("n", [0, 3])
def test_where_nothing_is_over_a_line_every_row_is_kept(n: int) -> None:
    found = judge(
        {"a": evidence("a", [1.0] * n)},
        {"a": threshold("a", None, None)},
        {"a": Toy()},
        np.zeros(n, dtype=bool),
    )
    assert found.schema.equals(VERDICT_SCHEMA)
    assert found.column("verdict").to_pylist() == ["keep"] * n
    assert found.column("reasons").to_pylist() == [[]] * n
    found.validate(full=True)
