"""Small images for tests: arrays, their files in many formats, and hostile ones."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sanitizers.core.data import Batch, Dataset

Pixels = NDArray[np.uint8]


def colours(height: int = 6, width: int = 9, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def greys(height: int = 6, width: int = 9, seed: int = 0) -> Pixels:
    return colours(height, width, seed)[:, :, 0].copy()


def encoded(picture: Pixels | Image.Image, kind: str = "PNG", **settings: object) -> bytes:
    """The bytes of a file."""
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(picture)
    out = io.BytesIO()
    picture.save(out, kind, **settings)
    return out.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_bomb(side: int = 60_000) -> bytes:
    """A few bytes that announce billions of pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def webp_bomb(kind: bytes) -> bytes:
    """The same as WebP: lossy, lossless or extended."""
    most = 16_383
    bits = (most - 1) | (most - 1) << 14
    data = {
        b"VP8 ": b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", most, most),
        b"VP8L": b"\x2f" + struct.pack("<I", bits),
        b"VP8X": b"\0" * 4 + struct.pack("<I", most - 1)[:3] + struct.pack("<I", most - 1)[:3],
    }[kind]
    body = b"WEBP" + kind + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def hostile() -> dict[str, tuple[bytes, str]]:
    """Files that are no images that may be decoded, with a word of the reason."""
    whole = {kind: encoded(colours(20, 30), kind) for kind in ("PNG", "JPEG", "WEBP")}
    frames = [Image.fromarray(colours(seed=seed)) for seed in range(3)]
    moving: dict[str, object] = {"save_all": True, "append_images": frames[1:]}
    cut = {
        f"{kind.lower()} cut": (data[: len(data) // 2], "truncated" if kind != "WEBP" else "WebP")
        for kind, data in whole.items()
    }
    return cut | {
        "empty": (b"", "empty"),
        "end lost": (whole["PNG"][:-1], "truncated PNG"),
        "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "SVG"),
        "xml": (b"\xef\xbb\xbf \n<?xml version='1.0'?><svg/>", "SVG"),
        "gif": (encoded(colours(), "GIF"), "GIF"),
        "bmp": (encoded(colours(), "BMP"), "BMP"),
        "tiff": (encoded(colours(), "TIFF"), "TIFF"),
        "text": (b"not an image at all", "no known format"),
        "damaged": (whole["PNG"][:60] + b"\xff" * 9 + whole["PNG"][69:], "damaged PNG"),
        "png bomb": (png_bomb(), "pixels"),
        "webp bomb": (webp_bomb(b"VP8L"), "pixels"),
        "animated png": (encoded(frames[0], "PNG", **moving), "animated"),
        "animated webp": (encoded(frames[0], "WEBP", **moving), "animated"),
    }


def image_folder(root: Path, classes: dict[str, list[bytes]], ending: str = "png") -> Path:
    """Write a folder per class."""
    for label, files in classes.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(files):
            (root / label / f"{number:03d}.{ending}").write_bytes(data)
    return root


@dataclass(frozen=True)
class BrightScorer:
    null: None = None

    def score(self, batch: Batch) -> NDArray[np.float64]:
        bright = batch.images.reshape(len(batch), -1).mean(axis=1)
        return np.where(batch.has_image, bright, np.nan)

    def hint(self, batch: Batch) -> list[str | None]:
        return [None] * len(batch)


@dataclass(frozen=True)
class Bright:
    """How bright an image is."""

    name: ClassVar[str] = "bright"
    needs: ClassVar[frozenset[str]] = frozenset({"image"})

    def fit(self, data: Dataset) -> BrightScorer:
        return BrightScorer()

    def reason(self, score: float, hint: str | None) -> str:
        return f"its mean is {score:.0f} of 255"
