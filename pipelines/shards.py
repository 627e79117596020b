"""Parquet shards: the rows of a dataset as files of equal size that are read when asked for."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.disk import temporary_of, writing
from sanitizers.core.errors import IntegrityError

#: Rows of a shard. At 100,000 rows of 20 numbers a shard takes 16 MB of memory, so the
#: memory of a run is that of a few shards, however many there are.
SHARD_ROWS = 100_000
#: Level 1 is within some percent of level 3 in size and twice as fast to write.
COMPRESSION_LEVEL = 1


@dataclass(frozen=True)
class ParquetShard:
    """Some rows of a dataset in a Parquet file.

    Parquet has no dates in milliseconds, no times in seconds and no dictionaries of
    anything but strings. `schema` and `read` give these types back as they were written.

    Parameters
    ----------
    path : Path
    """

    path: Path

    @cached_property
    def _metadata(self) -> pq.FileMetaData:
        try:
            return pq.read_metadata(self.path)
        except (OSError, pa.ArrowException) as error:
            raise IntegrityError(
                f"{self.path} cannot be read: {_first_line(error)}",
                do="remove its folder and run again",
            ) from None

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns and their types, as they were written."""
        kept = (self._metadata.metadata or {}).get(b"ARROW:schema")
        if kept is None:
            return self._metadata.schema.to_arrow_schema()
        schema = pa.ipc.read_schema(pa.BufferReader(base64.b64decode(kept)))
        return schema.remove_metadata()

    @property
    def rows(self) -> int:
        """How many rows the file holds."""
        return int(self._metadata.num_rows)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows; `columns` limits what is read, None reads all."""
        return self._read(columns, None)

    def row(self, at: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one row by its position, and no more of the file than the group that it lies in."""
        start = 0
        for number in range(self._metadata.num_row_groups):
            rows = int(self._metadata.row_group(number).num_rows)
            if at < start + rows:
                return self._read(columns, number).slice(at - start, 1)
            start += rows
        raise IntegrityError(f"{self.path} has {start:,} rows, and no row {at:,}")

    def _read(self, columns: Sequence[str] | None, group: int | None) -> pa.Table:
        names = list(self.schema.names if columns is None else columns)
        schema = pa.schema([self.schema.field(name) for name in names])
        try:
            # One file, never a dataset: a folder name such as "year=2020" is no column.
            with pq.ParquetFile(self.path) as file:
                found = file.read(names) if group is None else file.read_row_group(group, names)
            table = found.select(names)
        except (OSError, pa.ArrowException) as error:
            raise IntegrityError(f"{self.path} cannot be read: {_first_line(error)}") from None
        restored = [_restore(table.column(i), f.type) for i, f in enumerate(schema)]
        return pa.table(restored, schema=schema)


@dataclass
class ShardWriter:
    """Writes one Parquet file whole or not at all, table by table.

    A context manager: the file appears under its name when the block ends well, and
    nothing of it stays when the block raises.

    Parameters
    ----------
    path : Path
    schema : pyarrow.Schema
    """

    path: Path
    schema: pa.Schema
    rows: int = 0
    _writer: pq.ParquetWriter | None = field(default=None, repr=False)

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        with writing(self.path):
            if self._writer is None:
                self._writer = _open(temporary_of(self.path), self.schema)
            self._writer.write_table(table, row_group_size=SHARD_ROWS)
        self.rows += table.num_rows

    def close(self) -> None:
        """End the file, and let it appear under its name."""
        temporary = temporary_of(self.path)
        with writing(self.path):
            if self._writer is None:
                self._writer = _open(temporary, self.schema)
            self._writer.close()
            os.replace(temporary, self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            _discard(self._writer, temporary_of(self.path))


def write_shard(path: Path, table: pa.Table) -> ParquetShard:
    """Write a table as a shard, whole or not at all.

    Parameters
    ----------
    path : Path
    table : pyarrow.Table

    Raises
    ------
    StoreError
        If the disk is full, or cannot be written.
    """
    with ShardWriter(path, table.schema) as writer:
        writer.write(table)
    return ParquetShard(path)


def shard_name(index: int, kind: str = "rows") -> str:
    """The file name of a shard, for instance ``rows-00000.parquet``."""
    return f"{kind}-{index:05d}.parquet"


def _restore(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Give a column the type that it was written with."""
    if column.type == kind:
        return column
    if pa.types.is_dictionary(kind) and not pa.types.is_dictionary(column.type):
        column = column.cast(kind.value_type).dictionary_encode()
    return column.cast(kind)


def _open(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        path, schema, compression="zstd", compression_level=COMPRESSION_LEVEL, version="2.6"
    )


def _discard(writer: pq.ParquetWriter | None, temporary: Path) -> None:
    # The first error is the one to tell; closing on a full disk raises another.
    if writer is not None:
        with contextlib.suppress(OSError, pa.ArrowException):
            writer.close()
    temporary.unlink(missing_ok=True)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
