"""CSV and TSV: fast while the text is clean, careful block by block where it is not."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from pipelines.readers.blocks import (
    MAX_LINE,
    Block,
    Positions,
    Unreadable,
    checked_names,
    raw_text,
    too_long,
)
from pipelines.readers.records import CsvRecords, Lost, whole_records
from pipelines.readers.sources import Source, open_bytes
from pipelines.readers.texts import MISSING, TextGuess, convert, misfit
from sanitizers.core.errors import InputError

_BOM = b"\xef\xbb\xbf"
_DELIMITERS = (",", ";", "\t", "|")
#: Bytes from which header and delimiter are read.
_HEAD = 2**20
#: Records by which delimiters are compared.
_SNIFFED = 50
#: What the parser gives to one thread at a time.
_CHUNK = 2**20
_NUMERIC = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class _Texts:
    """The rows of a block as strings, and what was no row."""

    table: pa.Table
    positions: Positions
    unreadable: tuple[Unreadable, ...]
    text: bytes
    start: int
    end: int


@dataclass(frozen=True)
class DelimitedReader:
    """One CSV or TSV file.

    The first line names the columns. An unnamed column is called ``Unnamed: 0`` by its
    place, as pandas does. Raw texts of unreadable rows are those of the file, without
    the line end.

    Parameters
    ----------
    source : Source
    """

    source: Source

    @cached_property
    def _head(self) -> tuple[CsvRecords, tuple[str, ...]]:
        """How records are cut, and the names of the columns."""
        with open_bytes(self.source) as stream:
            head = stream.read(_HEAD).removeprefix(_BOM)
        records = sniff(head)
        return records, header(self.source.name, head, records)

    def survey(self) -> dict[str, TextGuess]:
        """Look at every value."""
        _, names = self._head
        guesses = dict.fromkeys(names, TextGuess())
        for texts in self._texts():
            for name in names:
                guesses[name] = guesses[name].add(texts.table.column(name))
        return guesses

    def read(self, schema: pa.Schema) -> Iterator[Block]:
        """Read every row with the types of `schema`."""
        for texts in self._texts():
            yield _typed(texts, schema, self._head[0])

    def texts(self) -> pa.Table:
        """Read every row with as many values as the header, each value as it came."""
        return pa.concat_tables([texts.table for texts in self._texts()])

    def form(self) -> CsvRecords:
        """How the values of a record are kept apart."""
        return self._head[0]

    def _texts(self) -> Iterator[_Texts]:
        records, names = self._head
        with open_bytes(self.source) as stream:
            _, start = records.first(stream.read(_HEAD).removeprefix(_BOM))
            row = 0
            for block in whole_records(stream, records, start):
                if isinstance(block, Lost):
                    texts = _lost(block, names, row)
                else:
                    texts = _parse(block, names, records, row)
                row = texts.end
                yield texts


def sniff_delimiter(head: bytes) -> str:
    """The delimiter under which most of the first records have as many values as the header."""
    lines = head.decode("utf-8", "replace").splitlines()[: _SNIFFED + 1]
    scores = []
    for delimiter in _DELIMITERS:
        widths = [len(r) for r in _rows(lines, delimiter) if r]
        same = sum(w == widths[0] for w in widths) / len(widths) if widths else 0.0
        scores.append((same if widths and widths[0] > 1 else 0.0, widths[0] if widths else 0))
    best = max(range(len(_DELIMITERS)), key=lambda i: (scores[i], -i))
    return _DELIMITERS[best] if scores[best][0] else ","


def sniff(head: bytes) -> CsvRecords:
    """How the records of a file are cut, judged by its start.

    TSV is often written without quoting, and then a quote at the start of a text would
    swallow the rows up to the next one. So in TSV quotes are characters like others as
    soon as one stands where a writer that quotes would put none.
    """
    delimiter = sniff_delimiter(head).encode()
    whole = head[: head.rfind(b"\n") + 1] or head
    quoting = delimiter != b"\t" or CsvRecords(delimiter).well_quoted(whole)
    return CsvRecords(delimiter, quoting)


def header(name: str, head: bytes, records: CsvRecords) -> tuple[str, ...]:
    """The names of the columns, from the first record of a file.

    Raises
    ------
    InputError
        If there is none, or names repeat, or it looks like data.
    """
    first, rest = records.first(head)
    if not rest and len(head) >= _HEAD - len(_BOM):
        raise InputError(
            f"the header of {name} has no end within {_HEAD // 2**20} MiB",
            expected="a first line that names the columns",
        )
    try:
        cells = next(_rows([first.decode()], records.delimiter.decode(), records.quoting), [])
    except UnicodeDecodeError:
        raise InputError(f"the header of {name} is not UTF-8", do="save it as UTF-8") from None
    if not cells:
        raise InputError(f"{name} has no header", expected="a first line that names the columns")
    if _looks_like_data(cells):
        raise InputError(
            f"the first line of {name} looks like data: {', '.join(map(repr, cells[:4]))}",
            expected="a first line that names the columns",
        )
    return checked_names(name, [cell or f"Unnamed: {i}" for i, cell in enumerate(cells)])


def _looks_like_data(cells: list[str]) -> bool:
    named_by_number = [c for c in cells if _NUMERIC.fullmatch(c.strip())]
    if len(named_by_number) < len(cells):
        return len(set(named_by_number)) < len(named_by_number)
    # Numbered columns, or wavelengths, do name columns.
    numbers = [float(cell) for cell in cells]
    if len(cells) == 1:
        return numbers != [0.0]
    return any(a >= b for a, b in pairwise(numbers))


def _rows(lines: list[str], delimiter: str, quoting: bool = True) -> Iterator[list[str]]:
    text = io.StringIO("\n".join(lines), newline="")
    try:
        if quoting:
            yield from csv.reader(text, delimiter=delimiter)
        else:
            yield from csv.reader(text, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    except csv.Error:
        return


def _no_rows(names: tuple[str, ...]) -> pa.Table:
    return pa.table([pa.array([], pa.string()) for _ in names], names=list(names))


def _lost(block: Lost, names: tuple[str, ...], row: int) -> _Texts:
    lost = Unreadable(row, block.raw, block.reason)
    return _Texts(_no_rows(names), np.empty(0, np.int64), (lost,), b"", row, row + 1)


def _parse(block: bytes, names: tuple[str, ...], records: CsvRecords, row: int) -> _Texts:
    try:
        table = _parse_fast(block, names, records, _CHUNK)
    except pa.ArrowInvalid:
        return _parse_carefully(block, names, records, row)
    end = row + table.num_rows
    return _Texts(table, np.arange(row, end, dtype=np.int64), (), block, row, end)


def _parse_fast(
    block: bytes, names: tuple[str, ...], records: CsvRecords, chunk: int, skip: object = None
) -> pa.Table:
    """Parse whole records; raises pa.ArrowInvalid where one is wrong and `skip` is None."""
    if block.startswith(_BOM):
        # Here it is data, as where files were joined. The parser would eat it.
        block = b"\n" + block
    return pacsv.read_csv(
        pa.BufferReader(block),
        read_options=pacsv.ReadOptions(
            column_names=[str(i) for i in range(len(names))],
            block_size=chunk,
            use_threads=skip is None,
        ),
        parse_options=pacsv.ParseOptions(
            delimiter=records.delimiter.decode(),
            quote_char='"' if records.quoting else False,
            newlines_in_values=records.quoting and b'"' in block,
            invalid_row_handler=skip,
        ),
        convert_options=pacsv.ConvertOptions(
            column_types={str(i): pa.string() for i in range(len(names))},
            null_values=MISSING,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    ).rename_columns(list(names))


def _parse_carefully(block: bytes, names: tuple[str, ...], cutter: CsvRecords, row: int) -> _Texts:
    """Find the records that are no rows, and parse the others."""
    records = cutter.split(block)
    reasons = {i: reason for i, r in enumerate(records) if (reason := _not_text(r))}
    good = [i for i in range(len(records)) if i not in reasons]
    ragged: dict[int, str] = {}

    def skip(found: pacsv.InvalidRow) -> str:
        reason = f"{found.actual_columns} values where the header has {found.expected_columns}"
        ragged[good[found.number - 1]] = reason
        return "skip"

    table = _no_rows(names)
    if good:
        text = b"".join(records[i] + b"\n" for i in good)
        table = _parse_fast(text, names, cutter, len(text) + 1, skip)
    reasons |= ragged
    kept = np.array([i for i in good if i not in reasons], dtype=np.int64)
    _same_count(table, len(kept), row)
    bad = tuple(_unreadable(row + i, records[i], reasons[i]) for i in sorted(reasons))
    return _Texts(table, row + kept, bad, block, row, row + len(records))


def _same_count(table: pa.Table, records: int, row: int) -> None:
    # Two parsers of ours look at these records; rows are conserved only if they agree.
    if table.num_rows != records:
        raise InputError(
            f"{records} CSV records near row {row} were read as {table.num_rows} rows",
            do="please report it with these rows; write the file anew to go on",
        )


def _unreadable(row: int, record: bytes, reason: str) -> Unreadable:
    if len(record) > MAX_LINE:
        return Unreadable(row, *too_long(record, len(record)))
    return Unreadable(row, raw_text(record), reason)


def _not_text(record: bytes) -> str | None:
    if len(record) > MAX_LINE:
        return "too long"
    try:
        record.decode()
    except UnicodeDecodeError as error:
        return f"byte {error.start} is not valid UTF-8"
    return None


def _typed(texts: _Texts, schema: pa.Schema, records: CsvRecords) -> Block:
    """Give the columns their types; a row with a value that does not fit is unreadable."""
    columns: list[pa.ChunkedArray] = []
    reasons: dict[int, str] = {}
    for field in schema:
        values = texts.table.column(field.name)
        column, misfits = convert(values, field.type)
        columns.append(column)
        if misfits is not None:
            for i in np.flatnonzero(misfits).tolist():
                reasons.setdefault(i, misfit(field, values[i].as_py()))
    table = pa.table(columns, schema=schema)
    if not reasons:
        return Block(table, texts.positions, texts.unreadable, _Lines(texts, records).of)
    lines = _Lines(texts, records)
    found = zip(lines.records(list(reasons)), reasons.items(), strict=True)
    bad = [_unreadable(int(texts.positions[i]), line, reason) for line, (i, reason) in found]
    kept = np.ones(table.num_rows, dtype=bool)
    kept[list(reasons)] = False
    rows = np.flatnonzero(kept)
    return Block(
        table.filter(pa.array(kept)),
        texts.positions[kept],
        tuple(sorted([*texts.unreadable, *bad], key=lambda u: u.row)),
        lambda some: lines.of(rows[list(some)].tolist()),
    )


@dataclass(frozen=True)
class _Lines:
    """The records of a block, cut once, when the first is asked for."""

    texts: _Texts
    cutter: CsvRecords

    @cached_property
    def _cut(self) -> list[bytes]:
        lines = self.cutter.split(self.texts.text)
        _same_count(self.texts.table, len(lines) - len(self.texts.unreadable), self.texts.start)
        return lines

    def records(self, rows: Sequence[int]) -> list[bytes]:
        """The records of rows that were parsed, by their places among these."""
        return [self._cut[int(self.texts.positions[row]) - self.texts.start] for row in rows]

    def of(self, rows: Sequence[int]) -> list[str]:
        return [raw_text(record) for record in self.records(rows)]
