"""From scores to p-values: what clean rows would have scored.

A null answers one question: which share of clean rows scores at least this much?
It comes from trusted rows (conformal, with a fitted tail) or, where a sanitizer has a
model of its own null, from that model. Without either there is no p-value, and the
policy falls back on robust lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

#: The share of calibration scores that the tail is fitted on.
TAIL_SHARE = 0.1
#: Fewer calibration scores than this do not carry a fitted tail.
TAIL_LEAST = 100


class Null(Protocol):
    """The scores to expect of clean rows."""

    def p_value(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The share of clean rows that score at least this much; falls with the score."""
        ...


@dataclass(frozen=True)
class ConformalNull:
    """Conformal p-values from the scores of trusted rows, with a generalised Pareto tail.

    Below the tail's start the p-value is the conformal one, ``(1 + #{c >= s}) / (m + 1)``.
    Beyond it a generalised Pareto distribution carries on, since `m` trusted rows cannot
    give a p-value below ``1 / (m + 1)`` by counting.

    Parameters
    ----------
    scores : ndarray of float64, shape (m,)
        Sorted scores of trusted rows, by models that did not see them.
    start, scale, shape : float
        Where the tail starts, and its parameters; ``scale`` is 0 without a tail.

    References
    ----------
    Bates et al., "Testing for outliers with conformal p-values", Ann. Statist. 2023.
    Hosking and Wallis, "Parameter and quantile estimation for the generalized Pareto
    distribution", Technometrics 1987. We differ in clipping the shape to [0, 0.5]: a
    bounded tail would call every row beyond it impossible.
    """

    scores: NDArray[np.float64]
    start: float = np.inf
    scale: float = 0.0
    shape: float = 0.0

    @classmethod
    def fit(cls, scores: NDArray[np.float64]) -> ConformalNull:
        """Fit to the scores of trusted rows, NaN left out, shape (m,)."""
        known = np.sort(scores[~np.isnan(scores)])
        if len(known) < TAIL_LEAST:
            return cls(known)
        start = float(known[int(np.ceil((1 - TAIL_SHARE) * len(known))) - 1])
        excess = known[known > start] - start
        if len(excess) < TAIL_SHARE * TAIL_LEAST or excess[-1] <= 0:
            return cls(known)
        # Probability-weighted moments, closed form.
        rank = (np.arange(1, len(excess) + 1) - 0.35) / len(excess)
        mean, weighted = float(excess.mean()), float(np.mean((1 - rank) * excess))
        shape = 2 - mean / max(mean - 2 * weighted, 1e-12)
        shape = min(max(shape, 0.0), 0.5)
        return cls(known, start, mean * (1 - shape), shape)

    def p_value(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        m = len(self.scores)
        above = m - np.searchsorted(self.scores, scores, side="left")
        p = np.asarray((1.0 + above) / (m + 1.0), dtype=np.float64)
        tail = scores > self.start
        if self.scale > 0 and tail.any():
            beyond = (scores[tail] - self.start) / self.scale
            if self.shape > 1e-6:
                survival = (1 + self.shape * beyond) ** (-1 / self.shape)
            else:
                survival = np.exp(-beyond)
            at_start = (1.0 + m - np.searchsorted(self.scores, self.start, side="right")) / (m + 1)
            p[tail] = np.maximum(at_start * survival, 1e-300)
        return p


@dataclass(frozen=True)
class ModelNull:
    """A null that a sanitizer computed from its own model of clean rows.

    Parameters
    ----------
    scores : ndarray of float64, shape (g,)
        Rising grid of scores.
    survival : ndarray of float64, shape (g,)
        The share of clean rows expected at or above each of them.
    """

    scores: NDArray[np.float64]
    survival: NDArray[np.float64]

    def p_value(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        at = np.searchsorted(self.scores, scores, side="right") - 1
        return np.where(at < 0, 1.0, self.survival[np.maximum(at, 0)])


def benjamini_hochberg(p_values: NDArray[np.float64], q: float) -> float:
    """The largest p-value at which the expected share of false finds is at most `q`.

    Parameters
    ----------
    p_values : ndarray of float64, shape (n,)
        NaN is passed over.
    q : float
        False-discovery rate.

    Returns
    -------
    float
        A level such that rows with ``p <= level`` are found; 0.0 if there are none.

    References
    ----------
    Benjamini and Hochberg, "Controlling the false discovery rate", J. R. Statist. Soc. B 1995.
    """
    p = np.sort(p_values[~np.isnan(p_values)])
    if not len(p):
        return 0.0
    fine = np.flatnonzero(p <= q * np.arange(1, len(p) + 1) / len(p))
    return float(p[fine[-1]]) if len(fine) else 0.0
