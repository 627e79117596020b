"""Fetch: the files of a URL into the store, each once for as long as it does not change."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipelines.disk import locked, make_folder, read_json, remove, write_json, writing
from pipelines.readers.remote import Listing, RemoteFile, list_files, speaking
from pipelines.readers.sources import find_sources
from sanitizers.core.errors import InputError, IntegrityError, StoreError

#: The file that says which files are here, and as of when.
INDEX = "fetched.json"
#: Where they lie, under the names that they have there.
FILES = "files"
#: Where a file lies until it is whole.
PARTS = "parts"
#: Files and bytes that are fetched between two notes of what is here.
BATCH_FILES, BATCH_BYTES = 1_000, 2**30
#: Seconds to wait for another process that fetches the same.
WAIT_SECONDS = 3600.0


def fetch(url: str, folder: Path) -> str:
    """Fetch what has changed of the files of a URL, and forget those that are gone.

    Parameters
    ----------
    url : str
        A file, a folder or a pattern, of any kind that fsspec reads.
    folder : Path
        Of this URL only.

    Returns
    -------
    str
        What stands for the URL here: a file, a folder or a glob.

    Raises
    ------
    PlanError
        If no package for such URLs is installed.
    InputError
        If nothing is there, or it cannot be read.
    StoreError
        If the disk is too small.
    """
    make_folder(folder)
    with locked(folder / ".lock", WAIT_SECONDS, f"another process is fetching {url}"):
        listing = list_files(url)
        _synchronise(url, listing, folder)
    files = folder / FILES
    if listing.single:
        return str(files / listing.files[0].name)
    if not listing.pattern:
        return str(files)
    return _pattern(url, listing, files)


def _pattern(url: str, listing: Listing, files: Path) -> str:
    """The glob that finds here what the pattern finds there."""
    local = f"{glob.escape(str(files))}/{listing.pattern}"
    here = {path.relative_to(files).as_posix() for path in find_sources(local)}
    if missed := sorted({file.name for file in listing.files} - here):
        raise InputError(
            f"the pattern {url} means {missed[0]!r} there, and not among local files",
            do="name the folder, or use a plainer pattern",
        )
    return local


def _synchronise(url: str, listing: Listing, folder: Path) -> None:
    remove(folder / PARTS)
    known = _known(folder, url)
    kept = {
        file.name: file.stamp
        for file in listing.files
        if file.stamp and known.get(file.name) == file.stamp and _is_whole(folder, file)
    }
    _forget(folder / FILES, kept)
    wanted = [file for file in listing.files if file.name not in kept]
    _require_space(folder, wanted)
    # First of all: what is about to be replaced is not known any more.
    write_json(folder / INDEX, {"url": url, "files": kept})
    for batch in _batches(wanted):
        _fetch(url, listing, batch, folder)
        kept |= {file.name: file.stamp for file in batch}
        write_json(folder / INDEX, {"url": url, "files": kept})
    remove(folder / PARTS)


def _known(folder: Path, url: str) -> dict[str, str]:
    """The files that are here, and as of when; none where that is not known."""
    try:
        known = read_json(folder / INDEX)
    except IntegrityError:
        return {}
    files = known.get("files")
    return files if known.get("url") == url and isinstance(files, dict) else {}


def _is_whole(folder: Path, file: RemoteFile) -> bool:
    path = folder / FILES / file.name
    return path.is_file() and file.bytes in (None, path.stat().st_size)


def _forget(files: Path, kept: Mapping[str, str]) -> None:
    """Remove the files that are not kept, and folders in which nothing is left."""
    for root, folders, names in os.walk(files, topdown=False):
        for name in names:
            path = Path(root) / name
            if path.relative_to(files).as_posix() not in kept:
                remove(path)
        with writing(files):
            for folder in folders:
                if not any((Path(root) / folder).iterdir()):
                    (Path(root) / folder).rmdir()


def _require_space(folder: Path, wanted: Sequence[RemoteFile]) -> None:
    size = sum(file.bytes or 0 for file in wanted)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise StoreError(
            f"no space left on the disk of {folder}: {free:,} bytes are free",
            expected=f"{size:,} for {len(wanted):,} files that are to be fetched",
            do="free some, or choose another store",
        )


def _batches(wanted: Sequence[RemoteFile]) -> Iterator[list[RemoteFile]]:
    batch: list[RemoteFile] = []
    size = 0
    for file in wanted:
        batch.append(file)
        size += file.bytes or 0
        if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _fetch(url: str, listing: Listing, batch: Sequence[RemoteFile], folder: Path) -> None:
    make_folder(folder / PARTS)
    parts = [folder / PARTS / f"{number:04d}" for number in range(len(batch))]
    with speaking(url):
        listing.system.get([file.path for file in batch], [str(part) for part in parts])
    for file, part in zip(batch, parts, strict=True):
        if not part.is_file() or file.bytes not in (None, part.stat().st_size):
            raise InputError(
                f"{file.name} of {url} changed while it was fetched", do="run the command again"
            )
        _put(part, folder / FILES / file.name, file.time)


def _put(part: Path, path: Path, time: float | None) -> None:
    """Put a whole file in its place, as old as it is where it comes from."""
    make_folder(path.parent)
    with writing(path):
        with part.open("rb") as file:
            os.fsync(file.fileno())
        if time is not None:
            os.utime(part, (time, time))
        os.replace(part, path)
