"""Conserved: whether a release holds every row of its input once, value for value, and no other.

The manifest says which files were read and how many rows they had; whoever could write the
manifest could write that too. Who has the input need not believe it: it is read again as it was
read then, and the contents of all rows are compared, whatever they are called and wherever
they lie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Set
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from pipelines.base import Base
from pipelines.fetch import fetch
from pipelines.identity import content_digests
from pipelines.ingest import ingest
from pipelines.ingested import Ingested
from pipelines.manifest import FileEntry, Manifest
from pipelines.readers.remote import is_url
from pipelines.readers.sources import digest_sources, find_sources
from pipelines.reading import Like
from pipelines.row_ids import contents_differ
from pipelines.shards import ParquetShard
from pipelines.split import INTERNAL
from sanitizers.core.data import ROW_ID

#: Files that are named, at most.
NAMED = 5
#: The verdict and its reasons, which follow the columns of rows that were set aside.
APPENDED = 2


def lost_and_invented(release: Path, manifest: Manifest, source: str) -> Iterator[str]:
    """Compare the rows of a release with those of its input.

    Parameters
    ----------
    release : Path
    manifest : Manifest
    source : str
        The input: a file, a folder, a glob or a URL. Files that the release does not speak
        of, such as those that came later, are left alone.

    Yields
    ------
    str
        What is wrong, in a line.

    Raises
    ------
    SanitizeError
        If the input cannot be read.
    """
    base = Base(release, manifest)
    with TemporaryDirectory(prefix="sanitize-source-") as folder:
        work = Path(folder)
        paths = _paths(manifest, fetch(source, work / "fetched") if is_url(source) else source)
        read = _read(base, paths, work / "rows") if paths else None
        there = {file.sha256 for file in read.files} if read else set()
        missing = [file.path for file in manifest.source.files if file.sha256 not in there]
        if missing or read is None:
            more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
            yield f"not at {source} as it was read: {', '.join(missing[:NAMED])}{more}"
            return
        if read.unreadable != manifest.counts.unreadable:
            yield (
                f"{read.unreadable:,} rows of the input cannot be read, and the manifest counts "
                f"{manifest.counts.unreadable:,}"
            )
        # An id that is the hash of the content says nothing new.
        dropped = INTERNAL if base.roles.id == ROW_ID else INTERNAL | {ROW_ID}
        old = (_digests(shard.read(), dropped) for shard in read.shard_files())
        new = (_digests(_rows(base, file), dropped) for file in base.rows_files)
        found = contents_differ(old, new, work)
    if found.removed:
        yield f"{found.removed:,} rows of the input are not in the release"
    if found.added:
        yield f"{found.added:,} rows of the release are not in the input"


def _paths(manifest: Manifest, source: str) -> list[Path]:
    """The files at a source that the manifest speaks of, as often as it does."""
    wanted = Counter(file.sha256 for file in manifest.source.files)
    paths, found = find_sources(source), []
    for path, (sha256, _) in zip(paths, digest_sources(paths), strict=True):
        if wanted[sha256]:
            wanted[sha256] -= 1
            found.append(path)
    return found


def _read(base: Base, paths: list[Path], folder: Path) -> Ingested:
    """Read the input again, with the columns that the release has."""
    return ingest(
        paths,
        folder,
        salt=bytes(32),
        id_column=base.roles.id,
        image_column=base.roles.image,
        like=Like(f"release {base.version}", base.schema),
    )


def _rows(base: Base, file: FileEntry) -> pa.Table:
    """The rows of a file as the input had them."""
    table = ParquetShard(base.folder / file.path).read()
    return table if file in base.clean else table.select(table.column_names[:-APPENDED])


def _digests(table: pa.Table, dropped: Set[str]) -> pa.Table:
    """The contents of rows, as two numbers each."""
    kept = [name for name in table.column_names if name not in dropped]
    halves = content_digests(table.select(kept)).view("<u8")
    return pa.table({"high": halves[:, 0], "low": halves[:, 1]})
