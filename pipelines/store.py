"""The store: the only maker of paths, and the few safe ways to write under them."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sanitizers.core.errors import IntegrityError, PlanError, StoreError, did_you_mean

#: Bytes of a salt that is made here; a given one may be 16 to 64 long.
SALT_BYTES = 32
#: A temporary folder of a dead process is swept when it is older than this.
STALE_SECONDS = 3600.0
#: How long a publish waits for another one of the same dataset.
LOCK_SECONDS = 600.0

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_KEY = re.compile(r"[0-9a-f]{16}")
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
_TEMPORARY = re.compile(r"\..+\.tmp-(\d+)")
_RESERVED = frozenset({"salt"})


@dataclass(frozen=True)
class Store:
    """The root under which inputs, evidence, runs and releases lie.

    Parameters
    ----------
    root : Path
    salt : bytes
        Keys the hashes from which folds and samples come; a secret of the store.
    """

    root: Path
    salt: bytes = field(repr=False)

    @classmethod
    def open(cls, root: str | Path, salt: bytes | None = None, *, create: bool = True) -> Store:
        """Open a store, and make it where there is none.

        Parameters
        ----------
        root : str or Path
            A local folder.
        salt : bytes, optional
            The salt to use, to reproduce a run; 16 to 64 bytes.
        create : bool
            False refuses a folder that is no store yet.

        Raises
        ------
        PlanError
            If the root is a URL, or the store has another salt, or there is no store
            and `create` is false.
        """
        folder = _local(root)
        if salt is not None and not 16 <= len(salt) <= 64:
            raise PlanError(f"the salt has {len(salt)} bytes", expected="16 to 64 bytes")
        if not (folder / "salt").is_file():
            if not create:
                raise PlanError(
                    f"{folder} is not a store", do="name the folder that an earlier run used"
                )
            _make_salt(folder, salt or secrets.token_bytes(SALT_BYTES))
        stored = _read_salt(folder / "salt")
        if salt is not None and salt != stored:
            raise PlanError(
                f"the store {folder} has another salt than the one given",
                do="leave the salt out, or use a new store",
            )
        return cls(folder, stored)

    @property
    def salt_digest(self) -> str:
        """Names the salt without giving it away; 16 hex characters."""
        return salt_digest(self.salt)

    def dataset(self, name: str) -> Path:
        """The folder of a dataset."""
        return self.root / checked_name(name)

    def datasets(self) -> tuple[str, ...]:
        """The names of the datasets in the store, sorted."""
        found = (p.name for p in self.root.iterdir() if p.is_dir())
        return tuple(sorted(n for n in found if _NAME.fullmatch(n)))

    def known(self, name: str) -> str:
        """Return the name of a dataset that exists.

        Raises
        ------
        PlanError
            If the store holds no such dataset.
        """
        if not self.dataset(name).is_dir():
            raise PlanError(
                f"no dataset {name!r} in the store {self.root}",
                do=did_you_mean(name, self.datasets()) or "run 'sanitize run' first",
            )
        return name

    def inputs(self, dataset: str, key: str) -> Path:
        """Where the rows of an input lie."""
        return self.dataset(dataset) / "inputs" / _checked_key(key)

    def evidence(self, dataset: str, key: str) -> Path:
        """Where the evidence of one sanitizer lies."""
        return self.dataset(dataset) / "evidence" / _checked_key(key)

    def run(self, dataset: str, key: str) -> Path:
        """Where the verdicts of a run lie."""
        return self.dataset(dataset) / "runs" / _checked_key(key)

    def runs(self, dataset: str) -> tuple[Path, ...]:
        """The folders of all runs that have ended, by name."""
        folder = self.dataset(dataset) / "runs"
        found = folder.iterdir() if folder.is_dir() else iter(())
        return tuple(sorted(p for p in found if (p / "run.json").is_file()))

    def staging(self, dataset: str, key: str) -> Path:
        """Where a publish in progress writes; no reader looks here."""
        return self._releases(dataset) / f".staging-{_checked_key(key)}"

    def release(self, dataset: str, version: str) -> Path:
        """The folder of a release."""
        if not _VERSION.fullmatch(version):
            raise PlanError(f"{version!r} is not a version", expected="one like '1.0.0'")
        return self._releases(dataset) / version

    def releases(self, dataset: str) -> tuple[Path, ...]:
        """The folders of all releases, oldest version first."""
        folder = self._releases(dataset)
        if not folder.is_dir():
            return ()
        found = (p for p in folder.iterdir() if p.is_dir() and _VERSION.fullmatch(p.name))
        return tuple(sorted(found, key=lambda p: version_of(p.name)))

    def _releases(self, dataset: str) -> Path:
        return self.dataset(dataset) / "releases"

    @contextmanager
    def lock(self, dataset: str, wait: float = LOCK_SECONDS) -> Iterator[None]:
        """Hold the lock of a dataset; the kernel lets go of it when the process dies.

        Raises
        ------
        StoreError
            If another process holds it for longer than `wait` seconds.
        """
        folder = self.dataset(dataset)
        make_folder(folder)
        with _locked(folder / ".lock", wait, f"another run is publishing {dataset!r}"):
            yield

    def sweep(self, dataset: str) -> None:
        """Remove what runs that died left behind: temporary files and folders, stagings.

        To be called with the lock held.
        """
        folder = self.dataset(dataset)
        stale = list(self._releases(dataset).glob(".staging-*"))
        for part in ("inputs", "evidence", "runs"):
            stale += [p for p in (folder / part).glob(".*.tmp-*") if _is_stale(p)]
            stale += [p for p in (folder / part).glob("*/.*.tmp-*") if _is_stale(p)]
        for path in stale:
            remove(path)


def version_of(name: str) -> tuple[int, int, int]:
    """Split a version such as ``1.2.0`` into its numbers."""
    match = _VERSION.fullmatch(name)
    if match is None:
        raise PlanError(f"{name!r} is not a version", expected="one like '1.0.0'")
    return int(match[1]), int(match[2]), int(match[3])


def checked_name(name: str) -> str:
    """Return the name of a dataset if it is a good one.

    Raises
    ------
    PlanError
        If it is none; the message offers one that is.
    """
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise PlanError(
            f"{name!r} cannot name a dataset",
            expected="1 to 64 of a-z, 0-9, '.', '_', '-', the first a letter or digit",
            do=f"try {name_from(name)!r}",
        )
    return name


def name_from(source: str | Path) -> str:
    """Make the name of a dataset from that of a file, a folder or a glob."""
    parts = [p for p in str(source).replace("\\", "/").split("/") if p not in {"", ".", ".."}]
    for part in reversed(parts):
        # A glob says nothing; the folder that it looks into does.
        if any(c in part for c in "*?["):
            continue
        stem = re.sub(r"(\.[A-Za-z0-9]{1,8}){1,2}$", "", part) or part
        name = re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_")[:64].rstrip("-_")
        if name:
            return f"{name}-data" if name in _RESERVED else name
    return "data"


def key_of(*parts: object) -> str:
    """Name a piece of work by all that decides its outcome; 16 hex characters.

    Parameters
    ----------
    *parts
        Values that JSON can hold.
    """
    return hashlib.sha256(canonical(list(parts))).hexdigest()[:16]


def salt_digest(salt: bytes) -> str:
    """Name a salt without giving it away; 16 hex characters."""
    return hashlib.sha256(b"dataset-sanitizer salt\0" + salt).hexdigest()[:16]


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


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    IntegrityError
        If the file is missing or is not a JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise IntegrityError(f"{path} is missing") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise IntegrityError(f"{path} holds {type(value).__name__}", expected="a JSON object")
    return value


def temporary_of(path: Path) -> Path:
    """Where to write before renaming to `path`; beside it, named by the process."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}")


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


