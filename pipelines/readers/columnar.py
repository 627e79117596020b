"""Parquet, Arrow and Feather: typed tables that are read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.readers.blocks import BLOCK_ROWS, MAX_ROWS, Block, Known
from pipelines.readers.typed import aligned, surveyed
from sanitizers.core.errors import InputError

#: Bytes of a batch, about; rows with long texts or images come fewer at a time.
_BATCH_BYTES = 32 * 2**20
#: What is read ahead of each column of a Parquet file.
_BUFFER = 2**20


@dataclass(frozen=True)
class ParquetReader:
    """One Parquet file.

    Parameters
    ----------
    name : str
        How messages call it.
    path : Path
    """

    name: str
    path: Path

    def survey(self) -> dict[str, Known]:
        """Read the schema."""
        with _reading(self.name, "Parquet"), self._open() as file:
            if file.metadata.num_rows > MAX_ROWS:
                raise InputError(
                    f"{self.name} claims {file.metadata.num_rows:,} rows",
                    expected=f"at most {MAX_ROWS:,}",
                )
            return surveyed(self.name, file.schema_arrow)

    def read(self, schema: pa.Schema) -> Iterator[Block]:
        """Read every row with the types of `schema`."""
        row = 0
        with _reading(self.name, "Parquet"), self._open() as file:
            for batch in file.iter_batches(_batch_rows(file.metadata)):
                yield aligned(self.name, pa.table(batch), schema, row)
                row += batch.num_rows

    def _open(self) -> pq.ParquetFile:
        # Buffered, a row group is not read whole, however large its writer made it.
        return pq.ParquetFile(self.path, buffer_size=_BUFFER, pre_buffer=False)


@dataclass(frozen=True)
class ArrowReader:
    """One Arrow IPC file or stream, or Feather file.

    Batches are checked before anything looks at them: offsets in them are bytes from a
    stranger.

    Parameters
    ----------
    name : str
    path : Path
    """

    name: str
    path: Path

    def survey(self) -> dict[str, Known]:
        """Read the schema."""
        with _reading(self.name, "Arrow"), pa.memory_map(str(self.path)) as file:
            return surveyed(self.name, _open_ipc(file).schema)

    def read(self, schema: pa.Schema) -> Iterator[Block]:
        """Read every row with the types of `schema`."""
        row = 0
        with _reading(self.name, "Arrow"), pa.memory_map(str(self.path)) as file:
            for batch in _batches(_open_ipc(file)):
                batch.validate(full=True)
                for start in range(0, batch.num_rows, BLOCK_ROWS):
                    part = pa.table(batch.slice(start, BLOCK_ROWS))
                    yield aligned(self.name, part, schema, row + start)
                row += batch.num_rows


def _batch_rows(metadata: pq.FileMetaData) -> int:
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    largest = max((g.total_byte_size / max(g.num_rows, 1) for g in groups), default=1.0)
    return int(min(max(_BATCH_BYTES / max(largest, 1.0), 64), BLOCK_ROWS))


def _open_ipc(file: pa.MemoryMappedFile) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    return pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)


def _batches(
    reader: pa.RecordBatchFileReader | pa.RecordBatchStreamReader,
) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.RecordBatchFileReader):
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)
    else:
        yield from reader


@contextmanager
def _reading(name: str, what: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(
            f"{name} cannot be read as {what}: {line}", do="download or write it again"
        ) from None
