"""One schema for all files of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from pipelines.readers.blocks import Guess
from pipelines.readers.texts import TextGuess
from sanitizers.core.errors import InputError, did_you_mean

Survey = tuple[str, Mapping[str, Guess]]


def unify(surveys: Sequence[Survey]) -> pa.Schema:
    """The columns and types that serve all files; the order is that of the first.

    Parameters
    ----------
    surveys : sequence of (str, mapping)
        For each file its name, and what is known of its columns.

    Raises
    ------
    InputError
        If a file lacks a column that another one has, or types conflict.
    """
    merged = _by_kind(surveys)
    _same_columns(merged)
    return pa.schema([_field(name, merged) for name in merged[0][1]])


def common_type(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of two, None where there is none.

    Whole numbers and fractions become fractions, dates and times times, a missing type
    the other; a dictionary and a plain column become plain.
    """
    if a == b:
        return a
    if pa.types.is_dictionary(a) != pa.types.is_dictionary(b):
        return common_type(_plain(a), _plain(b))
    if _is_text(a) and _is_text(b):
        return pa.large_string() if pa.large_string() in {a, b} else pa.string()
    if pa.types.is_date(a) and pa.types.is_timestamp(b):
        return common_type(b, a)
    if pa.types.is_timestamp(a) and pa.types.is_date(b):
        return a if a.tz is None else None
    return _promoted(a, b)


def _promoted(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    if _is_text(a) != _is_text(b) and not (pa.types.is_null(a) or pa.types.is_null(b)):
        return None  # Arrow would make text and bytes into bytes.
    schemas = [pa.schema([("column", kind)]) for kind in (a, b)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return None


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _by_kind(surveys: Sequence[Survey]) -> list[tuple[str, dict[str, Guess]]]:
    """Merge the files whose types were guessed; typed files stay apart.

    JSONL files lack the keys that no row of theirs has, so they count as one.
    """
    merged: list[tuple[str, dict[str, Guess]]] = []
    homes: dict[str, int] = {}
    for file, survey in surveys:
        kind = next(iter(survey.values())).kind if survey else "json"
        if kind not in homes:
            homes[kind] = len(merged)
            merged.append((file, dict(survey)))
        elif kind == "typed":
            merged.append((file, dict(survey)))
        else:
            first, known = merged[homes[kind]]
            if kind == "text":
                _same_columns([(first, known), (file, survey)])
            for name, guess in survey.items():
                known[name] = known[name].merge(guess) if name in known else guess
    return merged


def _same_columns(surveys: Sequence[Survey]) -> None:
    first, expected = surveys[0]
    for file, survey in surveys[1:]:
        for lacks, has, columns, known in (
            (file, first, expected, survey),
            (first, file, survey, expected),
        ):
            missing = [name for name in columns if name not in known]
            if missing:
                raise InputError(
                    f"{lacks} has no column {missing[0]!r}, which {has} has",
                    expected="the same columns in all files",
                    do=did_you_mean(missing[0], known),
                )


def _field(name: str, surveys: list[tuple[str, dict[str, Guess]]]) -> pa.Field:
    first, guesses = surveys[0]
    field = guesses[name].field(name)
    for file, survey in surveys[1:]:
        other = survey[name].field(name)
        if field.metadata == other.metadata and (kind := common_type(field.type, other.type)):
            field = pa.field(name, kind, metadata=field.metadata)
        elif isinstance(survey[name], TextGuess) and _is_text(_plain(field.type)):
            # A CSV column of numbers is text as soon as a typed file says so.
            field = pa.field(name, _plain(field.type))
        elif isinstance(guesses[name], TextGuess) and _is_text(_plain(other.type)):
            field = pa.field(name, _plain(other.type))
        else:
            raise InputError(
                f"column {name!r} is {field.type} in {first} and {other.type} in {file}",
                expected="the same type in all files",
            )
    return field
