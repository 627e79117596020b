"""Poisoned copies of a file, in the format of the file: what is unchanged reads as it did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.disk import write_bytes, write_table
from pipelines.readers.delimited import DelimitedReader
from pipelines.readers.records import CsvRecords
from pipelines.readers.sources import Source
from pipelines.readers.texts import MISSING
from pipelines.truth import origins
from sanitizers.core.errors import PlanError
from sanitizers.poisons import Poisoned

#: Endings of the files that can be written.
ENDINGS = {
    ".csv": "csv", ".tsv": "csv", ".tab": "csv", ".psv": "csv",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip


def default_name(source: Source) -> str:
    """``mine.csv.gz`` becomes ``mine.poisoned.csv``; what is no text becomes Parquet."""
    name = source.path.name
    if source.gzipped:
        name = name.removesuffix(".gz").removesuffix(".gzip")
    stem, ending = Path(name).stem, Path(name).suffix.lower()
    if source.format != "csv":
        ending = ending if ENDINGS.get(ending) == "parquet" else ".parquet"
    elif ENDINGS.get(ending) != "csv":
        ending = ".csv"
    return f"{stem}.poisoned{ending}"


def check_ending(source: Source, out: Path) -> None:
    """Refuse a file that cannot be written from this source.

    Raises
    ------
    PlanError
        If the ending is not known, or is one of texts and the source has types.
    """
    wanted = ENDINGS.get(out.suffix.lower())
    possible = [e for e, kind in ENDINGS.items() if kind == "parquet" or source.format == "csv"]
    if wanted is None or out.suffix.lower() not in possible:
        raise PlanError(
            f"{out.name} cannot be written from {source.name}",
            expected=f"a name that ends in {', '.join(possible[:4])}",
        )


def write(source: Source, clean: pa.Table, done: Poisoned, path: Path) -> None:
    """Write a poisoned copy of a file.

    Parameters
    ----------
    source : Source
        The clean file; every row of it can be read.
    clean : pyarrow.Table
        Its rows.
    done : Poisoned
    path : Path
        Its ending says the format.
    """
    if ENDINGS[path.suffix.lower()] == "parquet":
        write_table(done.table, path)
        return
    reader = DelimitedReader(source)
    form = reader.form()
    columns = _texts(reader.texts(), clean, done)
    lines = [_line(clean.column_names, form, header=True), *_lines(columns, form)]
    write_bytes(path, "".join(lines).encode())


def _texts(texts: pa.Table, clean: pa.Table, done: Poisoned) -> list[list[str | None]]:
    """The poisoned table as texts, column by column."""
    poison = done.truth.column("row").to_numpy()
    new = done.truth.filter(done.truth.column("added")).column("row").to_numpy()
    origin = origins(new, done.table.num_rows)
    out = []
    for name in clean.column_names:
        column = texts.column(name)
        # An added row takes the texts of the first one, and then loses them.
        values = column.take(pa.array(np.maximum(origin, 0))).to_pylist()
        before, after = clean.column(name), done.table.column(name)
        fresh = _fresh(column, before, after.take(pa.array(poison)))
        old = before.take(pa.array(np.maximum(origin[poison], 0))).to_pylist()
        now = after.take(pa.array(poison)).to_pylist()
        for row, text, was, value in zip(poison.tolist(), fresh, old, now, strict=True):
            if origin[row] < 0 or was != value:
                values[row] = text
        out.append(values)
    return out


def _fresh(texts: pa.ChunkedArray, clean: pa.ChunkedArray, values: pa.ChunkedArray) -> list[str]:
    """Values as texts: like the first row that has the same value, else as Arrow writes them."""
    known = pc.index_in(values, value_set=clean.combine_chunks())
    like = texts.take(known.combine_chunks()).to_pylist()
    written = values.cast(pa.string()).to_pylist()
    pattern = next((text for text in texts.drop_null().slice(0, 1).to_pylist()), "")
    if pa.types.is_timestamp(clean.type) and "T" in pattern:
        written = [text and text.replace(" ", "T", 1) for text in written]
    found = known.is_valid().to_pylist()
    return [a if there else b for there, a, b in zip(found, like, written, strict=True)]


def _lines(columns: Sequence[Sequence[str | None]], form: CsvRecords) -> Iterator[str]:
    for values in zip(*columns, strict=True):
        yield _line(values, form)


def _line(values: Sequence[str | None], form: CsvRecords, *, header: bool = False) -> str:
    delimiter = form.delimiter.decode()
    if len(values) == 1 and values[0] is None:
        return "NA\n"  # an empty line would be no row
    return delimiter.join(_cell(v, delimiter, form.quoting, header) for v in values) + "\n"


def _cell(text: str | None, delimiter: str, quoting: bool, header: bool) -> str:
    if text is None:
        return ""
    special = any(c in text for c in (delimiter, '"', "\n", "\r"))
    if not quoting or not (special or (text in MISSING and not header)):
        return text
    return '"' + text.replace('"', '""') + '"'
