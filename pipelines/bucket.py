"""A bucket: objects below a URL, each of them read and written whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pipelines.readers.remote import file_system, speaking
from sanitizers.core.errors import IntegrityError, PlanError, StoreError

#: Objects of one request to read, write or copy many.
TOGETHER = 500
#: Of an object that changes when it is written, what a listing may say.
_STAMPS = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "mtime", "updated", "created")


@dataclass(frozen=True)
class Bucket:
    """Objects below a URL, by names such as ``credit/releases/1.0.0/manifest.json``.

    Parameters
    ----------
    url : str
        Of any kind that fsspec reads and writes.
    system : fsspec.AbstractFileSystem
    root : str
        What that calls the URL.
    """

    url: str
    system: Any = field(repr=False)
    root: str

    @classmethod
    def open(cls, url: str) -> Self:
        """The objects below a URL; asks nobody yet.

        Raises
        ------
        PlanError
            If no package for such URLs is installed, or it holds a password.
        """
        with speaking(url, StoreError):
            system, root = file_system(url)
            return cls(url, system, root.rstrip("/"))

    def folders(self, name: str) -> tuple[str, ...]:
        """The names of the folders right below one, sorted."""
        return tuple(sorted(n for n, facts in self._below(name) if facts.get("type") != "file"))

    def stamps(self, name: str) -> dict[str, str]:
        """For each object right below a folder what changes when it is written."""
        found = ((n, facts) for n, facts in self._below(name) if facts.get("type") == "file")
        return {n: _stamp(facts) for n, facts in found}

    def stamp(self, name: str) -> str:
        """What changes of an object when it is written; empty where there is none."""
        with self._speaking():
            self.system.invalidate_cache()
            try:
                return _stamp(self.system.info(self._path(name)))
            except FileNotFoundError:
                return ""

    def names(self, name: str) -> tuple[str, ...]:
        """The names of all objects below a folder, relative to it, sorted."""
        with self._speaking():
            self.system.invalidate_cache()
            found = self.system.find(self._path(name))
        root = self._path(name) + "/"
        return tuple(sorted(str(path).removeprefix(root) for path in found))

    def read(self, name: str, most: int) -> bytes | None:
        """The bytes of an object; None where there is none.

        Raises
        ------
        IntegrityError
            If it has more than `most` bytes.
        """
        with self._speaking():
            try:
                data = bytes(self.system.cat_file(self._path(name), start=0, end=most + 1))
            except FileNotFoundError:
                return None
        if len(data) > most:
            raise IntegrityError(f"{self.url}/{name} has more than {most:,} bytes")
        return data

    def write(self, name: str, data: bytes) -> None:
        """Write an object, whether or not there is one."""
        with self._speaking():
            self.system.pipe_file(self._path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write an object where there is none, as one of many who may try.

        Returns
        -------
        bool
            False where there is one; it stays as it is.
        """
        with self._speaking():
            try:
                self.system.pipe_file(self._path(name), data, mode="create")
            except FileExistsError:
                return False
        return True

    def check_creates(self) -> None:
        """Refuse a service that lets two create the same object: it can hold no lock.

        Raises
        ------
        PlanError
        """
        name = ".created-once"
        self.create(name, b"1")
        if self.create(name, b"2"):
            raise PlanError(
                f"what keeps {self.url} lets two writers create the same object",
                expected="a service that honours If-None-Match, as Amazon S3 does",
                do="use a newer version of it, or a store in a folder",
            )

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects; it is no fault where one is gone already."""
        with self._speaking():
            for part in _parts(names):
                try:
                    self.system.rm([self._path(name) for name in part])
                except FileNotFoundError:
                    continue

    def get(self, wanted: Mapping[str, Path]) -> None:
        """Read objects into files, whose folders are there."""
        with self._speaking():
            for part in _parts(list(wanted)):
                there = [self._path(name) for name in part]
                self.system.get(there, [str(wanted[name]) for name in part])

    def put(self, files: Mapping[str, Path]) -> None:
        """Write files as objects."""
        with self._speaking():
            for part in _parts(list(files)):
                there = [self._path(name) for name in part]
                self.system.put([str(files[name]) for name in part], there)

    def copy(self, objects: Mapping[str, str]) -> None:
        """Write objects as others are, without their bytes coming here.

        Parameters
        ----------
        objects : mapping of str to str
            For each new name the one of which it is a copy.
        """
        with self._speaking():
            for part in _parts(list(objects)):
                there = [self._path(name) for name in part]
                self.system.copy([self._path(objects[name]) for name in part], there)

    def _below(self, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        with self._speaking():
            self.system.invalidate_cache()
            try:
                found = self.system.ls(self._path(name), detail=True)
            except FileNotFoundError:
                found = []
        for facts in found:
            path = str(facts["name"]).rstrip("/")
            if path != self._path(name):
                yield path.rpartition("/")[2], facts

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        with speaking(self.url, StoreError):
            yield


def _stamp(facts: Mapping[str, Any]) -> str:
    return " ".join(str(facts[key]) for key in _STAMPS if facts.get(key))


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), TOGETHER):
        yield names[start : start + TOGETHER]
