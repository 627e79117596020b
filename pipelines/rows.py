"""From blocks of rows to shards: ids, keys and positions are added here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.identity import (
    DIGEST_SCHEMA,
    Repeats,
    content_digests,
    digest_table,
    find_repeats,
    hex_ids,
    text_digests,
)
from pipelines.profiles import ColumnCounter, ColumnProfile
from pipelines.progress import Stage
from pipelines.readers.blocks import Block, Unreadable
from pipelines.shards import ParquetShard, ShardWriter, shard_name, write_shard
from sanitizers.core.data import ROW_ID, ROW_KEY, row_keys
from sanitizers.core.errors import InputError
from sanitizers.core.image_columns import IMAGE

#: Names that are ours in every shard.
FILE, ROW = "__file", "__row"
#: A shard of long texts or images ends earlier, so that it fits in memory.
SHARD_BYTES = 128 * 2**20
#: Bytes of rows that are taken at once, by which a shard may be larger.
PIECE_BYTES = 32 * 2**20
#: Characters of unreadable rows that are held before they are written.
_HELD = 8 * 2**20
#: Characters of an id. An id is written with every reason; a longer one is a text.
_MAX_ID = 1_000

UNREADABLE_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string()),
        pa.field("file", pa.string()),
        pa.field("row", pa.int64()),
        pa.field("raw", pa.string()),
        pa.field("reason", pa.string()),
    ]
)
#: Where rows have images: what could not be decoded, as it came.
UNREADABLE_IMAGE = pa.field("image", pa.binary())


@dataclass
class RowWriter:
    """Writes rows as shards of equal size, whatever the blocks that they come in.

    Parameters
    ----------
    folder : Path
    work : Path
        A folder for temporary files.
    columns : pyarrow.Schema
        The columns of the input.
    id_column : str or None
    salt : bytes
    shard_rows : int
    stage : Stage
        Is told of every shard.
    least_row_bytes : int
        What a row counts for at least, where it grows when it is looked at.
    """

    folder: Path
    work: Path
    columns: pa.Schema
    id_column: str | None
    salt: bytes
    shard_rows: int
    stage: Stage
    least_row_bytes: int = 0
    rows: int = 0
    shards: list[ParquetShard] = field(default_factory=list)
    _pending: list[pa.Table] = field(default_factory=list)
    _waiting_rows: int = 0
    _waiting_bytes: int = 0
    _missing: int = 0
    _digests: ShardWriter = field(init=False)
    _counters: list[ColumnCounter] = field(init=False)

    def __post_init__(self) -> None:
        self._digests = ShardWriter(self.work / "digests.parquet", DIGEST_SCHEMA)
        self._counters = [ColumnCounter(f.name, f.type) for f in self.columns]

    def add(self, file: int, block: Block) -> None:
        """Take the rows of a block of the file with that number."""
        if not block.table.num_rows:
            return
        files = pa.array(np.full(len(block.positions), file, dtype=np.int32))
        rows = pa.array(block.positions)
        table = block.table.append_column(FILE, files).append_column(ROW, rows)
        step = max(1, PIECE_BYTES // max(self._size(table) // table.num_rows, 1))
        for start in range(0, table.num_rows, step):
            self._wait(table.slice(start, step))
            while self._waiting_rows >= self.shard_rows:
                self._flush(self.shard_rows)
            if self._waiting_bytes >= SHARD_BYTES:
                self._flush(self._waiting_rows)

    def finish(self) -> tuple[ColumnProfile, ...]:
        """Write what is left, and give repeated rows ids of their own.

        Raises
        ------
        InputError
            If the id column repeats, or lacks a value.
        """
        if self._pending:
            self._flush(self._waiting_rows)
        self._digests.close()
        if self._missing:
            raise InputError(
                f"the id column {self.id_column!r} has no value in {self._missing:,} of "
                f"{self.rows:,} rows",
                expected="an id for every row",
                do=_other_id(self.id_column),
            )
        # The search has a memory of its own; what Arrow keeps for later is not needed now.
        pa.default_memory_pool().release_unused()
        repeats = find_repeats(self._digests.path, self.work)
        if self.id_column is not None:
            self._refuse(repeats)
        else:
            self._number(repeats)
        return tuple(counter.profile() for counter in self._counters)

    def _wait(self, table: pa.Table) -> None:
        self._pending.append(table)
        self._waiting_rows += table.num_rows
        self._waiting_bytes += self._size(table)

    def _size(self, table: pa.Table) -> int:
        return int(max(table.nbytes, table.num_rows * self.least_row_bytes))

    def _flush(self, rows: int) -> None:
        table = pa.concat_tables(self._pending)
        rest = table.slice(rows)
        table = table.slice(0, rows).combine_chunks()
        self._pending, self._waiting_rows, self._waiting_bytes = [], 0, 0
        if rest.num_rows:
            self._wait(rest)
        data = table.select(self.columns.names)
        for counter in self._counters:
            counter.add(data.column(counter.name))
        if self.id_column is None:
            inner = [IMAGE] if IMAGE in table.column_names else []
            digests = content_digests(table.select([*self.columns.names, *inner]))
            ids = hex_ids(digests)
        else:
            ids = self._given_ids(data.column(self.id_column))
            digests = text_digests(ids)
        self._digests.write(digest_table(digests))
        path = self.folder / shard_name(len(self.shards))
        try:
            self.shards.append(write_shard(path, self._whole(table, ids)))
        except pa.ArrowInvalid as error:
            line = str(error).splitlines()[0]
            raise InputError(
                f"Parquet cannot keep a value among rows {self.rows:,} to "
                f"{self.rows + rows - 1:,} of the input: {line}",
                do="write the column as another type",
            ) from None
        self.rows += rows
        self.stage.advance(rows)

    def _given_ids(self, column: pa.ChunkedArray) -> pa.Array:
        ids = column.combine_chunks().cast(pa.string())
        longest = pc.max(pc.utf8_length(ids)).as_py() or 0
        if longest > _MAX_ID:
            raise InputError(
                f"the id column {self.id_column!r} has a value of {longest:,} characters",
                expected=f"at most {_MAX_ID:,}",
                do=_other_id(self.id_column),
            )
        ids = pc.fill_null(ids, "")
        self._missing += pc.sum(pc.equal(ids, "")).as_py() or 0
        return ids

    def _whole(self, table: pa.Table, ids: pa.Array) -> pa.Table:
        """The columns of the input, then ours."""
        names = [name for name in self.columns.names if name != ROW_ID]
        keys = row_keys(ids.to_pylist(), self.salt)
        whole = table.select(names).append_column(ROW_ID, ids)
        whole = whole.append_column(ROW_KEY, pa.array(keys))
        for name in (FILE, ROW, *([IMAGE] if IMAGE in table.column_names else [])):
            whole = whole.append_column(name, table.column(name))
        return whole

    def _refuse(self, repeats: Iterator[Repeats]) -> None:
        count, example = 0, ""
        for found in repeats:
            if not count:
                example = self._id_at(int(found.rows[0]))
            count += len(found.rows)
        if count:
            raise InputError(
                f"the id column {self.id_column!r} repeats in {count:,} of {self.rows:,} rows, "
                f"for instance {example!r}",
                expected="an id for every row",
                do=_other_id(self.id_column),
            )

    def _id_at(self, row: int) -> str:
        for shard in self.shards:
            if row < shard.rows:
                return str(shard.read([ROW_ID]).column(0)[row].as_py())
            row -= shard.rows
        return ""

    def _number(self, repeats: Iterator[Repeats]) -> None:
        """Append ``-1``, ``-2`` ... to the ids of rows that were there before."""
        starts = np.cumsum([0] + [shard.rows for shard in self.shards[:-1]])
        for at, group in groupby(_by_shard(repeats, starts), key=lambda piece: piece[0]):
            shard = self.shards[at]
            table = shard.read()
            ids = table.column(ROW_ID).to_pylist()
            for _, found in group:
                for row, nth in zip(found.rows.tolist(), found.nth.tolist(), strict=True):
                    ids[row] = f"{ids[row]}-{nth}"
            whole = self._whole(table, pa.array(ids, pa.string()))
            self.shards[at] = write_shard(shard.path, whole)


def _by_shard(
    repeats: Iterator[Repeats], starts: NDArray[np.int64]
) -> Iterator[tuple[int, Repeats]]:
    """Split what was found by shard; positions are then those within the shard."""
    for found in repeats:
        homes = np.searchsorted(starts, found.rows, side="right") - 1
        for home in np.unique(homes).tolist():
            here = homes == home
            yield home, Repeats(found.rows[here] - starts[home], found.nth[here])


@dataclass
class UnreadableWriter:
    """Writes the rows that could not be read, as they came.

    Parameters
    ----------
    path : Path
    images : bool
        Whether rows have images, which are kept too.
    """

    path: Path
    images: bool = False
    rows: int = 0
    first: str = ""
    _held: list[dict[str, object]] = field(default_factory=list)
    _size: int = 0
    _writer: ShardWriter | None = None

    def add(self, file: str, sha256: str, unreadable: tuple[Unreadable, ...]) -> None:
        """Take rows of a file; `sha256` names its content."""
        for row in unreadable:
            home = row.file or file
            self.first = self.first or f"{home}, row {row.row:,}: {row.reason}"
            name = hashlib.blake2b(f"{sha256} {row.row}".encode(), digest_size=16).hexdigest()
            self._held.append(
                {
                    "row_id": f"unreadable-{name}",
                    "file": home,
                    "row": row.row,
                    "raw": row.raw,
                    "reason": row.reason,
                    "image": row.image,
                }
            )
            self._size += len(row.raw) + len(row.image or b"")
            self.rows += 1
            if self._size > _HELD or len(self._held) > SHARD_BYTES // 2**10:
                self._flush()

    def close(self) -> None:
        """Write what is left. There is no file where every row could be read."""
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        if not self._held:
            return
        schema = UNREADABLE_SCHEMA.append(UNREADABLE_IMAGE) if self.images else UNREADABLE_SCHEMA
        if self._writer is None:
            self._writer = ShardWriter(self.path, schema)
        self._writer.write(pa.Table.from_pylist(self._held, schema))
        self._held, self._size = [], 0


def _other_id(id_column: str | None) -> str:
    if id_column == ROW_ID:
        return "rename that column; row_id is the name that every release gives its ids"
    return "name another column with --id, or none to use the content of the rows"
