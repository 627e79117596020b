"""Evidence keeps what a scorer says, and refuses what breaks a promise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sanitizers.core.calibration import ConformalNull, ModelNull
from sanitizers.core.data import Batch, Dataset, Roles
from sanitizers.core.errors import EvidenceError
from sanitizers.core.evidence import SCHEMA, examine_batch


@dataclass(frozen=True)
class Said:
    """A scorer that says what it is told to say."""

    scores: Any
    hints: Sequence[Any] = (None, "x", "y")
    null: Any = None

    def score(self, batch: Batch) -> Any:
        return self.scores

    def hint(self, batch: Batch) -> Any:
        return self.hints


def batch() -> Batch:
    data = Dataset.from_table(pa.table({"a": [1.0, 2.0, 3.0]}), Roles(features=("a",)))
    return next(data.batches())


def test_evidence_is_what_the_scorer_said_row_by_row() -> None:
    null = ModelNull(np.array([0.0, 1.0]), np.array([1.0, 0.25]))
    said = Said(np.array([0.5, np.nan, 2.0], dtype=np.float32), null=null)
    table = examine_batch("toy", said, batch())
    assert table.schema.equals(SCHEMA)
    assert table.to_pylist() == [
        {"row_id": "row-00000000", "sanitizer": "toy", "score": 0.5, "p_value": 1.0, "hint": None},
        {"row_id": "row-00000001", "sanitizer": "toy", "score": None, "p_value": None, "hint": "x"},
        {"row_id": "row-00000002", "sanitizer": "toy", "score": 2.0, "p_value": 0.25, "hint": "y"},
    ]


@dataclass(frozen=True)
class SaidAtOnce:
    """A scorer that must not be asked twice for what it tells at once."""

    null: None = None

    def score(self, batch: Batch) -> Any:
        raise AssertionError("asked for scores alone")

    hint = score

    def score_and_hint(self, batch: Batch) -> Any:
        return np.array([0.5, np.nan, 2.0]), [None, "x", "y"]


def test_a_scorer_that_tells_scores_and_hints_at_once_is_asked_once() -> None:
    table = examine_batch("toy", SaidAtOnce(), batch())
    assert table.column("score").to_pylist() == [0.5, None, 2.0]
    assert table.column("hint").to_pylist() == [None, "x", "y"]


def test_without_a_null_no_row_has_a_p_value() -> None:
    table = examine_batch("toy", Said(np.arange(3.0)), batch())
    assert table.column("p_value").null_count == 3


def test_a_sanitizer_may_abstain_from_every_row() -> None:
    null = ConformalNull.fit(np.arange(50.0))
    table = examine_batch("toy", Said(np.full(3, np.nan), null=null), batch())
    assert table.column("score").null_count == table.column("p_value").null_count == 3


@dataclass(frozen=True)
class Wild:
    """A null that gives what it is told to give."""

    p: Any

    def p_value(self, scores: Any) -> Any:
        return self.p


FINE = np.arange(3.0)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (Said(np.arange(2.0)), r"'toy' gave scores of shape \(2,\) and type float64 for 3 rows"),
        (Said(np.ones((3, 1))), r"shape \(3, 1\).*expected floats of shape \(3,\)"),
        (Said(np.arange(3)), "type int64 for 3 rows"),
        (Said([None, None, None]), "type object for 3 rows"),
        (Said(np.array([np.inf, 0, -np.inf])), "2 infinite scores; expected finite scores, or NaN"),
        (Said(FINE, hints=("x",)), "gave 1 hints for 3 rows"),
        (Said(FINE, hints=(1, 2, 3)), "gave hints that are not text"),
        (Said(FINE, null=Wild(np.array([0.1, 0.2, 1.1]))), r"not one share in \[0, 1\] per score"),
        (Said(FINE, null=Wild(np.array([0.1, 0.2, -0.1]))), "not one share"),
        (Said(FINE, null=Wild(np.array([0.1, 0.2, np.nan]))), "not one share"),
        (Said(FINE, null=Wild(np.array([0.1]))), "not one share"),
    ],
)
def test_a_broken_promise_is_refused(said: Said, message: str) -> None:
    with pytest.raises(EvidenceError, match=message):
        examine_batch("toy", said, batch())
