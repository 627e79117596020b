"""Ingest: files in, Parquet shards out, every row with a stable id and its position."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.disk import make_folder, read_json, remove, temporary_of, write_json, writing
from pipelines.ingested import MARKER, UNREADABLE, Ingested, ShardFile, SourceFile
from pipelines.profiles import ColumnProfile
from pipelines.progress import SILENT, Progress
from pipelines.quiet import quiet
from pipelines.readers.folders import left_out
from pipelines.readers.named import NamedImages
from pipelines.readers.sources import (
    digest_sources,
    find_sources,
    identify,
    names_of,
    stamp_sources,
)
from pipelines.reading import Asked, Input, Like, read_files
from pipelines.rows import FILE, ROW
from pipelines.salts import salt_digest
from pipelines.shards import SHARD_ROWS
from sanitizers.core.errors import InputError, IntegrityError

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
FORMAT = "dataset-sanitizer-input/2"


def ingest(
    source: str | Path | Sequence[str | Path],
    folder: Path,
    *,
    salt: bytes,
    id_column: str | None = None,
    image_column: str | None = None,
    names: Sequence[str] | None = None,
    like: Like | None = None,
    shard_rows: int = SHARD_ROWS,
    progress: Progress = SILENT,
) -> Ingested:
    """Read the input and write it as shards; an ingest that is done is loaded, not done again.

    Every image is decoded once; a row whose image cannot be is among the unreadable ones.

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
    image_column : str, optional
        The column of images, or of their paths relative to the folder of their table. Bytes
        that are images are found without it, paths are not read unless they are named.
    names : sequence of str, optional
        What manifests call the files, one for each; by default their paths relative to what
        they have in common.
    like : Like, optional
        Columns and types that the rows have to have.
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
    names = names_of(paths) if names is None else list(names)
    images = NamedImages.of(paths, names, image_column)
    before = _stamps(paths, images)
    digests = digest_sources(paths)
    named = images.entry()
    shas = [sha for sha, _ in digests] + [entry.sha256 for entry in named]
    wanted = {
        "format": FORMAT,
        "names": names,
        "digest": hashlib.sha256("".join(shas).encode()).hexdigest(),
        "salt_digest": salt_digest(salt),
        "shard_rows": shard_rows,
        "id_asked": id_column,
        "image_asked": image_column,
        "like": like.schema.to_string() if like else None,
    }
    if (done := _finished(folder, wanted)) is not None:
        progress.note(f"the input is unchanged: {done.rows:,} rows are there already")
        return done
    for path in (p for p in paths if p.is_dir()):
        _tell_left_out(path, progress)
    with _workspace(folder) as new, progress.stage("ingest") as stage, quiet():
        sources = [identify(*p) for p in zip(paths, names, strict=True)]
        files = [Input(s, *d) for s, d in zip(sources, digests, strict=True)]
        asked = Asked(id_column, image_column, salt, shard_rows, like)
        fields = read_files(files, new, asked, stage)
        fields["files"] += [asdict(entry) for entry in named]
        if _stamps(paths, images) != before:
            raise InputError("the input changed while it was read", do="run the command again")
        write_json(new / MARKER, wanted | fields)
        _appear(new, folder)
    result = Ingested.load(folder)
    if result.unreadable:
        first = fields["first_unreadable"]
        progress.note(f"{result.unreadable:,} rows could not be read; the first: {first}")
    return result


def _find(source: str | Path | Sequence[str | Path]) -> list[Path]:
    several = [source] if isinstance(source, str | Path) else list(source)
    found = [path for one in several for path in find_sources(one)]
    if not found:
        raise InputError("no input was named", expected="a file, a folder or a glob")
    return list(dict.fromkeys(found))


def _stamps(paths: list[Path], images: NamedImages) -> list[object]:
    return [*stamp_sources(paths), images.stamp()]


def _tell_left_out(folder: Path, progress: Progress) -> None:
    count, example = left_out(folder)
    if count:
        progress.note(
            f"left out of the folders: {count:,} files not named like images, such as {example}"
        )


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
