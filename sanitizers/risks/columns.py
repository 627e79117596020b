"""Columns of a batch as the examinations see them: numbers, or codes of categories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sanitizers.core.data import Batch
from sanitizers.core.encoder import as_numbers, is_category, is_number


@dataclass(frozen=True)
class Column:
    """One column in memory.

    Parameters
    ----------
    name : str
    values : ndarray of float64, shape (n,)
        Numbers, NaN where missing; or the positions in `categories`.
    categories : tuple of str or None
        In their own order, so that no code hangs on the order of the rows. A missing
        category is one too, ``""``. None where the column holds numbers.
    """

    name: str
    values: NDArray[np.float64]
    categories: tuple[str, ...] | None

    @cached_property
    def codes(self) -> NDArray[np.int64]:
        """The values as positions in the categories."""
        return self.values.astype(np.int64)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.integer]) -> Column:
        """The column of some of the rows."""
        return Column(self.name, self.values[rows], self.categories)


def kind(field: pa.DataType) -> str:
    """``number``, ``category``, or nothing where no examination can use the type."""
    return "number" if is_number(field) else "category" if is_category(field) else ""


def column(table: pa.Table, name: str) -> Column | None:
    """Read a column; None where its type is of no use or no value is known."""
    values = table.column(name)
    if kind(values.type) == "number":
        numbers = as_numbers(values)
        numbers = np.where(np.isfinite(numbers), numbers, np.nan)
        return None if np.isnan(numbers).all() else Column(name, numbers, None)
    return categorical(table, name) if kind(values.type) == "category" else None


def categorical(table: pa.Table, name: str) -> Column:
    """Read a column of few values as categories, whatever its type."""
    texts = pc.fill_null(table.column(name).cast(pa.string()), "").combine_chunks()
    coded = texts.dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    found = np.asarray(coded.dictionary.to_pylist(), dtype=object)
    order = np.argsort(found.astype(str), kind="stable")
    place = np.empty(len(found), dtype=np.int64)
    place[order] = np.arange(len(found))
    codes = place[coded.indices.to_numpy()] if len(found) else np.empty(0, dtype=np.int64)
    return Column(name, codes.astype(np.float64), tuple(str(v) for v in found[order]))


def columns(table: pa.Table, names: Sequence[str]) -> list[Column]:
    """Read those of the columns that are of use."""
    read = (column(table, name) for name in names)
    return [c for c in read if c is not None]


def classes(batch: Batch, least: int) -> Column | None:
    """The labels as categories, with those that have too few rows left out of `categories`.

    The code of a row without a class is -1. None where fewer than two classes are left.
    """
    whole = categorical(batch.table, str(batch.roles.label))
    known = np.array([v is not None for v in batch.labels], dtype=bool)
    codes = whole.codes
    counts = np.bincount(codes[known], minlength=len(whole.categories or ()))
    kept = np.flatnonzero(counts >= least)
    if len(kept) < 2:
        return None
    place = np.full(len(counts), -1, dtype=np.int64)
    place[kept] = np.arange(len(kept))
    names = tuple((whole.categories or ())[i] for i in kept)
    return Column(whole.name, np.where(known, place[codes], -1).astype(np.float64), names)
