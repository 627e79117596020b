"""The rows that a person vouches for, which no verdict may touch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.ingest import Ingested
from pipelines.shards import ParquetShard
from sanitizers.core.data import ROW_ID, Roles


@dataclass(frozen=True)
class Vouched:
    """The rows that a person vouches for: by a column, or by their ids.

    Parameters
    ----------
    column : str or None
        A boolean column of the data.
    ids : pyarrow.Array or None
        The ids of the rows of a file of their own.
    """

    column: str | None
    ids: pa.Array | None

    @classmethod
    def of(cls, roles: Roles, trusted: Ingested | None) -> Vouched:
        """Read which rows are vouched for."""
        if trusted is None:
            return cls(roles.trusted, None)
        read = [shard.read([ROW_ID]).column(ROW_ID) for shard in trusted.shard_files()]
        chunks = [chunk for column in read for chunk in column.chunks]
        return cls(roles.trusted, pa.chunked_array(chunks, pa.string()).combine_chunks())

    @property
    def any(self) -> bool:
        """Whether a person was asked to vouch at all."""
        return self.column is not None or self.ids is not None

    def read(self, shard: ParquetShard) -> tuple[pa.ChunkedArray, NDArray[np.bool_]]:
        """The ids of the rows of a shard, and which of them are vouched for."""
        table = shard.read([ROW_ID, *([self.column] if self.column else [])])
        given = np.zeros(table.num_rows, dtype=bool)
        if self.column:
            given |= pc.fill_null(table.column(self.column), False).to_numpy()
        if self.ids is not None:
            given |= pc.is_in(table.column(ROW_ID), value_set=self.ids).to_numpy()
        return table.column(ROW_ID), given
