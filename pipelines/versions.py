"""The version of the next release, from what became of the rows that are clean."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pipelines.disk import remove
from pipelines.ingested import Ingested
from pipelines.manifest import Manifest
from pipelines.names import version_of
from pipelines.obeying import Moved
from pipelines.row_ids import changed, difference
from pipelines.shards import ParquetShard
from pipelines.split import SPLITS
from sanitizers.core.errors import IntegrityError
from sanitizers.core.verdicts import KEEP

FIRST = "1.0.0"


def next_version(last: Path | None, ingested: Ingested, staging: Path, work: Path) -> str:
    """The version of a release that stands for itself.

    Removing or changing rows or columns is a new major version, adding some a minor one.

    Parameters
    ----------
    last : Path or None
        The release before.
    ingested : Ingested
    staging : Path
        The release in the making.
    work : Path
        A folder for what does not fit into memory.
    """
    if last is None:
        return FIRST
    return _after(last.name, _change(last, staging, ingested, work))


def moved_version(last: str, moved: Moved | None, *, grown: bool = False) -> str:
    """The version of a release that shares the files of the one before.

    Parameters
    ----------
    last : str
    moved : Moved or None
        Rows that went elsewhere, as people have ruled.
    grown : bool
        Whether rows have joined.
    """
    moves = moved.rows if moved else {}
    if any(old == KEEP for old, _ in moves):
        return _after(last, "major")
    return _after(last, "minor" if grown or any(new == KEEP for _, new in moves) else "patch")


def _after(last: str, change: str) -> str:
    major, minor, patch = version_of(last)
    if change == "major":
        return f"{major + 1}.0.0"
    return f"{major}.{minor + 1}.0" if change == "minor" else f"{major}.{minor}.{patch + 1}"


def _change(last: Path, staging: Path, ingested: Ingested, work: Path) -> str:
    """How the clean rows differ from those of the last release: major, minor or patch."""
    before = Manifest.load(last)
    old = [last / f.path for f in before.files if f.path.startswith(f"{SPLITS[KEEP]}/")]
    new = sorted((staging / SPLITS[KEEP]).iterdir())
    columns, now = ParquetShard(old[0]).schema, ParquetShard(new[0]).schema
    if any(now.get_field_index(f.name) < 0 or now.field(f.name).type != f.type for f in columns):
        return "major"
    spill = work / f".spill.tmp-{os.getpid()}"
    try:
        rows = difference(old, new, spill)
        if rows.removed:
            return "major"
        # Ids that are hashes of the content cannot stay while the content changes.
        by_name = ingested.id_column is not None and before.source.digest != ingested.digest
        if by_name and len(columns) == len(now) and _values_changed(old, new, spill):
            return "major"
    finally:
        remove(spill)
    return "minor" if rows.added or len(now) > len(columns) else "patch"


def _values_changed(old: Sequence[Path], new: Sequence[Path], spill: Path) -> bool:
    try:
        return changed(old, new, spill)
    except IntegrityError:
        # Values of types that cannot be compared may have changed.
        return True
