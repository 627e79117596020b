"""What columns of JSON values are, and turning them into Arrow."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.readers.texts import NUMERIC_SHARE, NUMERIC_VALUES, TextGuess, convert
from pipelines.readers.unify import common_type

#: Marks, in the metadata of a field, a column that holds JSON text of mixed values.
JSON_TEXT = b"json_text"
#: Fields of one object that become a nested column; with more, keys are data.
_MAX_FIELDS = 1_000
_INT64 = 2**63
_EXACT = 2**53


@dataclass(frozen=True)
class ValueGuess:
    """What the values of a key have in common.

    Parameters
    ----------
    booleans, integers, floats, strings, others : int
        How many values there are of each; `others` are nested or beyond int64.
    exact : bool
        True while float64 holds every whole number among them.
    times : TextGuess
        What the strings are, for dates.
    nested : pyarrow.DataType or None
        The type that holds all nested values; None where there is none.
    """

    booleans: int = 0
    integers: int = 0
    floats: int = 0
    strings: int = 0
    others: int = 0
    exact: bool = True
    times: TextGuess = field(default_factory=TextGuess)
    nested: pa.DataType | None = field(default_factory=pa.null)
    kind: str = "json"

    def add(self, values: list[Any]) -> ValueGuess:
        """What is known after more values were seen."""
        by_type: dict[type, list[Any]] = {}
        for value in values:
            by_type.setdefault(type(value), []).append(value)
        whole = by_type.get(int, [])
        beyond = sum(not -_INT64 <= v < _INT64 for v in whole)
        strings = by_type.get(str, [])
        nested = by_type.get(dict, []) + by_type.get(list, [])
        here = ValueGuess(
            booleans=len(by_type.get(bool, [])),
            integers=len(whole) - beyond,
            floats=len(by_type.get(float, [])),
            strings=len(strings),
            others=len(nested) + beyond,
            exact=all(abs(v) <= _EXACT for v in whole),
            times=self._times(strings),
            nested=None if beyond else _nested_type(nested),
        )
        return self.merge(here)

    def merge(self, other: object) -> ValueGuess:
        """What is known after other values were seen too."""
        if not isinstance(other, ValueGuess):
            raise TypeError(f"a ValueGuess cannot be merged with {type(other).__name__}")
        nested = None
        if self.nested is not None and other.nested is not None:
            nested = common_type(self.nested, other.nested)
        if nested is not None and _any_object(nested, lambda fields: fields > _MAX_FIELDS):
            nested = None
        return ValueGuess(
            self.booleans + other.booleans,
            self.integers + other.integers,
            self.floats + other.floats,
            self.strings + other.strings,
            self.others + other.others,
            self.exact and other.exact,
            self.times.merge(other.times),
            nested,
        )

    def field(self, name: str) -> pa.Field:
        """The column with the type that serves the values."""
        kind = self._type()
        if kind is None:
            return pa.field(name, pa.string(), metadata={JSON_TEXT: b"1"})
        return pa.field(name, kind)

    def _type(self) -> pa.DataType | None:
        """None where the values do not agree."""
        numbers = self.integers + self.floats
        seen = numbers + self.booleans + self.strings + self.others
        enough = seen >= NUMERIC_VALUES and numbers >= NUMERIC_SHARE * seen
        if seen == 0:
            return pa.null()
        if enough or numbers == seen:
            return self._number_type()
        if self.booleans == seen:
            return pa.bool_()
        if self.strings == seen:
            kind = self.times.type
            return kind if pa.types.is_temporal(kind) else pa.string()
        return self._nested() if self.others == seen else None

    def _number_type(self) -> pa.DataType | None:
        if not self.floats:
            return pa.int64()
        return pa.float64() if self.exact else None

    def _nested(self) -> pa.DataType | None:
        if self.nested is None or _any_object(self.nested, lambda fields: fields == 0):
            return None  # Parquet knows no object without keys.
        return self.nested

    def _times(self, strings: list[str]) -> TextGuess:
        # Once no kind of date is left there is nothing to find out.
        if not strings or not self.times.times:
            return replace(self.times, seen=0, numbers=0)
        return TextGuess().add(pa.chunked_array([strings], pa.string()))


def build(values: list[Any], kind: pa.DataType, as_text: bool) -> tuple[pa.Array, list[int]]:
    """Turn JSON values into an array.

    Parameters
    ----------
    values : list
        None where missing.
    kind : pyarrow.DataType
    as_text : bool
        Write each value as JSON.

    Returns
    -------
    array : pyarrow.Array
        Missing where a value does not fit.
    misfits : list of int
        Where that is.
    """
    if as_text:
        texts = [None if v is None else json.dumps(v, ensure_ascii=False) for v in values]
        return pa.array(texts, pa.string()), []
    if pa.types.is_temporal(kind):
        return _build_times(values, kind)
    python = _python_types(kind)
    misfits = [i for i, v in enumerate(values) if v is not None and not isinstance(v, python)]
    if bool not in python:
        misfits += [i for i, v in enumerate(values) if v is True or v is False]
    wrong = set(misfits)
    kept = [None if i in wrong else v for i, v in enumerate(values)] if wrong else values
    array = _array(kept, kind)
    if array is None:
        wrong |= {i for i, v in enumerate(kept) if v is not None and _array([v], kind) is None}
        array = pa.array([None if i in wrong else v for i, v in enumerate(kept)], kind)
    return array, sorted(wrong)


def _build_times(values: list[Any], kind: pa.DataType) -> tuple[pa.Array, list[int]]:
    texts = pa.array([v if isinstance(v, str) else None for v in values], pa.string())
    column, mask = convert(pa.chunked_array([texts]), kind)
    wrong = {i for i, v in enumerate(values) if v is not None and not isinstance(v, str)}
    if mask is not None:
        wrong |= set(np.flatnonzero(mask).tolist())
    return column.combine_chunks(), sorted(wrong)


def _python_types(kind: pa.DataType) -> tuple[type, ...]:
    """The types that JSON values may have to become an Arrow type without change."""
    if pa.types.is_boolean(kind):
        return (bool,)
    if pa.types.is_integer(kind):
        return (int,)
    if pa.types.is_floating(kind):
        return (int, float)
    return (list, dict) if pa.types.is_nested(kind) else (str,)


def _array(values: list[Any], kind: pa.DataType) -> pa.Array | None:
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return None


def _nested_type(values: list[Any]) -> pa.DataType | None:
    if not values:
        return pa.null()
    try:
        return pa.array(values).type
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return None


def _any_object(kind: pa.DataType, found: Callable[[int], bool]) -> bool:
    """Whether a number of fields is `found` in any of the objects of a nested type."""
    if pa.types.is_struct(kind) and found(kind.num_fields):
        return True
    if not pa.types.is_nested(kind):
        return False
    return any(_any_object(kind.field(i).type, found) for i in range(kind.num_fields))
