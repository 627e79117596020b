"""How a release appears: counted, synced to the disk, and renamed into place in one step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pipelines.disk import sync_folder, writing
from pipelines.known import TRIGGERS
from pipelines.manifest import Counts, FileEntry
from pipelines.split import SPLITS
from pipelines.store import Store
from sanitizers.core.errors import IntegrityError
from sanitizers.core.verdicts import KEEP, QUARANTINE, REVIEW


def check_counts(counts: Counts, files: Sequence[FileEntry]) -> None:
    """Refuse to publish files that do not hold the rows that were counted."""
    for verdict, expected in (
        (KEEP, counts.keep),
        (REVIEW, counts.review),
        (QUARANTINE, counts.quarantine),
    ):
        folder = SPLITS[verdict]
        written = sum(f.rows or 0 for f in files if f.path.startswith(f"{folder}/"))
        if written != expected:
            raise IntegrityError(f"{folder} has {written:,} rows", expected=f"{expected:,}")


def appear(store: Store, staging: Path, dataset: str, version: str) -> Path:
    """Rename a finished release into place: the one moment in which it appears.

    Where the store is a bucket, it has appeared there just before; should this process die in
    between, the release comes from there. To be called with the lock of the dataset held.

    Returns
    -------
    Path
        Where it lies.
    """
    release = store.give_release(staging, dataset, version)
    with writing(release):
        folders = (*SPLITS.values(), TRIGGERS)
        for folder in (*(staging / name for name in folders), staging):
            if folder.is_dir():
                sync_folder(folder)
        os.rename(staging, release)
        sync_folder(release.parent)
    return release
