"""Reading: all files of an input into shards, row by row checked, counted and named."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.identity import type_name
from pipelines.image_rows import LEAST_ROW_BYTES, ImageColumn, find_image_column
from pipelines.ingested import UNREADABLE, ShardFile, SourceFile
from pipelines.profiles import ColumnProfile
from pipelines.progress import Stage
from pipelines.readers import open_reader
from pipelines.readers.blocks import Block, Guess, Known, Reader
from pipelines.readers.folders import LABEL_COLUMN
from pipelines.readers.sources import Source
from pipelines.readers.unify import unify
from pipelines.rows import FILE, ROW, RowWriter, UnreadableWriter
from pipelines.shards import ParquetShard
from sanitizers.core.data import EMBEDDING, ROW_ID, ROW_KEY
from sanitizers.core.errors import InputError, PlanError, did_you_mean
from sanitizers.core.image_columns import IMAGE


@dataclass(frozen=True)
class Asked:
    """What was asked of an ingest; see there."""

    id_column: str | None
    image_column: str | None
    salt: bytes
    shard_rows: int
    like: Like | None = None


@dataclass(frozen=True)
class Like:
    """Columns and types that the rows have to have, and who says so."""

    name: str
    schema: pa.Schema

    def survey(self, first: Mapping[str, Guess]) -> tuple[str, dict[str, Guess]]:
        """As if it were one more file of the input, whose types are known.

        But for the column `ROW_ID`: releases write every id as a text, whatever it was.
        """
        known: dict[str, Guess] = {field.name: Known(field.type) for field in self.schema}
        if ROW_ID in known and ROW_ID in first:
            known[ROW_ID] = first[ROW_ID]
        return self.name, known

    def check(self, found: pa.Schema) -> pa.Schema:
        """Refuse other types; the same ones in other containers are read as they are here.

        Raises
        ------
        InputError
        """
        for field in (field for field in self.schema if field.name != ROW_ID):
            at = found.get_field_index(field.name)
            kind = found.field(at).type
            if type_name(kind) != type_name(field.type):
                raise InputError(
                    f"column {field.name!r} is {kind} here, and {field.type} in {self.name}",
                    expected="the same type",
                    do="write it as before, or scan everything anew with --full",
                )
            found = found.set(at, found.field(at).with_type(field.type))
        return found


@dataclass(frozen=True)
class Input:
    """A file to be read, and the digest of its bytes."""

    source: Source
    sha256: str
    bytes: int


def read_files(
    files: list[Input],
    new: Path,
    asked: Asked,
    stage: Stage,
) -> dict[str, Any]:
    """Read all files into shards.

    Parameters
    ----------
    files : list of Input
    new : Path
        Where the shards go; a folder ``work`` is in it.
    asked : Asked
    stage : Stage

    Returns
    -------
    dict
        What the marker of the ingest says of them.

    Raises
    ------
    InputError
        If files contradict each other, or no row can be read.
    PlanError
        If a column that was asked for is not there.
    """
    work = new / "work"
    readers = [open_reader(file.source, work) for file in files]
    surveys = [(f.source.name, r.survey()) for f, r in zip(files, readers, strict=True)]
    if asked.like is None:
        schema = unify(surveys)
    else:
        schema = asked.like.check(unify([asked.like.survey(surveys[0][1]), *surveys]))
    id_column = _id_column(schema, asked.id_column)
    image = find_image_column(schema, asked.image_column, lambda: _first_rows(readers, schema))
    least = LEAST_ROW_BYTES if image else 0
    rows = RowWriter(
        new, work, schema.remove_metadata(), id_column, asked.salt, asked.shard_rows, stage, least
    )
    unreadable = UnreadableWriter(new / UNREADABLE, images=image is not None)
    read = _read_files(files, readers, schema, image, rows, unreadable)
    _some_rows(read, unreadable)
    columns = _with_roles(rows.finish(), files, image)
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
    image: ImageColumn | None,
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
        for block in _checked(image, file.source, reader.read(schema)):
            rows.add(number, block)
            unreadable.add(file.source.name, content, block.unreadable)
            good += block.table.num_rows
            bad += len(block.unreadable)
        source = file.source
        read.append(SourceFile(source.name, source.format, file.bytes, file.sha256, good, bad))
    return read


def _checked(image: ImageColumn | None, source: Source, blocks: Iterator[Block]) -> Iterator[Block]:
    for block in blocks:
        if image is None:
            yield block
        else:
            yield from image.checked(source, block)


def _first_rows(readers: list[Reader], schema: pa.Schema) -> pa.Table:
    found = (block.table for reader in readers for block in reader.read(schema))
    return next((table for table in found if table.num_rows), schema.empty_table())


def _with_roles(
    columns: tuple[ColumnProfile, ...], files: list[Input], image: ImageColumn | None
) -> tuple[ColumnProfile, ...]:
    """Note the roles that are known without asking: images, and the names of their folders."""
    known = {image.name: "image"} if image else {}
    if all(file.source.format == "imagefolder" for file in files):
        known[LABEL_COLUMN] = "label"
    return tuple(replace(column, role=known.get(column.name, "")) for column in columns)


def _id_column(schema: pa.Schema, asked: str | None) -> str | None:
    """The column that names the rows; checks that no other has a name of ours."""
    names = schema.names
    for name in (ROW_KEY, FILE, ROW, IMAGE, EMBEDDING):
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
            do="see that the images are in the folder of the data, and can be opened"
            if unreadable.images
            else "see that the file is what its name says, and is UTF-8",
        )
    if len(files) > 1:
        raise InputError(f"none of the {len(files)} files has a row")
    raise InputError(f"{files[0].path} has columns but no rows", expected="at least one row")


def _shard_file(shard: ParquetShard) -> dict[str, Any]:
    path = shard.path
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return asdict(ShardFile(path.name, ParquetShard(path).rows, sha256, path.stat().st_size))
