"""What an encoder of images is: a frozen recipe whose ``fit`` returns an embedder."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sanitizers.core.data import Dataset
from sanitizers.core.images import ImageShape

Images = NDArray[np.uint8]
Vectors = NDArray[np.floating]


@runtime_checkable
class Embedder(Protocol):
    """What fitting gives. The vector of an image hangs on that image only."""

    @property
    def shape(self) -> ImageShape:
        """Height, width and channels of the images that it takes."""
        ...

    @property
    def width(self) -> int:
        """How many numbers a vector has."""
        ...

    def embed(self, images: Images) -> Vectors:
        """Turn images, shape (n, *shape), into vectors of its type of float, shape (n, width)."""
        ...


@runtime_checkable
class ImageEncoder(Protocol):
    """A frozen recipe: its settings, and ``fit``."""

    #: The name in plans.
    name: ClassVar[str]
    #: The roles without which it cannot be fitted, besides ``image``.
    needs: ClassVar[frozenset[str]]
    #: Whether it can use more than a CPU.
    accelerated: ClassVar[bool]

    def check(self) -> None:
        """Refuse where what it needs is not installed, before any data are read.

        Raises
        ------
        PlanError
        """
        ...

    def fit(self, data: Dataset, device: str) -> Embedder:
        """Learn from the images, or from their sizes only.

        Parameters
        ----------
        data : Dataset
            With the role ``image``.
        device : {"cpu", "cuda"}
        """
        ...


def in_blocks(
    work: Callable[[Images], Vectors], images: Images, rows: int, width: int, threads: int = 1
) -> NDArray[np.float32]:
    """Do the work on blocks of exactly so many images, the last one filled up.

    The last bits of what a matrix product or a convolution gives depend on how many images
    come at once; in blocks of one size they do not, so that no vector hangs on a batch.

    Parameters
    ----------
    work : callable
        From images, shape (rows, H, W, C), to vectors, shape (rows, width).
    images : ndarray of uint8, shape (n, H, W, C)
    rows, width : int
    threads : int
        Blocks at a time.
    """
    out = np.empty((len(images), width), dtype=np.float32)

    def fill(start: int) -> None:
        part = images[start : start + rows]
        block = part
        if len(part) < rows:
            block = np.zeros((rows, *images.shape[1:]), dtype=np.uint8)
            block[: len(part)] = part
        out[start : start + rows] = work(block)[: len(part)]

    with ThreadPoolExecutor(threads, "embed") as pool:
        list(pool.map(fill, range(0, len(images), rows)))
    return out
