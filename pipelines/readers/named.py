"""Images that a table names by their paths, which are relative to the table's folder."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipelines.ingested import SourceFile
from pipelines.readers import open_reader
from pipelines.readers.inside import RefusedError, read_inside, stamp, windows
from pipelines.readers.sources import Source, identify
from sanitizers.core.encoder import is_category
from sanitizers.core.errors import PlanError, did_you_mean
from sanitizers.core.images import in_parallel

#: What is known of a file: its bytes, or the reason why it is not read, None without a name.
Content = bytes | str | None


@dataclass(frozen=True)
class NamedImages:
    """The images that a column of tables names.

    Parameters
    ----------
    sources : tuple of Source
        The tables whose column holds paths.
    column : str
    """

    sources: tuple[Source, ...]
    column: str

    @classmethod
    def of(cls, paths: Sequence[Path], names: Sequence[str], column: str | None) -> NamedImages:
        """Find the tables whose column holds paths; there may be none."""
        if column is None:
            return cls((), "")
        sources = [identify(*pair) for pair in zip(paths, names, strict=True)]
        return cls(tuple(s for s in sources if _holds_paths(s, column)), column)

    def entry(self) -> list[SourceFile]:
        """What manifests say of all of them, whose rows are those of their tables."""
        if not self.sources:
            return []
        sha256, size = self.digest()
        return [SourceFile(f"images named by {self.column!r}", "images", size, sha256, 0, 0)]

    def digest(self) -> tuple[str, int]:
        """A SHA-256 over the paths and the contents in the order of the rows, and their bytes."""
        size = 0

        def said(folder: Path, names: Sequence[str | None]) -> Iterator[str]:
            nonlocal size
            for part in windows(folder, names):
                for content in contents(folder, names[part]):
                    size += len(content) if isinstance(content, bytes) else 0
                    yield _digest(content)

        return self._over_all(said), size

    def stamp(self) -> str:
        """A digest over paths, sizes and times: cheaper than one over contents."""
        return self._over_all(
            lambda folder, names: (str(name and stamp(folder, name)) for name in names)
        )

    def _over_all(self, say: Callable[[Path, Sequence[str | None]], Iterator[str]]) -> str:
        whole = hashlib.sha256()
        for folder, names in self._names():
            for name, said in zip(names, say(folder, names), strict=True):
                whole.update(f"{name}\0{said}\n".encode())
        return whole.hexdigest()

    def _names(self) -> Iterator[tuple[Path, list[str | None]]]:
        schema = pa.schema([pa.field(self.column, pa.string())])
        for source in self.sources:
            with tempfile.TemporaryDirectory(prefix="sanitize-") as work:
                reader = open_reader(source, Path(work))
                try:
                    for block in reader.read(schema):
                        yield home_of(source), block.table.column(0).to_pylist()
                except KeyError:
                    raise PlanError(
                        f"no column {self.column!r} for the images in {source.name}",
                        do=did_you_mean(self.column, reader.survey()),
                    ) from None


def home_of(source: Source) -> Path:
    """The folder of a table, which no path in it leads out of."""
    return Path(os.path.realpath(source.path.parent))


def contents(folder: Path, names: Sequence[str | None]) -> list[Content]:
    """Read some files of a folder."""

    def one(name: str | None) -> Content:
        try:
            return None if name is None else read_inside(folder, name)
        except RefusedError as error:
            return str(error)

    return in_parallel(one, names)


def _holds_paths(source: Source, column: str) -> bool:
    if source.format in {"csv", "jsonl"}:
        return True
    if source.format == "imagefolder":
        return False
    with tempfile.TemporaryDirectory(prefix="sanitize-") as work:
        known = open_reader(source, Path(work)).survey()
    return column in known and is_category(known[column].field(column).type)


def _digest(content: Content) -> str:
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else f"{content}"
