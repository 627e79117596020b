"""One encoder for every tabular sanitizer: mixed columns in, finite float32 out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sanitizers.core.vectors import COMPONENTS, WIDE, VectorColumn, fit_vectors, is_vector

#: Categories of one column that get a number of their own; the rest share one.
MAX_CATEGORIES = 20
#: A category with a smaller share of the rows joins the rest.
MIN_SHARE = 0.005
#: Beyond this many standard deviations numbers grow like logarithms, so that a column
#: that is nearly constant, or one absurd value, does not drown all other columns.
STRAIGHT = 3.0
#: Encoded values end here, so that no hostile value overflows a distance.
LIMIT = 30.0
#: How many units of a type of time make a second.
_TICKS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


@dataclass(frozen=True)
class NumberColumn:
    """A numeric, boolean or time column: median for missing, then centred and scaled."""

    name: str
    centre: float
    scale: float
    indicator: bool


@dataclass(frozen=True)
class CategoryColumn:
    """A categorical column: one number per frequent category, one for all others."""

    name: str
    categories: tuple[str, ...]
    scale: float


#: How one column is encoded.
Column = NumberColumn | CategoryColumn | VectorColumn


@dataclass(frozen=True)
class Encoder:
    """A fitted encoding of feature columns; plain numbers and names, nothing learned as code.

    Parameters
    ----------
    columns : tuple of NumberColumn, CategoryColumn or VectorColumn
    skipped : tuple of (str, str)
        Columns that carry nothing, each with the reason.
    """

    columns: tuple[Column, ...]
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """For each encoded dimension the column that it comes from, length d."""
        return tuple(c.name for c in self.columns for _ in range(_width(c)))

    @property
    def has_vectors(self) -> bool:
        """Whether there is a column of vectors, so that `transform` can be wide."""
        return any(isinstance(column, VectorColumn) for column in self.columns)

    def transform(self, table: pa.Table, *, wide: bool = False) -> NDArray[np.float32]:
        """Encode rows.

        Parameters
        ----------
        table : pyarrow.Table
            Has the columns that the encoder was fitted on.
        wide : bool
            With more components of vectors.

        Returns
        -------
        ndarray of float32, shape (n, d)
            Finite, within ±30.
        """
        most = WIDE if wide else COMPONENTS
        widths = [_width(column, most) for column in self.columns]
        out = np.zeros((table.num_rows, sum(widths)), dtype=np.float32)
        at = 0
        for column, width in zip(self.columns, widths, strict=True):
            _encode(column, table.column(column.name), out[:, at : at + width], most)
            at += width
        return out


def fit_encoder(table: pa.Table, features: Sequence[str]) -> Encoder:
    """Learn how to encode feature columns from some of their rows.

    Numbers are centred on the median and divided by the standard deviation of the
    rows within the 0.1 % tails, so that one absurd value cannot flatten a column.
    Missing numbers become the median, with an indicator column beside them;
    missing categories are a category. Vectors become their principal components, see
    `sanitizers.core.vectors`. Columns without a value, or with one value only, are skipped.

    Parameters
    ----------
    table : pyarrow.Table
    features : sequence of str
    """
    columns: list[Column] = []
    skipped: list[tuple[str, str]] = []
    for name in features:
        fitted = _fit_column(name, table.column(name))
        if isinstance(fitted, str):
            skipped.append((name, fitted))
        else:
            columns.append(fitted)
    return Encoder(tuple(columns), tuple(skipped))


def is_number(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are encoded as numbers (booleans and times too)."""
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
        or (pa.types.is_temporal(kind) and not pa.types.is_interval(kind))
    )


