"""Examine: fit one sanitizer on a dataset, score it shard by shard, keep the evidence."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.disk import make_folder, read_json, write_json, write_table
from pipelines.ingest import Ingested
from pipelines.manifest import tool
from pipelines.progress import SILENT, Progress
from pipelines.quiet import quiet
from pipelines.shards import shard_name
from pipelines.store import key_of, salt_digest
from sanitizers.core.data import Batch, Dataset, Roles
from sanitizers.core.errors import EvidenceError, IntegrityError, PlanError, SanitizeError
from sanitizers.core.evidence import SCHEMA, examine_batch
from sanitizers.core.sanitizer import Influential, Sanitizer, Scorer

#: Counts up when evidence files change their meaning.
EVIDENCE_FORMAT = 2
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
    influence : float or None
        How far the finds bend what is learned, where the sanitizer says so.
    """

    name: str
    folder: Path
    rows: int
    abstained: int
    seconds: float
    skipped: tuple[tuple[str, str], ...] = ()
    influence: float | None = None

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
                None if value["influence"] is None else float(value["influence"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"{folder / MARKER} is malformed: {error!r}") from None


def evidence_key(
    recipe: Sanitizer, ingested: Ingested, roles: Roles, salt: bytes, trusted: Ingested | None
) -> str:
    """Name the evidence of a sanitizer by all that decides it.

    Parameters
    ----------
    recipe : Sanitizer
    ingested : Ingested
        Named by the digests of its shards, so also by their ids and their order.
    roles : Roles
    salt : bytes
    trusted : Ingested or None
    """
    return key_of(
        "evidence",
        EVIDENCE_FORMAT,
        tool().version,
        _recipe_key(recipe),
        [shard.sha256 for shard in ingested.shards],
        asdict(roles),
        salt_digest(salt),
        [shard.sha256 for shard in trusted.shards] if trusted else None,
    )


def settings_of(recipe: Sanitizer) -> dict[str, Any]:
    """The settings of a recipe, as JSON can hold them.

    Raises
    ------
    PlanError
        If the recipe is no dataclass, or a setting is no plain value.
    """
    kind: type[Any] = type(recipe)
    if not is_dataclass(kind):
        raise PlanError(
            f"sanitizer {recipe.name!r} is not a dataclass",
            do="make its class a frozen dataclass, so that its settings can be recorded",
        )
    names = [f.name for f in fields(kind)]
    return {name: _plain(getattr(recipe, name), recipe.name, name) for name in names}


def examine(
    recipe: Sanitizer, dataset: Dataset, folder: Path, *, progress: Progress = SILENT
) -> Examined:
    """Fit a sanitizer on a dataset and score every row.

    A finished folder is loaded. In an unfinished one the shards that are there are kept:
    each was renamed into place whole, and fitting the same recipe on the same rows gives
    the same scorer.

    Parameters
    ----------
    recipe : Sanitizer
    dataset : Dataset
    folder : Path
        Named by `evidence_key`.
    progress : Progress

    Raises
    ------
    EvidenceError
        If the sanitizer raises or breaks a promise.
    """
    files = [evidence_file(folder, number) for number in range(len(dataset.shards))]
    if (folder / MARKER).is_file() and all(file.is_file() for file in files):
        return Examined.load(folder)
    make_folder(folder)
    started = time.monotonic()
    with progress.stage(f"examine: {recipe.name}", dataset.rows, len(files)) as stage:
        with _guarded(recipe.name, "fitting"):
            scorer = recipe.fit(dataset)
        abstained = 0
        for file, batch in zip(files, dataset.batches(), strict=True):
            abstained += _score(recipe.name, scorer, batch, file)
            stage.advance(len(batch))
    skipped = dataset.encoder.skipped if _uses(recipe, "features") else ()
    marker = {
        "sanitizer": recipe.name,
        "settings": settings_of(recipe),
        "rows": dataset.rows,
        "abstained": abstained,
        "seconds": round(time.monotonic() - started, 3),
        "skipped": [list(pair) for pair in skipped],
        "influence": scorer.influence if isinstance(scorer, Influential) else None,
    }
    write_json(folder / MARKER, marker)
    return Examined.load(folder)


def evidence_file(folder: Path, shard: int) -> Path:
    """Where the evidence of a shard lies in a folder of evidence."""
    return folder / shard_name(shard, "evidence")


def read_evidence(folder: Path, shard: int, row_ids: pa.ChunkedArray) -> pa.Table:
    """Read the evidence of a shard, and check that it speaks of these rows.

    Raises
    ------
    IntegrityError
        If it is missing, unreadable, or of other rows.
    """
    path = evidence_file(folder, shard)
    table = _read(path)
    if table is None:
        raise IntegrityError(f"{path} is missing or damaged", do=f"remove {folder} and run again")
    if not table.column("row_id").equals(row_ids.cast(pa.string())):
        raise IntegrityError(
            f"{path} is about other rows than the input", do=f"remove {folder} and run again"
        )
    return table


def _score(name: str, scorer: Scorer, batch: Batch, path: Path) -> int:
    """Write the evidence of a shard unless it is there; return how many rows have none."""
    kept = _read(path) if path.is_file() else None
    if kept is None or not kept.column("row_id").equals(batch.row_ids.cast(pa.string())):
        with _guarded(name, "scoring"):
            kept = examine_batch(name, scorer, batch)
        write_table(kept, path)
    return int(kept.column("score").null_count)


def _read(path: Path) -> pa.Table | None:
    """Read evidence, or None where the file is missing, damaged or of another schema."""
    try:
        table = pq.read_table(path, schema=SCHEMA)
    except (OSError, pa.ArrowException):
        return None
    return table if table.schema.equals(SCHEMA) else None


@contextmanager
def _guarded(name: str, doing: str) -> Iterator[None]:
    """Turn what a sanitizer raises into one clear line, and keep its libraries quiet."""
    with quiet():
        try:
            yield
        except (SanitizeError, MemoryError):
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:500]
            raise EvidenceError(
                f"sanitizer {name!r} failed while {doing}: {type(error).__name__}: {text}",
                do="nothing is published on partial evidence; leave it out of the plan to go on",
            ) from error


def _uses(recipe: Sanitizer, role: str) -> bool:
    return any(role in need.split("|") for need in recipe.needs)


def _recipe_key(recipe: Sanitizer) -> list[object]:
    kind = type(recipe)
    source = inspect.getsourcefile(kind)
    # A third party's sanitizer has no version that we know of; its text stands for it.
    text = sha256(Path(source).read_bytes()).hexdigest() if source else ""
    return [kind.__module__, kind.__qualname__, text, settings_of(recipe)]


def _plain(value: object, sanitizer: str, setting: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(k): _plain(v, sanitizer, setting) for k, v in value.items()}
    if isinstance(value, Sequence):
        return [_plain(v, sanitizer, setting) for v in value]
    if isinstance(value, Set):
        return sorted(_plain(v, sanitizer, setting) for v in value)
    raise PlanError(
        f"setting {setting!r} of sanitizer {sanitizer!r} is of type {type(value).__name__}",
        expected="numbers, texts, and lists or tables of them",
    )
