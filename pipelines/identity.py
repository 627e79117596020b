"""Row ids from content, vectorised, and the repeats among them, found out of core.

The id of a row is the BLAKE2b-128 of its canonical bytes: for every column, sorted by
name, one byte that says whether the value is missing, then the value. Names and types
are hashed too. Containers make no difference: a dictionary of strings, a large string
and a string are the same type here. ``-0.0`` counts as ``0.0``, and every NaN as the one
NaN (which is not the same as missing), because no reader could tell such rows apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sanitizers.core.errors import StoreError
from sanitizers.core.image_columns import bytes_of, is_bytes

#: Bytes of a hash: repeats by chance are out of reach, also for somebody who tries.
DIGEST_BYTES = 16
#: Characters of an id that is a hash of the content; ``-1`` and so on follow for copies.
ID_LENGTH = 2 * DIGEST_BYTES
#: Canonical bytes that are held at once, so that wide rows do not fill the memory.
SLICE_BYTES = 32 * 2**20
#: What the search for repeats may hold; beyond it DuckDB goes to disk.
SEARCH_MEMORY = "128MB"

Bytes = NDArray[np.uint8]

_VARIABLE = frozenset({"string", "binary"})


def content_digests(table: pa.Table) -> Bytes:
    """Hash every row of a table.

    Parameters
    ----------
    table : pyarrow.Table

    Returns
    -------
    ndarray of uint8, shape (n, 16)
    """
    names = sorted(table.column_names)
    head = json.dumps([[name, type_name(table.schema.field(name).type)] for name in names])
    out = bytearray()
    step = max(1, SLICE_BYTES // (20 * max(len(names), 1)))
    for start in range(0, table.num_rows, step):
        part = table.slice(start, step)
        columns = [canonical_bytes(_whole(part.column(name))) for name in names]
        out += _hash_rows(head.encode(), columns, part.num_rows)
    return np.frombuffer(bytes(out), dtype=np.uint8).reshape(-1, DIGEST_BYTES)


def text_digests(texts: pa.Array) -> Bytes:
    """Hash every string of an array, as rows of 16 bytes."""
    values = texts.cast(pa.large_binary()).to_pylist()
    raw = b"".join(_digest(value or b"") for value in values)
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, DIGEST_BYTES)


def hex_ids(digests: Bytes) -> pa.Array:
    """The hashes as strings of 32 hex characters."""
    width = 2 * DIGEST_BYTES
    offsets = np.arange(len(digests) + 1, dtype=np.int32) * width
    text = digests.tobytes().hex().encode()
    return pa.StringArray.from_buffers(
        len(digests), pa.py_buffer(offsets.tobytes()), pa.py_buffer(text)
    )


def counted_on(row_id: str, before: Mapping[str, int]) -> str:
    """The id of a row by its content, where earlier rows may have the same content.

    Parameters
    ----------
    row_id : str
        Its id among the rows that it came with: ``HASH``, or ``HASH-1`` for a first copy.
    before : mapping of str to int
        For each hash how many earlier rows have it.
    """
    first = row_id[:ID_LENGTH]
    if first not in before:
        return row_id
    return f"{first}-{int(row_id[ID_LENGTH + 1 :] or 0) + before[first]}"


def type_name(kind: pa.DataType) -> str:
    """The name of a type without its container."""
    types = pa.types
    if types.is_dictionary(kind):
        return type_name(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return type_name(kind.storage_type)
    if types.is_list(kind) or types.is_large_list(kind):
        return f"list<{type_name(kind.value_type)}>"
    if types.is_struct(kind):
        fields = sorted((field.name, type_name(field.type)) for field in kind)
        return f"struct<{json.dumps(fields)}>"
    # "large_string" and "string_view" say how values are kept, not what they are.
    return str(kind).removeprefix("large_").removesuffix("_view")


def canonical_bytes(column: pa.Array) -> Bytes:
    """The canonical bytes of a column, the same number for each row.

    Parameters
    ----------
    column : pyarrow.Array

    Returns
    -------
    ndarray of uint8, shape (n, w)
        The first byte is 1 where the value is missing.
    """
    if isinstance(column, pa.ExtensionArray):
        return canonical_bytes(column.storage)
    if pa.types.is_dictionary(column.type) and type_name(column.type) not in _VARIABLE:
        return canonical_bytes(column.dictionary_decode())
    missing = _missing(column)
    return np.hstack([missing, *_values(column, missing[:, 0].astype(bool))])


def _values(column: pa.Array, missing: NDArray[np.bool_]) -> list[Bytes]:
    kind = column.type
    if pa.types.is_null(kind):
        return []
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        children = column.flatten()
        order = sorted(range(len(names)), key=names.__getitem__)
        return [canonical_bytes(children[i]) for i in order]
    if type_name(kind) in _VARIABLE:
        return [_variable(column)]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [_lists(column)]
    if pa.types.is_map(kind):
        return [_one_by_one(column)]
    return [_fixed(column, missing)]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _missing(column: pa.Array) -> Bytes:
    if column.null_count == 0:
        return np.zeros((len(column), 1), dtype=np.uint8)
    nulls = column.is_null().to_numpy(zero_copy_only=False)
    return np.asarray(nulls, dtype=np.uint8).reshape(-1, 1)


def _fixed(column: pa.Array, missing: NDArray[np.bool_]) -> Bytes:
    """The raw bytes of values of fixed width, zero where missing."""
    kind = column.type
    if pa.types.is_boolean(kind):
        column, kind = column.cast(pa.uint8()), pa.uint8()
    width = kind.bit_width // 8
    start, size = column.offset * width, len(column) * width
    buffer = column.buffers()[1]
    raw = np.frombuffer(buffer, np.uint8, size, start).copy() if size else np.empty(0, np.uint8)
    if pa.types.is_floating(kind):
        numbers = raw.view(f"f{width}")
        numbers[numbers == 0] = 0.0
        numbers[np.isnan(numbers)] = np.nan
    out: Bytes = raw.reshape(len(column), width)
    out[missing] = 0
    return out


def _variable(column: pa.Array) -> Bytes:
    """A hash for each value of variable length; every distinct text is hashed once."""
    if is_bytes(column.type):
        # Files are hashed where they lie: sorting out the distinct ones would copy them all.
        none = bytes(DIGEST_BYTES)
        joined = b"".join(none if v is None else _digest(v) for v in bytes_of(column))
        return np.frombuffer(joined, np.uint8).reshape(-1, DIGEST_BYTES)
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    values = text_digests(coded.dictionary)
    codes = coded.indices.cast(pa.int64()).fill_null(len(values)).to_numpy()
    empty = np.zeros((1, DIGEST_BYTES), dtype=np.uint8)
    return np.asarray(np.vstack([values, empty])[codes])


def _lists(column: pa.Array) -> Bytes:
    """A hash for each list: of the canonical bytes of its elements, one after the other."""
    elements = canonical_bytes(column.flatten())
    lengths = pc.list_value_length(column).fill_null(0).to_numpy()
    ends = np.concatenate([[0], np.cumsum(lengths)]) * elements.shape[1]
    raw = memoryview(elements.tobytes())
    pairs = zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    joined = b"".join(_digest(raw[a:b]) for a, b in pairs)
    return np.frombuffer(joined, np.uint8).reshape(-1, DIGEST_BYTES)


def _one_by_one(column: pa.Array) -> Bytes:
    joined = b"".join(_digest(repr(value).encode()) for value in column.to_pylist())
    return np.frombuffer(joined, np.uint8).reshape(-1, DIGEST_BYTES)


def _digest(value: bytes | memoryview) -> bytes:
    return hashlib.blake2b(value, digest_size=DIGEST_BYTES).digest()


def _hash_rows(head: bytes, columns: list[Bytes], rows: int) -> bytes:
    matrix = np.hstack(columns) if columns else np.empty((rows, 0), dtype=np.uint8)
    width = matrix.shape[1]
    raw = memoryview(matrix.tobytes())
    seed = hashlib.blake2b(head, digest_size=DIGEST_BYTES)
    out = bytearray()
    for start in range(0, rows * width, width):
        row = seed.copy()
        row.update(raw[start : start + width])
        out += row.digest()
    return bytes(out)


@dataclass(frozen=True)
class Repeats:
    """Rows whose hash has occurred before, in order.

    Parameters
    ----------
    rows : ndarray of int64, shape (k,)
        Positions among all rows.
    nth : ndarray of int64, shape (k,)
        1 for the second occurrence, 2 for the third ...
    """

    rows: NDArray[np.int64]
    nth: NDArray[np.int64]


DIGEST_SCHEMA = pa.schema([("high", pa.uint64()), ("low", pa.uint64())])


def digest_table(digests: Bytes) -> pa.Table:
    """Hashes as two numbers each, the form in which `find_repeats` reads them."""
    halves = np.ascontiguousarray(digests).view("<u8")
    return pa.table([pa.array(halves[:, 0]), pa.array(halves[:, 1])], schema=DIGEST_SCHEMA)


def find_repeats(file: Path, work: Path) -> Iterator[Repeats]:
    """Find the hashes that occur more than once.

    Memory does not grow with the number of rows: beyond its limit DuckDB works in
    files under `work`.

    Parameters
    ----------
    file : Path
        A Parquet file with the columns of `DIGEST_SCHEMA`, one line per row, in order.
    work : Path
        A folder for temporary files.

    Yields
    ------
    Repeats
        In the order of the rows, some thousand at a time.
    """
    import duckdb

    folder = str(work / "duckdb")
    try:
        with duckdb.connect(
            config={"memory_limit": SEARCH_MEMORY, "temp_directory": folder}
        ) as connection:
            answer = connection.sql(_REPEATS, params=[str(file)] * 2)
            for batch in answer.to_arrow_reader(65_536):
                yield Repeats(batch["row"].to_numpy(), batch["nth"].to_numpy())
    except (duckdb.Error, OSError) as error:
        line = (str(error).splitlines() or [""])[0]
        raise StoreError(
            f"the search for repeated rows failed: {line}",
            do=f"see that the disk of {work} has room",
        ) from error


_REPEATS = """
with twice as (
    select high, low from read_parquet(?) group by high, low having count(*) > 1
), rows as (
    select high, low, file_row_number as row
    from read_parquet(?, file_row_number = true) semi join twice using (high, low)
), numbered as (
    select row, row_number() over (partition by high, low order by row) - 1 as nth from rows
)
select row, nth from numbered where nth > 0 order by row
"""