def is_category(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are encoded as categories."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _width(column: Column, most: int = COMPONENTS) -> int:
    if isinstance(column, VectorColumn):
        return column.width(most)
    if isinstance(column, NumberColumn):
        return 2 if column.indicator else 1
    return len(column.categories) + 1


def _fit_column(name: str, column: pa.ChunkedArray) -> Column | str:
    if is_number(column.type):
        return _fit_numbers(name, as_numbers(column))
    if is_category(column.type):
        return _fit_categories(name, column)
    if is_vector(column.type):
        return fit_vectors(name, column)
    if pa.types.is_null(column.type):
        return "every value is missing"
    return f"values of type {column.type} are not encoded"


def _fit_numbers(name: str, values: NDArray[np.float64]) -> NumberColumn | str:
    known = values[np.isfinite(values)]
    if not len(known):
        return "every value is missing"
    missing = len(known) < len(values)
    # Halved, since sums and differences of hostile values overflow.
    halves = known / 2.0
    centre = 2.0 * float(np.median(halves))
    scale = _deviation(np.clip(halves, *np.quantile(halves, [0.001, 0.999])))
    if scale <= 1e-12 * abs(centre):
        scale = _deviation(halves)
    if scale == 0.0:
        if not missing:
            return "every value is the same"
        scale = 1.0
    return NumberColumn(name, centre, scale, missing)


def _deviation(halves: NDArray[np.float64]) -> float:
    """The standard deviation of doubled values, in units of the largest: squares overflow."""
    unit = float(np.abs(halves).max()) or 1.0
    return 2.0 * (float(np.std(halves / unit)) * unit)


def _fit_categories(name: str, column: pa.ChunkedArray) -> CategoryColumn | str:
    counts = pc.value_counts(pc.fill_null(column.cast(pa.string()), "")).to_pylist()
    rows = len(column)
    found = sorted(((c["counts"], c["values"]) for c in counts), key=lambda x: (-x[0], x[1]))
    if len(found) < 2:
        return "every value is the same" if found and found[0][1] else "every value is missing"
    least = max(2, MIN_SHARE * rows)
    frequent = tuple(value for count, value in found if count >= least)[:MAX_CATEGORIES]
    if not frequent:
        return "no value is frequent"
    # A change of category moves two of the numbers; with 1/sqrt(2) each, it counts
    # like a change of one standard deviation or so in a numeric column.
    return CategoryColumn(name, frequent, float(np.sqrt(0.5)))


def _encode(column: Column, values: pa.ChunkedArray, out: NDArray[np.float32], most: int) -> None:
    if isinstance(column, VectorColumn):
        out[:] = _compressed(column.encode(values, most))
        return
    if isinstance(column, NumberColumn):
        numbers = as_numbers(values)
        known = np.isfinite(numbers)
        filled = np.where(known, numbers, column.centre)
        with np.errstate(over="ignore"):
            out[:, 0] = _compressed((filled - column.centre) / column.scale)
        if column.indicator:
            out[:, 1] = ~known
        return
    known_values = pa.array(list(column.categories), type=pa.string())
    texts = pc.fill_null(values.cast(pa.string()), "")
    codes = pc.fill_null(pc.index_in(texts, value_set=known_values), len(column.categories))
    out[np.arange(len(values)), codes.to_numpy()] = column.scale


def _compressed(z: NDArray[np.float64]) -> NDArray[np.float64]:
    beyond = np.maximum(np.abs(z) - STRAIGHT, 0.0)
    size = np.minimum(np.abs(z), STRAIGHT) + np.log1p(beyond)
    return np.asarray(np.sign(z) * np.minimum(size, LIMIT))


def as_numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Turn a numeric, boolean, date or time column into float64; missing is NaN.

    Dates, times and durations become seconds, so that two units of one moment agree.
    """
    kind = column.type
    if pa.types.is_temporal(kind):
        column = column.cast(pa.int64() if kind.bit_width == 64 else pa.int32())
    if kind == pa.timestamp("ns", getattr(kind, "tz", None)):
        # Nanoseconds since 1970 have more digits than a float; microseconds have not.
        column, kind = pc.divide(column, 1000), pa.timestamp("us")
    cast = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    numbers = np.asarray(cast, dtype=np.float64)
    if pa.types.is_date32(kind):
        return numbers * 86_400.0
    unit = "ms" if pa.types.is_date64(kind) else getattr(kind, "unit", "s")
    return numbers / _TICKS[unit]
