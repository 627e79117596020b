"""The statistics behind the findings, each a formula that can be written down."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Bins of the population stability index; ten is what its lines of 0.1 and 0.2 are for.
PSI_BINS = 10
#: A share of zero would make the index infinite.
_PSI_FLOOR = 1e-4


def auc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """The chance that a positive row scores above a negative one, ties counted half.

    NaN where there is no positive or no negative row.
    """
    from scipy.stats import rankdata

    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def auc_variance(positive: NDArray[np.bool_]) -> float:
    """The variance of `auc` where scores say nothing; ties only make it smaller."""
    ones, zeros = int(positive.sum()), int((~positive).sum())
    return (ones + zeros + 1) / (12 * ones * zeros) if ones and zeros else float("nan")


def ks(first: Floats, second: Floats) -> tuple[float, float]:
    """The largest distance of two distribution functions, and its asymptotic p-value.

    Parameters
    ----------
    first, second : ndarray of float64
        Finite.
    """
    from scipy.stats import kstwobign

    n, m = len(first), len(second)
    if not n or not m:
        return 0.0, 1.0
    both = np.concatenate([first, second])
    below = np.searchsorted(np.sort(first), both, side="right") / n
    other = np.searchsorted(np.sort(second), both, side="right") / m
    distance = float(np.abs(below - other).max())
    return distance, float(kstwobign.sf(distance * np.sqrt(n * m / (n + m))))


def chi2(counts: Floats) -> tuple[float, float]:
    """Cramer's V of a table of counts, and the p-value of its chi-squared statistic.

    Columns in which fewer than 5 are expected somewhere are joined into one, since the
    statistic is no chi-squared there.

    Parameters
    ----------
    counts : ndarray of float64, shape (2 or more, categories)
    """
    from scipy.stats import chi2 as distribution

    counts = counts[counts.sum(axis=1) > 0]
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / max(counts.sum(), 1)
    rare = (expected < 5).any(axis=0)
    pooled = counts[:, rare].sum(axis=1, keepdims=True)
    counts = np.hstack([counts[:, ~rare], pooled])
    counts = counts[:, counts.sum(axis=0) > 0]
    if min(counts.shape) < 2:
        return 0.0, 1.0
    total = counts.sum()
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / total
    # What is left of the rare ones may still be too few to count on.
    if expected[:, -1].min() < 1 and counts.shape[1] > 2:
        counts, expected = counts[:, :-1], expected[:, :-1]
    statistic = float(((counts - expected) ** 2 / expected).sum())
    smaller = min(counts.shape) - 1
    freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    return float(np.sqrt(statistic / (total * smaller))), float(distribution.sf(statistic, freedom))


def psi(old: Floats, new: Floats) -> float:
    """The population stability index of two rows of counts: sum of ``(q - p) ln(q / p)``."""
    p = np.maximum(old / max(old.sum(), 1), _PSI_FLOOR)
    q = np.maximum(new / max(new.sum(), 1), _PSI_FLOOR)
    return float(((q - p) * np.log(q / p)).sum())


def binned(old: Floats, new: Floats) -> tuple[Floats, Floats]:
    """Count numbers in bins that hold a tenth of the old ones each; NaN has a bin of its own."""
    known = old[np.isfinite(old)]
    if not len(known):
        return np.array([float(len(old))]), np.array([float(len(new))])
    edges = np.unique(np.quantile(known, np.arange(1, PSI_BINS) / PSI_BINS))

    def counts(values: Floats) -> Floats:
        at = np.where(
            np.isfinite(values), np.searchsorted(edges, values, side="left"), len(edges) + 1
        )
        return np.bincount(at, minlength=len(edges) + 2).astype(np.float64)

    return counts(old), counts(new)
