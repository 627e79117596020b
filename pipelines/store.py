"""The store: the only maker of paths, and the few safe ways to write under them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.at_work import WAIT_SECONDS, Owner, at_work, owner_of
from pipelines.disk import canonical, is_left_behind, locked, make_folder, remove
from pipelines.names import (
    checked_key,
    checked_name,
    is_name,
    is_version,
    version_of,
)
from pipelines.salts import check_salt, make_salt, read_salt, salt_digest
from sanitizers.core.errors import PlanError, did_you_mean

if TYPE_CHECKING:
    from pipelines.mirror import Mirror

#: How long a publish waits for another one of the same dataset.
LOCK_SECONDS = 600.0

_LOCK = ".lock"


@dataclass(frozen=True)
class Store:
    """The root under which inputs, evidence, runs and releases lie.

    Parameters
    ----------
    root : Path
        A folder: the store itself, or where a store in a bucket is worked on.
    salt : bytes
        Keys the hashes from which folds and samples come; a secret of the store.
    mirror : Mirror, optional
        Brings what a bucket has, and gives it what is made here.
    """

    root: Path
    salt: bytes = field(repr=False)
    mirror: Mirror | None = field(default=None, repr=False)

    @classmethod
    def open(cls, root: str | Path, salt: bytes | None = None, *, create: bool = True) -> Store:
        """Open a store, and make it where there is none.

        Parameters
        ----------
        root : str or Path
            A folder, or the URL of a bucket or of a part of one.
        salt : bytes, optional
            The salt to use, to reproduce a run; 16 to 64 bytes.
        create : bool
            False refuses a folder that is no store yet.

        Raises
        ------
        PlanError
            If nothing is known that reads and writes the URL, or the store has another salt,
            or there is no store and `create` is false.
        StoreError
            If the folder or the bucket cannot be read or written.
        """
        mirror = _mirror(root)
        folder = mirror.here if mirror else _local(root)
        if mirror:
            mirror.bring_salt(folder / "salt")
        if salt is not None:
            check_salt(salt)
        if not (folder / "salt").is_file():
            if not create:
                raise PlanError(
                    f"{root} is not a store", do="name the one that an earlier run used"
                )
            make_salt(folder, salt)
            if mirror:
                mirror.give_salt(folder / "salt")
        stored = read_salt(folder / "salt")
        if salt is not None and salt != stored:
            raise PlanError(
                f"the store {root} has another salt than the one given",
                do="leave the salt out, or use a new store",
            )
        return cls(folder, stored, mirror)

    @property
    def address(self) -> str:
        """What the store is opened by: its folder or its URL."""
        return self.mirror.url if self.mirror else str(self.root)

    @property
    def salt_digest(self) -> str:
        """Names the salt without giving it away; 16 hex characters."""
        return salt_digest(self.salt)

    def dataset(self, name: str) -> Path:
        """The folder of a dataset."""
        return self.root / checked_name(name)

    def datasets(self) -> tuple[str, ...]:
        """The names of the datasets in the store, sorted."""
        if self.mirror:
            return tuple(n for n in self.mirror.folders(self.root) if is_name(n))
        found = (p.name for p in self.root.iterdir() if p.is_dir())
        return tuple(sorted(n for n in found if is_name(n)))

    def known(self, name: str) -> str:
        """Return the name of a dataset that exists.

        Raises
        ------
        PlanError
            If the store holds no such dataset.
        """
        if not self.dataset(name).is_dir() and name not in (there := self.datasets()):
            raise PlanError(
                f"no dataset {name!r} in the store {self.address}",
                do=did_you_mean(name, there) or "run 'sanitize run' first",
            )
        return name

    def fetched(self, dataset: str, key: str) -> Path:
        """Where the files lie that a URL names."""
        return self.dataset(dataset) / "fetched" / checked_key(key)

    def inputs(self, dataset: str, key: str) -> Path:
        """Where the rows of an input lie."""
        return self._piece(dataset, "inputs", key)

    def arrivals(self, dataset: str) -> Path:
        """Where the ledger of what has arrived lies."""
        folder = self.dataset(dataset) / "arrivals"
        self.refresh(folder)
        return folder

    def rulings(self, dataset: str) -> Path:
        """The log of what people have ruled; there may be none yet."""
        path = self.dataset(dataset) / "rulings.jsonl"
        self.renew(path)
        return path

    def renew(self, path: Path) -> None:
        """Have a file as other machines have left it."""
        if self.mirror:
            make_folder(path.parent)
            with locked(_lock_of(path), LOCK_SECONDS, f"{path} is being written"):
                self.mirror.bring_file(path)

    def embeddings(self, dataset: str, key: str) -> Path:
        """Where the embeddings of an input lie."""
        return self._piece(dataset, "embeddings", key)

    def evidence(self, dataset: str, key: str) -> Path:
        """Where the evidence of one sanitizer lies."""
        return self._piece(dataset, "evidence", key)

    def run(self, dataset: str, key: str) -> Path:
        """Where the verdicts of a run lie."""
        return self._piece(dataset, "runs", key)

    def runs(self, dataset: str) -> tuple[Path, ...]:
        """The folders of all runs that have ended, by name."""
        folder = self.dataset(dataset) / "runs"
        for key in self.mirror.folders(folder) if self.mirror else ():
            self.run(dataset, key)
        found = folder.iterdir() if folder.is_dir() else iter(())
        return tuple(sorted(p for p in found if (p / "run.json").is_file()))

    def review(self, dataset: str, key: str) -> Path:
        """Where the index of the rows lies that wait for people; it can be made again."""
        return self.dataset(dataset) / "review" / checked_key(key)

    def staging(self, dataset: str, key: str) -> Path:
        """Where a publish in progress writes; no reader looks here."""
        return self._releases(dataset) / f".staging-{checked_key(key)}"

    def release(self, dataset: str, version: str) -> Path:
        """The folder of a release, with all its files."""
        version_of(version)
        folder = self._releases(dataset) / version
        if self.mirror:
            from pipelines.far_releases import bring_release

            bring_release(self.mirror, folder)
        return folder

    def place_of(self, dataset: str, version: str) -> str:
        """Where people find a release: its folder, or its URL."""
        if self.mirror:
            return f"{self.mirror.url}/{dataset}/releases/{version}"
        return str(self._releases(dataset) / version)

    def releases(self, dataset: str) -> tuple[Path, ...]:
        """The folders of all releases, oldest version first.

        Of a store in a bucket they need not hold their rows; ask `release` for one that does.
        """
        folder = self._releases(dataset)
        if self.mirror:
            from pipelines.far_releases import releases_in

            names = releases_in(self.mirror, folder)
        else:
            found = folder.iterdir() if folder.is_dir() else iter(())
            names = tuple(p.name for p in found if p.is_dir() and is_version(p.name))
        return tuple(folder / name for name in sorted(names, key=version_of))

    def refresh(self, folder: Path) -> None:
        """Have the files of a folder as other machines have written them."""
        if self.mirror:
            self.mirror.bring_files(folder)

    def give(self, folder: Path) -> None:
        """Say that a folder of the store is whole; where the store is a bucket, it goes there."""
        if self.mirror:
            self.mirror.give(folder)

    def give_file(self, path: Path, data: bytes, *, new: bool = False) -> bool:
        """Say what is about to be written to a file of the store, for other machines to know.

        Parameters
        ----------
        path : Path
        data : bytes
        new : bool
            There must not be one yet.

        Returns
        -------
        bool
            False where another machine has written one; it lies here now.
        """
        return self.mirror is None or self.mirror.write(path, data, new=new)

    def give_release(self, staging: Path, dataset: str, version: str) -> Path:
        """Say that a release is whole where it was made; to be called with the lock held.

        Returns
        -------
        Path
            Where it is to lie.
        """
        release = self._releases(dataset) / version
        if self.mirror:
            from pipelines.far_releases import publish_release

            publish_release(self.mirror, staging, release, self.dataset(dataset) / _LOCK)
        return release

    def _releases(self, dataset: str) -> Path:
        return self.dataset(dataset) / "releases"

    def _piece(self, dataset: str, kind: str, key: str) -> Path:
        """The folder of a piece of work; one that was done on another machine comes here."""
        folder = self.dataset(dataset) / kind / checked_key(key)
        if self.mirror:
            self.mirror.bring(folder)
        return folder

    @contextmanager
    def lock(self, dataset: str, wait: float = LOCK_SECONDS) -> Iterator[None]:
        """Hold the lock of a dataset; the kernel lets go of it when the process dies.

        Raises
        ------
        StoreError
            If another process holds it for longer than `wait` seconds.
        """
        path = self.dataset(dataset) / _LOCK
        with self._alone(path, wait, f"another run is publishing {dataset!r}"):
            yield

    @contextmanager
    def editing(self, path: Path, wait: float, busy: str) -> Iterator[None]:
        """Be the only one who changes a file of the store, and have it as it is now.

        Raises
        ------
        StoreError
            If another process is for longer than `wait` seconds.
        """
        with self._alone(_lock_of(path), wait, busy):
            if self.mirror:
                self.mirror.bring_file(path)
            yield
            if self.mirror:
                self.mirror.write(path, path.read_bytes())

    @contextmanager
    def _alone(self, path: Path, wait: float, busy: str) -> Iterator[None]:
        """Hold a lock: of this machine, and of all where they share a bucket."""
        make_folder(path.parent)
        with ExitStack() as stack:
            stack.enter_context(locked(path, wait, busy))
            if self.mirror:
                stack.enter_context(self.mirror.leased(path, busy, wait))
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
        path = self._at_work(dataset)
        with ExitStack() as stack:
            waited = stack.enter_context(at_work(path, repr(dataset), wait, tell, command))
            if self.mirror:
                busy = f"another run of {dataset!r} is at work"
                far = self.mirror.leased(path, busy, wait, tell, command)
                waited = stack.enter_context(far) or waited
            yield waited

    def worker(self, dataset: str) -> Owner | None:
        """Who is at work on a dataset now; None where nobody is."""
        path = self._at_work(dataset)
        return owner_of(path) or (self.mirror.owner(path) if self.mirror else None)

    def _at_work(self, dataset: str) -> Path:
        return self.dataset(dataset) / ".at-work"

    def sweep(self, dataset: str) -> None:
        """Remove what runs that died left behind: temporary files and folders, stagings.

        To be called with the lock held.
        """
        folder = self.dataset(dataset)
        stale = list(self._releases(dataset).glob(".staging-*"))
        for part in ("inputs", "embeddings", "evidence", "runs", "arrivals", "releases"):
            stale += [p for p in (folder / part).glob(".*.tmp-*") if is_left_behind(p)]
            stale += [p for p in (folder / part).glob("*/.*.tmp-*") if is_left_behind(p)]
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


def _mirror(root: str | Path) -> Mirror | None:
    """The mirror of a store in a bucket; None of one in a folder."""
    if "://" not in str(root):
        return None
    from pipelines.mirror import mirror_of

    return mirror_of(str(root))


def _local(root: str | Path) -> Path:
    text = str(root)
    if not text.strip():
        raise PlanError("the store has no name", expected="a folder, or the URL of a bucket")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", text)
    if scheme:
        expected = f"a folder, or the URL of a bucket such as {scheme[1]}://bucket/store"
        raise PlanError(f"no store is called {text!r}", expected=expected)
    return Path(text).expanduser().absolute()


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")
