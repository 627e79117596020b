"""PNG, JPEG and WebP from strangers: known by their first bytes, opened by nothing else.

Each format has its own class of Pillow, so that no other parser ever sees the data. The
size is read from the header, and refused, before any memory is taken for pixels.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

#: Bytes of one encoded image.
MAX_BYTES = 64 * 2**20
#: Pixels of one image, and of all that are decoded at a time: 200 MB as colours.
MAX_PIXELS = 50_000_000
#: Scans of one JPEG. Photographs have up to 20; each costs a pass over all pixels.
MAX_SCANS = 100

_EXPECTED = "expected PNG, JPEG or WebP"
_PNG, _JPEG, _RIFF, _WEBP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"WEBP"
_PNG_END = b"IEND\xaeB`\x82"
# What else is met under the name of an image. Nothing of it is parsed.
_STRANGERS = (
    (b"GIF8", "GIF"), (b"BM", "BMP"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"),
    (b"%PDF", "PDF"), (b"P5", "PGM"), (b"P6", "PPM"), (b"<", "SVG or other markup"),
)  # fmt: skip
_OPEN: Mapping[str, Callable[[io.BytesIO], ImageFile]] = MappingProxyType(
    {"PNG": PngImageFile, "JPEG": JpegImageFile, "WebP": WebPImageFile}
)


class UndecodableError(ValueError):
    """An image that cannot be decoded; the message says why, without its name."""


@contextmanager
def decoded(data: bytes) -> Iterator[ImageFile]:
    """An image with its pixels.

    Raises
    ------
    UndecodableError
        If it is of another format, damaged, truncated, animated or too large.
    """
    with opened(data) as picture, _PIXELS.taken(picture.width * picture.height):
        with _named(data):
            picture.load()
        if data.startswith(_PNG) and data.rfind(_PNG_END) < 0:
            raise UndecodableError("truncated PNG")
        yield picture


@contextmanager
def opened(data: bytes) -> Iterator[ImageFile]:
    """An image whose header was read, of one frame and no absurd size.

    Raises
    ------
    UndecodableError
        If it is of another format, animated or too large.
    """
    if len(data) > MAX_BYTES:
        raise UndecodableError(f"more than {MAX_BYTES // 2**20} MiB")
    name = format_of(data)
    _check_size(*_announced(name, data))
    if name == "JPEG" and data.count(b"\xff\xda") > MAX_SCANS:
        raise UndecodableError(f"a JPEG of more than {MAX_SCANS} scans")
    with _named(data):
        picture = _OPEN[name](io.BytesIO(data))
    with picture:
        _check_size(picture.width, picture.height)
        if getattr(picture, "n_frames", 1) > 1:
            raise UndecodableError("animated; what is learned from it depends on the reader")
        yield picture


def format_of(data: bytes) -> str:
    """``PNG``, ``JPEG`` or ``WebP``, by the first bytes.

    Raises
    ------
    UndecodableError
        If it is none of them; the message says what it is instead, where that is known.
    """
    head = data[:64]
    if head.startswith(_PNG):
        return "PNG"
    if head.startswith(_JPEG):
        return "JPEG"
    if head.startswith(_RIFF) and head[8:12] == _WEBP:
        return "WebP"
    if not head:
        raise UndecodableError("empty")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    what = next((name for magic, name in _STRANGERS if text.startswith(magic)), None)
    raise UndecodableError(f"{what or 'of no known format'}; {_EXPECTED}")


def _announced(name: str, head: bytes) -> tuple[int, int]:
    """Width and height by the header; those of a JPEG cost its parser nothing."""
    if name == "PNG":
        return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
    if name == "JPEG":
        return 1, 1
    # Pillow makes room for a WebP image when it opens it, so its size has to be known before.
    if head[12:16] == b"VP8 ":
        return _little(head[26:28]) & 0x3FFF, _little(head[28:30]) & 0x3FFF
    if head[12:16] == b"VP8L":
        bits = _little(head[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if head[12:16] == b"VP8X":
        return _little(head[24:27]) + 1, _little(head[27:30]) + 1
    return 0, 0


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise UndecodableError("damaged: it has no size")
    if width * height > MAX_PIXELS:
        raise UndecodableError(f"more than {MAX_PIXELS:,} pixels")


@contextmanager
def _named(data: bytes) -> Iterator[None]:
    """Turn whatever a decoder raises on hostile bytes into one line."""
    name = format_of(data)
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        line = (str(error).splitlines() or [type(error).__name__])[0][:120]
        cut = "truncated" in line.lower()
        raise UndecodableError(f"truncated {name}" if cut else f"damaged {name}: {line}") from None


class _Pixels:
    """Pixels that may be decoded at a time: many small images, or a large one."""

    def __init__(self) -> None:
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """Wait until there is room for that many."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + count <= MAX_PIXELS)
            self._taken += count
        try:
            yield
        finally:
            with self._changed:
                self._taken -= count
                self._changed.notify_all()


#: Memory is the process's own, so what counts its users is too.
_PIXELS = _Pixels()
