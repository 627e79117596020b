"""The draw of an audit: rows in an order that nobody who supplies rows can choose or foresee."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.audit import PURPOSE, Audit
from pipelines.disk import write_table
from pipelines.review.part import Part
from sanitizers.core.data import ROW_ID, ROW_KEY, TRUSTED_ROWS, mix

#: The file of a draw.
DRAW = "draw.parquet"
#: Rows of it, at most: as many as are ever trusted.
MOST = TRUSTED_ROWS

_PLACES = ("part", "shard", "position")


@dataclass(frozen=True)
class Drawn:
    """A row that was drawn, and where it lies."""

    row_id: str
    part: int
    shard: int
    position: int


@dataclass(frozen=True)
class Draw:
    """The first rows of all rows that could be read, in the order of their salted keys.

    Parameters
    ----------
    rows : tuple of Drawn
    """

    rows: tuple[Drawn, ...]

    @classmethod
    def read(cls, path: Path) -> Draw:
        """Read what `write_draw` has written."""
        table = pq.ParquetFile(path).read()
        columns = [table.column(name).to_pylist() for name in (ROW_ID, *_PLACES)]
        return cls(tuple(Drawn(*row) for row in zip(*columns, strict=True)))

    @cached_property
    def _places(self) -> dict[str, Drawn]:
        return {row.row_id: row for row in self.rows}

    def find(self, row_id: str) -> Drawn | None:
        """A row of the draw by its id."""
        return self._places.get(row_id)

    def due(self, audit: Audit) -> Drawn | None:
        """The first row on which no audit has ruled.

        A row on which people have ruled otherwise is drawn like all others: were those left
        out, the sample would lack the odd ones among the right rows.
        """
        return next((row for row in self.rows if row.row_id not in audit.ruled), None)

    def counts(self, audit: Audit) -> tuple[int, int]:
        """How many rows of it were ruled on in audits, and how many of these are trusted."""
        done = [row.row_id for row in self.rows if row.row_id in audit.ruled]
        return len(done), sum(row_id in audit.kept for row_id in done)


def write_draw(parts: Sequence[Part], path: Path, most: int = MOST) -> None:
    """Draw rows of all parts, in memory set by a shard and the rows that are drawn.

    Parameters
    ----------
    parts : sequence of Part
    path : Path
    most : int
    """
    best: pa.Table | None = None
    for table in _tables(parts, most):
        best = _first(table if best is None else pa.concat_tables([best, table]), most)
    assert best is not None
    write_table(best.drop_columns("key"), path)


def _tables(parts: Sequence[Part], most: int) -> Iterator[pa.Table]:
    for part, one in enumerate(parts):
        for shard, file in enumerate(one.ingested.shard_files()):
            table = file.read([ROW_ID, ROW_KEY])
            rows = table.num_rows
            columns = {
                ROW_ID: table.column(ROW_ID).cast(pa.string()),
                "key": pa.array(mix(table.column(ROW_KEY).to_numpy(), PURPOSE)),
                "part": pa.array(np.full(rows, part), pa.int32()),
                "shard": pa.array(np.full(rows, shard), pa.int32()),
                "position": pa.array(np.arange(rows), pa.int64()),
            }
            yield _first(pa.table(columns), most)


def _first(table: pa.Table, most: int) -> pa.Table:
    order = np.argsort(table.column("key").to_numpy(), kind="stable")[:most]
    return table.take(pa.array(order))
