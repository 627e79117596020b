"""Columns as plain numbers, and numbers back as values of the column's own type."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

#: Larger numbers are taken for this one: their squares would overflow.
_LARGEST = 1e150
#: Digits after the point that are looked for in a column.
_DIGITS = range(7)
#: Digits of a number in a column that shows no rounding.
_SIGNIFICANT = 6


def raw_numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Turn a column of numbers, dates or times into float64, in its own unit; missing is NaN.

    Parameters
    ----------
    column : pyarrow.ChunkedArray

    Returns
    -------
    ndarray of float64, shape (n,)
        Finite or NaN.
    """
    if pa.types.is_temporal(column.type):
        column = column.cast(_ticks(column.type))
    cast = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    numbers = np.array(cast, dtype=np.float64)
    numbers[~np.isfinite(numbers)] = np.nan
    return np.clip(numbers, -_LARGEST, _LARGEST)


def typed(numbers: NDArray[np.float64], kind: pa.DataType) -> pa.Array:
    """Turn finite numbers into values of a type of numbers, dates or times.

    Whole types are rounded, and what a type cannot hold becomes its nearest value.
    """
    if pa.types.is_floating(kind):
        return pa.array(numbers.astype(kind.to_pandas_dtype()), kind)
    if pa.types.is_decimal(kind):
        most = Decimal(10) ** (kind.precision - kind.scale) - Decimal(1)
        exact = [Decimal(f"{v:.{max(kind.scale, 0)}f}") for v in numbers.tolist()]
        return pa.array([min(max(v, -most), most) for v in exact], kind)
    whole = _ticks(kind) if pa.types.is_temporal(kind) else kind
    ends = np.iinfo(whole.to_pandas_dtype())
    # In Python's integers: the largest of 64 bits has no float.
    values = [min(max(round(v), int(ends.min)), int(ends.max)) for v in numbers.tolist()]
    return pa.array(values, whole).cast(kind)


def digits_of(numbers: NDArray[np.float64], kind: pa.DataType) -> int:
    """How many digits after the point the numbers of a column have; negative before it.

    Parameters
    ----------
    numbers : ndarray of float64
        NaN where missing.
    kind : pyarrow.DataType
    """
    if not (pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return 0
    known = numbers[np.isfinite(numbers)]
    for digits in _DIGITS:
        if np.allclose(known, np.round(known, digits), rtol=1e-12, atol=0):
            return digits
    # One absurd value must not make the others coarse.
    spread = float(np.subtract(*np.quantile(known, [0.75, 0.25])))
    spread = spread or float(known.max() - known.min()) or 1.0
    return _SIGNIFICANT - 1 - int(np.floor(np.log10(spread)))


def is_measured(kind: pa.DataType) -> bool:
    """Whether values of a type are numbers, dates or times that can be written back."""
    types = pa.types
    timed = types.is_temporal(kind) and not types.is_interval(kind)
    return bool(types.is_integer(kind) or types.is_floating(kind) or _decimal(kind) or timed)


def strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values of a column as strings; NaN is missing."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    return column.cast(pa.string())


def _decimal(kind: pa.DataType) -> bool:
    return bool(pa.types.is_decimal(kind))


def _ticks(kind: pa.DataType) -> pa.DataType:
    return pa.int64() if kind.bit_width == 64 else pa.int32()
