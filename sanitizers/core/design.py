"""Feature columns as a matrix between 0 and 1, and rows of it back into the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sanitizers.core.encoder import is_category
from sanitizers.core.numbers import digits_of, is_measured, raw_numbers, strings, typed

#: Categories of one column that get a number of their own.
MAX_CATEGORIES = 20


@dataclass(frozen=True)
class Measured:
    """A column of numbers, dates or times: its observed range becomes 0 to 1."""

    name: str
    type: pa.DataType
    low: float
    high: float
    middle: float
    digits: int
    width: int = 1

    @property
    def span(self) -> float:
        """The width of the observed range, never 0."""
        return (self.high - self.low) or 1.0

    def encode(self, column: pa.ChunkedArray) -> NDArray[np.float64]:
        """The values, shape (n, 1); the median where missing."""
        numbers = raw_numbers(column)
        filled = np.where(np.isnan(numbers), self.middle, numbers)
        return np.asarray((filled - self.low) / self.span)[:, None]

    def rounded(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Numbers of the table for encoded values, within the range, as coarse as the others."""
        numbers = self.low + np.clip(values, 0.0, 1.0) * self.span
        return np.clip(np.round(numbers, self.digits), self.low, self.high)

    def decode(self, values: NDArray[np.float64]) -> pa.Array:
        """Values of the table for encoded ones, shape (n,)."""
        return typed(self.rounded(values), self.type)


@dataclass(frozen=True)
class Chosen:
    """A column of categories or truth values: a number for each frequent one.

    Parameters
    ----------
    name : str
    values : tuple of str
    rows : tuple of int
        For each value a row of the fitted table that has it.
    """

    name: str
    values: tuple[str, ...]
    rows: tuple[int, ...]

    @property
    def width(self) -> int:
        """How many numbers the column takes."""
        return len(self.values)

    def encode(self, column: pa.ChunkedArray) -> NDArray[np.float64]:
        """One-hot, shape (n, width); zeros where missing or rare."""
        found = pc.index_in(strings(column), value_set=pa.array(self.values, pa.string()))
        codes = pc.fill_null(found, len(self.values)).to_numpy()
        return np.asarray(np.eye(len(self.values) + 1)[codes, :-1])


