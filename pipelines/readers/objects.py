"""JSONL: one JSON object per line, keys as they come, numbers and texts kept apart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.readers.blocks import (
    MAX_COLUMNS,
    MAX_DEPTH,
    MAX_LINE,
    Block,
    Unreadable,
    checked_names,
    raw_text,
    too_long,
)
from pipelines.readers.records import Lines, Lost, whole_records
from pipelines.readers.sources import Source, open_bytes
from pipelines.readers.values import JSON_TEXT, ValueGuess, build
from sanitizers.core.errors import InputError

_BOM = b"\xef\xbb\xbf"

Row = dict[str, Any]


@dataclass
class _Rows:
    """The objects of a block, and the lines that are none."""

    start: int
    lines: list[bytes] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    objects: list[Row] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)


@dataclass(frozen=True)
class ObjectsReader:
    """One JSONL file.

    A key that a row lacks is missing there. Nested values are nested columns where
    their types agree; where the values of a key do not agree, the column holds their
    JSON text. Blank lines are no rows.

    Parameters
    ----------
    source : Source
    """

    source: Source

    def survey(self) -> dict[str, ValueGuess]:
        """Look at every value."""
        guesses: dict[str, ValueGuess] = {}
        for rows in self._rows():
            for name in dict.fromkeys(key for row in rows.objects for key in row):
                values = [row[name] for row in rows.objects if name in row]
                guesses[name] = guesses.get(name, ValueGuess()).add(values)
            if len(guesses) > MAX_COLUMNS:
                raise InputError(
                    f"the objects of {self.source.name} have more than {MAX_COLUMNS:,} keys",
                    expected="the same few keys in each",
                )
        # No object at all is for the caller to tell: it knows what the lines were instead.
        checked_names(self.source.name, tuple(guesses) or ("none",))
        return guesses

    def read(self, schema: pa.Schema) -> Iterator[Block]:
        """Read every row with the types of `schema`."""
        for rows in self._rows():
            yield _typed(rows, schema)

    def _rows(self) -> Iterator[_Rows]:
        with open_bytes(self.source) as stream:
            start = stream.read(len(_BOM)).removeprefix(_BOM)
            row = 0
            for block in whole_records(stream, Lines(), start):
                rows = _Rows(row)
                if isinstance(block, Lost):
                    rows.unreadable.append(Unreadable(row, block.raw, block.reason))
                    row += 1
                else:
                    _parse(Lines().split(block), rows)
                    row += len(rows.lines)
                yield rows


def parse_object(line: bytes) -> Row:
    """Read one line.

    Raises
    ------
    ValueError
        If it is not a JSON object; the message says why, for people.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not valid UTF-8") from None
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if text.count("{") + text.count("[") > MAX_DEPTH and _deeper(value, MAX_DEPTH):
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if "\\ud" in text or "\\uD" in text:
        _check_unicode(value)
    return value


def _once(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} is there twice")
    return row


def _deeper(value: object, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    parts = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_deeper(part, depth - 1) for part in parts)


def _check_unicode(value: Row) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is no character") from None


def _parse(lines: list[bytes], rows: _Rows) -> None:
    rows.lines = [line.removesuffix(b"\r") for line in lines]
    for at, line in enumerate(rows.lines, rows.start):
        if len(line) > MAX_LINE:
            rows.unreadable.append(Unreadable(at, *too_long(line, len(line))))
            continue
        try:
            rows.objects.append(parse_object(line))
            rows.positions.append(at)
        except ValueError as error:
            rows.unreadable.append(Unreadable(at, raw_text(line), str(error)))


def _typed(rows: _Rows, schema: pa.Schema) -> Block:
    reasons: dict[int, str] = {}
    columns = []
    for column in schema:
        values = [row.get(column.name) for row in rows.objects]
        as_text = bool(column.metadata and JSON_TEXT in column.metadata)
        array, misfits = build(values, column.type, as_text)
        columns.append(array)
        for i in misfits:
            shown = json.dumps(values[i], ensure_ascii=False)[:80]
            reasons.setdefault(i, f"column {column.name!r}: {shown} is not {column.type}")
    table = pa.table(columns, schema=schema)
    positions = np.array(rows.positions, dtype=np.int64)
    if reasons:
        kept = [i for i in range(len(rows.objects)) if i not in reasons]
        table, at = table.take(kept), positions.tolist()
        for i, reason in reasons.items():
            raw = raw_text(rows.lines[at[i] - rows.start])
            rows.unreadable.append(Unreadable(at[i], raw, reason))
        positions = positions[kept]
    unreadable = tuple(sorted(rows.unreadable, key=lambda u: u.row))

    def raws(some: Sequence[int]) -> list[str]:
        return [raw_text(rows.lines[int(positions[i]) - rows.start]) for i in some]

    return Block(table, positions, unreadable, raws)
