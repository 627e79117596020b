"""Working through what has arrived: every content once, oldest first, whatever is interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipelines.inbox import Inbox, Looked
from pipelines.job import Job
from pipelines.ledger import ARRIVED, FAILED, HELD, MOST_BEGUN, PUBLISHED, Arrival, Ledger
from pipelines.manifest import Manifest
from pipelines.outcome import Outcome
from pipelines.plan import Plan
from pipelines.plan_parts import ArrivalsPart
from pipelines.readers.remote import is_url
from pipelines.store import Store
from pipelines.take import ALL, Take
from sanitizers.core.errors import SanitizeError

#: Batches of one drain, at most: more are left to the next one, so that none grows without end.
MOST_BATCHES = 32

#: Runs the plan on the files that are taken.
Run = Callable[[Take], Outcome]
#: Says one line to people.
Tell = Callable[[str], None]


@dataclass
class Drain:
    """What has arrived for a plan, and how it is worked through.

    Parameters
    ----------
    plan : Plan
    store : Store
    run : callable
    tell : callable
    """

    plan: Plan
    store: Store
    run: Run
    tell: Tell

    def __post_init__(self) -> None:
        self.inbox = inbox_of(self.plan, self.store)

    @property
    def ledger(self) -> Ledger:
        """What is known of the arrivals."""
        return self.inbox.ledger

    def all(self, *, again: bool = False, most: int = MOST_BATCHES) -> int:
        """Process all that has arrived.

        Parameters
        ----------
        again : bool
            Also what has failed so often that it was given up.
        most : int
            Batches, at most.

        Returns
        -------
        int
            How many batches were run.
        """
        if again:
            self._forgive()
        for done in range(most):
            # Whoever else is at work may have processed what was seen before this.
            with self.store.at_work(self.plan.dataset.name, tell=self.tell, command="arrivals"):
                self.ledger.refresh()
                batch = self._batch(self._look())
                if not batch:
                    return done
                self._process(batch)
        return most

    def _look(self) -> Looked:
        """Look into the inbox; where files may still grow, once more after a while."""
        looked = self.inbox.look()
        if not looked.waiting or self.inbox.due(looked.there, time.time()):
            return looked
        time.sleep(self.inbox.asked.settle)
        return self.inbox.look()

    def _batch(self, looked: Looked) -> list[Arrival]:
        """What is to be taken next, less what releases hold already."""
        due = self.inbox.due(looked.there, time.time())
        left = self._mark_published(due)
        left = [a for a in (self._given_up(arrival) for arrival in left) if a is not None]
        # Names may have changed since a content was first seen.
        named = [replace(arrival, name=looked.there[arrival.sha256]) for arrival in left]
        return named[:1] if self.plan.dataset.grow else named

    def _process(self, batch: Sequence[Arrival]) -> None:
        """Run one batch, and write down what became of it."""
        now = time.time()
        begun = [replace(a, begun=a.begun + 1, tried=now) for a in batch]
        for arrival in begun:
            self.ledger.put(arrival)
        take = Take(only=(batch[0].name,)) if self.plan.dataset.grow else ALL
        try:
            outcome = self.run(take)
        except SanitizeError as error:
            self._failed(begun, str(error))
        except Exception as error:
            self._failed(begun, f"a fault of sanitize: {type(error).__name__}: {error}")
        else:
            self._ended(begun, outcome)

    def _ended(self, batch: Sequence[Arrival], outcome: Outcome) -> None:
        if outcome.release is None:
            run = Path(outcome.report).parent.name if outcome.report else None
            for arrival in batch:
                why = outcome.held_because
                self.ledger.put(replace(arrival, state=HELD, run=run, why=why, begun=0))
            self.tell(f"held: {outcome.held_because} ({_names(batch)})")
            return
        left = self._mark_published(batch)
        if left:
            # It was changed or taken away after it was seen; what came instead arrives anew.
            self._failed(left, f"release {outcome.version} does not hold it")
        self.tell(
            f"published {outcome.version}, {outcome.quarantine:,} of {outcome.rows:,} rows in "
            f"quarantine ({_names(batch)})"
        )

    def _failed(self, batch: Sequence[Arrival], why: str) -> None:
        for arrival in batch:
            failed = replace(arrival, state=FAILED, why=why, attempts=arrival.attempts + 1, begun=0)
            self.ledger.put(failed)
        gives_up = " (given up)" if failed.is_given_up else ""
        self.tell(f"failed{gives_up}: {_names(batch)}: {why}")

    def _given_up(self, arrival: Arrival) -> Arrival | None:
        """Give up what the process died of again and again."""
        if arrival.begun < MOST_BEGUN:
            return arrival
        why = f"the process ended in the middle of it {arrival.begun} times"
        self.ledger.put(replace(arrival, state=FAILED, why=why))
        self.tell(f"failed (given up): {arrival.name}: {why}")
        return None

    def _mark_published(self, due: Sequence[Arrival]) -> list[Arrival]:
        """Mark what a release holds already, and return the others."""
        left = {arrival.sha256: arrival for arrival in due}
        releases = reversed(self.store.releases(self.plan.dataset.name)) if left else iter(())
        for number, release in enumerate(releases):
            # The last release holds all that it has grown by; older ones are asked only where
            # a process died after it had published.
            if not left or (number and not any(a.begun for a in left.values())):
                break
            held = {file.sha256 for file in Manifest.load(release).source.files}
            for sha256 in held & set(left):
                arrival = left.pop(sha256)
                self.ledger.put(
                    replace(arrival, state=PUBLISHED, version=release.name, why="", begun=0)
                )
        return list(left.values())

    def _forgive(self) -> None:
        for arrival in self.ledger:
            if arrival.state == FAILED:
                self.ledger.put(replace(arrival, state=ARRIVED, attempts=0, begun=0))


def inbox_of(plan: Plan, store: Store) -> Inbox:
    """The inbox of a plan in a store."""
    ledger, source = Ledger.of(store, plan.dataset.name), plan.dataset.source
    asked = plan.arrivals or ArrivalsPart()
    # A job fetches what is behind a URL, and says where it lies.
    return Inbox(source, ledger, asked, partial(_fetched, plan, store) if is_url(source) else None)


def _fetched(plan: Plan, store: Store) -> str:
    return Job(plan, store).source


def _names(batch: Sequence[Arrival]) -> str:
    more = f" and {len(batch) - 1} more" if len(batch) > 1 else ""
    return f"{batch[0].name}{more}"
