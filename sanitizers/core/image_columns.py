"""Images in Arrow columns: their bytes without a copy, their pixels in a column of fixed width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sanitizers.core.errors import InputError, PlanError
from sanitizers.core.image_formats import UndecodableError
from sanitizers.core.images import (
    ImageBytes,
    ImageShape,
    decode,
    flaws,
    form,
    in_parallel,
)

#: How images are kept that come as files or arrays; Hugging Face ``datasets`` knows it.
IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
#: The bytes of images whose column holds paths; in the store only, never published.
IMAGE = "__image"
#: Decoded pixels in the place of the bytes; in memory only.
PIXELS = "__pixels"


def is_image_struct(kind: pa.DataType) -> bool:
    """Whether a type is a struct of ``bytes`` and ``path``, as Hugging Face has it."""
    if not pa.types.is_struct(kind) or {field.name for field in kind} != {"bytes", "path"}:
        return False
    return is_bytes(kind.field("bytes").type)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether values of a type are bytes."""
    types = pa.types
    fixed = types.is_fixed_size_binary(kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or fixed)


def bytes_of(column: pa.ChunkedArray | pa.Array) -> list[memoryview | None]:
    """The bytes of every value of a column, as views of its memory.

    Parameters
    ----------
    column : pyarrow.ChunkedArray or pyarrow.Array
        Of bytes, or of structs of ``bytes`` and ``path``.

    Returns
    -------
    list of memoryview or None, length n
    """
    if is_image_struct(column.type):
        column = pc.struct_field(column, "bytes")
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return [view for chunk in chunks for view in _views(chunk)]


def image_bytes(table: pa.Table, column: str) -> list[memoryview | None]:
    """The bytes of the images of a table.

    Parameters
    ----------
    table : pyarrow.Table
    column : str
        The column with the role image.

    Raises
    ------
    PlanError
        If the column holds no bytes, and none were read.
    """
    found = table.column(IMAGE if IMAGE in table.column_names else column)
    if not (is_bytes(found.type) or is_image_struct(found.type)):
        raise PlanError(
            f"column {column!r} has the role 'image' and values of type {found.type}",
            expected="the bytes of images",
        )
    return bytes_of(found)


def decoded(table: pa.Table, column: str, shape: ImageShape) -> NDArray[np.uint8]:
    """The images of a table at one size, shape (n, H, W, C); zeros where a row has none."""
    if PIXELS not in table.column_names:
        return _decode(image_bytes(table, column), shape)
    pixels = table.column(PIXELS)
    out = np.zeros((len(pixels), *shape), dtype=np.uint8)
    at = 0
    for chunk in pixels.chunks:
        width = chunk.type.byte_width
        raw = chunk.buffers()[1]
        if raw is not None and len(chunk):
            start = chunk.offset * width
            known = np.frombuffer(raw, np.uint8, len(chunk) * width, start)
            out[at : at + len(chunk)] = known.reshape(len(chunk), *shape)
        at += len(chunk)
    return out


def present(table: pa.Table, column: str) -> NDArray[np.bool_]:
    """Which rows of a table have an image, shape (n,)."""
    if PIXELS in table.column_names:
        return np.asarray(table.column(PIXELS).is_valid().to_numpy(), dtype=bool)
    return np.array([data is not None for data in image_bytes(table, column)], dtype=bool)


def with_pixels(table: pa.Table, column: str, shape: ImageShape) -> pa.Table:
    """A table with its images decoded, and without their bytes.

    A sample of large images fits in memory only like this.
    """
    if PIXELS in table.column_names:
        return table
    known = present(table, column)
    pixels = decoded(table, column, shape)
    width = int(np.prod(shape))
    mask = pa.py_buffer(np.packbits(known, bitorder="little").tobytes())
    kind = pa.binary(width)
    made = pa.Array.from_buffers(kind, len(known), [mask, pa.py_buffer(pixels)])
    kept = [n for n in table.column_names if n != IMAGE and not _heavy(table, n, column)]
    return table.select(kept).append_column(PIXELS, made)


def forms(table: pa.Table, column: str) -> list[ImageShape]:
    """Height, width and channels of the images of a table that can be read, as they are stored."""
    found = in_parallel(_form, image_bytes(table, column))
    return [shape for shape in found if shape is not None]


def _form(data: ImageBytes) -> ImageShape | None:
    try:
        return None if data is None else form(data)
    except UndecodableError:
        return None


def _heavy(table: pa.Table, name: str, column: str) -> bool:
    kind = table.schema.field(name).type
    return name == column and (is_bytes(kind) or is_image_struct(kind))


def _decode(images: Sequence[ImageBytes], shape: ImageShape) -> NDArray[np.uint8]:
    try:
        return decode(images, shape)
    except UndecodableError:
        found = [(row, why) for row, why in enumerate(flaws(images)) if why]
    row, why = found[0]
    raise InputError(
        f"{len(found):,} of {len(images):,} images cannot be decoded; the first, row {row}: {why}"
    )


def _views(chunk: pa.Array) -> list[memoryview | None]:
    if pa.types.is_fixed_size_binary(chunk.type):
        chunk = chunk.cast(pa.binary())
    if not len(chunk):
        return []
    whole = pa.types.is_large_binary(chunk.type)
    _, ends, data = chunk.buffers()
    width = 8 if whole else 4
    offsets = np.frombuffer(
        ends, np.int64 if whole else np.int32, len(chunk) + 1, chunk.offset * width
    ).tolist()
    raw = memoryview(data if data is not None else b"")
    valid = chunk.is_valid().to_pylist()
    pairs = zip(offsets[:-1], offsets[1:], valid, strict=True)
    return [raw[a:b] if there else None for a, b, there in pairs]
