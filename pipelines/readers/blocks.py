"""What every reader gives: blocks of rows with their positions, and the rows it could not read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sanitizers.core.errors import InputError
from sanitizers.core.image_formats import MAX_BYTES

#: Columns of a dataset. Beyond it a file is more likely hostile, or transposed, than a table.
MAX_COLUMNS = 10_000
#: Characters of the name of a column. Names are written in every message and report.
MAX_NAME = 1_000
#: Bytes of one line or record. A line is held in memory whole, so it must have an end.
MAX_LINE = 16 * 2**20
#: Bytes that are kept of a line beyond the limit.
KEPT_OF_LINE = 2**20
#: Bytes of one value in a binary format: as many as an image may have.
MAX_CELL = MAX_BYTES
#: Bytes that are read at once: enough to keep the parser busy, little beside the memory.
BLOCK_BYTES = 8 * 2**20
#: Rows of a block in formats that know their rows.
BLOCK_ROWS = 65_536
#: Objects and lists within each other; parsers recurse, and no real row is deeper.
MAX_DEPTH = 32
#: Decompressed bytes that are never suspicious, however well they were compressed.
FREE_BYTES = 2**30
#: Beyond `FREE_BYTES`, how many times larger than its file decompressed data may be. Real
#: tables reach 50; a bomb of zeros reaches 1,000.
MAX_RATIO = 200
#: Rows of one file. A Parquet file of some bytes can claim any number of rows.
MAX_ROWS = 2_000_000_000

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Unreadable:
    r"""A row that could not be read.

    Parameters
    ----------
    row : int
        Its place among the rows of the file, from 0, header and blank lines not counted.
    raw : str
        Its text as it came; bytes that are not UTF-8 are written as ``\xNN``. JSON where
        it did not come as text.
    reason : str
    file : str
        Its own file, where every row has one.
    image : bytes or None
        What is no image that can be decoded, as it came.
    """

    row: int
    raw: str
    reason: str
    file: str = ""
    image: bytes | None = None


@dataclass(frozen=True)
class Block:
    """Some rows of a file, in order.

    Parameters
    ----------
    table : pyarrow.Table
        The rows that could be read.
    positions : ndarray of int64, shape (n,)
        The place of each among the rows of the file, from 0.
    unreadable : tuple of Unreadable
        The others.
    raws : callable or None
        Gives some rows of `table`, by their places in it, as the text that they came as;
        None where they did not come as text.
    """

    table: pa.Table
    positions: Positions
    unreadable: tuple[Unreadable, ...] = ()
    raws: Callable[[Sequence[int]], list[str]] | None = None


class Guess(Protocol):
    """What is known of the type of a column before its rows are read for good."""

    @property
    def kind(self) -> str:
        """What the values come as. Guesses of one kind can be merged."""
        ...

    def field(self, name: str) -> pa.Field:
        """The column with the type that serves all values seen."""
        ...

    def merge(self, other: object) -> Guess:
        """What is known after another file of the same kind was seen."""
        ...


@dataclass(frozen=True)
class Known:
    """The type of a column in a format that has types."""

    type: pa.DataType
    kind: str = "typed"

    def field(self, name: str) -> pa.Field:
        return pa.field(name, self.type)

    def merge(self, other: object) -> Known:
        """The same: typed columns are unified by their types."""
        return self


class Reader(Protocol):
    """One file, open for reading. Both methods stream."""

    def survey(self) -> Mapping[str, Guess]:
        """Look at every row, and say what the columns are, in order."""
        ...

    def read(self, schema: pa.Schema) -> Iterator[Block]:
        """Read every row; columns and types are those of `schema`."""
        ...


def checked_names(file: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns of a file if each is there once.

    Raises
    ------
    InputError
        If names repeat, there are none, or too many.
    """
    if not names:
        raise InputError(f"{file} has no columns")
    if len(names) > MAX_COLUMNS:
        raise InputError(f"{file} has {len(names):,} columns", expected=f"at most {MAX_COLUMNS:,}")
    for name, count in Counter(names).items():
        if "\0" in name or len(name) > MAX_NAME:
            raise InputError(
                f"{file} has a column called {name[:40]!r} ({len(name):,} characters)",
                expected=f"names of at most {MAX_NAME:,} characters, without a NUL",
            )
        if count > 1:
            raise InputError(
                f"{file} has {count} columns called {name!r}", do="give each a name of its own"
            )
    return tuple(names)


def positions_of(row: int, rows: int) -> Positions:
    """The places of `rows` rows from `row` on."""
    return np.arange(row, row + rows, dtype=np.int64)


def raw_text(data: bytes) -> str:
    """The text of a row as it came."""
    return data.decode("utf-8", "backslashreplace")


def too_long(data: bytes, length: int) -> tuple[str, str]:
    """The kept text of a line beyond the limit, and the reason."""
    limit = f"{MAX_LINE // 2**20} MiB"
    reason = f"a line of {length:,} bytes is over the limit of {limit}; its start is kept"
    return raw_text(data[:KEPT_OF_LINE]), reason
