"""Pixels as PNG files that are the same bytes everywhere: nothing in them is compressed.

A compressor gives other bytes in its next version, and row ids come from bytes. Shards are
compressed as a whole, which is worth more than each image by itself.

PNG (ISO/IEC 15948) holds a zlib stream (RFC 1950); its blocks may be stored (RFC 1951, 3.2.4).
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_BLOCK = 65_535
_HEAD = b"\x89PNG\r\n\x1a\n"
_COLOUR = {1: 0, 3: 2}


def png_files(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Write images of one size as PNG.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n, H, W) or (n, H, W, C)
        C is 1 or 3.

    Returns
    -------
    ndarray of uint8, shape (n, b)
        One file each; all have the same length.
    """
    count, height, width = pixels.shape[:3]
    channels = pixels.shape[3] if pixels.ndim == 4 else 1
    lines = np.zeros((count, height, 1 + width * channels), dtype=np.uint8)
    lines[:, :, 1:] = pixels.reshape(
        count, height, width * channels
    )  # the byte before each is "no filter"
    raw = lines.reshape(count, height * (1 + width * channels))
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR[channels], 0, 0, 0)
    stored = _stored(raw)
    sums = [_checksum(zlib.adler32(line.data)) for line in raw]
    body = np.hstack([stored, np.array(sums, dtype=np.uint8).reshape(count, 4)])
    checks = [_checksum(zlib.crc32(line.data, zlib.crc32(b"IDAT"))) for line in body]
    before = _HEAD + _chunk(b"IHDR", header) + struct.pack(">I", body.shape[1]) + b"IDAT"
    return np.hstack(
        [
            _repeated(before, count),
            body,
            np.array(checks, dtype=np.uint8).reshape(count, 4),
            _repeated(_chunk(b"IEND", b""), count),
        ]
    )


def _stored(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A zlib stream of stored blocks, without its checksum."""
    count, size = raw.shape
    parts = [_repeated(b"\x78\x01", count)]
    for start in range(0, size, _BLOCK):
        block = raw[:, start : start + _BLOCK]
        length = block.shape[1]
        last = start + _BLOCK >= size
        parts += [_repeated(struct.pack("<BHH", last, length, length ^ 0xFFFF), count), block]
    return np.hstack(parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check


def _checksum(value: int) -> list[int]:
    return list(value.to_bytes(4))


def _repeated(data: bytes, count: int) -> NDArray[np.uint8]:
    return np.broadcast_to(np.frombuffer(data, np.uint8), (count, len(data)))
