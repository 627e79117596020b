"""Split the rows of a shard by their verdicts, and read back what was written."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.decide import verdicts_file
from pipelines.disk import digest_of, share_file, writing
from pipelines.ingest import FILE, ROW, ShardFile
from pipelines.manifest import FileEntry
from pipelines.shards import SHARD_ROWS, ParquetShard, shard_name
from sanitizers.core.data import ROW_ID, ROW_KEY
from sanitizers.core.errors import IntegrityError
from sanitizers.core.image_columns import IMAGE
from sanitizers.core.verdicts import KEEP, QUARANTINE, REVIEW, VERDICT_SCHEMA

#: The folder of each verdict in a release.
SPLITS: Mapping[str, str] = MappingProxyType(
    {KEEP: "clean", REVIEW: "review", QUARANTINE: "quarantine"}
)
#: Columns of a shard that no release has.
INTERNAL = frozenset({ROW_KEY, FILE, ROW, IMAGE})
UNREADABLE = "quarantine/unreadable.parquet"
#: The copy of the log of rulings.
RULINGS = "rulings.jsonl"
#: How files of rows begin.
PART = "part"

_CHUNK = 1 << 20


def split_shard(
    inputs: Path, shard: ShardFile, number: int, verdicts: Path, staging: Path, part: int
) -> list[FileEntry]:
    """Write the rows of a shard into the folders of their verdicts.

    The first shard writes a file into every folder, also one without rows, so that the
    columns of each are known.

    Parameters
    ----------
    inputs : Path
        The folder of the shard.
    shard : ShardFile
    number : int
        Which shard it is.
    verdicts : Path
        The folder of the run.
    staging : Path
    part : int
        Names the files.

    Raises
    ------
    IntegrityError
        If the shard or its verdicts are not what they should be.
    """
    path = inputs / shard.name
    if digest_of(path) != shard.sha256:
        raise IntegrityError(
            f"{path} was changed after it was written", do=f"remove {inputs} and run again"
        )
    rows = ParquetShard(path).read()
    judged = ParquetShard(verdicts_file(verdicts, number)).read()
    if not rows.column(ROW_ID).equals(judged.column(ROW_ID)):
        raise IntegrityError(f"the verdicts of {path} are about other rows")
    shown = rows.select([name for name in rows.column_names if name not in INTERNAL])
    files = []
    for verdict, folder in SPLITS.items():
        mask = pc.equal(judged.column("verdict").cast(pa.string()), verdict)
        rows_of = shown.filter(mask)
        if verdict != KEEP:
            rows_of = with_reasons(rows_of, judged.filter(mask))
        if rows_of.num_rows or part == 0:
            name = f"{folder}/{shard_name(part, PART)}"
            files.append(write_part(rows_of, staging, name))
    if sum(file.rows or 0 for file in files) != shard.rows:
        raise IntegrityError(f"{path} has {shard.rows:,} rows, and some have no verdict")
    return files


def next_part(files: Iterable[FileEntry]) -> int:
    """The number of the first part that is new beside files that are there."""
    found = (re.fullmatch(rf".*/{PART}-(\d+)\.parquet", file.path) for file in files)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def share(release: Path, file: FileEntry, staging: Path) -> FileEntry:
    """Let a file of an earlier release be one of the next, without copying it.

    Both names lead to the same bytes on the disk. Where the file system has no such names,
    the bytes are copied and held against the digest.

    Parameters
    ----------
    release : Path
    file : FileEntry
    staging : Path

    Raises
    ------
    IntegrityError
        If a copy is not what was published.
    """
    source, target = release / file.path, staging / file.path
    if not share_file(source, target) and digest_of(target) != file.sha256:
        raise IntegrityError(
            f"{source} is not as it was published", do=f"run 'sanitize verify {release}'"
        )
    return file


def split_unreadable(
    source: Path, rows: int, staging: Path, before: Path | None = None
) -> FileEntry:
    """Write the rows that could not be read, as they came, with the reason.

    Parameters
    ----------
    source : Path
        The file that the ingest left.
    rows : int
        How many there are.
    staging : Path
    before : Path, optional
        The file of the release that they join, whose rows come first.
    """
    there = ParquetShard(source).rows
    if there != rows:
        raise IntegrityError(f"{source} has {there:,} rows", expected=f"{rows:,}")
    earlier = _row_groups(before) if before is not None else iter(())
    new = map(_unreadable, _row_groups(source))
    return write_parts(chain(earlier, new), staging, UNREADABLE)


def write_part(table: pa.Table, staging: Path, name: str) -> FileEntry:
    """Write a Parquet file of a release; see `write_parts`."""
    return write_parts([table], staging, name)


def write_parts(tables: Iterable[pa.Table], staging: Path, name: str) -> FileEntry:
    """Write a Parquet file of a release, and read back what the disk holds.

    Parameters
    ----------
    tables : iterable of pyarrow.Table
        At least one, of equal columns; one at a time is held.
    staging : Path
    name : str

    Raises
    ------
    IntegrityError
        If the disk holds something else.
    """
    path = staging / name
    ids: list[pa.Array] = []
    schema: pa.Schema | None = None
    with _hashed(path) as sink, ExitStack() as stack:
        for table in tables:
            if schema is None:
                schema = table.schema
                writer = stack.enter_context(
                    pq.ParquetWriter(sink, schema, compression="zstd", compression_level=1)
                )
            writer.write_table(table, row_group_size=SHARD_ROWS)
            ids += table.column(ROW_ID).chunks
    known = pa.chunked_array(ids, pa.string())
    written = ParquetShard(path)
    same = schema is not None and written.schema.equals(schema.remove_metadata())
    same = same and written.read([ROW_ID]).column(ROW_ID).equals(known)
    if not same or digest_of(path) != sink.digest:
        raise IntegrityError(f"{path} does not hold what was written", do="check the disk")
    return FileEntry(name, sink.size, sink.digest, len(known))


def copy_file(source: Path, staging: Path, name: str) -> FileEntry:
    """Copy a file that holds no rows into a release."""
    with writing(source):
        data = source.read_bytes()
    return copy_bytes(data, staging, name)


def copy_bytes(data: bytes, staging: Path, name: str) -> FileEntry:
    """Write a file that holds no rows into a release."""
    with _hashed(staging / name) as sink:
        sink.write(data)
    return FileEntry(name, sink.size, sink.digest, None)


@dataclass
class _Sink:
    """A file that is hashed while it is written."""

    file: BinaryIO
    size: int = 0
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def closed(self) -> bool:
        return self.file.closed

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


@contextmanager
def _hashed(path: Path) -> Iterator[_Sink]:
    with writing(path), path.open("xb") as file:
        sink = _Sink(file)
        yield sink
        file.flush()
        os.fsync(file.fileno())


def _row_groups(path: Path) -> Iterator[pa.Table]:
    """A file piece by piece, since rows may hold whole images."""
    try:
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                yield file.read_row_group(number)
    except (OSError, pa.ArrowException) as error:
        raise IntegrityError(f"{path} cannot be read: {str(error)[:200]}") from None


def _unreadable(table: pa.Table) -> pa.Table:
    """Rows that could not be read, with the reason where other rows have theirs."""
    kind = VERDICT_SCHEMA.field("reasons").type
    reasons = [
        [{"sanitizer": "ingest", "message": why}] for why in table.column("reason").to_pylist()
    ]
    table = table.drop_columns(["reason"])
    table = table.append_column("verdict", pa.array([QUARANTINE] * len(table), pa.string()))
    return table.append_column("reasons", pa.array(reasons, kind))


def with_reasons(rows: pa.Table, judged: pa.Table) -> pa.Table:
    """Append the verdict and its reasons; where the data has such a column, `verdict_`."""
    for name in ("verdict", "reasons"):
        free = name
        while free in rows.column_names:
            free += "_"
        rows = rows.append_column(free, judged.column(name))
    return rows
