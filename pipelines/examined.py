"""Evidence as it lies in a folder: a file per shard, one of the trusted rows, and a marker."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.disk import read_json, write_json
from pipelines.keepsakes import files_of, read_keepsake
from pipelines.shards import shard_name
from sanitizers.core.errors import IntegrityError
from sanitizers.core.evidence import SCHEMA
from sanitizers.core.keepsake import Keepsake
from sanitizers.core.sanitizer import Influence

#: Written last: what lies beside it is whole.
MARKER = "evidence.json"


@dataclass(frozen=True)
class Examined:
    """The evidence of one sanitizer.

    Parameters
    ----------
    name : str
        The sanitizer.
    folder : Path
        Holds ``evidence-00000.parquet`` and so on, one per shard, in the shard's order.
    rows, abstained : int
    seconds : float
        What fitting and scoring took when they were done.
    skipped : tuple of (str, str)
        Feature columns that could not be used, each with the reason.
    influence : Influence or None
        What the finds do to what is learned, where the sanitizer says so.
    trusted : int
        How many trusted rows it judged too; their evidence is in ``trusted-00000.parquet``.
    conformal : bool
        Whether its p-values are conformal on just these scores of the trusted rows.
    terms : tuple of str
        Sanitizers whose evidence this was made from; empty where it comes from the rows.
    kept : tuple of (str, str)
        The digest and the origin of every keepsake; they lie in `kept_folder`.
    earlier : int
        Files of the evidence of rows of an earlier release, ``earlier-00000.parquet`` ...
    """

    name: str
    folder: Path
    rows: int
    abstained: int
    seconds: float
    skipped: tuple[tuple[str, str], ...] = ()
    influence: Influence | None = None
    trusted: int = 0
    conformal: bool = False
    terms: tuple[str, ...] = ()
    kept: tuple[tuple[str, str], ...] = ()
    earlier: int = 0

    @classmethod
    def finished(cls, folder: Path, shards: int) -> Examined | None:
        """Load the evidence of so many shards, or None where any of it is not there."""
        if not (folder / MARKER).is_file():
            return None
        found = cls.load(folder)
        files = [evidence_file(folder, number) for number in range(shards)]
        files += [trusted_file(folder)] if found.trusted else []
        files += [earlier_file(folder, number) for number in range(found.earlier)]
        files += [kept_folder(folder) / name for d, _ in found.kept for name in files_of(d)]
        return found if all(file.is_file() for file in files) else None

    @classmethod
    def load(cls, folder: Path) -> Examined:
        """Read the marker of finished evidence.

        Raises
        ------
        IntegrityError
            If there is none, or it is malformed.
        """
        value = read_json(folder / MARKER)
        try:
            return cls(
                str(value["sanitizer"]),
                folder,
                int(value["rows"]),
                int(value["abstained"]),
                float(value["seconds"]),
                tuple((str(column), str(why)) for column, why in value["skipped"]),
                _influence(value["influence"]),
                int(value["trusted"]),
                bool(value["conformal"]),
                tuple(str(name) for name in value["terms"]),
                tuple((str(digest), str(origin)) for digest, origin in value["kept"]),
                int(value.get("earlier", 0)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"{folder / MARKER} is malformed: {error!r}") from None

    def write(self, settings: Mapping[str, Any]) -> Examined:
        """Write the marker, which says that the evidence is whole."""
        value = {
            "sanitizer": self.name,
            "settings": dict(settings),
            "rows": self.rows,
            "abstained": self.abstained,
            "seconds": self.seconds,
            "skipped": [list(pair) for pair in self.skipped],
            "influence": _told(self.influence),
            "trusted": self.trusted,
            "conformal": self.conformal,
            "terms": list(self.terms),
            "kept": [list(pair) for pair in self.kept],
            "earlier": self.earlier,
        }
        write_json(self.folder / MARKER, value)
        return self


def _influence(value: Mapping[str, Any] | None) -> Influence | None:
    if value is None:
        return None
    tail = value["tail"]
    return Influence(float(value["moved"]), math.inf if tail is None else float(tail))


def _told(influence: Influence | None) -> dict[str, float | None] | None:
    """As JSON, which knows no infinite number."""
    if influence is None:
        return None
    return {
        "moved": influence.moved,
        "tail": None if math.isinf(influence.tail) else influence.tail,
    }


def evidence_file(folder: Path, shard: int) -> Path:
    """Where the evidence of a shard lies in a folder of evidence."""
    return folder / shard_name(shard, "evidence")


def trusted_file(folder: Path) -> Path:
    """Where the evidence of the trusted rows lies in a folder of evidence."""
    return folder / shard_name(0, "trusted")


def earlier_file(folder: Path, shard: int) -> Path:
    """Where the evidence of a shard of an earlier release lies in a folder of evidence."""
    return folder / shard_name(shard, "earlier")


def kept_folder(folder: Path) -> Path:
    """Where the keepsakes of a fit lie in a folder of evidence."""
    return folder / "kept"


def read_kept(folder: Path) -> tuple[Keepsake, ...]:
    """Read the keepsakes that a fit has left in a folder of evidence; none where it is unfinished.

    Raises
    ------
    IntegrityError
        If any of them is not as it was written.
    """
    listed = Examined.load(folder).kept if (folder / MARKER).is_file() else ()
    return tuple(read_keepsake(kept_folder(folder), digest, origin) for digest, origin in listed)


def read_trusted(folder: Path) -> pa.Table:
    """Read the evidence of the trusted rows, of a file of their own and of a column alike.

    Raises
    ------
    IntegrityError
        If it is missing or unreadable.
    """
    path = trusted_file(folder)
    table = read_file(path)
    if table is None:
        raise IntegrityError(f"{path} is missing or damaged", do=f"remove {folder} and run again")
    return table


def read_evidence(folder: Path, shard: int, row_ids: pa.ChunkedArray) -> pa.Table:
    """Read the evidence of a shard, and check that it speaks of these rows.

    Raises
    ------
    IntegrityError
        If it is missing, unreadable, or of other rows.
    """
    return _read(evidence_file(folder, shard), row_ids)


def read_earlier(folder: Path, shard: int, row_ids: pa.ChunkedArray) -> pa.Table:
    """Read the evidence of a shard of an earlier release, as `read_evidence` does."""
    return _read(earlier_file(folder, shard), row_ids)


def _read(path: Path, row_ids: pa.ChunkedArray) -> pa.Table:
    table, again = read_file(path), f"remove {path.parent} and run again"
    if table is None:
        raise IntegrityError(f"{path} is missing or damaged", do=again)
    if not table.column("row_id").equals(row_ids.cast(pa.string())):
        raise IntegrityError(f"{path} is about other rows than the input", do=again)
    return table


def read_file(path: Path) -> pa.Table | None:
    """Read evidence, or None where the file is missing, damaged or of another schema."""
    try:
        table = pq.read_table(path, schema=SCHEMA)
    except (OSError, pa.ArrowException):
        return None
    return table if table.schema.equals(SCHEMA) else None
