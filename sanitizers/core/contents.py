"""What rows hold, as one salted hash per row: equal rows have equal hashes."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sanitizers.core.data import Roles, mix
from sanitizers.core.encoder import as_numbers, is_number
from sanitizers.core.vectors import is_vector

Hashes = NDArray[np.uint64]

#: Contents that are kept in memory. Beyond it those whose hash lies below a line are
#: kept, so that equal rows are kept together or not at all.
MOST_CONTENTS = 1_000_000
#: Classes that are counted; a label with more is no label.
MOST_CLASSES = 10_000
#: Every whole number below it is a float too.
_EXACT = 2**53


def content_columns(roles: Roles) -> tuple[str, ...]:
    """What makes a row what it is: neither its answer, nor where and when it came from."""
    apart = {roles.id, roles.label, roles.target, roles.time, roles.source, roles.trusted}
    return tuple(sorted(c for c in roles.columns if c not in apart))


def content_hashes(table: pa.Table, names: tuple[str, ...], salt: bytes) -> Hashes:
    """One hash per row over some columns, keyed with the salt; equal values hash equal.

    Hashes of 64 bits agree by chance in one of 37 datasets of a billion rows; nobody who
    does not know the salt can make them agree.
    """
    out = np.full(table.num_rows, _keyed(salt, ""), dtype=np.uint64)
    for name in names:
        out = mix(out ^ value_hashes(table.column(name), salt), f"contents/{name}")
    return out


def value_hashes(column: pa.ChunkedArray, salt: bytes) -> Hashes:
    """A number for every value: equal for equal values, whatever the other rows hold.

    A whole number and the same number as a float are equal, missing is equal to missing,
    and NaN is missing. Times are told apart to the microsecond.
    """
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    kind = column.type
    if pa.types.is_integer(kind) and kind.bit_width == 64:
        return _whole(column, salt)
    if is_number(kind) and not pa.types.is_decimal(kind):
        return _bits(as_numbers(column))
    return _hashed(column, salt)


def _whole(column: pa.ChunkedArray, salt: bytes) -> Hashes:
    """Numbers of 64 bits, some of which have more digits than a float."""
    whole = np.asarray(pc.fill_null(column, 0).to_numpy())
    numbers = whole.astype(np.float64)
    long = np.abs(numbers) >= _EXACT
    numbers[column.is_null().to_numpy()] = np.nan
    digits = whole.view(np.uint64) ^ np.uint64(_keyed(salt, "long"))
    return np.asarray(np.where(long, digits, _bits(numbers)), dtype=np.uint64)


def _bits(numbers: NDArray[np.float64]) -> Hashes:
    return np.asarray(np.where(np.isnan(numbers), np.nan, numbers + 0.0)).view(np.uint64)


def _hashed(column: pa.ChunkedArray, salt: bytes) -> Hashes:
    """Hash values of any type; every distinct text is hashed once."""
    kind = column.type
    if is_vector(kind):
        return _vectors(column, salt)
    if pa.types.is_nested(kind) or pa.types.is_null(kind):
        values = column.to_pylist()
        return np.array([_keyed(salt, repr(value)) for value in values], dtype=np.uint64)
    if not pa.types.is_dictionary(kind):
        column = column.dictionary_encode()
    coded = column.unify_dictionaries().combine_chunks()
    hashes = [_keyed(salt, repr(value)) for value in coded.dictionary.to_pylist()]
    codes = coded.indices.cast(pa.int64()).fill_null(len(hashes)).to_numpy()
    return np.asarray(np.array([*hashes, 0], dtype=np.uint64)[codes])


def _vectors(column: pa.ChunkedArray, salt: bytes) -> Hashes:
    """Hash lists of numbers by the bytes of these; as objects they take a hundred times as long."""
    known = column.is_valid().to_numpy()
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy() * known
    numbers = pc.list_flatten(column).cast(pa.float64(), safe=False).to_numpy() + 0.0
    numbers[np.isnan(numbers)] = np.nan
    ends = np.cumsum(lengths)
    found = zip((ends - lengths).tolist(), ends.tolist(), known.tolist(), strict=True)
    hashes = [_digest(salt, numbers[a:b].tobytes()) if there else 0 for a, b, there in found]
    return np.array(hashes, dtype=np.uint64)


def _keyed(salt: bytes, text: str) -> int:
    return _digest(salt, text.encode("utf-8", "surrogatepass"))


def _digest(salt: bytes, value: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(value, digest_size=8, key=salt).digest(), "little")
