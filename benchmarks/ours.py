"""Our side of a comparison: the default policy, and the order in which it would remove rows."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from benchmarks.answers import Answer
from benchmarks.judged import Judged, any_of, judge
from sanitizers.catalog import LIBRARIES
from sanitizers.core.data import Dataset
from sanitizers.core.policy import CLEAN_ABOVE, SHARES


def ours(*names: str) -> Callable[[Dataset], Answer]:
    """What the default policy quarantines by some sanitizers.

    Parameters
    ----------
    *names : str
        None: all sanitizers that have their roles.
    """
    # As with every contender, importing is not timed.
    for library in LIBRARIES:
        import_module(library)

    def run(data: Dataset) -> Answer:
        found = judge(data, names)
        ranks = [_order(name, judged) for name, judged in found.items()]
        parts = {name: judged.quarantined for name, judged in found.items()}
        return Answer(any_of(found, data.rows), np.fmax.reduce(ranks), parts)

    return run


def rank(
    name: str, scores: NDArray[np.float64], p_values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How early rows would go: by the clean rows that are expected to score as high.

    The expected share of clean rows is the p-value, or, where the default policy has a
    curve for the sanitizer, its value at the score, carried on beyond both ends as straight
    as its logarithm is there. Divided by the sanitizer's share of the clean rows that may be
    lost, it is comparable from sanitizer to sanitizer.

    Parameters
    ----------
    name : str
        The sanitizer.
    scores, p_values : ndarray of float64, shape (n,)

    Returns
    -------
    ndarray of float64, shape (n,)
        The negative logarithm: the higher the sooner; NaN where nothing is known.
    """
    if name in CLEAN_ABOVE:
        grid, above = np.array(CLEAN_ABOVE[name]).T
        surprise = make_interp_spline(grid, -np.log(above), k=1)(scores)
    else:
        with np.errstate(divide="ignore"):
            surprise = -np.log(p_values)
    return np.asarray(surprise + np.log(SHARES.get(name, 0.1)), dtype=np.float64)


def _order(name: str, judged: Judged) -> NDArray[np.float64]:
    order = rank(name, judged.scores, judged.p_values)
    # A sanitizer that counts, and does not measure, has its line and nothing else.
    return np.where(judged.quarantined, np.inf, np.nan) if np.isnan(order).all() else order
