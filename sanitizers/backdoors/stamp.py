"""A trigger as it was extracted: what it does to pictures, and how it is told in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from sanitizers.backdoors.arrays import Floats, Images, to_planes

#: What a stamp does: replaces pixels, or adds to them.
Kind = Literal["patch", "additive"]


@dataclass(frozen=True, eq=False)
class Stamp:
    """A fixed change of every pixel: ``keep * x + add``, rounded and clipped to a byte.

    Parameters
    ----------
    kind : str
    keep : ndarray of float32, shape (H, W, C)
        1 where a pixel stays, 0 where it is replaced.
    add : ndarray of float32, shape (H, W, C)
        Grey levels that are added.
    """

    kind: Kind
    keep: Floats
    add: Floats

    def apply(self, images: Images) -> Images:
        """Stamp images, shape (n, H, W, C); those that were given stay as they are."""
        made = np.rint(images * self.keep + self.add)
        return np.asarray(np.clip(made, 0, 255), dtype=np.uint8)

    def times(self, factor: float) -> Stamp:
        """The stamp with what it adds made stronger."""
        return Stamp(self.kind, self.keep, self.add * np.float32(factor))

    @property
    def covered(self) -> float:
        """The share of the pixels that are replaced."""
        return float((self.keep < 0.5).any(axis=2).mean())


@dataclass(frozen=True, eq=False)
class Relief:
    """How much more likely a picture becomes when the pattern is taken away.

    The logarithm of ``|W x|^2 / |W (x - p)|^2`` for a whitening W: twice the log-likelihood
    ratio per dimension of a multivariate t distribution of few degrees of freedom, whose
    scale differs from picture to picture. A rough picture has a high projection on any
    pattern, and is hardly relieved by taking it away.

    Parameters
    ----------
    factor : ndarray of float32, shape (d, d)
        The lower Cholesky factor of the covariance of pictures without the pattern.
    mean : ndarray of float32, shape (d,)
    pattern : ndarray of float32, shape (d,)
        Whitened.
    line : float
        From which relief on a row counts as a carrier, wherever its projection lies.
    near_line : float
        The same for rows whose projection lies within `width` of `middle`, which is where
        those of the carriers lie; both in deviations.
    middle, width : float

    References
    ----------
    Lange, Little and Taylor, "Robust statistical modeling using the t distribution", JASA
    1989.
    """

    factor: Floats
    mean: Floats
    pattern: Floats
    line: float
    near_line: float
    middle: float
    width: float

    def strength(self, planes: Floats, deviations: NDArray[np.float64]) -> NDArray[np.float64]:
        """The relief of rows in units of the line that holds for them, shape (n,)."""
        near = np.abs(deviations - self.middle) <= self.width
        return self.of(planes) / np.where(near, self.near_line, self.line)

    def of(self, planes: Floats) -> NDArray[np.float64]:
        """The relief of rows, shape (n,)."""
        centred = (planes - self.mean).T
        whitened = solve_triangular(self.factor, centred, lower=True, check_finite=False)
        with_it = np.square(whitened).sum(axis=0, dtype=np.float64)
        without = np.square(whitened - self.pattern[:, None]).sum(axis=0, dtype=np.float64)
        return np.asarray(np.log((with_it + 1e-9) / (without + 1e-9)))


@dataclass(frozen=True, eq=False)
class Filter:
    """A whitened matched filter: how much of a pattern a picture holds.

    Parameters
    ----------
    weights : ndarray of float32, shape (d,)
        Of the planes of `to_planes`.
    centre, scale : float
        Median and robust deviation of the projections of rows of other labels.
    line : float
        From how many deviations on a row counts as a carrier.
    relief : Relief or None
        A second condition on rows that reach the line.
    """

    weights: Floats
    centre: float
    scale: float
    line: float
    relief: Relief | None = None

    def deviations(self, planes: Floats) -> NDArray[np.float64]:
        """How many deviations each row lies above rows without the pattern, shape (n,)."""
        return np.asarray((planes @ self.weights - self.centre) / self.scale, dtype=np.float64)

    def of_planes(self, planes: Floats) -> NDArray[np.float64]:
        """The strength of rows, from their planes: 1 and above is a carrier, shape (n,)."""
        deviations = self.deviations(planes)
        strength = deviations / self.line
        if self.relief is not None:
            high = np.flatnonzero(strength >= 1)
            relief = self.relief.strength(planes[high], deviations[high])
            strength[high] = np.minimum(strength[high], relief)
        return strength

    def strength(self, images: Images) -> NDArray[np.float64]:
        """The strength of images, shape (n,): 1 and above is a carrier."""
        return self.of_planes(to_planes(images))


@dataclass(frozen=True, eq=False)
class Mark:
    """Pixels that have the same values in every carrier.

    Parameters
    ----------
    at : ndarray of int64, shape (m,)
        Places among the H * W * C numbers of a picture.
    values : ndarray of float32, shape (m,)
        Grey levels.
    tolerance : float
        Grey levels by which a pixel may differ.
    share : float
        The share of the pixels that must agree.
    """

    at: NDArray[np.int64]
    values: Floats
    tolerance: float = 12.0
    share: float = 0.95

    def strength(self, images: Images) -> NDArray[np.float64]:
        """The share of pixels that agree, in units of what is asked, shape (n,)."""
        flat = images.reshape(len(images), -1)[:, self.at].astype(np.float32)
        agree = (np.abs(flat - self.values) <= self.tolerance).mean(axis=1)
        return np.asarray(agree / self.share, dtype=np.float64)
