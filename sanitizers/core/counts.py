"""How many rows have each content with each label, counted in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sanitizers.core.contents import MOST_CONTENTS, Hashes

#: Classes as numbers.
Codes = NDArray[np.int64]

#: No hash lies above it.
_ALL = np.uint64(2**64 - 1)
#: Cells of a `Blotter`, of two bytes each; a power of two.
CELLS = 2**25
_BLOT = np.uint16(2**16 - 1)


@dataclass(frozen=True)
class Counts:
    """Rows of each content with each label: one entry per pair, sorted by both.

    Parameters
    ----------
    content : ndarray of uint64, shape (m,)
    label : ndarray of int64, shape (m,)
    rows : ndarray of int64, shape (m,)
    """

    content: Hashes
    label: Codes
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, content: Hashes, label: Codes, rows: NDArray[np.int64] | None = None) -> Counts:
        """Count rows, or add up the `rows` of equal pairs; all of shape (n,)."""
        rows = np.ones(len(content), dtype=np.int64) if rows is None else rows
        order = np.lexsort((label, content))
        content, label = content[order], label[order]
        new = _changes(content) | _changes(label)
        first = np.flatnonzero(new)
        sums = np.add.reduceat(rows[order], first) if len(first) else rows
        return cls(content[first], label[first], sums)

    @classmethod
    def joined(cls, parts: Sequence[Counts]) -> Counts:
        """Add up counts of different rows."""
        empty = cls(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))
        every = [empty, *parts]
        return cls.of(
            np.concatenate([part.content for part in every]),
            np.concatenate([part.label for part in every]),
            np.concatenate([part.rows for part in every]),
        )

    def __len__(self) -> int:
        return len(self.content)

    @property
    def first(self) -> NDArray[np.bool_]:
        """Which entries are the first of their content, shape (m,)."""
        return _changes(self.content)

    @property
    def repeats(self) -> int:
        """How many rows have the content of an earlier row, whatever its label."""
        return int(self.rows.sum()) - int(self.first.sum())


@dataclass
class Tally:
    """Counts pairs as they come; beyond `most` of them, those whose hash lies below a line.

    The line falls while pairs come, and ends where the set of all of them puts it, so that
    it depends neither on the order of the rows nor on the sharding.

    Parameters
    ----------
    most : int
        Pairs that are kept, at most, at 24 bytes each; thrice as many for a moment.
    """

    most: int = MOST_CONTENTS
    _line: np.uint64 = _ALL
    _parts: list[Counts] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every pair that came is kept."""
        return bool(self._line == _ALL)

    def add(self, content: Hashes, label: Codes) -> None:
        """Count rows, both of shape (n,)."""
        kept = content <= self._line
        self._parts.append(Counts.of(content[kept], label[kept]))
        if sum(len(part) for part in self._parts) > 2 * self.most:
            self.counts()

    def counts(self) -> Counts:
        """What was counted so far and is kept."""
        found = Counts.joined(self._parts)
        while len(found) > self.most:
            self._line >>= np.uint64(1)
            below = found.content <= self._line
            found = Counts(found.content[below], found.label[below], found.rows[below])
        self._parts = [found]
        return found


@dataclass(frozen=True)
class Blotter:
    """Remembers which contents may have come with two labels, however many there are.

    A content has a cell, which it shares with few others. The first label that comes is
    written into it, and any other label blots it. So a content with two labels has a blotted
    cell; of those with one label about the share *contents / cells* has one too.
    """

    cells: NDArray[np.uint16] = field(default_factory=lambda: np.zeros(CELLS, np.uint16))

    def add(self, content: Hashes, label: Codes) -> None:
        """Write labels, in [0, 65,533], into their cells; both of shape (n,)."""
        at, ink = self._at(content), (label + 1).astype(np.uint16)
        empty = self.cells[at] == 0
        self.cells[at[empty]] = ink[empty]
        # Of several labels that came into an empty cell at once, one was written.
        self.cells[at[self.cells[at] != ink]] = _BLOT

    def blotted(self, content: Hashes) -> NDArray[np.bool_]:
        """Whether the cells of contents are blotted, shape (n,)."""
        return np.asarray(self.cells[self._at(content)] == _BLOT)

    def _at(self, content: Hashes) -> NDArray[np.int64]:
        # By the low digits, for the line of a tally goes by the high ones.
        return (content & np.uint64(len(self.cells) - 1)).astype(np.int64)


def _changes(values: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Where a value differs from the one before, the first one always, shape (n,)."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]
