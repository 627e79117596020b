"""Progress of a run for those who look at a page: one share and one line, now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

#: Seconds between two posts, at least.
POST_SECONDS = 1.0

#: Shows how much of a stage is done, in percent, and what it is.
Post = Callable[[float, str], None]
#: Says one line.
Say = Callable[[str], None]


@dataclass
class Board:
    """Where a run says how far it is, so that a page can show it; see `Progress`.

    Parameters
    ----------
    post : callable
        Called about once per second, at most.
    say : callable
    """

    post: Post
    say: Say
    _posted: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def stage(self, name: str, total: int | None = None, shards: int | None = None) -> BoardStage:
        """Open a stage."""
        return BoardStage(self, name, total)

    def note(self, text: str) -> None:
        """Say one line."""
        self.say(text)

    def show(self, done: float, name: str) -> None:
        """Post how much of a stage is done, unless something was posted just now.

        Parameters
        ----------
        done : float
            In percent.
        name : str
        """
        with self._lock:
            now = time.monotonic()
            if now - self._posted < POST_SECONDS:
                return
            self._posted = now
        self.post(done, name)


@dataclass
class BoardStage:
    """One stage of a run on a board."""

    board: Board
    name: str
    total: int | None
    rows: int = 0

    def advance(self, rows: int) -> None:
        """Count the rows of a shard."""
        self.rows += rows
        share = self.rows / self.total if self.total else 0.0
        self.board.show(100.0 * min(1.0, share), self.name)

    def __enter__(self) -> Self:
        self.board.show(0.0, self.name)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.board.show(100.0, self.name)
