"""Rows with images: every image is decoded once, and a row whose image cannot be is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.readers.blocks import Block, Unreadable
from pipelines.readers.folders import IMAGE_COLUMN
from pipelines.readers.inside import windows
from pipelines.readers.named import contents, home_of
from pipelines.readers.sources import Source
from sanitizers.core.encoder import is_category
from sanitizers.core.errors import PlanError, did_you_mean
from sanitizers.core.image_columns import IMAGE, bytes_of, is_bytes, is_image_struct
from sanitizers.core.images import VIEW_SIDE, ImageBytes, flaws

#: A row with an image counts as what its view will take in memory, at least.
LEAST_ROW_BYTES = VIEW_SIDE * VIEW_SIDE * 3
#: Bytes of rows that are decoded at a time.
PIECE_BYTES = 32 * 2**20
#: Values by which a column of bytes is judged, and the share of them that must be images.
JUDGED, SHARE = 20, 0.8


@dataclass(frozen=True)
class ImageColumn:
    """The column of images of a dataset.

    Parameters
    ----------
    name : str
    paths : bool
        True where it names files, False where it holds their bytes.
    """

    name: str
    paths: bool

    def checked(self, source: Source, block: Block) -> Iterator[Block]:
        """Cut a block into pieces that fit in memory, whose images can be decoded.

        Parameters
        ----------
        source : Source
            Where the block comes from.
        block : Block

        Yields
        ------
        Block
            With the bytes in a column of ours, where they lie in files. Rows whose image
            cannot be decoded are among the unreadable ones.
        """
        unreadable = block.unreadable
        for rows in self._pieces(source, block.table):
            piece = block.table.slice(rows.start, rows.stop - rows.start)
            images, reasons = self._read(source, piece)
            good = np.array([reason is None for reason in reasons], dtype=bool)
            bad = [
                self._unreadable(source, block, rows.start + at, images[at], str(reasons[at]))
                for at in np.flatnonzero(~good).tolist()
            ]
            if self.paths:
                piece = piece.append_column(IMAGE, pa.array(images, pa.binary()))
            kept = piece if good.all() else piece.filter(pa.array(good))
            told = tuple(sorted([*unreadable, *bad], key=lambda u: u.row))
            yield Block(kept, block.positions[rows][good], told)
            unreadable = ()
        if unreadable:
            yield Block(block.table.slice(0, 0), block.positions[:0], unreadable)

    def _pieces(self, source: Source, table: pa.Table) -> Iterator[slice]:
        if self.paths:
            yield from windows(home_of(source), _names(table, self.name))
            return
        row = max(table.nbytes // max(table.num_rows, 1), LEAST_ROW_BYTES)
        step = max(1, PIECE_BYTES // row)
        for start in range(0, table.num_rows, step):
            yield slice(start, min(start + step, table.num_rows))

    def _read(
        self, source: Source, table: pa.Table
    ) -> tuple[Sequence[ImageBytes], list[str | None]]:
        """The bytes of the images, and for each the reason why it cannot be decoded."""
        if self.paths:
            found = contents(home_of(source), _names(table, self.name))
            images: Sequence[ImageBytes] = [c if isinstance(c, bytes) else None for c in found]
            given = [c if isinstance(c, str) else None for c in found]
        else:
            images = bytes_of(table.column(self.name))
            given = _without_bytes(table.column(self.name), images)
        told = [a or b for a, b in zip(given, flaws(images), strict=True)]
        called = "image" if self.name == IMAGE_COLUMN else f"image {self.name!r}"
        return images, [why and f"{called}: {why}" for why in told]

    def _unreadable(
        self, source: Source, block: Block, at: int, image: ImageBytes, reason: str
    ) -> Unreadable:
        file = ""
        if source.format == "imagefolder":
            file = f"{source.name}/{block.table.column(self.name)[at]['path'].as_py()}"
        (raw,) = block.raws([at]) if block.raws else [_json(block.table, at, self.name)]
        data = None if image is None else bytes(image)
        return Unreadable(int(block.positions[at]), raw, reason, file, data)


def find_image_column(
    schema: pa.Schema, asked: str | None, first: Callable[[], pa.Table]
) -> ImageColumn | None:
    """The column of images: the one that was asked for, or the first whose values are some.

    Parameters
    ----------
    schema : pyarrow.Schema
    asked : str or None
    first : callable
        Reads the first rows; asked only where types do not tell.

    Raises
    ------
    PlanError
        If there is no such column, or its values can be no images.
    """
    if asked is not None:
        return _asked(schema, asked)
    for field in schema:
        if is_image_struct(field.type):
            return ImageColumn(field.name, False)
    plain = [field.name for field in schema if is_bytes(field.type)]
    table = first() if plain else schema.empty_table()
    found = (name for name in plain if _are_images(bytes_of(table.column(name))))
    return next((ImageColumn(name, False) for name in found), None)


def _asked(schema: pa.Schema, name: str) -> ImageColumn:
    if name not in schema.names:
        raise PlanError(f"no column {name!r} for the images", do=did_you_mean(name, schema.names))
    kind = schema.field(name).type
    if is_category(kind):
        return ImageColumn(name, True)
    if is_bytes(kind) or is_image_struct(kind):
        return ImageColumn(name, False)
    others = [f.name for f in schema if is_bytes(f.type) or is_image_struct(f.type)]
    raise PlanError(
        f"column {name!r} cannot be the image: it is of type {kind}",
        expected="paths, bytes, or a struct of bytes and path",
        do=f"perhaps --image {others[0]}" if others else "",
    )


def _are_images(values: Sequence[ImageBytes]) -> bool:
    judged = [value for value in values if value is not None][:JUDGED]
    good = sum(reason is None for reason in flaws(judged))
    return bool(judged) and good >= SHARE * len(judged)


def _names(table: pa.Table, column: str) -> list[str | None]:
    names: list[str | None] = table.column(column).cast(pa.string()).to_pylist()
    return names


def _without_bytes(column: pa.ChunkedArray, images: Sequence[ImageBytes]) -> list[str | None]:
    """Structs that hold a path only: the file is somewhere, and not in the data."""
    if not is_image_struct(column.type):
        return [None] * len(images)
    paths = pc.struct_field(column, "path").to_pylist()
    return [
        "a path without the bytes of the file; embed the files, or name a column of paths"
        if image is None and path is not None
        else None
        for image, path in zip(images, paths, strict=True)
    ]


def _json(table: pa.Table, at: int, image: str) -> str:
    """A row that came with types, as text; the bytes of its image are kept beside it."""
    row = {name: table.column(name)[at] for name in table.column_names}
    return json.dumps({name: _plain(value, name == image) for name, value in row.items()})


def _plain(value: pa.Scalar, is_image: bool) -> Any:
    found = value.as_py()
    if is_image and isinstance(found, dict | bytes):
        return {"path": found["path"]} if isinstance(found, dict) else None
    return found if isinstance(found, bool | int | float | str | None) else str(found)
