"""Which contents repeat, and which classes there are, counted over all rows in one pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sanitizers.core.contents import (
    MOST_CLASSES,
    MOST_CONTENTS,
    Hashes,
    content_columns,
    content_hashes,
    value_hashes,
)
from sanitizers.core.data import ROW_ID, Batch, Dataset

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
    names = content_columns(data.roles)
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
    # A label that is missing contradicts none, and a number measured twice may differ.
    unlike = same & ~again & (answer[:-1] != 0) & bool(data.roles.label)
    changes = np.bincount(group[1:][unlike], minlength=group[-1] + 1) > 0
    run = np.concatenate([[0], np.cumsum(~again)])
    mine = changes[group] & (answer != 0)
    chosen = mine & np.isin(group, np.flatnonzero(changes)[:GROUPS])
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


def _answers(batch: Batch) -> Hashes:
    """A hash of the label or target of every row, 0 where it is missing or there is none."""
    name = batch.roles.label or batch.roles.target
    if name is None:
        return np.zeros(len(batch), dtype=np.uint64)
    column = batch.table.column(name)
    missing = pc.is_null(column, nan_is_null=True).to_numpy()
    return np.where(
        missing, np.uint64(0), np.maximum(value_hashes(column, batch.salt), np.uint64(1))
    )


def _classes(batch: Batch) -> dict[str, int]:
    counted = pc.value_counts(pa.array(batch.labels, pa.string())).to_pylist()
    return {c["values"]: c["counts"] for c in counted if c["values"] is not None}


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
