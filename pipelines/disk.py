"""Writing to a disk: whole or not at all, and with one clear line when it fails."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sanitizers.core.errors import IntegrityError, StoreError

#: A temporary path of a dead process is left behind when it is older than this, in seconds.
STALE_SECONDS = 3600.0

_TEMPORARY = re.compile(r"\..+\.tmp-(\d+)")


def canonical(value: object) -> bytes:
    """The one JSON text of a value: keys sorted, ASCII, no spaces, no NaN."""
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":")
    )
    return text.encode()


def pretty(value: object) -> bytes:
    """The one JSON text of a value for people: as given, ASCII, indented, no NaN."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, indent=1)
    return text.encode() + b"\n"


def write_json(path: Path, value: object) -> None:
    """Write JSON so that a reader sees the old text or the new one, never a part."""
    write_bytes(path, pretty(value))


def write_bytes(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write a file whole or not at all: temporary file, fsync, rename."""
    temporary = temporary_of(path)
    with writing(path):
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)


def write_new(path: Path, value: object) -> bool:
    """Write JSON where there is no file yet: whole or not at all, and by one of many only.

    Returns
    -------
    bool
        False where there is one; it stays as it is.
    """
    temporary = temporary_of(path)
    with writing(path):
        temporary.write_bytes(pretty(value))
        try:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    return True


def share_file(source: Path, target: Path) -> bool:
    """Let a file be found under one more name; a copy where the file system has no such names.

    Returns
    -------
    bool
        Whether both names lead to the same bytes.
    """
    with suppress(OSError):
        os.link(source, target)
        return True
    with writing(target):
        shutil.copyfile(source, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())
    return False


def write_table(table: pa.Table, path: Path) -> None:
    """Write a small Parquet file whole or not at all."""
    temporary = temporary_of(path)
    with writing(path):
        with temporary.open("wb") as file:
            pq.write_table(table, file, compression="zstd", compression_level=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hex.

    Raises
    ------
    IntegrityError
        If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror}") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    IntegrityError
        If the file is missing or is not a JSON object.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise IntegrityError(f"{path} is missing") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    return json_object(data, path)


def json_object(data: bytes, path: Path) -> dict[str, Any]:
    """Read the bytes of a file as a JSON object.

    Raises
    ------
    IntegrityError
        If they are none.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise IntegrityError(f"{path} holds {type(value).__name__}", expected="a JSON object")
    return value


def temporary_of(path: Path) -> Path:
    """Where to write before renaming to `path`; beside it, named by the process."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}")


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes its place whole, or not at all.

    Raises
    ------
    StoreError
        If the disk is at fault.
    """
    new = temporary_of(folder)
    remove(new)
    make_folder(new)
    try:
        yield new
        with writing(folder):
            remove(folder)
            os.replace(new, folder)
    finally:
        remove(new)


def is_left_behind(path: Path) -> bool:
    """Whether a temporary path is of a process that is dead, and not lately, on another host."""
    match = _TEMPORARY.fullmatch(path.name)
    if match is None or time.time() - path.lstat().st_mtime < STALE_SECONDS:
        return False
    try:
        os.kill(int(match[1]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


def make_folder(path: Path) -> None:
    """Make a folder and those above it."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or a folder with all in it; a symbolic link itself, never its target."""
    with writing(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the faults of a disk into one clear line.

    Raises
    ------
    StoreError
        Instead of any ``OSError``.
    """
    try:
        yield
    except OSError as error:
        found, do = _line(path, error)
        raise StoreError(found, do=do) from error


def _line(path: Path, error: OSError) -> tuple[str, str]:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"no space left on the disk of {path}", "free some, and run the same command again"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"{path} cannot be written: permission denied", "choose a store that you may write"
    if error.errno == errno.EROFS:
        return f"{path} cannot be written: the file system is read-only", "choose another store"
    return f"{path} cannot be written: {error.strerror or error}", ""


@contextmanager
def locked(path: Path, wait: float, busy: str) -> Iterator[None]:
    """Hold the lock of a file; the kernel lets go of it when the process dies.

    Parameters
    ----------
    path : Path
    wait : float
        Seconds.
    busy : str
        What to say when another process holds it for longer.
    """
    with writing(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        until = time.monotonic() + wait
        while not try_lock(path, handle):
            if time.monotonic() >= until:
                raise StoreError(f"{busy}, for {wait:.0f} seconds already", do="try again later")
            time.sleep(0.1)
        yield
    finally:
        os.close(handle)


def try_lock(path: Path, handle: int) -> bool:
    """Lock an open file, or say that another process has; the lock ends with the handle."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StoreError(f"{path} cannot be locked: {error.strerror}") from error
    return True
