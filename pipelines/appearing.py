"""How a release appears: counted, synced to the disk, and renamed into place in one step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pipelines.disk import sync_folder, writing
from pipelines.known import TRIGGERS
from pipelines.manifest import Counts, FileEntry
from pipelines.split import SPLITS
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


def appear(staging: Path, release: Path) -> None:
    """Rename a finished release into place: the one moment in which it appears.

    Parameters
    ----------
    staging, release : Path
    """
    with writing(release):
        folders = (*SPLITS.values(), TRIGGERS)
        for folder in (*(staging / name for name in folders), staging):
            if folder.is_dir():
                sync_folder(folder)
        os.rename(staging, release)
        sync_folder(release.parent)
