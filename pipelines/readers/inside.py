"""Files that a dataset names: read from its own folder only, and none larger than an image."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath

from sanitizers.core.image_formats import MAX_BYTES

#: Bytes and number of files that are read at a time.
WINDOW_BYTES, WINDOW_FILES = 32 * 2**20, 1_000
_MAX_NAME = 4_096


class RefusedError(ValueError):
    """A file that is not read; the message says why, without its name."""


def read_inside(folder: Path, name: str) -> bytes:
    """Read a file of a folder.

    Parameters
    ----------
    folder : Path
        Without symbolic links in it, as ``os.path.realpath`` gives it.
    name : str
        Relative to `folder`.

    Raises
    ------
    RefusedError
        If the path is absolute, goes up, or leads out of the folder by a symbolic link, or
        the file is missing, no regular file, or too large.
    """
    path = _inside(folder, name)
    try:
        # A pipe would wait for ever, and a link was resolved already.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise RefusedError("not a regular file")
            if found.st_size > MAX_BYTES:
                raise RefusedError(f"more than {MAX_BYTES // 2**20} MiB")
            return file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise RefusedError("not a regular file") from None
    except FileNotFoundError:
        raise RefusedError("no such file") from None
    except OSError as error:
        raise RefusedError(f"it cannot be read: {error.strerror}") from None


def windows(folder: Path, names: Sequence[str | None]) -> Iterator[slice]:
    """Cut a list of files into stretches that fit in memory.

    Parameters
    ----------
    folder : Path
    names : sequence of str or None
    """
    start = size = 0
    for at, name in enumerate(names):
        here = _size(folder, name)
        if at > start and (size + here > WINDOW_BYTES or at - start >= WINDOW_FILES):
            yield slice(start, at)
            start, size = at, 0
        size += here
    if start < len(names):
        yield slice(start, len(names))


def stamp(folder: Path, name: str) -> tuple[int, int]:
    """Size and time of a file of a folder; zeros where it is not read."""
    try:
        found = os.stat(_inside(folder, name))
    except (OSError, RefusedError):
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _inside(folder: Path, name: str) -> str:
    if not name or "\0" in name or len(name) > _MAX_NAME:
        raise RefusedError("its path is empty, or too long")
    if "://" in name:
        raise RefusedError("its path is a URL, and nothing is fetched")
    if name.startswith(("/", "~")) or PureWindowsPath(name).drive or name.startswith("\\"):
        raise RefusedError("its path is absolute")
    if ".." in re.split(r"[\\/]", name):
        raise RefusedError("its path goes up with '..'")
    path = root = str(folder)
    for part in name.split("/"):
        path = f"{path}/{part}"
        if _is_link(path):
            path = os.path.realpath(f"{root}/{name}")
            if os.path.commonpath([root, path]) != root:
                raise RefusedError("its path leads out of the folder of the data")
            break
    return path


def _is_link(path: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError:
        return False  # what is not there leads nowhere


def _size(folder: Path, name: str | None) -> int:
    return 0 if name is None else min(stamp(folder, name)[0], MAX_BYTES)
