"""Ctrl-C and SIGTERM: an orderly end when it comes soon, an end in any case."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType

#: Seconds that the stages have to end by themselves. A model that is being fitted
#: cannot be interrupted, and nobody should wait for it.
GRACE = 3.0


class Terminated(BaseException):
    """The process was asked to end with SIGTERM."""


@dataclass
class Watch:
    """Watches for signals, whoever handles them.

    Parameters
    ----------
    leave : callable
        Called with the exit status when the time of grace is over; must not return.
    signal : int
        The first signal that came, 0 before.
    """

    leave: Callable[[int], None]
    signal: int = 0
    _reader: socket.socket | None = field(default=None, repr=False)

    @property
    def status(self) -> int:
        """The exit status that a shell expects of the signal; 0 where there was none."""
        return 128 + self.signal if self.signal else 0

    def follow(self, reader: socket.socket) -> None:
        """Wait for a signal, then for the end, a second signal, or the end of the grace."""
        while not self.signal:
            word = reader.recv(1)
            if not word:
                return
            if word[0] in {signal.SIGINT, signal.SIGTERM}:
                self.signal = word[0]
        # What libraries log while they are torn down helps nobody.
        logging.disable(logging.CRITICAL)
        reader.settimeout(GRACE)
        with suppress(TimeoutError):
            if not reader.recv(1):
                return
        self.leave(self.status)


@contextmanager
def watching(leave: Callable[[int], None]) -> Iterator[Watch]:
    """Watch for Ctrl-C and SIGTERM; to be used in the main thread.

    Signals still raise, so that what is open is closed on the way out. The wakeup
    descriptor tells the watching thread of a signal even where a library has put its
    own handler in place of ours, as Prefect does for SIGTERM while a flow runs.

    Parameters
    ----------
    leave : callable
        Ends the process with a status, at once.
    """
    watch = Watch(leave)
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = signal.signal(signal.SIGTERM, _terminate)
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=watch.follow, args=(reader,), name="signals", daemon=True).start()
    try:
        yield watch
    finally:
        signal.set_wakeup_fd(descriptor)
        signal.signal(signal.SIGTERM, before)
        writer.close()


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def leave_now(status: int) -> None:
    """End the process without waiting for any thread."""
    os._exit(status)
