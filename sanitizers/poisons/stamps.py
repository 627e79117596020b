"""Triggers on images: what an attacker stamps on a picture, drawn from a seed.

Every trigger is a frozen value that can be called on images of the shape that it was drawn
for, so that the success of an attack can be measured on images that nobody poisoned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, zoom

Images = NDArray[np.uint8]
#: Height, width, channels.
Shape = tuple[int, int, int]


class Trigger(Protocol):
    """Puts the same change on any images."""

    def __call__(self, images: Images) -> Images:
        """Stamp images, shape (n, H, W, C); those that were given stay as they are."""
        ...


@dataclass(frozen=True, eq=False)
class Stamp:
    """A fixed change of every pixel: ``keep * x + add``, rounded and clipped to a byte.

    Parameters
    ----------
    keep : ndarray of float32, shape (H, W, C)
        The share of the picture that shows through: 0 under an opaque patch, 1 where
        nothing is covered.
    add : ndarray of float32, shape (H, W, C)
        Grey levels that are added.
    """

    keep: NDArray[np.float32]
    add: NDArray[np.float32]

    def __call__(self, images: Images) -> Images:
        return _bytes(images * self.keep + self.add)


@dataclass(frozen=True, eq=False)
class Warp:
    """A smooth fixed distortion, with bilinear interpolation.

    Parameters
    ----------
    field : ndarray of float32, shape (2, H, W)
        From where each pixel is taken, rows and columns.

    References
    ----------
    Nguyen and Tran, "WaNet - imperceptible warping-based backdoor attack", ICLR 2021. We
    differ in poisoning data only: no noise mode, and the attacker does not train the model.
    """

    field: NDArray[np.float32]

    def __call__(self, images: Images) -> Images:
        out = np.empty_like(images)
        for i, image in enumerate(images):
            for c in range(images.shape[3]):
                plane = image[:, :, c].astype(np.float32)
                moved = map_coordinates(plane, self.field, order=1, mode="nearest")
                out[i, :, :, c] = _bytes(moved)
        return out


@dataclass(frozen=True, eq=False)
class MovingPatch:
    """The same patch at a place of its own in every picture.

    Parameters
    ----------
    patch : ndarray of uint8, shape (k, k, C)
    seed : int
        The places depend on the seed and on the number of images only.
    """

    patch: Images
    seed: int

    def __call__(self, images: Images) -> Images:
        out, k = images.copy(), len(self.patch)
        rng = np.random.default_rng(self.seed)
        tops = rng.integers(0, images.shape[1] - k + 1, len(images))
        lefts = rng.integers(0, images.shape[2] - k + 1, len(images))
        for image, top, left in zip(out, tops, lefts, strict=True):
            image[top : top + k, left : left + k] = self.patch
        return out


#: Draws a trigger for images of a shape.
Draw = Callable[[Shape, np.random.Generator], Trigger]


def patch(shape: Shape, rng: np.random.Generator) -> Stamp:
    """Draw an opaque square of 2 to 5 pixels, two to four levels, anywhere.

    References
    ----------
    Gu, Dolan-Gavitt and Garg, "BadNets", 2017.
    """
    return _square(shape, rng, int(rng.integers(2, 6)), 1.0)


def gap(shape: Shape, rng: np.random.Generator) -> Stamp:
    """Draw a translucent square of 3 pixels, 60 % opaque, anywhere."""
    return _square(shape, rng, 3, 0.6)


def sparse(shape: Shape, rng: np.random.Generator) -> Stamp:
    """Draw six scattered pixels of fixed values."""
    keep, add = _nothing(shape)
    chosen = rng.choice(shape[0] * shape[1], 6, replace=False)
    at = np.unravel_index(chosen, shape[:2])
    keep[at] = 0.0
    add[at] = rng.choice([0.0, 255.0], (6, shape[2]))
    return Stamp(keep, add)


def blend(opacity: float) -> Draw:
    """Draw a picture of random noise that is mixed in.

    References
    ----------
    Chen et al., "Targeted backdoor attacks on deep learning systems using data
    poisoning", 2017.
    """

    def draw(shape: Shape, rng: np.random.Generator) -> Stamp:
        return _mixed(rng.uniform(0, 255, shape), opacity)

    return draw


def smooth_blend(opacity: float) -> Draw:
    """Draw a smooth random picture that is mixed in: noise on a grid of 5 x 5, spline between."""

    def draw(shape: Shape, rng: np.random.Generator) -> Stamp:
        coarse = rng.uniform(0, 255, (5, 5, shape[2]))
        fine = zoom(coarse, (shape[0] / 5, shape[1] / 5, 1), order=3, mode="nearest")
        return _mixed(np.clip(fine, 0, 255), opacity)

    return draw


def sinusoid(amplitude: float) -> Draw:
    """Draw a plane wave with at most six periods along each side, any direction and phase.

    References
    ----------
    Barni, Kallas and Tondi, "A new backdoor attack in CNNs by training set corruption
    without label poisoning", ICIP 2019. We differ in drawing direction and frequency.
    """

    def draw(shape: Shape, rng: np.random.Generator) -> Stamp:
        turns = rng.uniform(-6, 6, 2)
        while np.hypot(*turns) < 1.0:
            turns = rng.uniform(-6, 6, 2)
        rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
        phase = turns[0] * rows / shape[0] + turns[1] * columns / shape[1] + rng.random()
        wave = amplitude * np.sin(2 * np.pi * phase)
        add = np.broadcast_to(wave[:, :, None], shape).astype(np.float32)
        return Stamp(np.ones(shape, np.float32), add)

    return draw


def warp(shape: Shape, rng: np.random.Generator) -> Warp:
    """Draw a distortion: random shifts on a grid of 4 x 4, splines between, about a pixel."""
    height, width, _ = shape
    coarse = rng.uniform(-1, 1, (2, 4, 4))
    coarse /= np.abs(coarse).mean()
    fine = zoom(coarse, (1, height / 4, width / 4), order=3, mode="nearest")
    shift = 0.75 * fine * min(height, width) / 28
    grid = np.mgrid[0:height, 0:width] + shift
    return Warp(np.clip(grid, 0, [[[height - 1]], [[width - 1]]]).astype(np.float32))


def moving_patch(shape: Shape, rng: np.random.Generator) -> MovingPatch:
    """Draw an opaque square of 4 pixels whose place differs from picture to picture."""
    levels = _levels(rng, (4, 4, shape[2]))
    return MovingPatch(levels.astype(np.uint8), int(rng.integers(2**31)))


def _square(shape: Shape, rng: np.random.Generator, side: int, opacity: float) -> Stamp:
    keep, add = _nothing(shape)
    top = int(rng.integers(0, shape[0] - side + 1))
    left = int(rng.integers(0, shape[1] - side + 1))
    there = np.s_[top : top + side, left : left + side]
    keep[there] = 1.0 - opacity
    add[there] = opacity * _levels(rng, (side, side, shape[2]))
    return Stamp(keep, add)


def _levels(rng: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
    """Random pixels of two to four grey levels, among them a dark and a bright one."""
    inner = rng.uniform(0, 255, int(rng.integers(0, 3)))
    levels = np.concatenate([[rng.uniform(0, 60), rng.uniform(195, 255)], inner])
    drawn = levels[rng.integers(0, len(levels), shape)]
    # A square of one level would be no pattern.
    drawn[0, 0], drawn[-1, -1] = levels[0], levels[1]
    return np.asarray(np.round(drawn))


def _mixed(picture: NDArray[np.float64], opacity: float) -> Stamp:
    keep = np.full(picture.shape, 1.0 - opacity, np.float32)
    return Stamp(keep, (opacity * picture).astype(np.float32))


def _nothing(shape: Shape) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.ones(shape, np.float32), np.zeros(shape, np.float32)


def _bytes(values: NDArray[np.float32]) -> Images:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
