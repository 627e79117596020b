"""What columns of text are: numbers, truth values, dates or text, and turning them into it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

#: Unquoted, these are missing in every column; they have no other use in tables.
MISSING = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "-nan", "null", "NULL", "Null")
#: These are missing where the column is of numbers, truth values or dates, quoted or not.
#: In a column of text "None" and "?" are often values of their own, so there they stay.
MISSING_IF_TYPED = (*MISSING, "None", "none", "?")
#: The share of values that must be numbers for the rest to count as errors, and
#: how many values must have been seen to speak of a share.
NUMERIC_SHARE, NUMERIC_VALUES = 0.99, 200

#: No hexadecimal, no digit separators, and no leading zeros: ``00123`` is a code.
_NUMBER = r"^[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_INFINITE = r"^[+-]?(?i:inf|infinity)$"
_LEADING_ZERO = r"^[+-]?0[0-9]"
_WHOLE = r"^[+-]?[0-9]+$"
_BOOLEAN = r"^(?i:true|false)$"
#: Whole numbers beyond it are not all distinct as float64.
_EXACT, _INT64 = 2.0**53, 2.0**63

_MISSING_SET = pa.array(MISSING_IF_TYPED)
_DATE = pa.date32()
#: In this order; a column has the first one that holds all of its values.
_TIMES = (_DATE, pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("us", "UTC"))


@dataclass(frozen=True)
class TextGuess:
    """What the values of a text column have in common.

    Parameters
    ----------
    seen : int
        Values that are not missing.
    numbers : int
        How many of them are numbers.
    whole : bool
        True while all numbers are of type int64.
    exact : bool
        True while float64 holds every whole number among them.
    booleans : bool
        True while all values are ``true`` or ``false``.
    times : tuple of pyarrow.DataType
        The types of dates and times that hold all values.
    """

    seen: int = 0
    numbers: int = 0
    whole: bool = True
    exact: bool = True
    booleans: bool = True
    times: tuple[pa.DataType, ...] = _TIMES
    kind: str = "text"

    @property
    def type(self) -> pa.DataType:
        """The type that serves the values."""
        if self.seen == 0:
            return pa.null()
        most = self.seen >= NUMERIC_VALUES and self.numbers >= NUMERIC_SHARE * self.seen
        if (most or self.numbers == self.seen) and (self.whole or self.exact):
            return pa.int64() if self.whole else pa.float64()
        if self.booleans:
            return pa.bool_()
        return self.times[0] if self.times else pa.string()

    def field(self, name: str) -> pa.Field:
        """The column with the type that serves the values."""
        return pa.field(name, self.type)

    def merge(self, other: object) -> TextGuess:
        """What is known after other values were seen too."""
        if not isinstance(other, TextGuess):
            raise TypeError(f"a TextGuess cannot be merged with {type(other).__name__}")
        return TextGuess(
            self.seen + other.seen,
            self.numbers + other.numbers,
            self.whole and other.whole,
            self.exact and other.exact,
            self.booleans and other.booleans,
            tuple(t for t in self.times if t in other.times),
        )

    def add(self, column: pa.ChunkedArray) -> TextGuess:
        """What is known after the values of a column were seen."""
        values = column.drop_null()
        numbers = _clean_numbers(values)
        if numbers is None:
            values = _without_missing(values)
            subset = values.filter(pa.array(number_mask(values)))
            numbers = _float(subset)
        else:
            subset = values
        if not len(values):
            return self
        # A number is neither a truth value nor a date, so one is enough to rule them out.
        booleans = self.booleans and not len(subset) and _all_match(values, _BOOLEAN)
        times = () if len(subset) else self.times
        return replace(
            self,
            seen=self.seen + len(values),
            numbers=self.numbers + len(subset),
            whole=self.whole and _all_whole(subset, numbers),
            exact=self.exact and not _whole_beyond(_EXACT, subset, numbers).any(),
            booleans=booleans,
            times=tuple(t for t in times if _cast(values, t) is not None),
        )


def number_mask(values: pa.ChunkedArray) -> NDArray[np.bool_]:
    """True where a text is a number that float64 or int64 holds; shape (n,)."""
    mask = np.array(_matches(values, _NUMBER).to_numpy(), dtype=bool)
    finite = values.filter(pa.array(mask))
    numbers = _float(finite)
    mask[mask] = ~(np.isinf(numbers) | _whole_beyond(_INT64, finite, numbers))
    infinite = np.array(_matches(values, _INFINITE).to_numpy(), dtype=bool)
    return np.asarray(mask | infinite)


def convert(
    column: pa.ChunkedArray, kind: pa.DataType
) -> tuple[pa.ChunkedArray, NDArray[np.bool_] | None]:
    """Turn texts into values of a type.

    Parameters
    ----------
    column : pyarrow.ChunkedArray of strings
    kind : pyarrow.DataType

    Returns
    -------
    column : pyarrow.ChunkedArray
        Missing where a text does not fit.
    misfits : ndarray of bool, shape (n,), or None
        True where a text does not fit; None where all do.
    """
    if kind == column.type:
        return column, None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        return column.cast(kind), None
    if _is_number(kind) and _clean_numbers(column.drop_null()) is not None:
        numbers = _cast(column, kind)
        if numbers is not None:
            return numbers, None
    values = _missing_as_null(column)
    fitting = _fitting(values, kind)
    if fitting.all():
        return _to_type(values, kind), None
    kept = pc.if_else(pa.array(fitting), values, pa.scalar(None, pa.string()))
    return _to_type(kept, kind), ~fitting


def _fitting(values: pa.ChunkedArray, kind: pa.DataType) -> NDArray[np.bool_]:
    """True where a text can be cast or is missing."""
    nulls = np.array(values.is_null().to_numpy(), dtype=bool)
    if pa.types.is_null(kind):
        return nulls
    fitting = ~nulls
    if _is_number(kind):
        fitting &= number_mask(pc.fill_null(values, ""))
    some = values.filter(pa.array(fitting))
    if _cast(some, kind) is None:
        fitting[fitting] = [_cast(pa.array([t]), kind) is not None for t in some.to_pylist()]
    return np.asarray(nulls | fitting)


def misfit(field: pa.Field, text: str) -> str:
    """Say that a text does not fit the type of its column."""
    kind = field.type
    what = f"of type {kind}"
    if _is_number(kind):
        what = "a number"
    elif pa.types.is_temporal(kind):
        what = "a date or time"
    elif pa.types.is_boolean(kind):
        what = "true or false"
    shown = text if len(text) <= 80 else text[:80] + "..."
    return f"column {field.name!r}: {shown!r} is not {what}"


def _to_type(values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_null(kind):
        return pa.chunked_array([pa.nulls(len(values))])
    return values.cast(kind)


def _clean_numbers(values: pa.ChunkedArray) -> NDArray[np.float64] | None:
    """The values as numbers if all are, the usual case; None where one is not, or is odd."""
    floats = _cast(values, pa.float64())
    if floats is None:
        return None
    numbers = np.asarray(floats.to_numpy(), dtype=np.float64)
    if not np.isfinite(numbers).all() or pc.any(_matches(values, _LEADING_ZERO)).as_py():
        return None
    return None if _whole_beyond(_INT64, values, numbers).any() else numbers


def _whole_beyond(
    limit: float, values: pa.ChunkedArray, numbers: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """True where a whole number is too big to be kept exactly."""
    big = np.abs(numbers) >= limit
    if not big.any():
        return np.zeros(len(numbers), dtype=bool)
    return np.asarray(big & np.array(_matches(values, _WHOLE).to_numpy(), dtype=bool))


def _all_whole(values: pa.ChunkedArray, numbers: NDArray[np.float64]) -> bool:
    if not len(values):
        return True
    return bool((numbers == np.trunc(numbers)).all()) and _cast(values, pa.int64()) is not None


def _without_missing(values: pa.ChunkedArray) -> pa.ChunkedArray:
    trimmed = pc.ascii_trim_whitespace(values)
    return trimmed.filter(pc.invert(pc.is_in(trimmed, value_set=_MISSING_SET)))


def _missing_as_null(values: pa.ChunkedArray) -> pa.ChunkedArray:
    trimmed = pc.ascii_trim_whitespace(values)
    missing = pc.is_in(trimmed, value_set=_MISSING_SET)
    return pc.if_else(missing, pa.scalar(None, pa.string()), trimmed)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _float(values: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(values.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _matches(values: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    return pc.match_substring_regex(values, pattern)


def _all_match(values: pa.ChunkedArray, pattern: str) -> bool:
    return bool(pc.all(_matches(values, pattern)).as_py())


def _cast(values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    try:
        return values.cast(kind)
    except pa.ArrowInvalid:
        return None
