"""The release that new rows join, and the runs that its rows came by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import pyarrow as pa

from pipelines.ingested import Ingested
from pipelines.manifest import FileEntry, Manifest, Run, roles_in
from pipelines.readers.sources import digest_sources
from pipelines.shards import ParquetShard
from pipelines.split import SPLITS, UNREADABLE
from pipelines.store import Store
from sanitizers.core.data import ROW_ID, Roles
from sanitizers.core.errors import InputError, IntegrityError, PlanError
from sanitizers.core.verdicts import KEEP


@dataclass(frozen=True)
class Base:
    """The release that new rows join.

    Parameters
    ----------
    folder : Path
    manifest : Manifest
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def of(cls, store: Store, dataset: str) -> Self | None:
        """The last release of a dataset; None where there is none yet."""
        releases = store.releases(dataset)
        return cls.load(store, dataset, releases[-1].name) if releases else None

    @classmethod
    def load(cls, store: Store, dataset: str, version: str) -> Self:
        """Load a release, and see that its files are there.

        Raises
        ------
        IntegrityError
            If its manifest, or the size of a file, is not as it was published.
        """
        folder = store.release(dataset, version)
        base = cls(folder, Manifest.load(folder))
        for file in base.manifest.files:
            path = folder / file.path
            if path.is_symlink() or not path.is_file() or path.stat().st_size != file.bytes:
                raise IntegrityError(
                    f"{path} is not as it was published", do=f"run 'sanitize verify {folder}'"
                )
        return base

    @property
    def version(self) -> str:
        """Its version."""
        return self.manifest.version

    @property
    def rows_files(self) -> tuple[FileEntry, ...]:
        """All its files of rows that could be read."""
        folders = tuple(f"{folder}/" for folder in SPLITS.values())
        files = (f for f in self.manifest.files if f.path.startswith(folders))
        return tuple(file for file in files if file.path != UNREADABLE)

    @property
    def clean(self) -> tuple[FileEntry, ...]:
        """Its files of clean rows."""
        return tuple(f for f in self.rows_files if f.path.startswith(f"{SPLITS[KEEP]}/"))

    @property
    def unreadable(self) -> FileEntry | None:
        """Its file of rows that could not be read; None where there are none."""
        return next((file for file in self.manifest.files if file.path == UNREADABLE), None)

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of its clean rows, as the input had them."""
        whole = ParquetShard(self.folder / self.clean[0].path).schema
        return whole if self.roles.id == ROW_ID else whole.remove(whole.get_field_index(ROW_ID))

    @cached_property
    def roles(self) -> Roles:
        """The roles that its columns were given."""
        return roles_in(self.manifest.plan)

    def check_roles(self, given: Mapping[str, object]) -> None:
        """Refuse roles that a plan gives and that the release was not made with.

        Raises
        ------
        PlanError
        """
        for role, said in given.items():
            known = getattr(self.roles, role, None)
            if role != "ignore" and known != said:
                raise PlanError(
                    f"the plan says {role} = {said!r}, and release {self.version} was made with "
                    f"{known!r}",
                    do="leave the plan as it was, or scan everything anew with --full",
                )

    def check_whole(self, files: Sequence[tuple[Path, str]]) -> None:
        """Refuse a source that lacks files whose rows the release holds.

        Raises
        ------
        InputError
        """
        there = {sha256 for sha256, _ in digest_sources([path for path, _ in files])}
        gone = [name for sha256, name in self.digests.items() if sha256 not in there]
        if gone:
            raise InputError(
                f"{len(gone)} of the files whose rows release {self.version} holds are not in the "
                f"source any more, as they were; the first is {gone[0]}",
                expected="all of them, for a scan that makes everything anew",
                do="put them back, or leave --full out",
            )

    @property
    def digests(self) -> dict[str, str]:
        """The names of the files that it holds the rows of, by their contents."""
        return {file.sha256: file.path for file in self.manifest.source.files}


def releases_by_run(store: Store, dataset: str) -> dict[str, list[str]]:
    """For each run the releases of its rows, the oldest first: its own, and those by rulings."""
    found: dict[str, list[str]] = {}
    for release in store.releases(dataset):
        found.setdefault(Manifest.load(release).run, []).append(release.name)
    return found


def runs_until(store: Store, run: Run) -> Iterator[Run]:
    """A run, and those before it whose rows its rows have joined, the latest first."""
    yield run
    while onto := Ingested.load(store.inputs(run.dataset, run.input)).onto:
        release = store.release(run.dataset, onto)
        run = Run.load(store.run(run.dataset, Manifest.load(release).run))
        yield run