def _local(root: str | Path) -> Path:
    text = str(root)
    if not text.strip():
        raise PlanError("the store has no name", expected="a folder")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):/", text)
    if scheme:
        raise PlanError(
            f"the store {text!r} is a {scheme[1]} address",
            expected="a local folder; this version supports no other",
        )
    return Path(text).expanduser().absolute()


def _make_salt(folder: Path, salt: bytes) -> None:
    make_folder(folder)
    with _locked(folder / ".lock", 60.0, "another process is making the store"):
        # Another process may have made it while this one waited.
        if not (folder / "salt").is_file():
            write_bytes(folder / "salt", salt.hex().encode() + b"\n", mode=0o600)


def _read_salt(path: Path) -> bytes:
    try:
        salt = bytes.fromhex(path.read_text("ascii").strip())
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError:
        salt = b""
    if not 16 <= len(salt) <= 64:
        raise IntegrityError(f"{path} is damaged", expected="16 to 64 bytes as hex text")
    return salt


def _checked_key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise IntegrityError(f"{key!r} is not a key", expected="16 hex characters")
    return key


@contextmanager
def _locked(path: Path, wait: float, busy: str) -> Iterator[None]:
    with writing(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        until = time.monotonic() + wait
        while not _try_lock(path, handle):
            if time.monotonic() >= until:
                raise StoreError(f"{busy}, for {wait:.0f} seconds already", do="try again later")
            time.sleep(0.1)
        yield
    finally:
        os.close(handle)


def _try_lock(path: Path, handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StoreError(f"{path} cannot be locked: {error.strerror}") from error
    return True


def _is_stale(path: Path) -> bool:
    """True where the process that wrote is dead, and was not a moment ago on another host."""
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
