"""A store in a bucket: the bucket holds what is true, and a folder here what is worked on.

Sanitizers read shards many times and at random, so they read them from a disk. What is made
here goes to the bucket when it is whole, and what the bucket has and the folder lacks comes
here when somebody asks for it. Folders that are named by their content never change, so that
one that is here need not be compared; its last object lists all others with their digests. A
release is in the bucket from the moment in which its manifest is, which is written last.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pipelines.at_work import Owner
from pipelines.bucket import Bucket
from pipelines.carrying import Files, appearing, carry, files_in, files_listed
from pipelines.disk import (
    canonical,
    digest_of,
    make_folder,
    remove,
    temporary_of,
    write_bytes,
    writing,
)
from pipelines.lease import Lease, leased, owner_in
from pipelines.manifest import safe_path
from sanitizers.core.errors import StoreError

#: The last object of a folder that is whole: it lists the others.
WHOLE = ".whole.json"
#: Bytes of that list, and of a file that changes, at most.
LIST_BYTES, FILE_BYTES = 64 * 2**20, 2**30
#: Seconds until the bucket is asked again for what it did not have.
ASK_AGAIN = 10.0
#: The environment variable that says under which folder stores in buckets are worked on.
WORK_VARIABLE = "SANITIZE_WORK"

#: The size of a file here, and when it was written, in nanoseconds; None where there is none.
_State = tuple[int, int] | None


def _silent(line: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Mirror:
    """A bucket, and the folder in which it is worked on.

    Parameters
    ----------
    bucket : Bucket
    here : Path
    leases : dict of Path to Lease
        Those that are held now, by the files that are the locks here.
    alone : threading.RLock
        Lets one thread at a time change what lies here.
    """

    bucket: Bucket
    here: Path
    leases: dict[Path, Lease] = field(default_factory=dict, repr=False)
    alone: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _asked: dict[Path, float] = field(default_factory=dict, repr=False)
    _stamps: dict[str, str] = field(default_factory=dict, repr=False)
    _brought: dict[Path, tuple[str, _State]] = field(default_factory=dict, repr=False)

    @property
    def url(self) -> str:
        """Of the store."""
        return self.bucket.url

    def folders(self, folder: Path) -> tuple[str, ...]:
        """The names of the folders in one, as the bucket has them."""
        return self.bucket.folders(self.name_of(folder))

    # -------------------------------------------------------------- folders that never change

    def bring(self, folder: Path) -> None:
        """Bring a folder here that is whole in the bucket and not here.

        Raises
        ------
        IntegrityError
            If an object is not as it was written.
        StoreError
            If the bucket or the disk fails.
        """
        with self.alone:
            if (folder / WHOLE).is_file() or not self._is_due(folder):
                return
            name = self.name_of(folder)
            data = self.bucket.read(f"{name}/{WHOLE}", LIST_BYTES)
            if data is None:
                return
            with appearing(folder) as filled:
                files = files_listed(data, folder / WHOLE)
                carry(self.bucket, name, files, filled)
                write_bytes(filled / WHOLE, data)

    def give(self, folder: Path) -> None:
        """Give the bucket a folder that is whole, or what it lacks of it."""
        with self.alone:
            mark = folder / WHOLE
            names = files_in(folder)
            files = {name: digest_of(folder / name) for name in names}
            data, before = canonical(files), Files()
            if mark.is_file():
                before = files_listed(mark.read_bytes(), mark)
            if files == before:
                return
            there = self.name_of(folder)
            new = {f"{there}/{n}": folder / n for n in names if files[n] != before.get(n)}
            self.bucket.put(new)
            self.bucket.write(f"{there}/{WHOLE}", data)
            write_bytes(mark, data)

    # -------------------------------------------------------------- files that change

    def bring_file(self, path: Path) -> None:
        """Bring a file here as the bucket has it; none is left where that has none."""
        name = self.name_of(path)
        stamp = self.bucket.stamp(name)
        # Both sides are looked at: what was written here and not there is no part of the store.
        if stamp and self._brought.get(path) == (stamp, _state(path)):
            return
        data = self.bucket.read(name, FILE_BYTES)
        if data is None:
            remove(path)
            return
        if not path.is_file() or path.read_bytes() != data:
            make_folder(path.parent)
            write_bytes(path, data)
        self._brought[path] = stamp, _state(path)

    def bring_files(self, folder: Path) -> None:
        """Bring all files right in a folder here that have changed in the bucket."""
        with self.alone:
            there = self.bucket.stamps(self.name_of(folder))
            changed = {
                name: stamp
                for name, stamp in there.items()
                if self._stamps.get(self.name_of(folder / name)) != stamp
                or not (folder / name).is_file()
            }
            names = [name for name in changed if safe_path(name)]
            make_folder(folder)
            parts = {self.name_of(folder / n): temporary_of(folder / n) for n in names}
            self.bucket.get(parts)
            for name in names:
                with writing(folder):
                    os.replace(temporary_of(folder / name), folder / name)
                self._stamps[self.name_of(folder / name)] = changed[name]

    def write(self, path: Path, data: bytes, *, new: bool = False) -> bool:
        """Write a file of the bucket; what lies here is left to the caller.

        Parameters
        ----------
        path : Path
        data : bytes
        new : bool
            Only where it has none; else its file comes here.

        Returns
        -------
        bool
            False where the bucket had one.
        """
        if not new:
            self.bucket.write(self.name_of(path), data)
        elif not self.bucket.create(self.name_of(path), data):
            self.bring_file(path)
            return False
        return True

    def bring_salt(self, path: Path) -> None:
        """Bring the salt here, if the store has one.

        Raises
        ------
        StoreError
            If another store was worked on here.
        """
        data, known = self.bucket.read(path.name, FILE_BYTES), path.is_file()
        if known and path.read_bytes() != data:
            raise StoreError(
                f"{self.url} is not the store any more that {self.here} was made of",
                do=f"put back its object {path.name!r}, or remove that folder",
            )
        if data is not None and not known:
            make_folder(path.parent)
            write_bytes(path, data, mode=0o600)

    def give_salt(self, path: Path) -> None:
        """Make a store in the bucket; where another machine has made it, the salt is that one's.

        Raises
        ------
        PlanError
            If what keeps the bucket cannot be locked.
        """
        try:
            self.bucket.check_creates()
            self.write(path, path.read_bytes(), new=True)
        except BaseException:
            remove(path)
            raise

    # -------------------------------------------------------------- locks

    @contextmanager
    def leased(
        self,
        path: Path,
        found: str,
        wait: float,
        tell: Callable[[str], None] = _silent,
        command: str = "sanitize",
    ) -> Iterator[bool]:
        """Hold what among machines is the lock that a file is here; that is held already.

        Yields
        ------
        bool
            Whether another machine was waited for.

        Raises
        ------
        StoreError
            If another machine holds it for longer.
        """
        name, place = self.name_of(path), _place(self.here)
        with leased(self.bucket, name, place, found, wait, tell, command) as (lease, waited):
            self.leases[path] = lease
            try:
                yield waited
            finally:
                del self.leases[path]

    def owner(self, path: Path) -> Owner | None:
        """Who on another machine holds a lock; None where nobody does."""
        owner = owner_in(self.bucket, self.name_of(path))
        return owner if owner and owner.holds(_place(self.here)) else None

    def name_of(self, path: Path) -> str:
        """What the bucket calls what lies under a path here."""
        name = path.relative_to(self.here).as_posix()
        return "" if name == "." else name

    def _is_due(self, folder: Path) -> bool:
        now = time.monotonic()
        if now < self._asked.get(folder, float("-inf")) + ASK_AGAIN:
            return False
        self._asked[folder] = now
        return True


def mirror_of(url: str) -> Mirror:
    """The mirror of a store in a bucket; the same one in all of a process.

    It lies under ``$SANITIZE_WORK``, else ``$XDG_CACHE_HOME/dataset-sanitizer``, else
    ``~/.cache/dataset-sanitizer``.
    """
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "dataset-sanitizer")
    return _mirror_in(url.rstrip("/"), Path(os.environ.get(WORK_VARIABLE) or cached).absolute())


@cache
def _mirror_in(url: str, root: Path) -> Mirror:
    return Mirror(Bucket.open(url), work_folder(url, root))


def work_folder(url: str, root: Path) -> Path:
    """Under a folder for stores in buckets, the one of a store."""
    return root / hashlib.sha256(url.encode()).hexdigest()[:16]


def _state(path: Path) -> _State:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns


def _place(here: Path) -> str:
    """Names the folder here among all machines."""
    path = here / ".place"
    if not path.is_file():
        write_bytes(path, secrets.token_hex(16).encode())
    return path.read_text("ascii")
