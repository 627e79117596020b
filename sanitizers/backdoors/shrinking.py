"""Images made small enough for an audit."""

from __future__ import annotations

import numpy as np

from sanitizers.backdoors.arrays import Images
from sanitizers.core.images import ImageShape

#: The longer side of an image that is audited, at most; larger ones are averaged in blocks.
SIDE = 40
# Images that are averaged at once.
_CHUNK = 8192


def shrunk(shape: ImageShape) -> ImageShape:
    """What becomes of the shape of images by `shrink`."""
    height, width, channels = shape
    factor = -(-max(height, width) // SIDE)
    return height // factor, width // factor, channels


def shrink(images: Images) -> Images:
    """Means of blocks of pixels, as small as needed for the longer side to be at most 40."""
    n, height, width, channels = images.shape
    factor = -(-max(height, width) // SIDE)
    if factor == 1:
        return images
    out = np.empty((n, *shrunk((height, width, channels))), np.uint8)
    down, across = out.shape[1] * factor, out.shape[2] * factor
    for start in range(0, n, _CHUNK):
        part = images[start : start + _CHUNK, :down, :across]
        blocks = part.reshape(-1, out.shape[1], factor, out.shape[2], factor, channels)
        out[start : start + _CHUNK] = np.rint(blocks.mean(axis=(2, 4), dtype=np.float32))
    return out
