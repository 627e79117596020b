"""One run of a dataset at a time: a lock that names its owner, and that no dead process keeps.

Who holds it is decided twice. On one machine the kernel decides: it lets go of a lock when
the process that holds it ends, however that ends. Between machines that share a file system
a lease decides, for there not every file system carries the locks of one machine to the
others: the owner renews it, and one that is not renewed runs out. It is written in the time
of the system clock, as seconds since 1970, so the clocks of these machines must agree to
`LEASE_SECONDS` less `RENEW_SECONDS`.

No row hangs on it. Should two runs be at work in spite of all, each writes the same pieces
under the same names, whole or not at all, and publishing has a lock of its own, which is
taken while this one is held and never the other way round.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.disk import canonical, try_lock, writing
from sanitizers.core.errors import StoreError

#: How long a lease of another machine holds without being renewed.
LEASE_SECONDS = 60.0
#: How often an owner renews it.
RENEW_SECONDS = 15.0
#: How long a second run waits for the first one.
WAIT_SECONDS = 600.0
#: Others look at a lock for a moment, to say who holds it; that is no run.
GLANCE_SECONDS = 0.3
#: Seconds between two looks.
PAUSE = 0.1
#: Bytes of an owner; it is written with one call, so that no reader sees a part of it.
BYTES = 4096

_KERNEL = Path("/proc/sys/kernel/random/boot_id")
_TEXT = 128
#: A time after this is not the time of a run.
_LAST = 1e11


@dataclass(frozen=True)
class Owner:
    """Who is at work on a dataset.

    Parameters
    ----------
    host : str
        The name of the machine.
    kernel : str
        Names the running kernel; processes of one kernel see each other's locks.
    pid : int
    since, expires : float
        Seconds since 1970, by the clock of that machine.
    command : str
    token : str
        Tells this owner from every other.
    """

    host: str
    kernel: str
    pid: int
    since: float
    expires: float
    command: str
    token: str

    @classmethod
    def make(cls, command: str) -> Owner:
        """Name this process as the owner, from now on."""
        now = time.time()
        token = secrets.token_hex(8)
        host = socket.gethostname()[:_TEXT]
        expires = now + LEASE_SECONDS
        return cls(host, kernel(), os.getpid(), now, expires, command[:_TEXT], token)

    @classmethod
    def load(cls, data: bytes) -> Owner | None:
        """Read what an owner wrote; None where it is nothing that an owner writes."""
        try:
            value = json.loads(data)
            return cls(
                _text(value["host"]),
                _text(value["kernel"]),
                _whole(value["pid"]),
                _moment(value["since"]),
                _moment(value["expires"]),
                _text(value["command"]),
                _text(value["token"]),
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            return None

    def holds(self, place: str | None = None) -> bool:
        """Whether the lease of another place holds; in the same one a lock says it better.

        Parameters
        ----------
        place : str, optional
            By default this machine, as its kernel is named.
        """
        now = time.time()
        # One that runs for longer than a lease can is no owner's.
        running = now < self.expires <= now + 2 * LEASE_SECONDS
        return running and self.kernel != (place or kernel())

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since).astimezone()
        day = "" if since.date() == datetime.now(since.tzinfo).date() else "%Y-%m-%d "
        return f"since {since.strftime(day + '%H:%M')} (process {self.pid} on {self.host})"


@contextmanager
def at_work(
    path: Path, subject: str, wait: float, tell: Callable[[str], None], command: str
) -> Iterator[bool]:
    """Be the one run at work, for as long as the context lasts.

    Parameters
    ----------
    path : Path
        The file of the lock; it stays.
    subject : str
        What a second run is told to be a run of, for instance ``'credit'``.
    wait : float
        Seconds to wait for another run to end; 0 does not wait.
    tell : callable
        Told at once, in a line, who is waited for.
    command : str
        What others are told to be at work.

    Yields
    ------
    bool
        Whether another run was waited for, so that its work may be there now.

    Raises
    ------
    StoreError
        If another run is at work for longer than that; it names its owner.
    """
    handle = _open(path, os.O_RDWR | os.O_CREAT)
    try:
        waited = _acquire(path, handle, f"another run of {subject} is at work", wait, tell)
        owner = Owner.make(command)
        with writing(path):
            _write(handle, owner)
        done = threading.Event()
        keeper = threading.Thread(target=_renew, args=(handle, owner, done), daemon=True)
        keeper.start()
        try:
            yield waited
        finally:
            done.set()
            keeper.join()
            _leave(handle, owner)
    finally:
        os.close(handle)


def owner_of(path: Path) -> Owner | None:
    """Who is at work, and None where nobody is; waits for nobody, and changes nothing.

    Parameters
    ----------
    path : Path
        The file of the lock.
    """
    try:
        handle = _open(path, os.O_RDONLY)
    except StoreError:
        return None
    try:
        owner = _read(handle)
        if not _is_held(handle):
            return owner if owner and owner.holds() else None
        return owner or Owner("an unknown machine", "", 0, time.time(), 0.0, "", "")
    finally:
        os.close(handle)


@cache
def kernel() -> str:
    """Name the running kernel, or the machine where the kernel has no name."""
    try:
        return _KERNEL.read_text("ascii").strip()
    except (OSError, ValueError):
        return socket.gethostname()[:_TEXT]


def _acquire(path: Path, handle: int, found: str, wait: float, tell: Callable[[str], None]) -> bool:
    began, told = time.monotonic(), False
    while not _try(path, handle):
        waited = time.monotonic() - began
        if waited >= GLANCE_SECONDS:
            owner = _read(handle)
            who = f"{found} {owner}" if owner else f"{found}, and does not say who it is"
            if waited >= wait:
                raise StoreError(who, do="wait for it (--wait SECONDS), or run this again later")
            if not told:
                tell(f"waiting: {who}")
                told = True
        time.sleep(PAUSE)
    return told


def _try(path: Path, handle: int) -> bool:
    """Take the lock, unless it or the lease of another machine is held."""
    if not try_lock(path, handle):
        return False
    owner = _read(handle)
    if owner is None or not owner.holds():
        return True
    fcntl.flock(handle, fcntl.LOCK_UN)
    return False


def _is_held(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _renew(handle: int, owner: Owner, done: threading.Event) -> None:
    """Renew the lease until the work is done, or another machine has taken it over."""
    while not done.wait(RENEW_SECONDS):
        with suppress(OSError):
            if not _is_ours(handle, owner):
                return
            _write(handle, replace(owner, expires=time.time() + LEASE_SECONDS))


def _leave(handle: int, owner: Owner) -> None:
    with suppress(OSError):
        if _is_ours(handle, owner):
            os.ftruncate(handle, 0)


def _is_ours(handle: int, owner: Owner) -> bool:
    found = _read(handle)
    return found is not None and found.token == owner.token


def _open(path: Path, flags: int) -> int:
    with writing(path):
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _read(handle: int) -> Owner | None:
    try:
        return Owner.load(os.pread(handle, BYTES, 0))
    except OSError:
        return None


def _write(handle: int, owner: Owner) -> None:
    # Spaces after JSON are JSON: the length never changes, nor is a part ever seen.
    os.pwrite(handle, canonical(asdict(owner)).ljust(BYTES), 0)
    os.ftruncate(handle, BYTES)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _TEXT:
        raise ValueError
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 < value < 2**32:
        raise ValueError
    return value


def _moment(value: Any) -> float:
    if not isinstance(value, float) or not 0.0 <= value <= _LAST:
        raise ValueError
    return value
