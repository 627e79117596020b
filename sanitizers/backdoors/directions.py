"""Directions of whitened pixels along which the rows of a label fall into two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from sanitizers.backdoors.arrays import Floats, Mask, Proposal, View

#: Labels with fewer rows are not split.
LABEL_LEAST = 40
#: Added to the deviation of every pixel: one and a half grey levels.
RIDGE = 1.5 / 255
#: A label's own share of the rows from which on it does not take part in its own whitening.
OWN_SHARE = 0.04
#: Leading directions in which unusual projections are looked for.
LEADING = 40


@dataclass(frozen=True)
class Split:
    """Two normal components of numbers.

    Parameters
    ----------
    upper : ndarray of bool, shape (n,)
        What belongs to the component with the higher mean.
    separation : float
        Distance of the means in pooled standard deviations.
    """

    upper: Mask
    separation: float


def split(values: NDArray[np.floating], rounds: int = 40) -> Split:
    """Fit two normal components to numbers by expectation maximisation.

    It starts from the best cut in two (least squares, found by sorting).

    Parameters
    ----------
    values : ndarray, shape (n,)
    rounds : int
    """
    x = np.asarray(values, dtype=np.float64)
    upper = _best_cut(x)
    weight = upper.astype(np.float64)
    floor = 1e-6 * max(float(x.var()), 1e-12)
    means, variances = np.zeros(2), np.ones(2)
    for _ in range(rounds):
        shares = np.array([(1 - weight).sum(), weight.sum()]) + 1e-9
        means = np.array([((1 - weight) * x).sum(), (weight * x).sum()]) / shares
        square = [((1 - weight) * (x - means[0]) ** 2).sum(), (weight * (x - means[1]) ** 2).sum()]
        variances = np.array(square) / shares + floor
        logs = np.log(shares) - 0.5 * np.log(variances) - (x[:, None] - means) ** 2 / 2 / variances
        weight = 1 / (1 + np.exp(np.clip(logs[:, 0] - logs[:, 1], -700, 700)))
    upper = weight > 0.5
    if means[0] > means[1]:
        upper = ~upper
    if upper.all() or not upper.any():
        return Split(upper, 0.0)
    within = upper.mean() * x[upper].var() + (~upper).mean() * x[~upper].var()
    distance = x[upper].mean() - x[~upper].mean()
    return Split(upper, float(distance / np.sqrt(within + floor)))


def unusual(whitened: Floats, rng: np.random.Generator, starts: int = 6) -> list[Floats]:
    """Projections with the lowest and the highest kurtosis, each of shape (n,).

    Two clusters of like size have a low kurtosis, a small one beside a large one a high
    kurtosis. The fixed point ``w <- E[z (w'z)^3] - 3 w`` finds either; what was found is
    taken out before the next start.

    Parameters
    ----------
    whitened : ndarray of float32, shape (n, r)
        Uncorrelated, with unit variances.

    References
    ----------
    Peña and Prieto, "Cluster identification using projections", JASA 2001; the fixed point
    is that of Hyvärinen and Oja, "A fast fixed-point algorithm for independent component
    analysis", 1997.
    """
    n, r = whitened.shape
    found: NDArray[np.float32] = np.zeros((0, r), np.float32)
    out = []
    for _ in range(min(starts, r)):
        w = _orthogonal(rng.normal(size=(r,)).astype(np.float32), found)
        for _ in range(30):
            p = whitened @ w
            pull = np.asarray(whitened.T @ p**3) / n - 3 * w
            new = _orthogonal(pull.astype(np.float32), found)
            done = abs(float(new @ w)) > 0.9999
            w = new
            if done:
                break
        found = np.vstack([found, w])
        out.append(whitened @ w)
    return out


def propose_directions(seen: View, seed: int) -> Iterator[Proposal]:
    """Split every label along its unusual directions.

    Residuals to the mean of the label are whitened with the covariance of the residuals of
    the *other* labels: a poison that fills its label would hide in its own covariance. The
    leading two singular directions are split, and among the leading 40 those of extreme
    kurtosis.

    References
    ----------
    Tran, Li and Madry, "Spectral signatures in backdoor attacks", NeurIPS 2018, and Hayase
    et al., "SPECTRE", ICML 2021, for whitened singular directions; of features, there. We
    differ in taking pixels, and the covariance of the other labels.
    """
    rng = np.random.default_rng(seed)
    means = label_means(seen)
    scatters = _Scatters(seen, means)
    for label in range(seen.classes):
        rows = seen.of(label)
        if len(rows) < LABEL_LEAST:
            continue
        basis = scatters.whitener(label)
        residuals = (seen.planes[rows] - means[label]).T.astype(np.float32)
        whitened = solve_triangular(basis, residuals, lower=True, check_finite=False)
        scores = _leading(whitened, LEADING)
        projections = [scores[:, 0], scores[:, 1]] if scores.shape[1] > 1 else [scores[:, 0]]
        projections += unusual(scores / (scores.std(axis=0) + 1e-9), rng)
        for values in projections:
            yield from _sides(rows, label, split(values))


def label_means(seen: View) -> Floats:
    """The mean of the planes of each label, shape (classes, d)."""
    means = np.zeros((seen.classes, seen.planes.shape[1]), np.float32)
    for label in range(seen.classes):
        rows = seen.of(label)
        if len(rows):
            means[label] = seen.planes[rows].mean(axis=0)
    return means


class _Scatters:
    """Covariances of residuals, of all rows and of each large label."""

    def __init__(self, seen: View, means: Floats) -> None:
        self._n = len(seen)
        self._own: dict[int, tuple[int, Floats]] = {}
        d = seen.planes.shape[1]
        self._all = np.zeros((d, d), np.float32)
        for label in range(seen.classes):
            rows = seen.of(label)
            residuals = seen.planes[rows] - means[label]
            scatter = residuals.T @ residuals
            self._all += scatter
            if len(rows) >= OWN_SHARE * len(seen):
                self._own[label] = (len(rows), scatter)

    def whitener(self, label: int) -> Floats:
        """The lower Cholesky factor of the covariance of the other labels, shape (d, d)."""
        count, own = self._own.get(label, (0, None))
        others = self._all if own is None else self._all - own
        covariance = others / max(self._n - count, 1)
        covariance[np.diag_indices(len(covariance))] += RIDGE**2
        return np.asarray(cholesky(covariance, lower=True, check_finite=False), dtype=np.float32)


def _leading(whitened: Floats, count: int) -> Floats:
    """Scores of the columns along the leading left singular vectors, shape (n, count)."""
    d, n = whitened.shape
    if n <= d:
        _, vectors = np.linalg.eigh(whitened.T @ whitened)
        right = vectors[:, ::-1][:, :count]
        return np.asarray(right * np.sqrt(n), dtype=np.float32)
    _, vectors = np.linalg.eigh(whitened @ whitened.T)
    return np.asarray(whitened.T @ vectors[:, ::-1][:, :count], dtype=np.float32)


def _sides(rows: NDArray[np.int64], label: int, found: Split) -> Iterator[Proposal]:
    """Both sides of a clear split, the smaller side of another."""
    upper, lower = rows[found.upper], rows[~found.upper]
    small, large = (upper, lower) if len(upper) <= len(lower) else (lower, upper)
    yield Proposal(small, label, "direction", separation=found.separation)
    if found.separation >= 4 and len(large) < 4 * len(small):
        yield Proposal(large, label, "direction", separation=found.separation)


def _best_cut(x: NDArray[np.float64]) -> Mask:
    order = np.sort(x)
    n = len(x)
    count = np.arange(1, n)
    below = np.cumsum(order)[:-1]
    total = float(order.sum())
    between = (below / count - (total - below) / (n - count)) ** 2 * count * (n - count)
    return np.asarray(x > order[int(between.argmax())])


def _orthogonal(w: Floats, found: Floats) -> Floats:
    w = w - found.T @ (found @ w)
    return np.asarray(w / (np.linalg.norm(w) + 1e-12), dtype=np.float32)
