"""Images for people: a line about one, and a small picture that was painted anew by us.

The bytes of a stranger never reach a page. An image is decoded, made small and written as
PNG again, so that nothing is left of it but its pixels.
"""

from __future__ import annotations

import base64
import io

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
            address = _address(data, shape)
            if len(address) <= characters:
                return address
    except UndecodableError:
        return ""
    return ""


def _address(data: bytes, shape: tuple[int, int, int]) -> str:
    pixels = decode([data], shape)[0]
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0] if shape[2] == 1 else pixels).save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")
