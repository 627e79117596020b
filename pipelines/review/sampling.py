"""A sample of a run's rows, kept beside the index, in which the neighbours of a row are found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.disk import write_table
from pipelines.embedded import EmbeddedShard, embedding_file, with_embeddings
from pipelines.ingested import Ingested
from pipelines.manifest import Run
from pipelines.shards import ParquetShard
from pipelines.store import Store
from sanitizers.core.data import ROW_ID, ROW_KEY, Dataset, MemoryShard, Roles

#: Rows of the sample, about, and neighbours that are shown.
ROWS, NEIGHBOURS = 4_000, 6


@dataclass(frozen=True)
class Neighbour:
    """A row near another.

    Parameters
    ----------
    row_id : str
    label : str or None
    distance : float
        In the encoded features, each of which has a spread of about 1.
    """

    row_id: str
    label: str | None
    distance: float


@dataclass(frozen=True)
class Sample:
    """Some rows of a run, seen through its roles.

    Parameters
    ----------
    dataset : Dataset
        Of the sampled rows only.
    rows : int
    """

    dataset: Dataset
    rows: int

    def nearest(self, row: pa.Table) -> tuple[Neighbour, ...]:
        """Those of the sample that lie nearest to a row, itself left out.

        Parameters
        ----------
        row : pyarrow.Table
            One row, with the columns of the sample.
        """
        sampled = next(self.dataset.batches())
        point = self.dataset.batch(row.select(self.dataset.shards[0].schema.names)).X
        distance = np.sqrt(((sampled.X - point) ** 2).sum(axis=1, dtype=np.float64))
        own = row.column(ROW_ID)[0].as_py()
        ids = sampled.row_ids.to_pylist()
        labels = sampled.labels if self.dataset.roles.label else [None] * len(ids)
        order = [i for i in np.argsort(distance, kind="stable")[: NEIGHBOURS + 1] if ids[i] != own]
        return tuple(Neighbour(ids[i], labels[i], float(distance[i])) for i in order[:NEIGHBOURS])


def write_sample(store: Store, run: Run, roles: Roles, path: Path) -> None:
    """Keep a sample of the rows of a run; nothing where models learn from no column."""
    data = _dataset(store, run, roles)
    if data.roles.learned:
        wanted = [ROW_ID, ROW_KEY, *data.roles.columns]
        table = data.sample(ROWS, "neighbours").table
        write_table(table.select([n for n in wanted if n in table.column_names]), path)


def read_sample(path: Path, store: Store, run: Run, roles: Roles) -> Sample | None:
    """Read the sample; None where there is none."""
    if not path.is_file():
        return None
    table = pq.ParquetFile(path).read()
    seen = _dataset(store, run, roles).roles
    return Sample(Dataset((MemoryShard(table),), seen, store.salt), table.num_rows)


def row_of(
    store: Store, run: Run, ingested: Ingested, at: tuple[int, int]
) -> tuple[pa.Table, Mapping[str, Any]]:
    """One row of an input, with its embedding where it has one.

    Parameters
    ----------
    at : (int, int)
        Its shard, and its position there.
    """
    shard: ParquetShard | EmbeddedShard = ingested.shard_files()[at[0]]
    if run.embedding is not None:
        folder = store.embeddings(run.dataset, run.embedding.key)
        assert isinstance(shard, ParquetShard)
        shard = EmbeddedShard(shard, ParquetShard(embedding_file(folder, at[0])))
    table = shard.row(at[1])
    return table, table.to_pylist()[0]


def _dataset(store: Store, run: Run, roles: Roles) -> Dataset:
    """The rows of a run as its sanitizers saw them, but for the pixels of images."""
    ingested = Ingested.load(store.inputs(run.dataset, run.input))
    data = Dataset(ingested.shard_files(), replace(roles, image=None), store.salt)
    if run.embedding is None:
        return data
    return with_embeddings(data, [store.embeddings(run.dataset, run.embedding.key)])
