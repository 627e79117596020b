"""Ingest: files in, Parquet shards out, every row with a stable id and its position."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.ingested import MARKER, UNREADABLE, Ingested, ShardFile, SourceFile
from pipelines.profiles import ColumnProfile
from pipelines.progress import SILENT, Progress, Stage
from pipelines.readers import open_reader
from pipelines.readers.blocks import Reader
from pipelines.readers.sources import Source, digest_sources, find_sources, identify, names_of
from pipelines.readers.unify import unify
from pipelines.rows import FILE, ROW, RowWriter, UnreadableWriter
from pipelines.shards import SHARD_ROWS, ParquetShard
from pipelines.store import (
    make_folder,
    read_json,
    remove,
    salt_digest,
    temporary_of,
    write_json,
    writing,
)
from sanitizers.core.data import ROW_ID, ROW_KEY
from sanitizers.core.errors import InputError, IntegrityError, PlanError, did_you_mean

__all__ = [
    "FILE",
    "MARKER",
    "ROW",
    "UNREADABLE",
    "ColumnProfile",
    "Ingested",
    "ShardFile",
    "SourceFile",
    "digest_sources",
    "find_sources",
    "ingest",
]

#: Changed with anything that changes what an ingest gives.
FORMAT = "dataset-sanitizer-input/1"


def ingest(
    source: str | Path | Sequence[str | Path],
    folder: Path,
    *,
    salt: bytes,
    id_column: str | None = None,
    shard_rows: int = SHARD_ROWS,
    progress: Progress = SILENT,
) -> Ingested:
    """Read the input and write it as shards; an ingest that is done is loaded, not done again.

    Parameters
    ----------
    source : str or Path, or several
        A file, a folder or a glob.
    folder : Path
        Where the shards go. It appears whole, or not at all.
    salt : bytes
        The store's salt.
    id_column : str, optional
        The column that names a row.
    shard_rows : int
        Rows per shard.
    progress : Progress

    Raises
    ------
    InputError
        If the input cannot be read; the message says which file, and what to do.
    StoreError
        If the folder cannot be written.
    """
    paths = _find(source)
    before = _stamps(paths)
    digests = digest_sources(paths)
    names = names_of(paths)
    wanted = {
        "format": FORMAT,
        "names": names,
        "digest": hashlib.sha256("".join(sha for sha, _ in digests).encode()).hexdigest(),
        "salt_digest": salt_digest(salt),
        "shard_rows": shard_rows,
        "id_asked": id_column,
    }
    if (done := _finished(folder, wanted)) is not None:
        progress.note(f"the input is unchanged: {done.rows:,} rows are there already")
        return done
    with _workspace(folder) as new, progress.stage("ingest") as stage:
        sources = [identify(*p) for p in zip(paths, names, strict=True)]
        files = [Input(s, *d) for s, d in zip(sources, digests, strict=True)]
        fields = _read(files, new, id_column, salt, shard_rows, stage)
        if _stamps(paths) != before:
            raise InputError("the input changed while it was read", do="run the command again")
        write_json(new / MARKER, wanted | fields)
        _appear(new, folder)
    result = Ingested.load(folder)
    if result.unreadable:
        first = fields["first_unreadable"]
        progress.note(f"{result.unreadable:,} rows could not be read; the first: {first}")
    return result


@dataclass(frozen=True)
class Input:
    """A file to be read, and the digest of its bytes."""

    source: Source
    sha256: str
    bytes: int


def _find(source: str | Path | Sequence[str | Path]) -> list[Path]:
    several = [source] if isinstance(source, str | Path) else list(source)
    found = [path for one in several for path in find_sources(one)]
    if not found:
        raise InputError("no input was named", expected="a file, a folder or a glob")
    return list(dict.fromkeys(found))


def _stamps(paths: list[Path]) -> list[tuple[int, int]]:
    return [(s.st_size, s.st_mtime_ns) for s in (p.stat() for p in paths)]


def _finished(folder: Path, wanted: dict[str, Any]) -> Ingested | None:
    """What is there already, if it is whole and came from the same bytes and settings."""
    if not (folder / MARKER).is_file():
        return None
    known = read_json(folder / MARKER)
    if any(known.get(name) != value for name, value in wanted.items()):
        return None
    try:
        return Ingested.load(folder)
    except IntegrityError:
        return None


@contextmanager
def _workspace(folder: Path) -> Iterator[Path]:
    """A folder beside `folder`, gone at the end unless it was renamed."""
    new = temporary_of(folder)
    remove(new)
    make_folder(new / "work")
    try:
        yield new
    finally:
        remove(new)


def _appear(new: Path, folder: Path) -> None:
    """Put a finished folder in its place, in one step."""
    remove(new / "work")
    remove(folder)
    with writing(folder):
        os.replace(new, folder)


def _read(
    files: list[Input],
    new: Path,
    id_column: str | None,
    salt: bytes,
    shard_rows: int,
    stage: Stage,
) -> dict[str, Any]:
    """Read all files into shards under `new`; returns what the marker says."""
    work = new / "work"
    readers = [open_reader(file.source, work) for file in files]
    surveys = [(f.source.name, r.survey()) for f, r in zip(files, readers, strict=True)]
    schema = unify(surveys)
    id_column = _id_column(schema, id_column)
    rows = RowWriter(new, work, schema.remove_metadata(), id_column, salt, shard_rows, stage)
    unreadable = UnreadableWriter(new / UNREADABLE)
    read = _read_files(files, readers, schema, rows, unreadable)
    _some_rows(read, unreadable)
    columns = rows.finish()
    unreadable.close()
    return {
        "files": [asdict(file) for file in read],
        "shards": [_shard_file(shard) for shard in rows.shards],
        "rows": rows.rows,
        "unreadable": unreadable.rows,
        "first_unreadable": unreadable.first,
        "columns": [asdict(column) for column in columns],
        "id_column": id_column,
    }


def _read_files(
    files: list[Input],
    readers: list[Reader],
    schema: pa.Schema,
    rows: RowWriter,
    unreadable: UnreadableWriter,
) -> list[SourceFile]:
    read = []
    copies: dict[str, int] = {}
    for number, (file, reader) in enumerate(zip(files, readers, strict=True)):
        # Two files may have the same bytes; their rows have ids of their own all the same.
        copies[file.sha256] = copies.get(file.sha256, -1) + 1
        content = f"{file.sha256} {copies[file.sha256]}"
        good = bad = 0
        for block in reader.read(schema):
            rows.add(number, block)
            unreadable.add(file.source.name, content, block.unreadable)
            good += block.table.num_rows
            bad += len(block.unreadable)
        source = file.source
        read.append(SourceFile(source.name, source.format, file.bytes, file.sha256, good, bad))
    return read


def _id_column(schema: pa.Schema, asked: str | None) -> str | None:
    """The column that names the rows; checks that no other has a name of ours."""
    names = schema.names
    for name in (ROW_KEY, FILE, ROW):
        if name in names:
            raise InputError(f"a column is called {name!r}", do="rename it; the name is ours")
    if asked is not None and asked not in names:
        raise PlanError(f"no column {asked!r} for the ids", do=did_you_mean(asked, names))
    if ROW_ID in names and asked not in {None, ROW_ID}:
        raise InputError(
            f"a column is called {ROW_ID!r} and another one, {asked!r}, is the id",
            do=f"rename the column {ROW_ID!r}; it is the name that every release gives its ids",
        )
    id_column = asked or (ROW_ID if ROW_ID in names else None)
    if id_column is not None:
        _check_id_type(id_column, schema.field(id_column).type)
    return id_column


def _check_id_type(name: str, kind: pa.DataType) -> None:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    fine = (
        pa.types.is_string(plain)
        or pa.types.is_large_string(plain)
        or pa.types.is_string_view(plain)
        or pa.types.is_integer(plain)
        or pa.types.is_temporal(plain)
        or pa.types.is_decimal(plain)
        or pa.types.is_null(plain)
    )
    if not fine:
        raise InputError(
            f"the id column {name!r} is of type {kind}", expected="whole numbers or texts"
        )


def _some_rows(files: list[SourceFile], unreadable: UnreadableWriter) -> None:
    if any(file.rows for file in files):
        return
    if unreadable.rows:
        raise InputError(
            f"none of the {unreadable.rows:,} rows could be read; the first: {unreadable.first}",
            do="see that the file is what its name says, and is UTF-8",
        )
    if len(files) > 1:
        raise InputError(f"none of the {len(files)} files has a row")
    raise InputError(f"{files[0].path} has columns but no rows", expected="at least one row")


def _shard_file(shard: ParquetShard) -> dict[str, Any]:
    path = shard.path
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return asdict(ShardFile(path.name, ParquetShard(path).rows, sha256, path.stat().st_size))
