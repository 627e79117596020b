"""Between a bucket and a folder: files by their digests, appearing whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipelines.bucket import Bucket
from pipelines.disk import digest_of, json_object, make_folder, remove, temporary_of, writing
from pipelines.manifest import safe_path
from sanitizers.core.errors import IntegrityError, PlanError

#: For names of files below a folder their digests, SHA-256 in hex; empty where not known.
Files = dict[str, str]


def files_listed(data: bytes, path: Path) -> Files:
    """Read a list of files and their digests.

    Raises
    ------
    IntegrityError
        If it is none.
    """
    value: dict[str, Any] = json_object(data, path)
    if not all(safe_path(name) and isinstance(sha256, str) for name, sha256 in value.items()):
        raise IntegrityError(f"{path} is damaged", expected="names of files and their digests")
    return value


def files_in(folder: Path) -> list[str]:
    """All files below a folder but hidden ones, relative to it."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(p.as_posix() for p in found if not any(part[0] == "." for part in p.parts))


def carry(bucket: Bucket, there: str, files: Mapping[str, str], folder: Path) -> None:
    """Bring objects into a folder here, and see that they have the digests that are known.

    Raises
    ------
    IntegrityError
        If one has another, or a name that could lead out of the folder.
    """
    for name in files:
        if not safe_path(name):
            raise IntegrityError(f"{bucket.url}/{there} has an object {name[:200]!r}")
        make_folder((folder / name).parent)
    bucket.get({f"{there}/{name}": folder / name for name in files})
    for name, sha256 in files.items():
        if sha256:
            check(folder / name, sha256)


def check(path: Path, sha256: str) -> None:
    """Refuse a file with another digest.

    Raises
    ------
    IntegrityError
    """
    if digest_of(path) != sha256:
        raise IntegrityError(
            f"{path.name} in the bucket is not as it was written",
            do="find out who writes to the bucket; remove what was changed, and run again",
        )


@contextmanager
def release_at(said: str) -> Iterator[Path]:
    """The folder of a release; for a URL one that holds what is there now, and then is gone.

    Parameters
    ----------
    said : str
        A folder, or the URL of a release.

    Raises
    ------
    PlanError
        If there is nothing at the URL.
    """
    if "://" not in said:
        yield Path(said)
        return
    store, _, version = said.rstrip("/").rpartition("/")
    bucket = Bucket.open(store)
    names = bucket.names(version)
    if not names:
        raise PlanError(f"no release {said!r}", do="see 'sanitize status --store URL'")
    with TemporaryDirectory(prefix="sanitize-release-") as folder:
        carry(bucket, version, dict.fromkeys(names, ""), Path(folder, version))
        yield Path(folder, version)


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """A folder beside a path for what is to lie there; it is gone afterwards."""
    found = temporary_of(path)
    remove(found)
    make_folder(found)
    try:
        yield found
    finally:
        remove(found)


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder that takes the place of another, or of none, once it is filled."""
    with temporary(folder) as filled:
        yield filled
        # What was begun here has been ended elsewhere.
        remove(folder)
        with writing(folder):
            os.rename(filled, folder)
