"""Publish: the one place where rows leave a dataset. A release appears whole, or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipelines.decide import Decision
from pipelines.disk import make_folder, remove, sync_folder, write_bytes, writing
from pipelines.examined import read_kept
from pipelines.growing import Base
from pipelines.ingest import Ingested
from pipelines.known import TRIGGERS, given_triggers, write_triggers
from pipelines.manifest import (
    MANIFEST,
    REPORT,
    Counts,
    FileEntry,
    Grown,
    Manifest,
    Run,
    Source,
    SourceEntry,
    tool,
)
from pipelines.names import version_of
from pipelines.progress import SILENT, Progress
from pipelines.row_ids import changed, difference
from pipelines.shards import ParquetShard
from pipelines.split import (
    SPLITS,
    copy_file,
    digest_of,
    next_part,
    share,
    split_shard,
    split_unreadable,
)
from pipelines.store import Store
from sanitizers.core.errors import IntegrityError, SanitizeError, StoreError
from sanitizers.core.keepsake import TRIGGER
from sanitizers.core.verdicts import KEEP, QUARANTINE, REVIEW

FIRST_VERSION = "1.0.0"

#: Writes the report of a release, given its version and time, and says where it lies.
Report = Callable[[str, str], Path]


@dataclass(frozen=True)
class Published:
    """What came of a publish.

    Parameters
    ----------
    folder : Path or None
        The release; None where the run is held.
    manifest : Manifest or None
    already : bool
        True where an earlier publish of the same run had made it.
    """

    folder: Path | None
    manifest: Manifest | None
    already: bool = False

    @property
    def held(self) -> bool:
        """True where nothing was published."""
        return self.folder is None

    @property
    def version(self) -> str | None:
        """The version of the release."""
        return self.manifest.version if self.manifest else None


def publish(
    store: Store,
    run: Run,
    ingested: Ingested,
    decision: Decision,
    report: Report,
    *,
    progress: Progress = SILENT,
) -> Published:
    """Publish the verdicts of a run as a new release, unless it is held or there already.

    Parameters
    ----------
    store : Store
    run : Run
        Its folder in the store holds the verdicts.
    ingested : Ingested
    decision : Decision
    report : callable
        Called with the version and the time of the release, once its rows are written;
        writes the report and returns its path. A copy of it goes into the release.
    progress : Progress

    Raises
    ------
    IntegrityError
        If rows, verdicts or what was written are not what they should be.
    StoreError
        If the store cannot be written, or another publish does not end.
    """
    if decision.held:
        return Published(None, None)
    base = Base.load(store, run.dataset, ingested.onto) if ingested.onto else None
    with store.lock(run.dataset):
        found = find_release(store, run.dataset, run.key)
        if found is not None:
            return Published(*found, already=True)
        store.sweep(run.dataset)
        staging = store.staging(run.dataset, run.key)
        try:
            make_folder(staging)
            if base is not None:
                _check_last(store, run, base)
            files = _write_rows(staging, store, run, ingested, base, progress)
            version = _next_version(store, run, ingested, staging, base)
            created = datetime.now(UTC).isoformat(timespec="seconds")
            files += _write_triggers(staging, store, run, version)
            files.append(copy_file(report(version, created), staging, REPORT))
            manifest = _manifest(store, run, ingested, decision, files, version, created, base)
            write_bytes(staging / MANIFEST, manifest.dump())
            return _appear(staging, store.release(run.dataset, manifest.version), manifest)
        except BaseException:
            # The next publish would sweep it, but a full disk wants its space back now.
            with contextlib.suppress(SanitizeError):
                remove(staging)
            raise


def find_release(store: Store, dataset: str, run: str) -> tuple[Path, Manifest] | None:
    """Find the release that a run made, by the run's key.

    Raises
    ------
    IntegrityError
        If a file of that release is missing or has another size.
    """
    for release in reversed(store.releases(dataset)):
        manifest = Manifest.load(release)
        if manifest.run == run:
            for file in manifest.files:
                path = release / file.path
                if not path.is_file() or path.stat().st_size != file.bytes:
                    raise IntegrityError(
                        f"{path} is not as it was published", do=f"run 'sanitize verify {release}'"
                    )
            return release, manifest
    return None


def _check_last(store: Store, run: Run, base: Base) -> None:
    last = store.releases(run.dataset)[-1].name
    if last != base.version:
        raise StoreError(
            f"release {last} has appeared since this run began to add to {base.version}",
            do="run the same command again",
        )


def _write_rows(
    staging: Path,
    store: Store,
    run: Run,
    ingested: Ingested,
    base: Base | None,
    progress: Progress,
) -> list[FileEntry]:
    """Split every shard by its verdicts; the files of a release that it joins are shared."""
    for name in SPLITS.values():
        make_folder(staging / name)
    folder = store.run(run.dataset, run.key)
    files = [share(base.folder, file, staging) for file in base.rows_files] if base else []
    first = next_part(files)
    with progress.stage("publish", ingested.rows, len(ingested.shards)) as stage:
        for number, shard in enumerate(ingested.shards):
            files += split_shard(ingested.folder, shard, number, folder, staging, first + number)
            stage.advance(shard.rows)
    unreadable = ingested.unreadable_file()
    before = base.unreadable if base else None
    if unreadable is not None:
        earlier = base.folder / before.path if base and before else None
        files.append(split_unreadable(unreadable, ingested.unreadable, staging, earlier))
    elif base and before:
        files.append(share(base.folder, before, staging))
    return files


def _write_triggers(staging: Path, store: Store, run: Run, version: str) -> list[FileEntry]:
    """Write the triggers that were applied and confirmed, for the runs to come."""
    folders = [store.evidence(run.dataset, key) for key in run.evidence.values()]
    kept = [one for folder in folders for one in read_kept(folder) if one.kind == TRIGGER]
    if not kept:
        return []
    origin = f"release {version} of {run.dataset}"
    folder = staging / TRIGGERS
    names = write_triggers(folder, kept, origin)
    # Read back as a later run will.
    given_triggers(str(folder))
    paths = [(f"{TRIGGERS}/{name}", folder / name) for name in names]
    return [FileEntry(name, p.stat().st_size, digest_of(p), None) for name, p in paths]


def _manifest(
    store: Store,
    run: Run,
    ingested: Ingested,
    decision: Decision,
    files: list[FileEntry],
    version: str,
    created: str,
    base: Base | None,
) -> Manifest:
    new = tuple(
        SourceEntry(f.path, f.sha256, f.bytes, f.rows, f.unreadable) for f in ingested.files
    )
    before, own = base.manifest if base else None, _own_counts(decision)
    counts = before.counts.plus(own) if before else own
    _check_counts(counts, files)
    return Manifest(
        dataset=run.dataset,
        version=version,
        created=created,
        tool=tool(),
        run=run.key,
        salt_digest=store.salt_digest,
        plan=run.plan,
        source=Source(ingested.digest, (*(before.source.files if before else ()), *new)),
        counts=counts,
        checks=run.checks,
        not_run=run.not_run,
        findings=run.findings,
        files=tuple(sorted(files, key=lambda file: file.path)),
        promise=run.promise,
        grown=Grown(before.version, before.run, own) if before else None,
    )


def _own_counts(decision: Decision) -> Counts:
    return Counts(
        decision.rows, decision.keep, decision.review, decision.quarantine, decision.unreadable
    )


def _check_counts(counts: Counts, files: Sequence[FileEntry]) -> None:
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


def _next_version(
    store: Store, run: Run, ingested: Ingested, staging: Path, base: Base | None
) -> str:
    """Removing or changing rows or columns is a new major version, adding a minor one."""
    if base is not None:
        # Its files are shared, so no row of theirs can be gone.
        major, minor, _ = version_of(base.version)
        return f"{major}.{minor + 1}.0"
    releases = store.releases(run.dataset)
    if not releases:
        return FIRST_VERSION
    last = releases[-1]
    major, minor, patch = version_of(last.name)
    change = _change(last, staging, ingested, store.run(run.dataset, run.key))
    if change == "major":
        return f"{major + 1}.0.0"
    return f"{major}.{minor + 1}.0" if change == "minor" else f"{major}.{minor}.{patch + 1}"


def _change(last: Path, staging: Path, ingested: Ingested, run: Path) -> str:
    """How the clean rows differ from those of the last release: major, minor or patch."""
    before = Manifest.load(last)
    old = [last / f.path for f in before.files if f.path.startswith(f"{SPLITS[KEEP]}/")]
    new = sorted((staging / SPLITS[KEEP]).iterdir())
    columns, now = ParquetShard(old[0]).schema, ParquetShard(new[0]).schema
    if any(now.get_field_index(f.name) < 0 or now.field(f.name).type != f.type for f in columns):
        return "major"
    spill = run / f".spill.tmp-{os.getpid()}"
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


def _appear(staging: Path, release: Path, manifest: Manifest) -> Published:
    """Rename the finished release into place: the one moment in which it appears."""
    with writing(release):
        folders = (*SPLITS.values(), TRIGGERS)
        for folder in (*(staging / name for name in folders), staging):
            if folder.is_dir():
                sync_folder(folder)
        os.rename(staging, release)
        sync_folder(release.parent)
    return Published(release, manifest)
