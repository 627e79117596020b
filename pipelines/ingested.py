"""What an ingest leaves: shards, the files they came from, and what their columns hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pipelines.disk import digest_of, read_json
from pipelines.profiles import ColumnProfile
from pipelines.shards import ParquetShard
from sanitizers.core.data import Dataset, Roles
from sanitizers.core.errors import IntegrityError

#: The file that says that an ingest is done; written last.
MARKER = "input.json"
#: The rows that could not be read, as they came.
UNREADABLE = "unreadable.parquet"


@dataclass(frozen=True)
class SourceFile:
    """One file of the input, named by its content.

    Parameters
    ----------
    path : str
        Relative to the folder that was given, or the file name.
    format : str
        ``csv``, ``jsonl``, ``parquet``, ``arrow``, ``npz`` or ``imagefolder``; ``images``
        for all files together that a column of a table names, which has no rows of its own.
    bytes : int
    sha256 : str
    rows, unreadable : int
        Rows that could and could not be read.
    """

    path: str
    format: str
    bytes: int
    sha256: str
    rows: int
    unreadable: int


@dataclass(frozen=True)
class ShardFile:
    """One shard of the rows that could be read."""

    name: str
    rows: int
    sha256: str
    bytes: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Look at a shard that was written."""
        return cls(path.name, ParquetShard(path).rows, digest_of(path), path.stat().st_size)


@dataclass(frozen=True)
class Ingested:
    """An input that was ingested: its shards, and where they came from.

    Parameters
    ----------
    folder : Path
    files : tuple of SourceFile
    shards : tuple of ShardFile
    rows, unreadable : int
        Rows that could and could not be read; together all rows of the input.
    columns : tuple of ColumnProfile
        The columns of the input, in its order.
    id_column : str or None
        The column that the row ids come from; None where they are hashes of the content.
    digest : str
        Over the content of all files, in order.
    salt_digest : str
        Names the salt that the row keys are made with.
    onto : str or None
        The release that the rows join; None where they stand for themselves.
    earlier : tuple of ShardFile
        Clean rows of that release, a sample, for fits to look at.
    aside : tuple of ShardFile
        Rows that it has set aside, as large a share of them, for lines to be drawn on.
    again : int
        Rows that the release has too, value for value; unknown where a column names the rows.
    audited, lost : int
        Of rows that people vouch for, those that they kept in an audit, and those of these
        that are not in the data any more, or not as they were seen.
    """

    folder: Path
    files: tuple[SourceFile, ...]
    shards: tuple[ShardFile, ...]
    rows: int
    unreadable: int
    columns: tuple[ColumnProfile, ...]
    id_column: str | None
    digest: str
    salt_digest: str
    onto: str | None = None
    earlier: tuple[ShardFile, ...] = ()
    aside: tuple[ShardFile, ...] = ()
    again: int = 0
    audited: int = 0
    lost: int = 0

    @property
    def digests(self) -> list[str]:
        """The digests of all shards that fits and lines look at, in order."""
        return [shard.sha256 for shard in (*self.earlier, *self.aside, *self.shards)]

    def shard_files(self) -> tuple[ParquetShard, ...]:
        """The shards, in order."""
        return tuple(ParquetShard(self.folder / shard.name) for shard in self.shards)

    def published_files(self) -> tuple[ParquetShard, ...]:
        """Rows of the release that these join: clean ones, then those that it set aside."""
        shards = (*self.earlier, *self.aside)
        return tuple(ParquetShard(self.folder / shard.name) for shard in shards)

    def unreadable_file(self) -> Path | None:
        """The file of the rows that could not be read, None where there are none.

        Its columns are ``row_id``, ``file``, ``row``, ``raw`` and ``reason``.
        """
        return self.folder / UNREADABLE if self.unreadable else None

    def dataset(self, roles: Roles, salt: bytes, trusted: Ingested | None = None) -> Dataset:
        """See the rows through roles, after those of the release that they join."""
        shards = (*self.published_files(), *self.shard_files())
        vouched = trusted.shard_files() if trusted else ()
        return Dataset(shards, roles, salt, vouched, len(self.earlier), len(self.aside))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what an earlier ingest left in a folder.

        Raises
        ------
        IntegrityError
            If the marker is missing or damaged, or a shard is not there.
        """
        known = read_json(folder / MARKER)
        try:
            loaded = cls(folder, **_from_json(known))
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(
                f"{folder / MARKER} is damaged: {error}", do="remove its folder and run again"
            ) from None
        for shard in (*loaded.earlier, *loaded.aside, *loaded.shards):
            path = folder / shard.name
            if not path.is_file() or path.stat().st_size != shard.bytes:
                raise IntegrityError(
                    f"{path} is not what was written", do="remove its folder and run again"
                )
        return loaded


def _from_json(known: dict[str, Any]) -> dict[str, Any]:
    """The fields of `Ingested` from the marker."""
    plain = ("rows", "unreadable", "id_column", "digest", "salt_digest")
    return {
        "files": tuple(SourceFile(**f) for f in known["files"]),
        "shards": tuple(ShardFile(**s) for s in known["shards"]),
        "columns": tuple(ColumnProfile(**c) for c in known["columns"]),
        "onto": known.get("onto"),
        "earlier": tuple(ShardFile(**s) for s in known.get("earlier", ())),
        "aside": tuple(ShardFile(**s) for s in known.get("aside", ())),
        **{name: known.get(name, 0) for name in ("again", "audited", "lost")},
        **{name: known[name] for name in plain},
    }
