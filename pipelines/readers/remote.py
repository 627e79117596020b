"""Sources that are URLs: which files they mean, in a bucket or wherever fsspec reaches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pipelines.readers.folders import IMAGE_ENDINGS
from pipelines.readers.sources import FORMATS, find_sources
from sanitizers.core.errors import (
    InputError,
    PlanError,
    SanitizeError,
    StoreError,
    did_you_mean,
)

#: Files of a source, at most.
MAX_FILES = 1_000_000
#: Files that say of others that they are whole.
MARKERS = ("_SUCCESS", ".done")

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::[A-Za-z0-9+.-]+)*://")
_MAGIC = re.compile(r"[*?\[]")
# What a listing may say that changes whenever a file is written.
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")
_STAMPS = ("ETag", "etag", "md5Hash", "content_md5", *_TIMES)
_ENDINGS = frozenset(FORMATS) | IMAGE_ENDINGS
_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_ENDPOINT_URL where it is not "
    "Amazon; or what your kind of store reads"
)


class NothingThereError(InputError):
    """There are no data behind a URL; some may come yet."""


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL.

    Parameters
    ----------
    name : str
        Relative to what the URL names.
    path : str
        As its file system calls it.
    bytes : int or None
        Where the listing says so.
    stamp : str
        Changes when the file is written to; empty where the listing says nothing that does.
    time : float or None
        When it was written, in seconds since 1970, where the listing says so.
    """

    name: str
    path: str
    bytes: int | None
    stamp: str
    time: float | None


@dataclass(frozen=True)
class Listing:
    """What a URL means at a moment.

    Parameters
    ----------
    files : tuple of RemoteFile
        In the order of their names.
    pattern : str
        What of the URL is a pattern of names; empty where it names a file or a folder.
    single : bool
        Whether it names a file.
    """

    files: tuple[RemoteFile, ...]
    pattern: str
    single: bool
    system: Any = field(repr=False)


def is_url(source: str) -> bool:
    """Whether a source is a URL and no path."""
    return _SCHEME.match(source) is not None


def count_files(source: str, *, awaited: bool = False) -> int:
    """How many files a source means, here or behind a URL.

    Parameters
    ----------
    source : str
    awaited : bool
        There need not be any yet.

    Raises
    ------
    SanitizeError
        If there is none, or what is there cannot be listed.
    """
    nothing = NothingThereError if is_url(source) else InputError
    try:
        return len(list_files(source).files if is_url(source) else find_sources(source))
    except nothing:
        if awaited:
            return 0
        raise


def list_files(url: str) -> Listing:
    """List the files that a URL means: a file, a folder (all data in it), or a pattern.

    Parameters
    ----------
    url : str

    Raises
    ------
    PlanError
        If no package for it is installed, or it holds a password.
    InputError
        If nothing is there (`NothingThereError`), it cannot be read, or a name could not lie in
        a folder here.
    """
    with speaking(url):
        listing = _list(url)
    if not listing.files:
        raise NothingThereError(
            f"there are no data at {url}", do="see whether the bucket and the names in it are right"
        )
    if len(listing.files) > MAX_FILES:
        raise InputError(f"{url} has more than {MAX_FILES:,} files", do="take a part of them")
    _check_names([file.name for file in listing.files])
    return listing


