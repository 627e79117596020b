"""What the formats that have types of their own share: Parquet, Arrow and NPZ."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.readers.blocks import MAX_CELL, MAX_DEPTH, Block, Known, checked_names, positions_of
from sanitizers.core.errors import InputError


def surveyed(name: str, schema: pa.Schema) -> dict[str, Known]:
    """The columns of a schema, if all of them can be kept.

    Raises
    ------
    InputError
        If names repeat, or a type cannot be kept in Parquet unchanged.
    """
    checked_names(name, schema.names)
    for field in schema:
        _check_type(name, field.name, field.type, 0)
    return {field.name: Known(_usual(field.type)) for field in schema}


def aligned(name: str, table: pa.Table, schema: pa.Schema, row: int) -> Block:
    """Rows of a typed format with the columns and types of the dataset."""
    columns = []
    for field in schema:
        column = table.column(field.name)
        _check_cells(name, field.name, column)
        columns.append(_cast(name, field, column))
    return Block(pa.table(columns, schema=schema), positions_of(row, table.num_rows))


def _usual(kind: pa.DataType) -> pa.DataType:
    """The usual layout of texts and bytes; too few of Arrow's functions know views."""
    if pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_binary_view(kind) else kind


def _cast(name: str, field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if column.type == field.type:
        return column
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        line = str(error).splitlines()[0]
        raise InputError(
            f"column {field.name!r} of {name} is {column.type} and cannot become {field.type} "
            f"as in the other files: {line}",
            do="write the files with the same types",
        ) from None


def _check_cells(name: str, column_name: str, column: pa.ChunkedArray) -> None:
    if column.nbytes <= MAX_CELL or not _has_length(column.type):
        return
    longest = pc.max(pc.binary_length(column)).as_py() or 0
    if longest > MAX_CELL:
        raise InputError(
            f"column {column_name!r} of {name} has a value of {longest:,} bytes",
            expected=f"at most {MAX_CELL // 2**20} MiB",
        )


def _has_length(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    )


def _check_type(name: str, column: str, kind: pa.DataType, depth: int) -> None:
    types = pa.types
    if depth > MAX_DEPTH:
        raise InputError(
            f"column {column!r} of {name} is nested deeper than {MAX_DEPTH}", do="flatten it"
        )
    unkept = types.is_union(kind) or types.is_interval(kind) or types.is_run_end_encoded(kind)
    if unkept or (types.is_struct(kind) and kind.num_fields == 0):
        raise InputError(
            f"column {column!r} of {name} has the type {kind}, which Parquet does not know",
            do="write it as another type",
        )
    if types.is_dictionary(kind):
        _check_type(name, column, kind.value_type, depth + 1)
    if types.is_nested(kind):
        for i in range(kind.num_fields):
            _check_type(name, column, kind.field(i).type, depth + 1)
