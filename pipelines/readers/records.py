"""Text in blocks of whole records: lines, or CSV records, whose quotes may hold line ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from pipelines.readers.blocks import BLOCK_BYTES, KEPT_OF_LINE, MAX_LINE, raw_text, too_long

_ENDS = b"\r\n"


class Stream(Protocol):
    """Bytes to read."""

    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True)
class Lost:
    """A piece of text that is no record, and why."""

    raw: str
    reason: str


class Cutter(Protocol):
    """Knows where records end."""

    def end(self, text: bytes) -> int:
        """Where the last whole record of `text` ends; 0 where there is none."""
        ...


@dataclass(frozen=True)
class Lines:
    """Records that are lines."""

    def end(self, text: bytes) -> int:
        return text.rfind(b"\n") + 1

    def split(self, text: bytes) -> list[bytes]:
        """The lines of a block, without their ends; blank ones are left out."""
        return [line for line in text.split(b"\n") if line.strip()]


@dataclass(frozen=True)
class CsvRecords:
    """CSV records: a line end within quotes does not end them.

    A quote opens a quoted value at the start of a value only, as all CSV parsers have it.

    Parameters
    ----------
    delimiter : bytes
    quoting : bool
        False where quotes are characters like others.
    """

    delimiter: bytes
    quoting: bool = True

    def end(self, text: bytes) -> int:
        if not self.quoting or b'"' not in text:
            return text.rfind(b"\n") + 1
        quotes = np.flatnonzero(np.frombuffer(text, np.uint8) == ord('"'))
        if not self._in_pairs(text, quotes):
            return self._scan(text)
        # Outside of quotes there is an even number of them before.
        at = text.rfind(b"\n")
        while at >= 0:
            before = int(np.searchsorted(quotes, at))
            if before % 2 == 0:
                break
            at = text.rfind(b"\n", 0, int(quotes[before - 1]))
        return at + 1

    def split(self, text: bytes) -> list[bytes]:
        """The records of a block, without their ends; blank ones are left out.

        The last one need not have an end.
        """
        records, at = [], 0
        record = _record(self.delimiter, self.quoting)
        while at < len(text):
            match = record.match(text, at)
            if match is None:
                records.append(text[at:])
                break
            records.append(match[1])
            at = match.end()
        return [r for r in records if r]

    def first(self, text: bytes) -> tuple[bytes, bytes]:
        """The first record, without its end, and what is behind it; blank lines are skipped."""
        text = text.lstrip(_ENDS)
        match = _record(self.delimiter, self.quoting).match(text)
        return (match[1], text[match.end() :]) if match else (text, b"")

    def well_quoted(self, text: bytes) -> bool:
        """True where every quote opens or closes a value, or is doubled."""
        return self._in_pairs(text, np.flatnonzero(np.frombuffer(text, np.uint8) == ord('"')))

    def _in_pairs(self, text: bytes, quotes: np.ndarray[tuple[int], np.dtype[np.intp]]) -> bool:
        data = np.frombuffer(b"\n" + text + b"\n", np.uint8)
        edges = np.zeros(256, dtype=bool)
        edges[list(self.delimiter + _ENDS + b'"')] = True
        opening, closing = quotes[0::2], quotes[1::2]
        return bool(edges[data[opening]].all() and edges[data[closing + 2]].all())

    def _scan(self, text: bytes) -> int:
        record, at = _record(self.delimiter, self.quoting), 0
        while match := record.match(text, at):
            at = match.end()
        return at


@lru_cache
def _record(delimiter: bytes, quoting: bool) -> re.Pattern[bytes]:
    """One CSV record and its end. Possessive, so that no text makes it backtrack."""
    d = re.escape(delimiter)
    rest = rb"[^" + d + rb"\r\n]*+"
    value = rest if not quoting else rb'(?:"(?:[^"]++|"")*+"' + rest + rb'|(?!")' + rest + rb")"
    return re.compile(rb"(" + value + rb"(?:" + d + value + rb")*+)(?:\r\n|\n|\r)")


def whole_records(stream: Stream, cutter: Cutter, start: bytes = b"") -> Iterator[bytes | Lost]:
    """Cut a stream into blocks of whole records.

    A quote that is never closed, or a line without an end, costs its first line only:
    reading goes on behind it.

    Parameters
    ----------
    stream : Stream
    cutter : Cutter
    start : bytes
        What was read of the stream already.
    """
    rest, ended = start, False
    while not ended or rest:
        if not ended:
            more = stream.read(BLOCK_BYTES)
            ended = not more
            rest += more
            if ended and rest and not rest.endswith(b"\n"):
                rest += b"\n"
        end = cutter.end(rest)
        if end:
            yield rest[:end]
            rest = rest[end:]
        elif rest and (ended or len(rest) > MAX_LINE):
            lost, rest = _first_line(stream, rest)
            yield lost


def _first_line(stream: Stream, text: bytes) -> tuple[Lost, bytes]:
    """Give up the first line of a text in which no record ends."""
    at = text.find(b"\n")
    if 0 <= at <= MAX_LINE:
        raw = raw_text(text[:at].rstrip(b"\r"))
        return Lost(raw, "a quote is opened and never closed"), text[at + 1 :]
    length, kept = len(text), text[:KEPT_OF_LINE]
    while at < 0 and (text := stream.read(BLOCK_BYTES)):
        at = text.find(b"\n")
        length += len(text)
    if at < 0:
        return Lost(*too_long(kept, length)), b""
    rest = text[at + 1 :]
    return Lost(*too_long(kept, length - len(rest) - 1)), rest
