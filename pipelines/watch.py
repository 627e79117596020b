"""Watching a source: whatever has arrived and is not yet processed, a run is asked for.

What there is to do is read off the ledger again and again; events, of the file system and of
the orchestrator, only make it faster. So nothing is lost with one that is missed.
"""

from __future__ import annotations

import glob
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from pipelines.inbox import Inbox, Looked
from sanitizers.core.errors import SanitizeError

#: Seconds between two looks at what is due; and while a file is still growing.
TICK, SHORT = 1.0, 0.25
#: A quick look may take this share of the time, at most.
SHARE = 0.2
#: Seconds until a run is asked for again where the first request has led to nothing, and where
#: it was for files that were not whole yet.
PATIENCE, EARLY = 30.0, 5.0


class Office(Protocol):
    """Whoever runs what is asked for."""

    def is_busy(self) -> bool:
        """Whether a run of the dataset is at work, or waits to be."""
        ...

    def announce(self, contents: int) -> None:
        """Ask for a run.

        Parameters
        ----------
        contents : int
            How many have arrived and are to be processed; 0 where one is about to.
        """
        ...


@dataclass
class Bell:
    """When a run is asked for: once for what is due, and again where nothing came of it.

    For a file that is likely to be whole soon it is asked for, once, before that: what
    settles and the process of a run that starts need not wait for each other.
    """

    _rung: float = float("-inf")
    _due: frozenset[str] = frozenset()
    _soon: frozenset[str] = frozenset()
    _early: bool = False

    def rings(
        self,
        due: frozenset[str],
        is_busy: Callable[[], bool],
        now: float,
        soon: frozenset[str] = frozenset(),
    ) -> bool:
        """Whether to ask now.

        Parameters
        ----------
        due : frozenset of str
            The contents that are to be processed.
        is_busy : callable
            Whether a run is at work or asked for, which will process them too.
        now : float
            Seconds, by a clock that is never set back.
        soon : frozenset of str
            The files that are likely to be whole soon.
        """
        new = soon - self._soon
        if not (self._is_time(due, now) or new) or is_busy():
            return False
        self._rung, self._due, self._early = now, due, not due
        self._soon = soon
        return True

    def _is_time(self, due: frozenset[str], now: float) -> bool:
        patience = PATIENCE if due == self._due else EARLY if self._early else 0.0
        return bool(due) and now - self._rung >= patience


@dataclass
class Watch:
    """Watches the source of one plan.

    Parameters
    ----------
    inbox : Inbox
    office : Office
    tell : callable
        Says one line to people.
    """

    inbox: Inbox
    office: Office
    tell: Callable[[str], None]
    _wake: threading.Event = field(default_factory=threading.Event, repr=False)
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)
    _bell: Bell = field(default_factory=Bell, repr=False)
    _told: str = ""

    def start(self) -> None:
        """Watch from now on, in threads of their own."""
        for target in (self._follow, self._listen):
            threading.Thread(target=target, name="watch", daemon=True).start()

    def stop(self) -> None:
        """Ask for no more runs."""
        self._stop.set()
        self._wake.set()

    def _follow(self) -> None:
        """Look again and again; a fault is told, once, and may pass."""
        looked, again = Looked((), {}), 0.0
        while not self._stop.is_set():
            woken = self._wake.wait(SHORT if looked.waiting else TICK)
            self._wake.clear()
            began = time.monotonic()
            try:
                if woken or looked.waiting or began >= again:
                    again = began + self.inbox.asked.poll
                    looked = self.inbox.look()
                    self._tell_new(looked)
                self._ask(looked)
            except Exception as error:
                looked = replace(looked, waiting=0, soon=frozenset())
                self._tell_trouble(error)
            # Listing a large source at every event of a busy one would do nothing else.
            self._stop.wait(min(TICK, (time.monotonic() - began) * (1 / SHARE - 1)))

    def _ask(self, looked: Looked) -> None:
        due = self.inbox.due(looked.there, time.time())
        contents = frozenset(arrival.sha256 for arrival in due)
        if self._bell.rings(contents, self.office.is_busy, time.monotonic(), looked.soon):
            self.office.announce(len(contents))

    def _tell_new(self, looked: Looked) -> None:
        if looked.new:
            files = "1 file" if len(looked.new) == 1 else f"{len(looked.new)} files"
            self.tell(f"{files} arrived")
        for name, why in looked.troubles.items():
            self._tell_once(f"{name} cannot be taken: {why}")

    def _tell_trouble(self, error: Exception) -> None:
        name = "" if isinstance(error, SanitizeError) else f"{type(error).__name__}: "
        self._tell_once(f"{name}{error}; trying again")

    def _tell_once(self, line: str) -> None:
        if line != self._told:
            self._told = line
            self.tell(line)

    def _listen(self) -> None:
        """Wake the watch when the file system says that something has changed."""
        from watchfiles import watch

        root = root_of(self.inbox.source)
        while root is not None and not self._stop.wait(TICK):
            if not root.is_dir():
                continue
            try:
                for _ in watch(
                    root,
                    watch_filter=None,
                    stop_event=self._stop,
                    debounce=100,
                    step=20,
                    raise_interrupt=False,
                ):
                    self._wake.set()
            except (OSError, RuntimeError) as error:
                self.tell(f"the file system tells of no changes ({error}); listing it instead")
                return


def root_of(source: str) -> Path | None:
    """The folder in which the files of a source appear; None for an address.

    Parameters
    ----------
    source : str
        A file, a folder or a glob.
    """
    if "://" in source:
        return None
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    parts = path.parts
    plain = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return Path(*parts[:plain]) if plain else Path()
