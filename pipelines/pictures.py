"""Images for people: a line about one, and a small picture that was painted anew by us.

The bytes of a stranger never reach a page. An image is decoded, made small and written as
PNG again, so that nothing is left of it but its pixels.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sanitizers.core.image_formats import UndecodableError, format_of
from sanitizers.core.images import common_shape, decode, form

#: Pixels at the longer side, from the one that is preferred to the smallest of use.
SIDES = (64, 48, 32, 16)


def described(data: bytes) -> str | None:
    """Say in a few words what image some bytes are; None where they are none."""
    try:
        height, width, _ = form(data)
        kind = format_of(data)
    except UndecodableError:
        return None
    return f"{kind}, {width:,} x {height:,} pixels, {len(data):,} bytes"


def thumbnail(data: bytes, characters: int) -> str:
    """Paint a small picture of an image, as a ``data:`` address.

    Parameters
    ----------
    data : bytes
    characters : int
        How long the address may be; a smaller picture is made where it must.

    Returns
    -------
    str
        Empty where the image cannot be decoded, or no picture is small enough.
    """
    try:
        shapes = [common_shape([form(data)], side) for side in SIDES]
        for shape in dict.fromkeys(shapes):
            address = painted(decode([data], shape)[0])
            if len(address) <= characters:
                return address
    except UndecodableError:
        return ""
    return ""


def enlarged(data: bytes, side: int) -> bytes | None:
    """Paint an image anew, as the bytes of a PNG.

    Parameters
    ----------
    data : bytes
    side : int
        Pixels of the longer side, at most.

    Returns
    -------
    bytes or None
        None where the image cannot be decoded.
    """
    try:
        pixels = decode([data], common_shape([form(data)], side))[0]
    except UndecodableError:
        return None
    return _png(pixels)


def painted(pixels: NDArray[np.uint8]) -> str:
    """Paint pixels, as a ``data:`` address.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (H, W, C)
        C is 1 for grey, 3 for colours, 4 for colours and opacity.
    """
    return "data:image/png;base64," + base64.b64encode(_png(pixels)).decode("ascii")


def _png(pixels: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    flat = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    Image.fromarray(np.ascontiguousarray(flat)).save(out, "PNG", optimize=True)
    return out.getvalue()
