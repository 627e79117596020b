"""The store: the only maker of paths, and the few safe ways to write under them."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.at_work import WAIT_SECONDS, Owner, at_work, owner_of
from pipelines.disk import (
    canonical,
    locked,
    make_folder,
    read_json,
    remove,
    temporary_of,
    write_bytes,
    write_json,
    writing,
)
from pipelines.names import (
    checked_key,
    checked_name,
    is_name,
    is_version,
    name_from,
    version_of,
)
from sanitizers.core.errors import IntegrityError, PlanError, StoreError, did_you_mean

__all__ = [
    "Store",
    "canonical",
    "checked_name",
    "key_of",
    "make_folder",
    "name_from",
    "read_json",
    "remove",
    "salt_digest",
    "temporary_of",
    "write_bytes",
    "write_json",
    "writing",
]

#: Bytes of a salt that is made here; a given one may be 16 to 64 long.
SALT_BYTES = 32
#: A temporary folder of a dead process is swept when it is older than this.
STALE_SECONDS = 3600.0
#: How long a publish waits for another one of the same dataset.
LOCK_SECONDS = 600.0

_TEMPORARY = re.compile(r"\..+\.tmp-(\d+)")


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
        return tuple(sorted(n for n in found if is_name(n)))

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

    def fetched(self, dataset: str, key: str) -> Path:
        """Where the files lie that a URL names."""
        return self.dataset(dataset) / "fetched" / checked_key(key)

    def inputs(self, dataset: str, key: str) -> Path:
        """Where the rows of an input lie."""
        return self.dataset(dataset) / "inputs" / checked_key(key)

    def arrivals(self, dataset: str) -> Path:
        """Where the ledger of what has arrived lies."""
        return self.dataset(dataset) / "arrivals"

    def embeddings(self, dataset: str, key: str) -> Path:
        """Where the embeddings of an input lie."""
        return self.dataset(dataset) / "embeddings" / checked_key(key)

    def evidence(self, dataset: str, key: str) -> Path:
        """Where the evidence of one sanitizer lies."""
        return self.dataset(dataset) / "evidence" / checked_key(key)

    def run(self, dataset: str, key: str) -> Path:
        """Where the verdicts of a run lie."""
        return self.dataset(dataset) / "runs" / checked_key(key)

    def runs(self, dataset: str) -> tuple[Path, ...]:
        """The folders of all runs that have ended, by name."""
        folder = self.dataset(dataset) / "runs"
        found = folder.iterdir() if folder.is_dir() else iter(())
        return tuple(sorted(p for p in found if (p / "run.json").is_file()))

    def review(self, dataset: str, key: str) -> Path:
        """Where the index of the rows lies that wait for people; it can be made again."""
        return self.dataset(dataset) / "review" / checked_key(key)

    def staging(self, dataset: str, key: str) -> Path:
        """Where a publish in progress writes; no reader looks here."""
        return self._releases(dataset) / f".staging-{checked_key(key)}"

    def release(self, dataset: str, version: str) -> Path:
        """The folder of a release."""
        version_of(version)
        return self._releases(dataset) / version

    def releases(self, dataset: str) -> tuple[Path, ...]:
        """The folders of all releases, oldest version first."""
        folder = self._releases(dataset)
        if not folder.is_dir():
            return ()
        found = (p for p in folder.iterdir() if p.is_dir() and is_version(p.name))
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
        with locked(folder / ".lock", wait, f"another run is publishing {dataset!r}"):
            yield

    @contextmanager
    def at_work(
        self,
        dataset: str,
        *,
        tell: Callable[[str], None],
        wait: float = WAIT_SECONDS,
        command: str = "sanitize run",
    ) -> Iterator[bool]:
        """Be the one run at work on a dataset, from its ingest to its publish.

        Readers need not ask for it. A process must not take it twice for one dataset.

        Parameters
        ----------
        dataset : str
        tell : callable
            Told at once, in a line, who is waited for.
        wait : float
            Seconds to wait for another run to end; 0 does not wait.
        command : str
            What others are told to be at work.

        Yields
        ------
        bool
            Whether another run was waited for.

        Raises
        ------
        StoreError
            If another run is at work for longer than that.
        """
        make_folder(self.dataset(dataset))
        with at_work(self._at_work(dataset), repr(dataset), wait, tell, command) as waited:
            yield waited

    def worker(self, dataset: str) -> Owner | None:
        """Who is at work on a dataset now; None where nobody is."""
        return owner_of(self._at_work(dataset))

    def _at_work(self, dataset: str) -> Path:
        return self.dataset(dataset) / ".at-work"

    def sweep(self, dataset: str) -> None:
        """Remove what runs that died left behind: temporary files and folders, stagings.

        To be called with the lock held.
        """
        folder = self.dataset(dataset)
        stale = list(self._releases(dataset).glob(".staging-*"))
        for part in ("inputs", "embeddings", "evidence", "runs", "arrivals"):
            stale += [p for p in (folder / part).glob(".*.tmp-*") if _is_stale(p)]
            stale += [p for p in (folder / part).glob("*/.*.tmp-*") if _is_stale(p)]
        for path in stale:
            remove(path)


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
    with locked(folder / ".lock", 60.0, "another process is making the store"):
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
