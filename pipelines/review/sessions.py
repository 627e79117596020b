"""Sessions: who has come in, for how long, and how often somebody tried in vain."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from pipelines.review.users import User

#: Seconds after which a session ends, whether used or not.
LASTS = 12 * 3600.0
#: Sessions at a time; the oldest gives way.
MOST = 1_000
#: Attempts to sign in from one address, and by one name, within so many seconds. By a name there
#: may be more, or whoever knows it could lock its owner out with ease.
FROM_ADDRESS, BY_NAME, WITHIN = 8, 40, 300.0


@dataclass(frozen=True)
class Session:
    """Somebody who has come in.

    Parameters
    ----------
    user : User
    csrf : str
        A secret that every form carries; another site's page cannot know it.
    until : float
    """

    user: User
    csrf: str
    until: float

    def is_meant(self, token: str) -> bool:
        """Whether a form comes from a page of this session."""
        return hmac.compare_digest(self.csrf.encode(), token.encode())


@dataclass
class Sessions:
    """All sessions of a server, in memory: they end with it.

    Parameters
    ----------
    clock : callable
        Seconds that only grow.
    """

    clock: Callable[[], float] = time.monotonic
    _known: OrderedDict[bytes, Session] = field(default_factory=OrderedDict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def open(self, user: User) -> str:
        """Begin a session, and give the secret that stands for it."""
        secret = secrets.token_urlsafe(32)
        session = Session(user, secrets.token_urlsafe(32), self.clock() + LASTS)
        with self._lock:
            self._known[_digest(secret)] = session
            while len(self._known) > MOST:
                self._known.popitem(last=False)
        return secret

    def find(self, secret: str) -> Session | None:
        """The session of a secret, unless it has ended."""
        with self._lock:
            session = self._known.get(_digest(secret))
        return session if session and self.clock() < session.until else None

    def close(self, secret: str) -> None:
        """End a session."""
        with self._lock:
            self._known.pop(_digest(secret), None)


@dataclass
class Attempts:
    """How often somebody has tried to come in.

    Parameters
    ----------
    clock : callable
    """

    clock: Callable[[], float] = time.monotonic
    _tried: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def allow(self, address: str, name: str) -> bool:
        """Count an attempt; False where there were too many."""
        now = self.clock()
        with self._lock:
            few = self._count(f"from {address}", now) <= FROM_ADDRESS
            return self._count(f"by {name[:100]}", now) <= BY_NAME and few

    def forget(self, address: str, name: str) -> None:
        """Begin anew: this one knew the password."""
        with self._lock:
            self._tried.pop(f"from {address}", None)
            self._tried.pop(f"by {name[:100]}", None)

    def _count(self, key: str, now: float) -> int:
        tried = self._tried.setdefault(key, deque(maxlen=BY_NAME + 1))
        self._tried.move_to_end(key)
        while tried and now - tried[0] > WITHIN:
            tried.popleft()
        tried.append(now)
        while len(self._tried) > 10_000:
            self._tried.popitem(last=False)
        return len(tried)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
