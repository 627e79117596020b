"""What the columns of a dataset hold, found out in one pass."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

#: Distinct values are counted exactly up to here; one more means "more".
MAX_DISTINCT = 10_000
#: Longer texts are counted by their hash, so that the count has a bounded memory.
_SHORT = 64
_IMAGE_NAME = r"(?i)\.(?:png|jpe?g|gif|bmp|webp|tiff?)$"


@dataclass(frozen=True)
class ColumnProfile:
    """What a column holds, over all rows.

    Parameters
    ----------
    name : str
    type : str
        The Arrow type in words.
    nulls : int
        Missing values; NaN is not counted.
    distinct : int
        Without the missing ones; exact up to 10,000, and 10,001 means "more". 0 where
        values are not counted: bytes, lists and objects.
    mean_length : float
        Mean characters of strings, else 0.
    integers : bool
        True where every finite number is whole.
    row_numbers : bool
        True where the column counts its rows, from 0 or 1.
    image_names : int
        Strings that end like the name of an image file.
    role : str
        The role that the ingest knows it to play: ``image`` where every value was decoded
        as one, ``label`` for the names of the folders that images lie in. Empty where it
        knows none.
    """

    name: str
    type: str
    nulls: int
    distinct: int
    mean_length: float = 0.0
    integers: bool = False
    row_numbers: bool = False
    image_names: int = 0
    role: str = ""


@dataclass
class ColumnCounter:
    """Gathers the profile of one column, part by part."""

    name: str
    type: pa.DataType
    rows: int = 0
    nulls: int = 0
    characters: int = 0
    images: int = 0
    integers: bool = True
    first: int | None = None
    counting: bool = True
    _values: set[Any] = field(default_factory=set, repr=False)

    def add(self, column: pa.ChunkedArray) -> None:
        """Look at more rows."""
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        present = column.drop_null()
        self._add_numbers(column, present)
        if _is_text(column.type) and len(present):
            self.characters += pc.sum(pc.utf8_length(present)).as_py()
            self.images += pc.sum(pc.match_substring_regex(present, _IMAGE_NAME)).as_py()
        if _countable(column.type) and len(self._values) <= MAX_DISTINCT:
            self._values.update(_distinct(present))
        self.rows += len(column)
        self.nulls += column.null_count

    def profile(self) -> ColumnProfile:
        """What was found."""
        seen = self.rows - self.nulls
        kind = self.type.value_type if pa.types.is_dictionary(self.type) else self.type
        return ColumnProfile(
            self.name,
            str(self.type),
            self.nulls,
            min(len(self._values), MAX_DISTINCT + 1),
            self.characters / seen if _is_text(kind) and seen else 0.0,
            bool(_is_number(kind) and self.integers),
            bool(pa.types.is_integer(kind) and self.rows and self.counting),
            self.images,
        )

    def _add_numbers(self, column: pa.ChunkedArray, present: pa.ChunkedArray) -> None:
        if pa.types.is_floating(column.type) and self.integers:
            values = present.to_numpy()
            values = values[np.isfinite(values)]
            self.integers = bool((values == np.trunc(values)).all())
        if not pa.types.is_integer(column.type) or not self.counting or not len(column):
            return
        if self.first is None:
            self.first = column[0].as_py()
        self.counting = column.null_count == 0 and self.first in {0, 1}
        if self.counting:
            expected = np.arange(len(column)) + self.rows + (self.first or 0)
            self.counting = bool((column.to_numpy() == expected).all())


def _distinct(present: pa.ChunkedArray) -> set[Any]:
    if pa.types.is_temporal(present.type):
        wide = present.type.bit_width == 64
        present = present.cast(pa.int64() if wide else pa.int32())
    found = pc.unique(present)
    # What is beyond the limit is never looked at one by one.
    values = set(found.slice(0, MAX_DISTINCT + 2).to_pylist())
    if pa.types.is_floating(present.type):
        return {"NaN" if v != v else v for v in values}
    if _is_text(present.type):
        return {v if len(v) <= _SHORT else _hash(v) for v in values}
    return values


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _countable(kind: pa.DataType) -> bool:
    types = pa.types
    simple = types.is_boolean(kind) or types.is_temporal(kind) or types.is_decimal(kind)
    return bool(simple or _is_number(kind) or _is_text(kind))
