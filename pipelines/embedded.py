"""What embedding leaves: files of vectors, and shards that have them as one column more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyarrow as pa

from pipelines.disk import read_json, write_json
from pipelines.shards import ParquetShard, shard_name
from sanitizers.core.data import EMBEDDING, Dataset
from sanitizers.core.errors import IntegrityError

#: Written last: what lies beside it is whole.
MARKER = "embeddings.json"


@dataclass(frozen=True)
class Embedded:
    """The embeddings of some rows.

    Parameters
    ----------
    encoder : str
    folder : Path
        Holds ``embeddings-00000.parquet`` and so on, one per shard, in the shard's order.
    device : str
        What they were computed on.
    rows, missing : int
        All rows, and those without an image.
    width : int
        Numbers of a vector.
    seconds : float
        What it took, fitting among it.
    """

    encoder: str
    folder: Path
    device: str
    rows: int
    missing: int
    width: int
    seconds: float

    @classmethod
    def load(cls, folder: Path) -> Embedded:
        """Read the marker of finished embeddings.

        Raises
        ------
        IntegrityError
            If there is none, or it is malformed.
        """
        value = read_json(folder / MARKER)
        try:
            return cls(
                str(value["encoder"]),
                folder,
                str(value["device"]),
                int(value["rows"]),
                int(value["missing"]),
                int(value["width"]),
                float(value["seconds"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"{folder / MARKER} is malformed: {error!r}") from None

    @classmethod
    def finished(cls, folder: Path, shards: int) -> Embedded | None:
        """Load the embeddings of so many shards, or None where any of them is not there."""
        files = [embedding_file(folder, number) for number in range(shards)]
        there = all(path.is_file() for path in [folder / MARKER, *files])
        return cls.load(folder) if there else None

    def write(self) -> Embedded:
        """Write the marker, which says that the embeddings are whole."""
        value = {name: v for name, v in asdict(self).items() if name != "folder"}
        write_json(self.folder / MARKER, value)
        return self


@dataclass(frozen=True)
class EmbeddedShard:
    """The rows of a shard, with their embeddings as one column more.

    Parameters
    ----------
    rows_file, embeddings : ParquetShard
    """

    rows_file: ParquetShard
    embeddings: ParquetShard

    @property
    def schema(self) -> pa.Schema:
        """The columns and their types."""
        return self.rows_file.schema.append(self.embeddings.schema.field(EMBEDDING))

    @property
    def rows(self) -> int:
        """How many rows the shard holds."""
        return self.rows_file.rows

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows; `columns` limits what is read, None reads all."""
        names = self.schema.names if columns is None else list(columns)
        table = self.rows_file.read([name for name in names if name != EMBEDDING])
        if EMBEDDING not in names:
            return table
        vectors = self.embeddings.read([EMBEDDING])
        if len(vectors) != self.rows:
            raise IntegrityError(
                f"{self.embeddings.path} holds {len(vectors):,} embeddings",
                expected=f"{self.rows:,}, one for each row",
                do="remove its folder and run again",
            )
        return table.append_column(EMBEDDING, vectors.column(0)).select(names)

    def row(self, at: int) -> pa.Table:
        """Read one row by its position."""
        vector = self.embeddings.row(at, [EMBEDDING]).column(0)
        return self.rows_file.row(at).append_column(EMBEDDING, vector)


def with_embeddings(dataset: Dataset, folders: Sequence[Path]) -> Dataset:
    """A dataset whose shards hold their embeddings too, as its role ``embedding``.

    Parameters
    ----------
    dataset : Dataset
        Of Parquet shards.
    folders : sequence of Path
        As `embed` has filled them.
    """
    parts = [
        tuple(
            EmbeddedShard(shard, ParquetShard(embedding_file(folder, number)))
            for number, shard in enumerate(shards)
            if isinstance(shard, ParquetShard)
        )
        for folder, shards in zip(folders, (dataset.shards, dataset.trusted), strict=False)
    ]
    return replace(
        dataset,
        shards=parts[0],
        trusted=parts[1] if len(parts) > 1 else (),
        roles=replace(dataset.roles, embedding=EMBEDDING),
    )


def embedding_file(folder: Path, shard: int) -> Path:
    """Where the embeddings of a shard lie in a folder of them."""
    return folder / shard_name(shard, "embeddings")
