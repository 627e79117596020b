"""Which files an input is, what their formats are, and their bytes, unzipped."""

from __future__ import annotations

import errno
import glob
import gzip
import hashlib
import os
import shutil
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from pipelines.disk import writing
from pipelines.readers.blocks import FREE_BYTES, MAX_RATIO
from pipelines.readers.folders import digest_folder, image_files, is_image_folder, stamp_folder
from sanitizers.core.errors import InputError, did_you_mean

#: Endings by which files are known in a folder; ``.gz`` may follow each.
FORMATS = {
    ".csv": "csv", ".tsv": "csv", ".tab": "csv", ".psv": "csv",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
    ".parquet": "parquet", ".pq": "parquet",
    ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow", ".arrows": "arrow",
    ".npz": "npz",
}  # fmt: skip
_EXPECTED = "CSV, TSV, JSONL, Parquet, Arrow, Feather or NPZ, gzipped or not"
_IMAGES = (
    "name the folder that holds a folder per class, or a table of paths and its column (--image)"
)
_GZIP = b"\x1f\x8b"
#: Bytes of a file that are looked at to know its format.
_HEAD = 65_536
#: First bytes of files that people mistake for tables, and what to do about it.
_STRANGERS = (
    (b"FEA1", "Feather version 1", "write it again with a newer pandas or pyarrow"),
    (b"BZh", "compressed with bzip2", "unpack it, or use gzip"),
    (b"\xfd7zXZ", "compressed with xz", "unpack it, or use gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it, or use gzip"),
    (b"7z\xbc\xaf", "a 7-zip archive", "unpack it"),
    (b"\x93NUMPY", "a single NumPy array", "save it with numpy.savez(path, X=..., y=...)"),
    (b"\x89HDF", "HDF5", "export it as Parquet or CSV"),
    (b"SQLite format", "an SQLite database", "export a table as CSV"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
    (b"\x89PNG", "an image", _IMAGES),
    (b"\xff\xd8\xff", "an image", _IMAGES),
    (b"RIFF", "an image", _IMAGES),
)


@dataclass(frozen=True)
class Source:
    """One file of the input, or a folder per class of images.

    Parameters
    ----------
    path : Path
    name : str
        How messages and manifests call it.
    format : str
        ``csv``, ``jsonl``, ``parquet``, ``arrow``, ``npz`` or ``imagefolder``.
    gzipped : bool
    """

    path: Path
    name: str
    format: str
    gzipped: bool


@dataclass
class Unzipped:
    """The bytes of a gzipped file, with an end to what may come out of it."""

    source_name: str
    packed: int
    file: BinaryIO
    given: int = field(default=0, init=False)

    def read(self, size: int = -1, /) -> bytes:
        try:
            data = self.file.read(size)
        except EOFError:
            raise InputError(
                f"{self.source_name} ends in the middle: it is a truncated gzip file",
                do="download or copy it again",
            ) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{self.source_name} is a damaged gzip file: {error}") from None
        self.given += len(data)
        if self.given > max(FREE_BYTES, MAX_RATIO * self.packed):
            raise InputError(
                f"{self.source_name} has {self.packed:,} bytes and unpacks to more than "
                f"{self.given:,}",
                expected=f"at most {MAX_RATIO} times its size",
                do="unpack it yourself, if you trust it",
            )
        return data


def find_sources(source: str | Path) -> list[Path]:
    """The files of an input: a file, a folder or a glob.

    In a folder all files with a known ending, at any depth; what begins with ``.`` or
    ``_`` is left out, as all tools that write folders of parts expect. A folder that holds
    a folder of images per class is one source.

    Parameters
    ----------
    source : str or Path

    Returns
    -------
    list of Path
        Sorted, at least one.
    """
    path = Path(source).expanduser()
    try:
        kind = path.stat().st_mode
    except (OSError, ValueError):
        return _matches(source)
    if stat.S_ISREG(kind):
        return [path]
    if not stat.S_ISDIR(kind):
        raise InputError(f"{source} is neither a file nor a folder")
    found = sorted(_in_folder(path))
    if any(table.parent == path for table in found) or not is_image_folder(path):
        if not found:
            raise InputError(
                f"no data in the folder {source}", expected=f"{_EXPECTED}, or a folder per class"
            )
        return found
    if found:
        raise InputError(
            f"{source} holds images in folders, and the table {found[0].relative_to(path)}",
            expected="images or tables",
            do="name the table, or move it out",
        )
    next(image_files(path), None)
    return [path]


def digest_sources(paths: list[Path]) -> list[tuple[str, int]]:
    """The SHA-256 and the bytes of each file; of a folder per class, over all its images."""
    digests = []
    for path in paths:
        if path.is_dir():
            digests.append(digest_folder(path))
            continue
        with _opened(path, str(path)) as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            digests.append((sha256, file.tell()))
    return digests


def stamp_sources(paths: list[Path]) -> list[object]:
    """What changes when a file is written to: cheaper than a digest."""
    return [stamp_folder(path) if path.is_dir() else _stamp(path.stat()) for path in paths]


def names_within(source: str | Path, paths: list[Path]) -> list[str]:
    """How the files of a source are called for good, whatever other files come.

    Relative to the source where that is a folder, else as `names_of` says.
    """
    root = Path(source).expanduser()
    if root.is_dir() and paths != [root]:
        return [path.relative_to(root).as_posix() for path in paths]
    return names_of(paths)


def names_of(paths: list[Path]) -> list[str]:
    """How messages and manifests call the files: relative to what they have in common."""
    if len(paths) == 1:
        return [paths[0].name or paths[0].absolute().name]
    root = os.path.commonpath([p.absolute().parent for p in paths])
    return [Path(os.path.relpath(p.absolute(), root)).as_posix() for p in paths]


def identify(path: Path, name: str) -> Source:
    """Find out the format of a file, from its first bytes and its name.

    Raises
    ------
    InputError
        If it is empty, or of no known format.
    """
    if path.is_dir():
        return Source(path, name, "imagefolder", False)
    with _opened(path, name) as file:
        head = file.read(_HEAD)
    gzipped = head.startswith(_GZIP)
    if gzipped:
        with open_bytes(Source(path, name, "", True)) as stream:
            head = stream.read(_HEAD)
        if head.startswith(_GZIP):
            raise InputError(f"{name} is gzipped twice", do="unpack it once")
    if not head:
        raise InputError(f"{name} is empty", expected=_EXPECTED)
    return Source(path, name, _format(path, name, head), gzipped)


@contextmanager
def open_bytes(source: Source) -> Iterator[BinaryIO | Unzipped]:
    """Open the bytes of a file, unzipped."""
    with _opened(source.path, source.name) as file:
        if not source.gzipped:
            yield file
            return
        with gzip.open(file) as unzipped:
            packed = os.fstat(file.fileno()).st_size
            yield Unzipped(source.name, packed, unzipped)  # type: ignore[arg-type]


def unpacked(source: Source, work: Path) -> Path:
    """The path of a file that can be read at any place; gzipped ones are unpacked into `work`."""
    if not source.gzipped:
        return source.path
    name = hashlib.sha256(source.name.encode("utf-8", "surrogateescape")).hexdigest()
    path = work / f"unpacked-{name[:16]}"
    with open_bytes(source) as stream, writing(path), path.open("wb") as out:
        shutil.copyfileobj(stream, out, 2**20)
    return path


@contextmanager
def _opened(path: Path, name: str) -> Iterator[BufferedReader]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from None
    with file:
        try:
            yield file
        except OSError as error:
            # Only the disk of the input speaks here: writers turn theirs into StoreError.
            if error.errno in {errno.EIO, errno.ESTALE, errno.ENXIO}:
                raise InputError(f"{name} cannot be read: {error.strerror}") from None
            raise


def _stamp(found: os.stat_result) -> tuple[int, int]:
    return found.st_size, found.st_mtime_ns


def _matches(source: str | Path) -> list[Path]:
    text = str(Path(source).expanduser()) if str(source) else ""
    if not glob.has_magic(text):
        parent = Path(text).parent
        beside = [p.name for p in parent.iterdir()] if parent.is_dir() else []
        raise InputError(f"no file {text!r}", do=_near(Path(text).name, beside))
    found = sorted(Path(p) for p in glob.glob(text, recursive=True))
    files = [p for p in found if p.is_file() and not p.name.startswith((".", "_"))]
    if not files:
        raise InputError(f"no file matches {text!r}")
    return files


def _near(name: str, beside: list[str]) -> str:
    visible = [n for n in sorted(beside) if not n.startswith(".")]
    hint = did_you_mean(name, visible)
    return hint if hint.startswith("did you mean") else ""


def _in_folder(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith((".", "_")))
        for name in files:
            path = Path(root) / name
            if not name.startswith((".", "_")) and _by_name(path) and path.is_file():
                yield path


def _by_name(path: Path) -> str | None:
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in {".gz", ".gzip"}:
        suffixes.pop()
    return FORMATS.get(suffixes[-1]) if suffixes else None


def _format(path: Path, name: str, head: bytes) -> str:
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    if head.startswith(b"PK"):
        if _by_name(path) == "npz":
            return "npz"
        raise InputError(f"{name} is a ZIP archive or a spreadsheet", expected=_EXPECTED)
    for magic, what, do in _STRANGERS:
        if head.startswith(magic):
            raise InputError(f"{name} is {what}", expected=_EXPECTED, do=do)
    named = _by_name(path)
    if named in {"parquet", "arrow", "npz"}:
        raise InputError(
            f"{name} is not a {named} file, whatever its name says", do="write it anew"
        )
    return _text_format(name, named, head)


def _text_format(name: str, named: str | None, head: bytes) -> str:
    if b"\0" in head:
        raise InputError(f"{name} is of no known format", expected=_EXPECTED)
    first = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if first == b"[" and named in {"jsonl", None}:
        raise InputError(
            f"{name} is one JSON array", expected="one JSON object per line", do="see JSON Lines"
        )
    if named is None and first != b"{" and not any(d in head for d in b",;\t|"):
        raise InputError(f"{name} is of no known format", expected=_EXPECTED)
    return named or ("jsonl" if first == b"{" else "csv")
