"""Publish: the one place where rows leave a dataset. A release appears whole, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipelines.appearing import appear, check_counts
from pipelines.base import Base
from pipelines.decide import Decision
from pipelines.disk import digest_of, make_folder, remove
from pipelines.examined import read_kept
from pipelines.ingest import Ingested
from pipelines.known import TRIGGERS, given_triggers, write_triggers
from pipelines.manifest import (
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
from pipelines.progress import SILENT, Progress
from pipelines.ruled import Obeyed, obey_rulings, tell_in_report
from pipelines.sealing import seal
from pipelines.split import (
    SPLITS,
    copy_file,
    next_part,
    share,
    split_shard,
    split_unreadable,
)
from pipelines.store import Store
from pipelines.versions import moved_version, next_version
from sanitizers.core.errors import SanitizeError, StoreError
from sanitizers.core.keepsake import TRIGGER

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
    with store.lock(run.dataset):
        found = find_release(store, run.dataset, run.key, ingested.onto)
        if found is not None:
            return Published(*found, already=True)
        store.sweep(run.dataset)
        staging = store.staging(run.dataset, run.key)
        try:
            make_folder(staging)
            made = _Making(store, run, ingested, staging, _base(store, run, ingested))
            manifest = made.write(decision, report, progress)
            return Published(appear(store, staging, run.dataset, manifest.version), manifest)
        except BaseException:
            # The next publish would sweep it, but a full disk wants its space back now.
            with contextlib.suppress(SanitizeError):
                remove(staging)
            raise


def find_release(
    store: Store, dataset: str, run: str, onto: str | None = None
) -> tuple[Path, Manifest] | None:
    """Find the release that a run made, by the run's key.

    Parameters
    ----------
    store : Store
    dataset : str
    run : str
    onto : str, optional
        The release that its rows joined; no earlier one is looked at.

    Raises
    ------
    IntegrityError
        If a file of that release is missing or has another size.
    """
    for release in reversed(store.releases(dataset)):
        if release.name == onto:
            break
        if Manifest.load(release).run == run:
            found = Base.load(store, dataset, release.name)
            return found.folder, found.manifest
    return None


def _base(store: Store, run: Run, ingested: Ingested) -> Base | None:
    """The release that the rows join: the last one, if it has the rows that were looked at."""
    if ingested.onto is None:
        return None
    looked_at = Base.load(store, run.dataset, ingested.onto)
    last = Base.of(store, run.dataset)
    # The same rows may have been published again since, as people have ruled.
    if last is None or last.manifest.run != looked_at.manifest.run:
        name = last.version if last else "none"
        raise StoreError(
            f"release {name} has appeared since this run began to add to {ingested.onto}",
            do="run the same command again",
        )
    return last


@dataclass(frozen=True)
class _Making:
    """A release in the making, and the one that its rows join, if they do."""

    store: Store
    run: Run
    ingested: Ingested
    staging: Path
    base: Base | None

    def write(self, decision: Decision, report: Report, progress: Progress) -> Manifest:
        """Write all files of the release, the manifest last."""
        files = self._rows(progress)
        obeyed = obey_rulings(self.store, self.run, self.staging, files)
        if obeyed is not None:
            files = [*obeyed.moved.files, obeyed.log]
        version = self._version(obeyed)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        files += self._triggers(version)
        files.append(copy_file(report(version, created), self.staging, REPORT))
        manifest = self._manifest(decision, files, version, created, obeyed)
        return seal(self.store, self.staging, tell_in_report(self.staging, manifest))

    def _rows(self, progress: Progress) -> list[FileEntry]:
        """Split every shard by its verdicts; the files of a release that it joins are shared."""
        base, ingested, staging = self.base, self.ingested, self.staging
        for name in SPLITS.values():
            make_folder(staging / name)
        folder = self.store.run(self.run.dataset, self.run.key)
        files = [share(base.folder, file, staging) for file in base.rows_files] if base else []
        first = next_part(files)
        with progress.stage("publish", ingested.rows, len(ingested.shards)) as stage:
            for number, shard in enumerate(ingested.shards):
                part = first + number
                files += split_shard(ingested.folder, shard, number, folder, staging, part)
                stage.advance(shard.rows)
        unreadable = ingested.unreadable_file()
        before = base.unreadable if base else None
        if unreadable is not None:
            earlier = base.folder / before.path if base and before else None
            files.append(split_unreadable(unreadable, ingested.unreadable, staging, earlier))
        elif base and before:
            files.append(share(base.folder, before, staging))
        return files

    def _version(self, obeyed: Obeyed | None) -> str:
        if self.base is not None:
            return moved_version(self.base.version, obeyed.moved if obeyed else None, grown=True)
        releases = self.store.releases(self.run.dataset)
        last = self.store.release(self.run.dataset, releases[-1].name) if releases else None
        work = self.store.run(self.run.dataset, self.run.key)
        return next_version(last, self.ingested, self.staging, work)

    def _triggers(self, version: str) -> list[FileEntry]:
        """Write the triggers that were applied and confirmed, for the runs to come."""
        folders = [self.store.evidence(self.run.dataset, k) for k in self.run.evidence.values()]
        kept = [one for folder in folders for one in read_kept(folder) if one.kind == TRIGGER]
        if not kept:
            return []
        folder = self.staging / TRIGGERS
        names = write_triggers(folder, kept, f"release {version} of {self.run.dataset}")
        # Read back as a later run will.
        given_triggers(str(folder))
        paths = [(f"{TRIGGERS}/{name}", folder / name) for name in names]
        return [FileEntry(name, p.stat().st_size, digest_of(p), None) for name, p in paths]

    def _manifest(
        self,
        decision: Decision,
        files: list[FileEntry],
        version: str,
        created: str,
        obeyed: Obeyed | None,
    ) -> Manifest:
        new = tuple(
            SourceEntry(f.path, f.sha256, f.bytes, f.rows, f.unreadable)
            for f in self.ingested.files
        )
        run, before, own = self.run, self.base and self.base.manifest, _own_counts(decision)
        counts = before.counts.plus(own) if before else own
        counts = obeyed.moved.recount(counts) if obeyed else counts
        check_counts(counts, files)
        return Manifest(
            dataset=run.dataset,
            version=version,
            created=created,
            tool=tool(),
            run=run.key,
            salt_digest=self.store.salt_digest,
            plan=run.plan,
            source=Source(self.ingested.digest, (*(before.source.files if before else ()), *new)),
            counts=counts,
            checks=run.checks,
            not_run=run.not_run,
            findings=run.findings,
            files=tuple(sorted(files, key=lambda file: file.path)),
            promise=run.promise,
            grown=Grown(before.version, before.run, own) if before else None,
            ruled=obeyed.ruled if obeyed else None,
            audited=run.audited,
        )


def _own_counts(decision: Decision) -> Counts:
    return Counts(
        decision.rows, decision.keep, decision.review, decision.quarantine, decision.unreadable
    )
