"""Pixels as they are, made small: an encoder that has learned nothing and needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sanitizers.core.data import Dataset
from sanitizers.core.errors import PlanError
from sanitizers.core.images import ImageShape
from sanitizers.encoders.embedder import Images, Vectors

#: Images that are averaged at a time.
_ROWS = 1024


@dataclass(frozen=True)
class Pixels:
    """Means of blocks of pixels.

    Whoever reads the vectors takes their principal components. Where images are alike but
    for what they show (digits, garments, scans from one device) these tell classes apart
    as well as a pretrained net; of photographs they tell light and colour. Of 5 % flipped
    labels `labels` ranks 86 % before it has lost 1 % of the clean rows of Fashion-MNIST, and
    19 % on CIFAR-10, where by `pretrained` it ranks 58 % (``benchmarks/results/embeddings.md``).

    Parameters
    ----------
    numbers : int
        Of a vector, at most.
    """

    name: ClassVar[str] = "pixels"
    needs: ClassVar[frozenset[str]] = frozenset()
    accelerated: ClassVar[bool] = False

    numbers: int = 1024

    def __post_init__(self) -> None:
        if self.numbers < 3:
            raise PlanError(f"pixels: numbers={self.numbers}", expected="at least 3")

    def check(self) -> None:
        """Nothing is needed."""

    def fit(self, data: Dataset, device: str) -> PixelMeans:
        shape = data.shape_within()
        factor = 1
        while _width(shape, factor) > self.numbers:
            factor += 1
        return PixelMeans(shape, factor)


@dataclass(frozen=True)
class PixelMeans:
    """Means of ``factor`` by ``factor`` pixels, from 0 to 1; those at the edge are of fewer.

    Parameters
    ----------
    shape : (int, int, int)
    factor : int
    """

    shape: ImageShape
    factor: int

    @property
    def width(self) -> int:
        """How many numbers a vector has."""
        return _width(self.shape, self.factor)

    def embed(self, images: Images) -> Vectors:
        out = np.empty((len(images), self.width), dtype=np.float32)
        for start in range(0, len(images), _ROWS):
            part = images[start : start + _ROWS].astype(np.int64)
            for axis in (1, 2):
                part = np.add.reduceat(part, range(0, part.shape[axis], self.factor), axis)
            # Sums of whole numbers are exact, so that equal images have equal vectors.
            out[start : start + _ROWS] = (part / (255 * self._counts())).reshape(len(part), -1)
        return out

    def _counts(self) -> NDArray[np.int64]:
        """How many pixels each mean is of, shape (h, w, 1)."""
        sides = [np.arange(0, side, self.factor) for side in self.shape[:2]]
        down, across = (
            np.minimum(self.factor, side - starts)
            for starts, side in zip(sides, self.shape[:2], strict=True)
        )
        return np.asarray(np.outer(down, across)[..., None], dtype=np.int64)


def _width(shape: ImageShape, factor: int) -> int:
    height, width, channels = shape
    return -(-height // factor) * -(-width // factor) * channels
