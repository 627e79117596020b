"""Work side by side on the processors of this machine."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def in_threads(work: Callable[[S], T], items: Sequence[S]) -> list[T]:
    """Work on items side by side, each on one thread: that shares better than inner loops do.

    Parameters
    ----------
    work : callable
        Is called once for each item; what it calls is held to one thread of BLAS and OpenMP.
    items : sequence

    Returns
    -------
    list
        What came of each item, in their order.
    """
    from threadpoolctl import threadpool_limits

    def alone(item: S) -> T:
        # OpenMP keeps its number of threads by thread, and BLAS one for all: it has to be said
        # in each, and around them, or the first that ends would give BLAS its threads back.
        with threadpool_limits(1):
            return work(item)

    # Whoever changes the filters of warnings for a while, as scikit-learn does, changes those of
    # all threads, and puts back what another one had changed.
    with (
        warnings.catch_warnings(),
        threadpool_limits(1),
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        return list(pool.map(alone, items))
