"""A small patch through which the picture still shows, told by what lies around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.ndimage import binary_dilation

from sanitizers.backdoors.arrays import Floats, Images, Rows, View, spread
from sanitizers.backdoors.stamp import Stamp

#: A pixel belongs to the patch from this share of the strongest one on.
CORE = 0.35
#: Pixels of a patch, as a share of the picture: at most, and at least so many.
MOST, LEAST = 0.06, 3
#: The least share of the squares of what is added that lies in the patch and beside it.
WITHIN = 0.5
#: Pixels around the patch from which its ground is predicted.
AROUND = 2
#: How much of the ground may show through.
SHOWS = 0.9
#: The line, as a share of the members' median; and at least so many units of log-likelihood.
LINE, LINE_LEAST = 0.15, 2.0
#: The least share of the rows, from which a patch was fitted, that it must find again; and how
#: many more it may find.
AGAIN, MORE = 0.8, 1.5
#: Degrees of freedom of the residuals: their scale differs from picture to picture.
_FREEDOM = 4.0
#: Rows of other labels that a ground is learned from.
_GROUND_ROWS = 6000
#: Added to variances, in squares of grey levels.
_RIDGE = 4.0


@dataclass(frozen=True, eq=False)
class Overlay:
    """A patch that shows a share of the ground: ``shows * ground + add``, at one place.

    The ground is predicted from the pixels around the patch. The strength is the log-likelihood
    ratio of *patch* over *no patch* (residuals of a multivariate t distribution), in units of
    its line.

    Parameters
    ----------
    core, around : ndarray of int64, shape (c,) and (r,)
        Places among the H * W * C numbers of a picture: of the patch, and around it.
    weights : ndarray of float32, shape (r + 1, c)
        Predict the ground, in grey levels; the last row is a constant.
    shows : float
        The share of the ground that is seen.
    add : ndarray of float32, shape (c,)
        Grey levels.
    plain, covered : ndarray of float32, shape (c, c)
        Lower Cholesky factors of the covariances of residuals, without the patch and with it.
    line : float

    References
    ----------
    Lange, Little and Taylor, "Robust statistical modeling using the t distribution", JASA
    1989.
    """

    core: NDArray[np.int64]
    around: NDArray[np.int64]
    weights: Floats
    shows: float
    add: Floats
    plain: Floats
    covered: Floats
    line: float

    def strength(self, images: Images) -> NDArray[np.float64]:
        """The strength of images, shape (n,): 1 and above is a carrier."""
        patch, ground = _ground(images, self.core, self.around, self.weights)
        with_it = _likelihood(patch - self.shows * ground - self.add, self.covered)
        return np.asarray((with_it - _likelihood(patch - ground, self.plain)) / self.line)


def find_overlay(seen: View, rows: Rows, label: int, stamp: Stamp) -> Overlay | None:
    """Fit a patch to a group of carriers, if what they have in common is small and at one place.

    Parameters
    ----------
    seen : View
    rows : ndarray of int64, shape (m,)
        Carriers, all of the label.
    label : int
    stamp : Stamp
        What they have in common, as something added.

    Returns
    -------
    Overlay or None
        None also where it does not find most of the rows again, or finds many more.
    """
    places = _places(stamp.add)
    if places is None:
        return None
    own = seen.of(label)
    members = rows
    found: Overlay | None = None
    for _ in range(2):
        found = _fit(seen, members, label, *places)
        if found is None:
            return None
        members = own[found.strength(seen.images[own]) >= 1]
        if not AGAIN * len(rows) <= len(members) <= MORE * len(rows):
            return None
    again = np.isin(rows, members).mean()
    return found if again >= AGAIN else None


def _places(add: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Where the patch lies, and what lies around it; None where it is not small."""
    height, width, channels = add.shape
    strength = np.abs(add).max(axis=2)
    core = strength >= CORE * strength.max()
    if not LEAST <= core.sum() <= MOST * core.size:
        return None
    square = np.ones((3, 3), dtype=bool)
    squares = np.square(strength)
    if squares[binary_dilation(core, square)].sum() < WITHIN * squares.sum():
        return None
    around = binary_dilation(core, square, iterations=AROUND) & ~core
    numbers = np.arange(height * width * channels).reshape(height, width, channels)
    return numbers[core].ravel(), numbers[around].ravel()


def _fit(
    seen: View,
    members: Rows,
    label: int,
    core: NDArray[np.int64],
    around: NDArray[np.int64],
) -> Overlay | None:
    plain_rows = np.flatnonzero(seen.labels != label)
    own = np.setdiff1d(seen.of(label), members)
    rows = np.concatenate([own, spread(plain_rows, _GROUND_ROWS)])
    if len(rows) <= len(core) + len(around):
        return None
    weights = _regression(seen.images[rows], core, around)
    patch, ground = _ground(seen.images[rows], core, around, weights)
    noise = _square(patch - ground)
    patch, ground = _ground(seen.images[members], core, around, weights)
    centred = ground - ground.mean(axis=0)
    slope = (centred * (patch - patch.mean(axis=0))).sum() / (np.square(centred).sum() + 1e-9)
    shows = float(np.clip(slope, 0.0, 1.0))
    if shows > SHOWS:
        return None
    add = np.median(patch - shows * ground, axis=0)
    rest = _square(patch - shows * ground - add)
    # The shape of the noise is that of nature: of few members it is not known.
    scale = max(float(np.trace(rest) / np.trace(noise)), 0.02)
    ridge = _RIDGE * np.eye(len(core))
    plain, covered = (_factor(noise * s + ridge) for s in (1.0, scale))
    made = Overlay(core, around, weights, shows, add.astype(np.float32), plain, covered, 1.0)
    usual = float(np.median(made.strength(seen.images[members])))
    line = max(LINE_LEAST, LINE * usual)
    return Overlay(core, around, weights, shows, made.add, plain, covered, line)


def _regression(images: Images, core: NDArray[np.int64], around: NDArray[np.int64]) -> Floats:
    x, y = _numbers(images, around), _numbers(images, core)
    x = np.column_stack([x, np.ones(len(x))])
    square = x.T @ x
    square[np.diag_indices(len(square))] += 25.0
    return np.asarray(np.linalg.solve(square, x.T @ y), dtype=np.float32)


def _ground(
    images: Images, core: NDArray[np.int64], around: NDArray[np.int64], weights: Floats
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The pixels of the patch, and what is predicted of its ground; both of shape (n, c)."""
    ground = _numbers(images, around) @ weights[:-1].astype(np.float64) + weights[-1]
    return _numbers(images, core), ground


def _numbers(images: Images, places: NDArray[np.int64]) -> NDArray[np.float64]:
    return images.reshape(len(images), -1)[:, places].astype(np.float64)


def _square(residuals: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(residuals.T @ residuals / len(residuals))


def _factor(square: NDArray[np.float64]) -> Floats:
    return np.linalg.cholesky(square).astype(np.float32)


def _likelihood(residuals: NDArray[np.float64], factor: Floats) -> NDArray[np.float64]:
    """The logarithm of the density of residuals, but for a constant, shape (n,)."""
    lower = factor.astype(np.float64)
    whitened = solve_triangular(lower, residuals.T, lower=True, check_finite=False)
    far = np.square(whitened).sum(axis=0)
    spread_out = 0.5 * (_FREEDOM + len(lower)) * np.log1p(far / _FREEDOM)
    return np.asarray(-np.log(lower.diagonal()).sum() - spread_out, dtype=np.float64)