@dataclass(frozen=True)
class Design:
    """How the feature columns of a table become a matrix, and rows of it the table's values.

    Numbers go from 0, the lowest observed, to 1, the highest; categories are one-hot.
    Columns with one value, and of types that no model reads, have no part in it.

    Parameters
    ----------
    columns : tuple of Measured or Chosen
    table : pyarrow.Table
        What it was fitted on; categories are taken from its rows.
    dummies : tuple of tuple of int
        Groups of columns of the matrix that come from columns of the table holding 0 and 1,
        of which exactly one was 1 in every row.
    """

    columns: tuple[Measured | Chosen, ...]
    table: pa.Table = field(repr=False, compare=False)
    dummies: tuple[tuple[int, ...], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the table that have a part in it."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def places(self) -> tuple[slice, ...]:
        """Where each column lies in the matrix."""
        ends = np.cumsum([0] + [column.width for column in self.columns]).tolist()
        return tuple(slice(a, b) for a, b in pairwise(ends))

    @cached_property
    def groups(self) -> tuple[NDArray[np.int64], ...]:
        """Columns of the matrix of which exactly one is 1."""
        chosen = [
            np.arange(place.start, place.stop)
            for column, place in zip(self.columns, self.places, strict=True)
            if isinstance(column, Chosen)
        ]
        return (*chosen, *(np.array(group, dtype=np.int64) for group in self.dummies))

    @cached_property
    def is_free(self) -> NDArray[np.bool_]:
        """Which columns of the matrix may take any value in the range, shape (d,)."""
        free = np.ones(sum(column.width for column in self.columns), dtype=bool)
        for group in self.groups:
            free[group] = False
        return free

    def encode(self, table: pa.Table) -> NDArray[np.float64]:
        """Rows as a matrix, shape (n, d); outside 0 to 1 where they leave the range."""
        parts = [column.encode(table.column(column.name)) for column in self.columns]
        return np.hstack(parts) if parts else np.zeros((table.num_rows, 0))

    def repair(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """The nearest rows that a table can hold: one category each, numbers in the range."""
        out = np.clip(matrix, 0.0, 1.0)
        for group in self.groups:
            best = group[np.argmax(matrix[:, group], axis=1)]
            out[:, group] = 0.0
            out[np.arange(len(out)), best] = 1.0
        for column, place in zip(self.columns, self.places, strict=True):
            if isinstance(column, Measured):
                numbers = column.rounded(out[:, place.start])
                out[:, place.start] = (numbers - column.low) / column.span
        return out

    def write(self, rows: pa.Table, matrix: NDArray[np.float64]) -> pa.Table:
        """Rows of the table with the features that a matrix says; other columns stay.

        Parameters
        ----------
        rows : pyarrow.Table, n rows
        matrix : ndarray of float64, shape (n, d)
        """
        matrix = self.repair(matrix)
        for column, place in zip(self.columns, self.places, strict=True):
            part = matrix[:, place]
            if isinstance(column, Measured):
                values = column.decode(part[:, 0])
            else:
                donors = np.array(column.rows, dtype=np.int64)[np.argmax(part, axis=1)]
                values = self.table.column(column.name).take(pa.array(donors))
            at = rows.column_names.index(column.name)
            rows = rows.set_column(at, rows.schema.field(at), values)
        return rows


def fit_design(table: pa.Table, features: Sequence[str]) -> Design:
    """Learn the ranges and the categories of feature columns.

    Parameters
    ----------
    table : pyarrow.Table
    features : sequence of str
    """
    columns: list[Measured | Chosen] = []
    for name in features:
        column = _fit(name, table.column(name))
        if column is not None:
            columns.append(column)
    design = Design(tuple(columns), table)
    return Design(design.columns, table, _dummies(design))


def measure(name: str, column: pa.ChunkedArray) -> Measured | None:
    """The range of a column of numbers, dates or times; None where it has one value at most."""
    numbers = raw_numbers(column)
    known = numbers[~np.isnan(numbers)]
    if not len(known) or known.min() == known.max():
        return None
    low, high, middle = float(known.min()), float(known.max()), float(np.median(known))
    return Measured(name, column.type, low, high, middle, digits_of(known, column.type))


def _fit(name: str, column: pa.ChunkedArray) -> Measured | Chosen | None:
    if is_measured(column.type):
        return measure(name, column)
    if not (is_category(column.type) or pa.types.is_boolean(column.type)):
        return None
    texts = strings(column)
    counted = pc.value_counts(texts.drop_null()).to_pylist()
    found = sorted((-c["counts"], c["values"]) for c in counted)[:MAX_CATEGORIES]
    if len(found) < 2:
        return None
    values = tuple(value for _, value in found)
    rows = pc.index_in(pa.array(values, pa.string()), value_set=texts.combine_chunks())
    return Chosen(name, values, tuple(rows.to_pylist()))


def _dummies(design: Design) -> tuple[tuple[int, ...], ...]:
    """Neighbouring columns of 0 and 1 of which exactly one is 1 in every row."""
    matrix = design.encode(design.table)
    groups: list[tuple[int, ...]] = []
    group: list[int] = []
    total = np.zeros(len(matrix))
    for column, place in zip(design.columns, design.places, strict=True):
        values = matrix[:, place.start]
        binary = isinstance(column, Measured) and bool(np.isin(values, (0.0, 1.0)).all())
        if not binary or bool((total + values > 1).any()):
            group, total = [], np.zeros(len(matrix))
        if not binary:
            continue
        group.append(place.start)
        total = total + values
        if bool((total == 1).all()):
            groups.append(tuple(group))
            group, total = [], np.zeros(len(matrix))
    return tuple(groups)
