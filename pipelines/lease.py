"""A lease in a bucket: one at work, among machines that share nothing else.

Who holds it is an object that only one of many can create, and that names its owner. The owner
renews it; one that is not renewed has run out, and whoever waits deletes it and creates another.
Clocks must agree, as `at_work` says. A lease can be lost where its owner stood still for longer
than it runs, so whatever must be done by its owner alone asks `Lease.check` just before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace

from pipelines.at_work import BYTES, GLANCE_SECONDS, LEASE_SECONDS, RENEW_SECONDS, Owner
from pipelines.bucket import Bucket
from pipelines.disk import canonical
from sanitizers.core.errors import SanitizeError, StoreError

#: Seconds between two looks at who holds a lease; each is a request.
PAUSE = 1.0
#: After taking over from an owner that is gone, others may be about to; so long they have.
SETTLE_SECONDS = 1.0


@dataclass(frozen=True)
class Lease:
    """A lease that is held.

    Parameters
    ----------
    bucket : Bucket
    name : str
        Of the object.
    owner : Owner
    """

    bucket: Bucket
    name: str
    owner: Owner

    def is_ours(self) -> bool:
        """Whether the object names us."""
        found = owner_in(self.bucket, self.name)
        return found is not None and found.token == self.owner.token

    def check(self) -> None:
        """Refuse to go on where somebody else has taken the lease over.

        Raises
        ------
        StoreError
        """
        if not self.is_ours():
            raise StoreError(
                f"the lease {self.bucket.url}/{self.name} was lost: this process stood still for "
                f"more than {LEASE_SECONDS:.0f} seconds, and another went on",
                do="run the same command again",
            )

    def renew(self) -> None:
        """Let it run from now on."""
        self.bucket.write(self.name, _text(replace(self.owner, expires=_expiry())))


@contextmanager
def leased(
    bucket: Bucket,
    name: str,
    place: str,
    found: str,
    wait: float,
    tell: Callable[[str], None],
    command: str,
) -> Iterator[tuple[Lease, bool]]:
    """Hold a lease for as long as the context lasts.

    Parameters
    ----------
    bucket : Bucket
    name : str
        Of the object.
    place : str
        Names the folder here in which a lock of its own is held already: a lease that was
        taken in the same place belongs to a process that is dead.
    found : str
        What to say when somebody else holds it, for instance ``another run is at work``.
    wait : float
        Seconds.
    tell : callable
        Told at once, in a line, who is waited for.
    command : str
        What others are told to be at work.

    Yields
    ------
    (Lease, bool)
        And whether somebody else was waited for.

    Raises
    ------
    StoreError
        If somebody else holds it for longer.
    """
    lease = Lease(bucket, name, replace(Owner.make(command), kernel=place))
    waited = _acquire(lease, found, wait, tell)
    done = threading.Event()
    keeper = threading.Thread(target=_renew, args=(lease, done), daemon=True)
    keeper.start()
    try:
        yield lease, waited
    finally:
        done.set()
        keeper.join()
        with suppress(SanitizeError):
            if lease.is_ours():
                bucket.delete([name])


def owner_in(bucket: Bucket, name: str) -> Owner | None:
    """Who holds a lease, or held it last; None where nobody does."""
    data = bucket.read(name, BYTES)
    return Owner.load(data) if data else None


def _acquire(lease: Lease, found: str, wait: float, tell: Callable[[str], None]) -> bool:
    began, told = time.monotonic(), False
    while not _try(lease):
        waited = time.monotonic() - began
        owner = owner_in(lease.bucket, lease.name)
        who = f"{found} {owner}" if owner else found
        if waited >= wait:
            raise StoreError(who, do="wait for it (--wait SECONDS), or run this again later")
        if not told and waited >= GLANCE_SECONDS:
            tell(f"waiting: {who}")
            told = True
        time.sleep(min(PAUSE, max(wait - waited, 0.0)))
    return told


def _try(lease: Lease) -> bool:
    """Take a lease that nobody holds, or that has run out."""
    data = _text(replace(lease.owner, expires=_expiry()))
    if lease.bucket.create(lease.name, data):
        return True
    found = lease.bucket.read(lease.name, BYTES)
    owner = Owner.load(found) if found is not None else None
    if found is None or (owner is not None and owner.holds(lease.owner.kernel)):
        return False
    lease.bucket.delete([lease.name])
    if not lease.bucket.create(lease.name, data):
        return False
    # Another may have read the same old lease, and delete ours for it.
    time.sleep(SETTLE_SECONDS)
    return lease.is_ours()


def _renew(lease: Lease, done: threading.Event) -> None:
    while not done.wait(RENEW_SECONDS):
        with suppress(SanitizeError):
            if not lease.is_ours():
                return
            lease.renew()


def _expiry() -> float:
    return time.time() + LEASE_SECONDS


def _text(owner: Owner) -> bytes:
    return canonical(asdict(owner))
