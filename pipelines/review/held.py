"""Held: every row that waits for people, of a release or of a run that was held as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pyarrow.types import is_temporal

from pipelines.base import releases_by_run, runs_until
from pipelines.charts import Histogram
from pipelines.disk import make_folder
from pipelines.manifest import Manifest, Run
from pipelines.progress import SILENT, Progress
from pipelines.review.draw import DRAW, Draw, write_draw
from pipelines.review.index import FORMAT, INDEX, read_scores, write_index
from pipelines.review.part import Part
from pipelines.store import Store, key_of
from sanitizers.core.errors import PlanError


@dataclass(frozen=True)
class Held:
    """The held rows of a release, or of a run that was held as a whole.

    Parameters
    ----------
    store : Store
    dataset : str
    parts : tuple of Part
        The latest first.
    version : str or None
        The last release; None where there is none.
    created : str
        When that release, or else the run, was made.
    obeys : str
        The digest of the last ruling that the release obeys; empty where it obeys none.
    """

    store: Store
    dataset: str
    parts: tuple[Part, ...]
    version: str | None
    created: str
    obeys: str = ""

    @classmethod
    def of(cls, store: Store, dataset: str, *, held: bool = False) -> Held:
        """Look at the last release of a dataset, or at its last run where there is none.

        Parameters
        ----------
        store : Store
        dataset : str
        held : bool
            Look at the last run that published nothing.

        Raises
        ------
        PlanError
            If there is no such dataset, release or run.
        IntegrityError
            If what the store knows of it is not as it was written.
        """
        releases = store.releases(store.known(dataset))
        version, obeys = None, ""
        if releases and not held:
            manifest = Manifest.load(releases[-1])
            run, version, created = manifest.run, manifest.version, manifest.created
            obeys = manifest.ruled.head if manifest.ruled else ""
        else:
            run, created = _last_held(store, dataset)
        chain = runs_until(store, Run.load(store.run(dataset, run)))
        made = releases_by_run(store, dataset) if version is not None else {}
        parts = tuple(Part.of(store, one, made.get(one.key, [None])[0]) for one in chain)
        return cls(store, dataset, parts, version, created, obeys)

    @cached_property
    def key(self) -> str:
        """Names the rows that are held, and the index of them."""
        return key_of("held", FORMAT, [part.run.key for part in self.parts])

    @property
    def folder(self) -> Path:
        """Where the index lies."""
        return self.store.review(self.dataset, self.key)

    @property
    def counts(self) -> tuple[int, int]:
        """Rows that wait, and all rows."""
        held = sum(p.decision.review + p.decision.quarantine for p in self.parts)
        return held, sum(p.decision.rows for p in self.parts)

    @cached_property
    def dates(self) -> bool:
        """Whether the time column holds dates, not plain numbers."""
        part = self.parts[0]
        if part.roles.time is None:
            return False
        return bool(is_temporal(part.ingested.shard_files()[0].schema.field(part.roles.time).type))

    def index(self, progress: Progress = SILENT) -> Path:
        """Make the index where there is none yet.

        Returns
        -------
        Path
            Its file.
        """
        path = self.folder / INDEX
        if not path.is_file():
            make_folder(self.folder)
            write_index(self.store, self.parts, path, progress)
        return path

    def draw(self) -> Draw:
        """The rows of an audit in their order; drawn where they were not yet."""
        path = self.folder / DRAW
        if not path.is_file():
            make_folder(self.folder)
            write_draw(self.parts, path)
        return Draw.read(path)

    def histogram(self, part: int, sanitizer: str) -> Histogram | None:
        """The scores of a sanitizer in a part, as they were counted for the index."""
        return read_scores(self.folder, part, sanitizer)


def _last_held(store: Store, dataset: str) -> tuple[str, str]:
    """The last run that published nothing, and when it was made."""
    published = releases_by_run(store, dataset)
    runs = [Run.load(folder) for folder in store.runs(dataset) if folder.name not in published]
    if not runs:
        why = "every run of" if published else "no run has ended yet of"
        raise PlanError(
            f"nothing is held back: {why} {dataset!r}" + (" was published" if published else ""),
            do="leave out --held" if published else "run 'sanitize run' first",
        )
    last = max(runs, key=lambda run: run.created)
    return last.key, last.created
