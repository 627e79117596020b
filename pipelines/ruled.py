"""Ruled: what people have ruled becomes the places of rows, and of a release that obeys."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.appearing import appear, check_counts
from pipelines.base import Base, runs_until
from pipelines.decide import verdicts_file
from pipelines.disk import make_folder, remove
from pipelines.ingested import Ingested
from pipelines.manifest import REPORT, FileEntry, Manifest, Ruled, Run, tool
from pipelines.obeying import Moved, Place, obey
from pipelines.progress import SILENT, Progress
from pipelines.report_rulings import tell_rulings
from pipelines.rulings import NONE, START, Rulings
from pipelines.sealing import SEALS, seal
from pipelines.shards import ParquetShard
from pipelines.split import RULINGS, copy_bytes, share
from pipelines.store import Store, key_of
from pipelines.versions import moved_version
from sanitizers.core.data import ROW_ID
from sanitizers.core.errors import IntegrityError, PlanError, SanitizeError
from sanitizers.core.verdicts import KEEP


@dataclass(frozen=True)
class Obeyed:
    """A release in the making, once rulings are obeyed.

    Parameters
    ----------
    moved : Moved
    log : FileEntry
        The copy of the log that the release holds.
    ruled : Ruled
    """

    moved: Moved
    log: FileEntry
    ruled: Ruled


def obey_rulings(
    store: Store, run: Run, staging: Path, files: Sequence[FileEntry]
) -> Obeyed | None:
    """Put the rows of a release in the making where people have ruled that they belong.

    Parameters
    ----------
    store : Store
    run : Run
        The last run whose rows it holds.
    staging : Path
        The folder of the release in the making.
    files : sequence of FileEntry
        Its files of rows that could be read.

    Returns
    -------
    Obeyed or None
        None where nobody has ruled yet.

    Raises
    ------
    IntegrityError
        If the log was tampered with, or what sanitizers said of a row whose ruling was taken
        back is not known any more.
    """
    log = Rulings.of(store, run.dataset)
    head = log.head
    if head == START:
        return None
    last = log.last()
    standing = {row: ruling for row, ruling in last.items() if ruling.verdict != NONE}
    places = {row: Place(ruling.verdict, ruling) for row, ruling in standing.items()}
    places |= said_by_sanitizers(store, run, last.keys() - standing.keys())
    moved = obey(staging, files, places)
    keep = sum(places[row].verdict == KEEP for row in moved.found & standing.keys())
    counts = (keep, len(moved.found & standing.keys()) - keep)
    ruled = Ruled(head, *counts, sum(moved.rows.values()), len(standing.keys() - moved.found))
    return Obeyed(moved, copy_bytes(log.copy(), staging, RULINGS), ruled)


def said_by_sanitizers(store: Store, run: Run, row_ids: Set[str]) -> dict[str, Place]:
    """What the verdicts of runs say of rows, where no ruling stands any more."""
    left, found = set(row_ids), dict[str, Place]()
    for one in runs_until(store, run) if left else ():
        folder = store.run(one.dataset, one.key)
        for number in range(len(Ingested.load(store.inputs(one.dataset, one.input)).shards)):
            shard = ParquetShard(verdicts_file(folder, number))
            mask = pc.is_in(shard.read([ROW_ID]).column(0), value_set=pa.array(left, pa.string()))
            if pc.any(mask).as_py():
                for row in shard.read().filter(mask).to_pylist():
                    found[row[ROW_ID]] = Place(row["verdict"], None, tuple(row["reasons"]))
        left -= found.keys()
        if not left:
            break
    return found


def publish_rulings(
    store: Store, dataset: str, *, progress: Progress = SILENT
) -> tuple[Path, Manifest, bool]:
    """Publish the last release again, with the rulings that have come since.

    No sanitizer runs and no line is drawn: only files that hold rows on which people have
    ruled are written anew, all others are shared with that release.

    Parameters
    ----------
    store : Store
    dataset : str
    progress : Progress

    Returns
    -------
    Path
        The release that obeys.
    Manifest
    bool
        Whether it was there already.

    Raises
    ------
    PlanError
        If there is no release yet.
    IntegrityError
        As `obey_rulings` does.
    """
    with store.lock(store.known(dataset)):
        base = Base.of(store, dataset)
        if base is None:
            raise PlanError(f"no release of {dataset!r} yet", do="run 'sanitize run' first")
        head, manifest = Rulings.of(store, dataset).head, base.manifest
        if head == (manifest.ruled.head if manifest.ruled else START):
            return base.folder, manifest, True
        store.sweep(dataset)
        staging = store.staging(dataset, key_of("ruled", manifest.run, base.version, head))
        try:
            with progress.stage("publish", manifest.counts.rows, 1) as stage:
                made = _stage(store, base, staging)
                stage.advance(manifest.counts.rows)
            return appear(store, staging, dataset, made.version), made, False
        except BaseException:
            with contextlib.suppress(SanitizeError):
                remove(staging)
            raise


def _stage(store: Store, base: Base, staging: Path) -> Manifest:
    before = base.manifest
    for folder in {Path(file.path).parent for file in before.files}:
        make_folder(staging / folder)
    old = [f for f in before.files if f.path not in SEALS | {RULINGS}]
    shared = [share(base.folder, file, staging) for file in old]
    rows = {file.path for file in base.rows_files}
    run = Run.load(store.run(before.dataset, before.run))
    done = obey_rulings(store, run, staging, [f for f in shared if f.path in rows])
    if done is None:
        raise IntegrityError(f"the log of rulings of {before.dataset!r} is gone")
    files = [*(f for f in shared if f.path not in rows), *done.moved.files, done.log]
    made = replace(
        before,
        version=moved_version(base.version, done.moved),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        tool=tool(),
        counts=done.moved.recount(before.counts),
        files=tuple(sorted(files, key=lambda file: file.path)),
        ruled=done.ruled,
    )
    check_counts(made.counts, files)
    return seal(store, staging, tell_in_report(staging, made))


def tell_in_report(staging: Path, made: Manifest) -> Manifest:
    """Let the report of a release in the making say what people have ruled, if they have.

    Returns
    -------
    Manifest
        Of the release, with the report as it is now.
    """
    if made.ruled is None:
        return made
    page, log = staging / REPORT, Rulings(staging / RULINGS)
    told = tell_rulings(page.read_bytes(), made.version, made.counts, made.ruled, log)
    # The file may be an earlier release's too.
    page.unlink()
    entry = copy_bytes(told, staging, REPORT)
    files = [entry if file.path == REPORT else file for file in made.files]
    return replace(made, files=tuple(files))
