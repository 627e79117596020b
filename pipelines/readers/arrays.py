"""NPZ: NumPy arrays in a ZIP file, read row by row, never through pickle."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.disk import writing
from pipelines.readers.blocks import (
    BLOCK_ROWS,
    FREE_BYTES,
    MAX_CELL,
    MAX_COLUMNS,
    MAX_RATIO,
    MAX_ROWS,
    Block,
    Known,
)
from pipelines.readers.png import png_files
from pipelines.readers.typed import aligned, surveyed
from sanitizers.core.errors import InputError
from sanitizers.core.image_columns import IMAGE_TYPE
from sanitizers.core.image_formats import MAX_PIXELS

#: Bytes of rows that are read at once.
_CHUNK_BYTES = 16 * 2**20
#: Arrays in one file; each is a column at least.
_MAX_MEMBERS = 10_000
_PLAIN = "biufUSM"


@dataclass(frozen=True)
class Member:
    """One array of the file, known by its header."""

    file: str
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran: bool

    @property
    def is_images(self) -> bool:
        """Whether its rows are images: ``[H, W]``, or ``[H, W, C]`` with C of 1 or 3."""
        shape, plain = self.shape[1:], self.dtype == np.uint8 and not self.fortran
        return plain and (len(shape) == 2 or (len(shape) == 3 and shape[2] in {1, 3}))

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))


@dataclass(frozen=True)
class ArraysReader:
    """One NPZ file.

    A 2-D array ``X`` gives the columns ``x0``, ``x1`` ..., any other 2-D array one column
    of fixed-size lists (an embedding), and every 1-D array the column of its name. An array
    of images gives a column of PNG files.

    Parameters
    ----------
    name : str
    path : Path
    work : Path
        A folder for arrays that lie column by column.
    """

    name: str
    path: Path
    work: Path

    def survey(self) -> dict[str, Known]:
        """Read the headers of the arrays."""
        with _reading(self.name):
            fields = [f for m in self._members for f in _fields(m)]
            return surveyed(self.name, pa.schema(fields))

    def read(self, schema: pa.Schema) -> Iterator[Block]:
        """Read every row with the types of `schema`."""
        members = self._members
        rows = members[0].shape[0]
        step = _step(members)
        with _reading(self.name), ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(self.path))
            sources = [_rows_of(archive, m, self.work, stack) for m in members]
            for row in range(0, rows, step):
                count = min(step, rows - row)
                columns: dict[str, pa.Array] = {}
                for member, source in zip(members, sources, strict=True):
                    columns |= _columns(member, source.take(row, count))
                yield aligned(self.name, pa.table(columns), schema, row)

    @cached_property
    def _members(self) -> tuple[Member, ...]:
        with _reading(self.name), zipfile.ZipFile(self.path) as archive:
            infos = [i for i in archive.infolist() if i.filename.endswith(".npy")]
            if not infos or len(infos) > _MAX_MEMBERS:
                raise InputError(f"{self.name} has {len(infos)} arrays", expected="some, 2-D 'X'")
            packed = self.path.stat().st_size
            if sum(i.file_size for i in infos) > max(FREE_BYTES, MAX_RATIO * packed):
                raise InputError(
                    f"{self.name} has {packed:,} bytes and unpacks to far more",
                    expected=f"at most {MAX_RATIO} times its size",
                )
            members = tuple(_header(archive, i) for i in infos)
        return _checked(self.name, members)


@dataclass
class _Streamed:
    """The rows of an array that lie one after the other in the file."""

    member: Member
    file: IO[bytes]

    def take(self, row: int, count: int) -> NDArray[np.generic]:
        size = count * self.member.row_bytes
        data = self.file.read(size)
        if len(data) != size:
            raise InputError(f"the array {self.member.name!r} is cut short", do="write it again")
        return np.frombuffer(data, self.member.dtype).reshape(count, *self.member.shape[1:])


@dataclass
class _Mapped:
    """The rows of an array that lie column by column, on disk."""

    array: NDArray[np.generic]

    def take(self, row: int, count: int) -> NDArray[np.generic]:
        return np.ascontiguousarray(self.array[row : row + count])


def _rows_of(
    archive: zipfile.ZipFile, member: Member, work: Path, stack: ExitStack
) -> _Streamed | _Mapped:
    file = stack.enter_context(archive.open(member.file))
    _read_header(file)
    if not (member.fortran and len(member.shape) == 2):
        return _Streamed(member, file)
    # As it lies, the first row ends where the array does. On disk any row is near.
    path = work / f"array-{archive.infolist().index(archive.getinfo(member.file))}"
    with writing(path), path.open("wb") as out:
        shutil.copyfileobj(file, out, 2**20)
    return _Mapped(np.memmap(path, member.dtype, "r", shape=member.shape, order="F"))


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    with archive.open(info) as file:
        shape, fortran, dtype = _read_header(file)
    return Member(info.filename, info.filename.removesuffix(".npy"), shape, dtype, fortran)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _checked(name: str, members: tuple[Member, ...]) -> tuple[Member, ...]:
    for m in members:
        if m.dtype.kind not in _PLAIN or m.dtype.names or m.dtype == np.longdouble:
            what = "Python objects" if m.dtype.hasobject else str(m.dtype)
            raise InputError(
                f"the array {m.name!r} of {name} holds {what}",
                expected="numbers, truth values, dates or text",
            )
        if not 1 <= len(m.shape) <= 2 and not m.is_images:
            order = " in C order" if m.fortran else ""
            raise InputError(
                f"the array {m.name!r} of {name} has the shape {m.shape} of {m.dtype}",
                expected="one row per entry: 1-D, 2-D, or images: [n, H, W] or [n, H, W, 1 or 3] "
                f"of uint8{order}",
            )
        if m.is_images and not 0 < m.shape[1] * m.shape[2] <= MAX_PIXELS:
            raise InputError(
                f"the images {m.name!r} of {name} have {m.shape[1]:,} x {m.shape[2]:,} pixels",
                expected=f"1 to {MAX_PIXELS:,}",
            )
        if m.shape[0] != members[0].shape[0] or m.shape[0] > MAX_ROWS:
            raise InputError(
                f"the array {m.name!r} of {name} has {m.shape[0]:,} rows, "
                f"{members[0].name!r} has {members[0].shape[0]:,}",
                expected="the same number in all",
            )
        if m.row_bytes > MAX_CELL or (
            m.name == "X" and not m.is_images and m.shape[1:] > (MAX_COLUMNS,)
        ):
            raise InputError(
                f"the array {m.name!r} of {name} has {m.shape[-1]:,} columns",
                expected=f"at most {MAX_COLUMNS:,}",
            )
    return members


def _step(members: tuple[Member, ...]) -> int:
    width = sum(m.row_bytes for m in members)
    return int(min(max(_CHUNK_BYTES // max(width, 1), 1), BLOCK_ROWS))


def _fields(member: Member) -> list[pa.Field]:
    empty = np.empty((0, *member.shape[1:]), dtype=member.dtype)
    return [pa.field(name, column.type) for name, column in _columns(member, empty).items()]


def _columns(member: Member, values: NDArray[np.generic]) -> dict[str, pa.Array]:
    if values.ndim == 1:
        return {member.name: _column(values)}
    if member.is_images:
        return {member.name: _images(values.view(np.uint8))}
    if member.name == "X":
        return {f"x{i}": _column(np.ascontiguousarray(v)) for i, v in enumerate(values.T)}
    return {
        member.name: pa.FixedSizeListArray.from_arrays(_column(values.ravel()), values.shape[1])
    }


def _images(values: NDArray[np.uint8]) -> pa.Array:
    files = png_files(values)
    ends = np.arange(len(files) + 1, dtype=np.int32) * files.shape[1]
    data = pa.BinaryArray.from_buffers(
        pa.binary(), len(files), [None, pa.py_buffer(ends), pa.py_buffer(files)]
    )
    paths = pa.nulls(len(files), pa.string())
    return pa.StructArray.from_arrays([data, paths], fields=list(IMAGE_TYPE))


def _column(values: NDArray[np.generic]) -> pa.Array:
    native = values.astype(values.dtype.newbyteorder("="))
    if native.dtype.kind == "U":
        return pa.array(native.tolist(), pa.string())
    if native.dtype.kind == "S":
        return pa.array(native.tolist(), pa.binary()).cast(pa.string())
    return pa.array(native)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        ValueError,
        EOFError,
        pa.ArrowException,
    ) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{name} cannot be read as NPZ: {line}", do="write it again") from None
    except (NotImplementedError, RuntimeError) as error:
        raise InputError(f"{name} is a ZIP file of an unknown kind: {error}") from None
