"""Work side by side: in order, on one thread each, and nothing of it stays behind."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier
from threadpoolctl import threadpool_info

from sanitizers.core.threads import in_threads


def test_what_comes_of_items_is_in_their_order() -> None:
    assert in_threads(lambda n: n * n, range(50)) == [n * n for n in range(50)]
    assert in_threads(lambda n: n, []) == []


def test_each_is_held_to_one_thread() -> None:
    def most(_: int) -> int:
        return max((pool["num_threads"] for pool in threadpool_info()), default=1)

    assert set(in_threads(most, range(4))) == {1}


def test_an_error_is_raised_to_the_caller() -> None:
    def fail(n: int) -> None:
        raise ValueError(f"item {n}")

    with pytest.raises(ValueError, match="item 0"):
        in_threads(fail, range(3))


def test_filters_of_warnings_are_afterwards_as_before() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 3)), rng.integers(2, size=200)
    model = ExtraTreesClassifier(20, random_state=0).fit(X, y)
    before = list(warnings.filters)
    in_threads(lambda _: model.predict_proba(X), range(8))
    assert list(warnings.filters) == before
