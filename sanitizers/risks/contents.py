"""Which contents repeat, and which classes there are, counted over all rows in one pass."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sanitizers.core.data import ROW_ID, Batch, Dataset, mix
from sanitizers.core.encoder import as_numbers, is_number

Hashes = NDArray[np.uint64]

#: Contents that are kept in memory, at 24 bytes each. Beyond it those whose hash lies
#: below a line are kept, so that equal rows are kept together or not at all.
MOST_CONTENTS = 1_000_000
#: Classes that are counted; a label with more is no label.
MOST_CLASSES = 10_000
#: Groups of rows in conflict of which ids are told, and ids in all.
GROUPS, IDS = 3, 6


@dataclass(frozen=True)
class Contents:
    """What all rows hold.

    Parameters
    ----------
    rows : int
        Rows in which repeats were counted: all, or those below the line.
    of : int
        All rows.
    repeats : int
        Rows that agree with an earlier one in every feature, label and target.
    most : int
        How often the most frequent content comes.
    conflicts : int
        Rows that have all features in common with a row of another label.
    groups : int
        How many contents have more than one label.
    examples : tuple of str
        Ids of some rows in conflict, in their order.
    classes : mapping of str to int
        Rows of each class.
    """

    rows: int = 0
    of: int = 0
    repeats: int = 0
    most: int = 0
    conflicts: int = 0
    groups: int = 0
    examples: tuple[str, ...] = ()
    classes: Mapping[str, int] | None = None


def count_contents(data: Dataset) -> Contents:
    """Read all rows once, and count."""
    names = _content_columns(data)
    line = np.uint64(min(int(MOST_CONTENTS / max(data.rows, 1) * 2**64), 2**64 - 1))
    kept: list[tuple[Hashes, Hashes, NDArray[np.int64]]] = []
    counts: Counter[str] = Counter()
    at = 0
    for batch in data.batches():
        if data.roles.label and len(counts) <= MOST_CLASSES:
            counts.update(_classes(batch))
        content = content_hashes(batch.table, names, data.salt)
        below = np.flatnonzero(content <= line)
        kept.append((content[below], _answers(batch)[below], below + at))
        at += len(batch)
    known = {k: counts[k] for k in sorted(counts)} if len(counts) <= MOST_CLASSES else None
    if not names or not at:
        return Contents(of=at, classes=known)
    content, answer, row = (np.concatenate(part) for part in zip(*kept, strict=True))
    return _count(data, content, answer, row, known)


def content_hashes(table: pa.Table, names: tuple[str, ...], salt: bytes) -> Hashes:
    """One hash per row over some columns, keyed with the salt; equal values hash equal.

    Hashes of 64 bits agree by chance in one of 37 datasets of a billion rows; nobody who
    does not know the salt can make them agree.
    """
    out = np.full(table.num_rows, _seed(salt, ""), dtype=np.uint64)
    for name in names:
        out = mix(out ^ _values(table.column(name), salt), f"contents/{name}")
    return out


def _count(
    data: Dataset,
    content: Hashes,
    answer: Hashes,
    row: NDArray[np.int64],
    known: Mapping[str, int] | None,
) -> Contents:
    order = np.lexsort((answer, content))
    content, answer, row = content[order], answer[order], row[order]
    same = content[1:] == content[:-1]
    again = same & (answer[1:] == answer[:-1])
    # The runs of equal content, and those in which the answer changes.
    group = np.concatenate([[0], np.cumsum(~same)])
    changes = np.bincount(group[1:][same & ~again], minlength=group[-1] + 1) > 0
    run = np.concatenate([[0], np.cumsum(~again)])
    # A label that is missing contradicts none, and a number measured twice may differ.
    changes &= bool(data.roles.label) & (
        np.bincount(group[answer == 0], minlength=len(changes)) == 0
    )
    mine = changes[group]
    chosen = np.isin(group, np.flatnonzero(changes)[:GROUPS])
    return Contents(
        rows=len(content),
        of=data.rows,
        repeats=int(again.sum()),
        most=int(np.bincount(run).max()),
        conflicts=int(mine.sum()),
        groups=int(changes.sum()),
        examples=_ids(data, np.sort(row[chosen])),
        classes=known,
    )


def _content_columns(data: Dataset) -> tuple[str, ...]:
    """What makes a row what it is: neither its answer, nor where and when it came from."""
    roles = data.roles
    apart = {roles.id, roles.label, roles.target, roles.time, roles.source, roles.trusted}
    return tuple(sorted(c for c in roles.columns if c not in apart))


def _answers(batch: Batch) -> Hashes:
    """A hash of the label or target of every row, 0 where it is missing or there is none."""
    name = batch.roles.label or batch.roles.target
    if name is None:
        return np.zeros(len(batch), dtype=np.uint64)
    column = batch.table.column(name)
    missing = pc.is_null(column, nan_is_null=True).to_numpy()
    return np.where(missing, np.uint64(0), np.maximum(_values(column, batch.salt), np.uint64(1)))


def _classes(batch: Batch) -> dict[str, int]:
    counted = pc.value_counts(pa.array(batch.labels, pa.string())).to_pylist()
    return {c["values"]: c["counts"] for c in counted if c["values"] is not None}


def _values(column: pa.ChunkedArray, salt: bytes) -> Hashes:
    """A number for every value: equal for equal values, whatever the other rows hold."""
    kind = column.type
    if pa.types.is_integer(kind) and kind.bit_width == 64:
        # A float has too few digits for these.
        whole = np.asarray(pc.fill_null(column, 0).to_numpy()).view(np.uint64)
        missing = column.is_null().to_numpy()
        return np.asarray(np.where(missing, np.uint64(_seed(salt, "missing")), whole), np.uint64)
    if is_number(kind):
        numbers = as_numbers(column)
        return np.asarray(np.where(np.isnan(numbers), np.nan, numbers + 0.0)).view(np.uint64)
    return _hashed(column, salt)


def _hashed(column: pa.ChunkedArray, salt: bytes) -> Hashes:
    """Hash values of any type; every distinct text is hashed once."""
    if pa.types.is_nested(column.type):
        values = column.to_pylist()
        return np.array([_seed(salt, repr(value)) for value in values], dtype=np.uint64)
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    coded = column.unify_dictionaries().combine_chunks()
    hashes = [_seed(salt, repr(value)) for value in coded.dictionary.to_pylist()]
    codes = coded.indices.cast(pa.int64()).fill_null(len(hashes)).to_numpy()
    return np.asarray(np.array([*hashes, 0], dtype=np.uint64)[codes])


def _seed(salt: bytes, text: str) -> int:
    value = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(value, digest_size=8, key=salt).digest(), "little")


def _ids(data: Dataset, rows: NDArray[np.int64]) -> tuple[str, ...]:
    """The ids of some rows by their positions: the first few in the order of the ids."""
    found: list[str] = []
    start = 0
    for shard in data.shards:
        here = rows[(rows >= start) & (rows < start + shard.rows)] - start
        if len(here):
            found += shard.read([ROW_ID]).column(ROW_ID).take(pa.array(here)).to_pylist()
        start += shard.rows
    return tuple(sorted(found)[:IDS])