@contextmanager
def speaking(url: str, raises: type[SanitizeError] = InputError) -> Iterator[None]:
    """Turn what a file system raises into one clear line.

    Parameters
    ----------
    url : str
    raises : type of SanitizeError
        What is raised where no package is missing.

    Raises
    ------
    PlanError
        If no package for such URLs is installed.
    SanitizeError
    """
    done = "reached" if raises is StoreError else "read"
    try:
        yield
    except (SanitizeError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise raises(f"{url} is not there: {_line(error)}") from error
    except PermissionError as error:
        raise raises(f"{url} may not be {done}: {_line(error)}", do=_CREDENTIALS) from error
    except ImportError as error:
        raise _not_installed(url, error) from error
    except Exception as error:
        # Each file system has errors of its own kinds, most of them no OSError.
        do = _CREDENTIALS if "redential" in f"{type(error).__name__} {error}" else ""
        raise raises(
            f"{url} cannot be {done}: {type(error).__name__}: {_line(error)}", do=do
        ) from error


def file_system(url: str) -> tuple[Any, str]:
    """What reads a URL, and what it calls what the URL names.

    Raises
    ------
    PlanError
        If nothing is known that reads it, or it holds a password.
    """
    import fsspec

    if urlsplit(url).password:
        raise PlanError("a URL holds a password", do="leave it out; " + _CREDENTIALS)
    scheme = _scheme(url)
    if scheme not in fsspec.available_protocols():
        raise PlanError(
            f"nothing is known that reads {scheme}:// URLs",
            do=did_you_mean(scheme, ["s3", "gs", "abfs", "http", "https", "sftp"]),
        )
    system, path = fsspec.core.url_to_fs(url)
    return system, str(path)


def _list(url: str) -> Listing:
    system, path = file_system(url)
    # File systems remember what they have listed; somebody may have written since.
    system.invalidate_cache()
    if magic := _MAGIC.search(path):
        root = path[: path.rfind("/", 0, magic.start()) + 1]
        found = _files(system.glob(path, detail=True), root)
        shown = tuple(file for file in found if not _is_hidden(PurePosixPath(file.name).name))
        return Listing(shown, path[len(root) :], False, system)
    if system.isfile(path):
        found = _files({path: system.info(path)}, path[: path.rfind("/") + 1])
        return Listing(found, "", True, system)
    root = path.rstrip("/") + "/"
    found = _files(system.find(path, detail=True), root)
    return Listing(tuple(file for file in found if _is_data(file.name)), "", False, system)


def _files(found: Mapping[str, Mapping[str, Any]], root: str) -> tuple[RemoteFile, ...]:
    made = []
    for path, facts in found.items():
        if facts.get("type") == "file" and not path.endswith("/"):
            size = facts.get("size")
            stamp = [f"{key}={facts[key]}" for key in _STAMPS if facts.get(key)]
            name = path.removeprefix(root)
            made.append(
                RemoteFile(
                    name,
                    path,
                    int(size) if size is not None else None,
                    f"{size} {' '.join(stamp)}" if stamp else "",
                    _time(facts),
                )
            )
    return tuple(sorted(made, key=lambda file: file.name))


def _time(facts: Mapping[str, Any]) -> float | None:
    for key in _TIMES:
        value = facts.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None


def _is_data(name: str) -> bool:
    """Whether a file of a folder is data by its name, or a marker."""
    parts = PurePosixPath(name).parts
    if not parts or any(_is_hidden(part) for part in parts[:-1]):
        return False
    if parts[-1].endswith(MARKERS):
        return True
    endings = [suffix.lower() for suffix in PurePosixPath(parts[-1]).suffixes]
    if endings and endings[-1] in {".gz", ".gzip"}:
        endings.pop()
    return not _is_hidden(parts[-1]) and bool(endings) and endings[-1] in _ENDINGS


def _is_hidden(part: str) -> bool:
    return part.startswith((".", "_"))


def _check_names(names: list[str]) -> None:
    """Refuse names under which no file can lie in a folder, or which lead out of it."""
    above = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    for name in names:
        parts = name.split("/")
        bad = any(part in {"", ".", ".."} or len(part.encode()) > 240 for part in parts)
        if bad or "\0" in name or "\\" in name or name in above:
            raise InputError(
                f"a file of the source has the name {name[:200]!r}",
                expected="names that files in folders can have",
                do="give it another, or name the files that are wanted",
            )


def _not_installed(url: str, error: ImportError) -> PlanError:
    scheme = _scheme(url)
    s3 = "install the extra: pip install 'dataset-sanitizer[s3]'"
    do = s3 if scheme in {"s3", "s3a"} else _line(error)
    return PlanError(f"what reads {scheme}:// URLs is not installed", do=do)


def _scheme(url: str) -> str:
    """The kind of place that a URL is about; the last one, where one lies within another."""
    return url.partition("://")[0].rpartition("::")[2]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
