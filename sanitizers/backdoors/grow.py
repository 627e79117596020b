"""From a few carriers to all of them: the whitened matched filter."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from sanitizers.backdoors.arrays import Floats, Mask, Rows, View, spread
from sanitizers.backdoors.directions import RIDGE
from sanitizers.backdoors.extract import clipped_mean
from sanitizers.backdoors.neighbours import nearest
from sanitizers.backdoors.stamp import Filter, Relief
from sanitizers.core.kernels import robust_scale

#: Rows from which a covariance is estimated.
_COVARIANCE_ROWS = 8000
#: Rows from which a pattern is estimated.
_PATTERN_ROWS = 400
#: The least relief of a carrier, as a share of the members' median.
RELIEF = 0.15
#: The same for rows whose projection lies as near to the members' median as that:
NEAR_RELIEF = 0.05
#: robust deviations of the members.
NEAR = 4.0


@dataclass(frozen=True, eq=False)
class Grown:
    """A filter, and whom it finds.

    Parameters
    ----------
    filter : Filter
    deviations : ndarray of float64, shape (n,)
    carriers : ndarray of int64
        Rows above the lines, of any label.
    """

    filter: Filter
    deviations: NDArray[np.float64]
    carriers: Rows


def grow(seen: View, rows: Rows, label: int, apart: Mask, *, rounds: int = 2) -> Grown:
    """Grow a group of carriers.

    The pattern is the clipped mean of what the rows have more than their backgrounds; the
    filter ``S^-1 pattern``, with the covariance S of the pixels of rows of *other* labels,
    is the linear statistic that tells it best from them (Fisher 1936; the matched filter
    of North 1943). Two rounds: later ones drift.

    Parameters
    ----------
    seen : View
    rows : ndarray of int64, shape (m,)
    label : int
        The rows' label; carriers with this label alone make the next round.
    apart : ndarray of bool, shape (n,)
        Rows that no background may be taken from, and no covariance.
    rounds : int
    """
    clean = (seen.labels != label) & ~apart
    noise = covariance(seen.planes[spread(np.flatnonzero(clean), _COVARIANCE_ROWS)])
    members = rows
    for _ in range(rounds):
        grown = _round(seen, members, label, apart, noise)
        own = grown.carriers[seen.labels[grown.carriers] == label]
        if len(own) < 5:
            break
        members = own
    return grown


@dataclass(frozen=True, eq=False)
class Noise:
    """What pictures without a trigger look like.

    Parameters
    ----------
    mean : ndarray of float32, shape (d,)
    factor : ndarray of float32, shape (d, d)
        The lower Cholesky factor of the covariance.
    """

    mean: Floats
    factor: Floats


def covariance(planes: Floats) -> Noise:
    """Mean and covariance of planes, with a ridge."""
    mean = planes.mean(axis=0)
    centred = planes - mean
    square = centred.T @ centred / len(planes)
    square[np.diag_indices(len(square))] += RIDGE**2
    factor = cholesky(square, lower=True, check_finite=False)
    return Noise(mean, np.asarray(factor, dtype=np.float32))


def line(deviations: NDArray[np.float64], members: Rows, others: Mask) -> float:
    """From how many deviations on a row counts as a carrier.

    The highest of: 4; 1.3 times the .05 % quantile of the rows of other labels, mirrored; a
    fifth of the members' median; the members' median less six of their deviations. But
    never more than half of the members' median.
    """
    middle, scale = robust_scale(deviations[members])
    mirrored = -1.3 * float(np.quantile(deviations[others], 0.0005))
    return min(max(4.0, mirrored, 0.2 * middle, middle - 6 * scale), max(0.5 * middle, 4.0))


def _round(seen: View, members: Rows, label: int, apart: Mask, noise: Noise) -> Grown:
    some = spread(members, _PATTERN_ROWS)
    around = nearest(seen, some, ~(apart | seen.mask(members)))
    pattern = clipped_mean(seen.planes[some] - seen.planes[around].mean(axis=1))
    whitened = solve_triangular(noise.factor, pattern, lower=True, check_finite=False)
    weights = solve_triangular(noise.factor, whitened, lower=True, trans=1, check_finite=False)
    others = seen.labels != label
    projections = (seen.planes @ weights).astype(np.float64)
    centre, scale = robust_scale(projections[others])
    found = Filter(weights, centre, scale, 1.0)
    deviations = found.deviations(seen.planes)
    found = replace(found, line=line(deviations, members, others))
    found = replace(found, relief=_relief(seen, noise, whitened, deviations, members))
    return Grown(found, deviations, np.flatnonzero(found.of_planes(seen.planes) >= 1))


def _relief(
    seen: View, noise: Noise, pattern: Floats, deviations: NDArray[np.float64], members: Rows
) -> Relief | None:
    """The second condition, with lines relative to what is usual among the members."""
    middle, scale = robust_scale(deviations[members])
    width = NEAR * scale
    whole = Relief(noise.factor, noise.mean, pattern.astype(np.float32), 1.0, 1.0, middle, width)
    usual = float(np.median(whole.of(seen.planes[spread(members, _PATTERN_ROWS)])))
    if usual <= 0:
        return None
    return replace(whole, line=RELIEF * usual, near_line=NEAR_RELIEF * usual)
