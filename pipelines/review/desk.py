"""The desk: the datasets of a store, each with its queue, as they are at the moment."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field

import duckdb

from pipelines.audit import ENOUGH, seen
from pipelines.disk import remove
from pipelines.examined import read_kept
from pipelines.pictures import enlarged
from pipelines.progress import SILENT, Progress
from pipelines.review.draw import Draw, Drawn
from pipelines.review.held import Held
from pipelines.review.queue import Queue
from pipelines.review.row import image_of
from pipelines.rulings import Ruling, Rulings
from pipelines.store import Store
from pipelines.trigger_pictures import TriggerPictures, trigger_pictures
from sanitizers.core.errors import PlanError, SanitizeError
from sanitizers.core.keepsake import TRIGGER

#: Pictures of rows that are remembered.
PICTURES = 200

#: How the group of a ruling begins that undoes another.
UNDO = "undo of ruling "

_TRIGGER = re.compile(r"\btrigger ([0-9a-f]{8})\b")


@dataclass
class Seat:
    """One dataset that is being looked at.

    Parameters
    ----------
    held : Held
    queue : Queue
    draw : Draw
    """

    held: Held
    queue: Queue
    draw: Draw
    _pictures: dict[tuple[str, int], bytes | None] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def pending(self) -> list[tuple[Ruling, int]]:
        """The rulings that no release obeys yet, and how many rows each has."""
        told = list(self.queue.said.rulings)
        known = [n for n, (one, _) in enumerate(told, 1) if one.digest == self.held.obeys]
        return told[known[-1] if known else 0 :]

    @property
    def due(self) -> Drawn | None:
        """The row that an audit is to look at; None where it has seen all."""
        return self.draw.due(self.queue.said.audit)

    @property
    def audited(self) -> tuple[int, int]:
        """How many rows audits have ruled on, and how many of these are trusted."""
        return self.draw.counts(self.queue.said.audit)

    @property
    def sample(self) -> int:
        """Rows of an audit."""
        return min(ENOUGH, len(self.draw.rows))

    def values_of(self, row: Drawn) -> str:
        """The digest of the values of a row that was drawn."""
        shard = self.held.parts[row.part].ingested.shard_files()[row.shard]
        return seen(shard.row(row.position))[0]

    def picture(self, row_id: str, side: int) -> bytes | None:
        """The image of a held row as PNG, painted anew; None where there is none."""
        key = (row_id, side)
        with self._lock:
            if key in self._pictures:
                return self._pictures[key]
        row = self.queue.row(row_id) or self.draw.find(row_id)
        data = image_of(self.held, row) if row else None
        made = None if data is None else enlarged(data, side)
        with self._lock:
            while len(self._pictures) >= PICTURES:
                self._pictures.pop(next(iter(self._pictures)))
            self._pictures[key] = made
        return made

    def trigger(self, part: int, message: str) -> TriggerPictures | None:
        """Pictures of the trigger that a reason names."""
        match = _TRIGGER.search(message)
        if match is None:
            return None
        run, store = self.held.parts[part].run, self.held.store
        for key in run.evidence.values():
            for kept in read_kept(store.evidence(run.dataset, key)):
                if kept.kind == TRIGGER and kept.digest.startswith(match[1]):
                    return trigger_pictures(kept.facts["stamp"], kept.arrays)
        return None


@dataclass
class Desk:
    """All datasets of a store that may be looked at.

    Parameters
    ----------
    store : Store
    only : str or None
        One dataset; None for all.
    held : bool
        Look at the last run that was held, not at the last release.
    """

    store: Store
    only: str | None = None
    held: bool = False
    _seats: dict[str, tuple[tuple[str, ...], Seat]] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def datasets(self) -> tuple[str, ...]:
        """Their names."""
        return (self.only,) if self.only else self.store.datasets()

    def overview(self) -> list[tuple[str, str | None, int, int]]:
        """For each dataset that can be looked at its release, the rows that wait, and all rows."""
        found = []
        for name in self.datasets():
            with suppress(SanitizeError):
                held = Held.of(self.store, name, held=self.held)
                found.append((name, held.version, *held.counts))
        return found

    def seat(self, dataset: str, progress: Progress = SILENT) -> Seat:
        """Sit down at a dataset; its index is made where there is none.

        Raises
        ------
        PlanError
            If there is no such dataset, or no run of it has ended.
        """
        if dataset not in self.datasets():
            raise PlanError(f"no dataset {dataset!r} here")
        with self._lock:
            now = self._state(dataset)
            known = self._seats.get(dataset)
            if known is None or known[0] != now:
                self._seats[dataset] = (now, self._sit(dataset, known, progress))
            return self._seats[dataset][1]

    def close(self) -> None:
        """Get up from all of them."""
        with self._lock:
            for _, seat in self._seats.values():
                seat.queue.close()
            self._seats.clear()

    def _sit(
        self, dataset: str, known: tuple[tuple[str, ...], Seat] | None, progress: Progress
    ) -> Seat:
        held = Held.of(self.store, dataset, held=self.held)
        if known is not None and known[1].held.key == held.key:
            # Another release of the same rows, as a publish of rulings makes it.
            return Seat(held, known[1].queue, known[1].draw)
        log = Rulings.of(self.store, dataset)
        try:
            return Seat(held, Queue(held.index(progress), log), held.draw())
        except duckdb.Error:
            # A damaged index, or one of another DuckDB: it holds nothing that is not elsewhere.
            remove(held.folder)
            return Seat(held, Queue(held.index(progress), log), held.draw())

    def _state(self, dataset: str) -> tuple[str, ...]:
        """What tells whether a dataset has changed: cheap to ask at every request."""
        releases, runs = self.store.releases(dataset), self.store.runs(dataset)
        return (*(folder.name for folder in runs), *(folder.name for folder in releases[-1:]))


def undoable(seat: Seat, who: str) -> Ruling | None:
    """The last ruling of a person that was not undone."""
    undone: set[str] = set()
    for ruling, _ in reversed(seat.queue.said.rulings):
        if ruling.who != who:
            continue
        if ruling.group.startswith(UNDO):
            undone.add(ruling.group.removeprefix(UNDO))
        elif str(ruling.number) not in undone:
            return ruling
    return None
