"""The desk: the datasets of a store, each with its queue, as they are at the moment."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field

from pipelines.examined import read_kept
from pipelines.pictures import thumbnail
from pipelines.progress import SILENT, Progress
from pipelines.review.held import Held
from pipelines.review.queue import Queue
from pipelines.review.row import image_of
from pipelines.rulings import Ruling, Rulings
from pipelines.store import Store
from pipelines.trigger_pictures import TriggerPictures, trigger_pictures
from sanitizers.core.errors import PlanError
from sanitizers.core.keepsake import TRIGGER

#: Characters of a picture as an address, and how many are remembered.
PICTURE, PICTURES = 60_000, 400

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
    """

    held: Held
    queue: Queue
    _pictures: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def pending(self) -> list[tuple[Ruling, int]]:
        """The rulings that no release obeys yet, and how many rows each has."""
        told = list(self.queue.said.rulings)
        known = [n for n, (one, _) in enumerate(told, 1) if one.digest == self.held.obeys]
        return told[known[-1] if known else 0 :]

    def picture(self, row_id: str) -> str:
        """A small picture of a held row as an address, painted anew; empty where there is none."""
        if row_id not in self._pictures:
            row = self.queue.row(row_id)
            data = image_of(self.held, row) if row else None
            if len(self._pictures) >= PICTURES:
                self._pictures.pop(next(iter(self._pictures)), None)
            self._pictures[row_id] = "" if data is None else thumbnail(data, PICTURE)
        return self._pictures.get(row_id, "")

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
    """

    store: Store
    only: str | None = None
    _seats: dict[str, tuple[tuple[str, ...], Seat]] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def datasets(self) -> tuple[str, ...]:
        """Their names."""
        return (self.only,) if self.only else self.store.datasets()

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
        held = Held.of(self.store, dataset)
        if known is not None and known[1].held.key == held.key:
            # Another release of the same rows, as a publish of rulings makes it.
            return Seat(held, known[1].queue)
        return Seat(held, Queue(held.index(progress), Rulings.of(self.store, dataset)))

    def _state(self, dataset: str) -> tuple[str, ...]:
        """What tells whether a dataset has changed: cheap to ask at every request."""
        releases = self.store.releases(dataset)
        if releases:
            return (releases[-1].name,)
        return tuple(folder.name for folder in self.store.runs(dataset))


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
