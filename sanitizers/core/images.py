"""Images: bytes of strangers in, arrays of one size out, in parallel."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sanitizers.core.image_formats import UndecodableError, decoded, opened

#: Height, width and channels: 1 for grey, 3 for red, green and blue.
ImageShape = tuple[int, int, int]
#: The bytes of one image; None where a row has none.
ImageBytes = bytes | memoryview | None

#: Pixels at a side of the view that sanitizers look at, at most.
VIEW_SIDE = 64
#: Threads that decode at a time, at most.
MAX_THREADS = 8

# Images that one thread takes at a time.
_CHUNK = 64
_GREY = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F"})

T = TypeVar("T")
R = TypeVar("R")


def flaws(images: Sequence[ImageBytes]) -> list[str | None]:
    """Decode every image fully, and say why one cannot be.

    Parameters
    ----------
    images : sequence of bytes or None, length n

    Returns
    -------
    list of str or None, length n
        None where all is well, or there is no image.
    """
    return in_parallel(_flaw, images)


def decode(images: Sequence[ImageBytes], shape: ImageShape) -> NDArray[np.uint8]:
    """Decode images to one size, in parallel.

    An image of another size is resampled with a triangle filter as wide as the reduction
    (no aliasing), its proportions given up. Colours become grey by their luma (ITU-R 601)
    where `shape` has one channel, 16 bits become 8 by dropping the lower ones, and
    transparency is ignored, as training code does that asks for RGB. Metadata is not
    looked at: a photograph is not turned upright.

    Parameters
    ----------
    images : sequence of bytes or None, length n
    shape : (int, int, int)

    Returns
    -------
    ndarray of uint8, shape (n, H, W, C)
        Zeros where there is no image.

    Raises
    ------
    UndecodableError
        If an image cannot be decoded.
    """
    out = np.zeros((len(images), *shape), dtype=np.uint8)

    def fill(row: int) -> None:
        data = images[row]
        if data is not None:
            with decoded(bytes(data)) as picture:
                out[row] = _pixels(picture, shape)

    in_parallel(fill, range(len(images)))
    return out


def resized(images: NDArray[np.uint8], shape: ImageShape) -> NDArray[np.uint8]:
    """Bring arrays of images to another size and number of channels, as `decode` would.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, H, W, C)
        C is 1 or 3.
    shape : (int, int, int)
    """
    out = np.zeros((len(images), *shape), dtype=np.uint8)

    def fill(row: int) -> None:
        pixels = images[row, :, :, 0] if images.shape[3] == 1 else images[row]
        out[row] = _pixels(Image.fromarray(pixels), shape)

    in_parallel(fill, range(len(images)))
    return out


def form(data: bytes | memoryview) -> ImageShape:
    """Height, width and channels of an image as it is stored, from its header.

    Raises
    ------
    UndecodableError
        If it is no image, or too large.
    """
    with opened(bytes(data)) as picture:
        return picture.height, picture.width, 1 if picture.mode in _GREY else 3


def common_shape(forms: Sequence[ImageShape], side: int = VIEW_SIDE) -> ImageShape:
    """The shape in which images of many sizes are looked at.

    The size that most of them have; where no size has a majority, the median height and
    the median width. Both are scaled down together until neither is over `side`. A few
    absurd images change nothing. One channel where all are grey, else three.

    Parameters
    ----------
    forms : sequence of (int, int, int)
        Of a sample; none gives ``(side, side, 3)``.
    side : int
    """
    if not forms:
        return side, side, 3
    sizes = Counter((height, width) for height, width, _ in forms)
    size, count = max(sizes.items(), key=lambda item: (item[1], item[0]))
    if 2 * count > len(forms):
        height, width = map(float, size)
    else:
        height, width = (float(np.median([f[axis] for f in forms])) for axis in (0, 1))
    scale = min(1.0, side / max(height, width))
    channels = 1 if all(f[2] == 1 for f in forms) else 3
    return max(1, round(height * scale)), max(1, round(width * scale)), channels


def in_parallel(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Apply a function that lets go of the interpreter, in threads; the order stays."""
    threads = min(MAX_THREADS, thread_count())
    if threads == 1 or len(items) <= _CHUNK // 4:
        return [function(item) for item in items]
    step = max(1, min(_CHUNK, len(items) // (2 * threads)))
    parts = [items[at : at + step] for at in range(0, len(items), step)]
    with ThreadPoolExecutor(threads, "images") as pool:
        done = pool.map(lambda part: [function(item) for item in part], parts)
        return [result for part in done for result in part]


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_count() -> int:
    """How many threads of this process may compute at once: ``OMP_NUM_THREADS``, else `cores`."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(said), cores()) if said.isdigit() and int(said) else cores()


def _flaw(data: ImageBytes) -> str | None:
    if data is None:
        return None
    try:
        with decoded(bytes(data)):
            return None
    except UndecodableError as error:
        return str(error)


def _pixels(picture: Image.Image, shape: ImageShape) -> NDArray[np.uint8]:
    height, width, channels = shape
    flat = _eight_bits(picture).convert("L" if channels == 1 else "RGB")
    if flat.size != (width, height):
        flat = flat.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(flat, dtype=np.uint8).reshape(shape)


def _eight_bits(picture: Image.Image) -> Image.Image:
    # Pillow clips 16 bits to 8, so that nearly all becomes white.
    if picture.mode.startswith("I"):
        return Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).astype(np.uint8))
    # Straight to RGB, Pillow warns of a palette with transparency.
    return picture.convert("RGBA") if "transparency" in picture.info else picture
