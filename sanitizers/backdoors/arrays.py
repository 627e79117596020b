"""The arrays that an audit works on, and the things it passes from stage to stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

#: Where a proposal comes from.
Origin = Literal["window", "direction", "feature", "cluster", "neighbours"]


@dataclass(frozen=True, eq=False)
class Proposal:
    """Rows that may carry one trigger.

    Parameters
    ----------
    rows : ndarray of int64, shape (m,)
    label : int
        The label that the trigger would call for.
    origin : str
    separation : float
        How far the rows lie from the rest of their label along the direction that was
        split, in standard deviations; 0 where nothing was split.
    ratio : float
        How much more often a window occurs at its place than anywhere else; 0 where no
        window was scanned.
    """

    rows: Rows
    label: int
    origin: Origin
    separation: float = 0.0
    ratio: float = 0.0


@dataclass(frozen=True, eq=False)
class View:
    """Images seen as numbers.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, H, W, C)
    labels : ndarray of int64, shape (n,)
        From 0.
    classes : int
    planes : ndarray of float32, shape (n, d)
        What whitening works on: `to_planes`.
    coarse : ndarray of float32, shape (n, 32)
        Principal components of the images at half their size: what neighbours are found by.
    """

    images: Images
    labels: Labels
    classes: int
    planes: Floats
    coarse: Floats

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, label: int) -> Rows:
        """The rows of a label."""
        return np.flatnonzero(self.labels == label)

    def mask(self, rows: Rows) -> Mask:
        """The rows as a mask, shape (n,)."""
        out = np.zeros(len(self), dtype=bool)
        out[rows] = True
        return out


def view(images: Images, labels: Labels, seed: int) -> View:
    """See images as numbers."""
    classes = int(labels.max()) + 1
    planes = to_planes(images)
    return View(images, labels, classes, planes, _coarse(images, seed))


def to_planes(images: Images) -> Floats:
    """Grey images: the pixels. Colour: luma, and two differences of colour at half the size.

    Half of the numbers of a colour image, hardly less of what a trigger needs. In [0, 1]
    and [-1, 1].

    Returns
    -------
    ndarray of float32, shape (n, d)
    """
    x = images.astype(np.float32) / np.float32(255)
    n = len(x)
    if images.shape[3] != 3:
        return np.ascontiguousarray(x.reshape(n, -1))
    luma = x @ np.array([0.299, 0.587, 0.114], np.float32)
    half = halve(np.stack([x[..., 2] - luma, x[..., 0] - luma], axis=-1))
    return np.concatenate([luma.reshape(n, -1), half.reshape(n, -1)], axis=1)


def halve(x: Floats) -> Floats:
    """Means of blocks of 2 x 2 pixels, shape (n, H // 2, W // 2, C); an odd edge is left out."""
    n, height, width, channels = x.shape
    cut = x[:, : height // 2 * 2, : width // 2 * 2]
    blocks = cut.reshape(n, height // 2, 2, width // 2, 2, channels)
    return np.asarray(blocks.mean(axis=(2, 4), dtype=np.float32))


def spread(rows: Rows, most: int) -> Rows:
    """At most so many of the rows, evenly spaced in their order."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def _coarse(images: Images, seed: int, components: int = 32, sample: int = 6000) -> Floats:
    small = halve(images.astype(np.float32)) / np.float32(255)
    flat = small.reshape(len(small), -1)
    rng = np.random.default_rng(seed)
    some = flat[np.sort(rng.permutation(len(flat))[:sample])]
    centre = some.mean(axis=0)
    covariance = (some - centre).T @ (some - centre)
    _, vectors = np.linalg.eigh(covariance.astype(np.float64))
    basis = vectors[:, ::-1][:, :components].astype(np.float32)
    return np.ascontiguousarray((flat - centre) @ basis)
