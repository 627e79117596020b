"""The inbox of a dataset: which files of its source are whole, and which contents are new."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.ledger import Arrival, Ledger, Seen, oldest_first
from pipelines.plan_parts import ArrivalsPart
from pipelines.readers.remote import NothingThereError
from pipelines.readers.sources import digest_sources, find_sources, names_within, stamp_sources
from sanitizers.core.errors import InputError

#: The share of the time to settle after which a file is likely to be whole.
SOON = 0.25
#: A file beside another that says, by being there, that the other is whole.
DONE = ".done"
#: A file that says so of all files in its folder.
SUCCESS = "_SUCCESS"


@dataclass
class Settling:
    """Which files have stopped growing.

    Parameters
    ----------
    seconds : float
        For so long neither the size nor the time of a file must have changed.
    """

    seconds: float
    _since: dict[str, tuple[str, float]] = field(default_factory=dict, repr=False)

    def settled(self, stamps: Mapping[str, str], now: float) -> set[str]:
        """The names of those that have.

        Parameters
        ----------
        stamps : mapping of str to str
            For each file what changes when it is written to.
        now : float
            Seconds, by a clock that is never set back.
        """
        before = self._since
        self._since = {
            name: before[name] if before.get(name, ("", 0.0))[0] == stamp else (stamp, now)
            for name, stamp in stamps.items()
        }
        return self.quiet(now, self.seconds)

    def quiet(self, now: float, seconds: float) -> set[str]:
        """The names of those that have not changed for so long, as of the last time."""
        return {name for name, (_, since) in self._since.items() if now - since >= seconds}


@dataclass(frozen=True)
class Looked:
    """What a look into the inbox found.

    Parameters
    ----------
    new : tuple of Arrival
        Contents that nobody had seen before.
    there : mapping of str to str
        For each content that lies in the source whole, the name of a file that holds it.
    waiting : int
        Files that are not whole yet.
    soon : frozenset of str
        Those among them that have not changed for a moment, and are likely to be whole soon.
    troubles : mapping of str to str
        Files that cannot be read, each with the reason.
    """

    new: tuple[Arrival, ...]
    there: Mapping[str, str]
    waiting: int = 0
    soon: frozenset[str] = frozenset()
    troubles: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Inbox:
    """The source of a dataset, and the ledger of what has arrived in it.

    Parameters
    ----------
    source : str
        A file, a folder, a glob or a URL.
    ledger : Ledger
    asked : ArrivalsPart
    locate : callable, optional
        For a URL: brings here what is new there, and returns what stands for it here.
    """

    source: str
    ledger: Ledger
    asked: ArrivalsPart
    locate: Callable[[], str] | None = None
    _here: str | None = field(default=None, init=False, repr=False)
    _located: float = field(default=float("-inf"), init=False, repr=False)
    _settling: Settling = field(init=False, repr=False)
    _seen: Seen | None = field(default=None, init=False, repr=False)
    _final: set[str] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        self._settling = Settling(self.asked.settle)

    def look(self) -> Looked:
        """List the source, and write down what is new in it and whole.

        Raises
        ------
        SanitizeError
            If a file cannot be read, or the ledger is damaged.
        """
        files = self._files()
        if self._seen is None:
            self._seen = self.ledger.seen()
        seen = {n: s for n, s in self._seen.items() if n in files and s[0] == files[n][1]}
        open_ = {n: stamp for n, (_, stamp) in files.items() if n not in seen}
        whole = self._marked(open_, files)
        now = time.monotonic()
        settled = self._settling.settled(open_, now)
        soon: set[str] = set()
        if not self.asked.marker:
            whole |= settled
            soon = self._settling.quiet(now, SOON * self.asked.settle)
        troubles: dict[str, str] = {}
        new = [a for n in sorted(whole) if (a := self._take(n, files[n], seen, troubles))]
        if seen != self._seen:
            self.ledger.remember(seen)
            self._seen = seen
        there = {sha256: name for name, (_, sha256) in sorted(seen.items(), reverse=True)}
        waiting = frozenset(files.keys() - seen.keys() - troubles.keys())
        return Looked(tuple(new), there, len(waiting), waiting & soon, troubles)

    def _files(self) -> dict[str, tuple[Path, str]]:
        try:
            return listing(self._local())
        except NothingThereError:
            return {}

    def _local(self) -> str:
        """The source, or what stands here for a URL; that is asked once in a poll's time."""
        if self.locate is None:
            return self.source
        if self._here is None or time.monotonic() - self._located >= self.asked.poll:
            self._here = self.locate()
            self._located = time.monotonic()
        return self._here

    def due(self, there: Iterable[str], now: float) -> list[Arrival]:
        """Those contents that lie in the source and are to be processed now, oldest first."""
        found = []
        for sha256 in there:
            arrival = None if sha256 in self._final else self.ledger.get(sha256)
            if arrival is not None and arrival.is_final:
                self._final.add(sha256)
            elif arrival is not None and arrival.is_due(now):
                found.append(arrival)
            elif arrival is None and sha256 not in self._final:
                self._forget(sha256)
        return sorted(found, key=oldest_first)

    def _forget(self, sha256: str) -> None:
        """Take a content for new whose entry somebody has removed."""
        self._seen = {n: s for n, s in (self._seen or {}).items() if s[1] != sha256}

    def _take(
        self, name: str, file: tuple[Path, str], seen: Seen, troubles: dict[str, str]
    ) -> Arrival | None:
        """Write down the content of a file, if it does not change under our hands."""
        path, stamp = file
        try:
            ((sha256, size),) = digest_sources([path])
            if _stamp(path) != stamp:
                return None
        except FileNotFoundError:
            return None
        except InputError as error:
            if path.exists():
                troubles[name] = str(error)
            return None
        seen[name] = (stamp, sha256)
        arrival = Arrival(sha256, name, size, time.time())
        return arrival if self.ledger.add(arrival) else None

    def _marked(self, open_: Iterable[str], files: Mapping[str, tuple[Path, str]]) -> set[str]:
        return {name for name in open_ if _is_marked(files[name][0])}


def listing(source: str) -> dict[str, tuple[Path, str]]:
    """The files of a source: for each name its path, and what changes when it is written to.

    Parameters
    ----------
    source : str
        One in which there is nothing yet is empty.
    """
    try:
        paths = [path for path in find_sources(source) if path.suffix != DONE]
    except InputError:
        return {}
    found = {}
    for name, path in zip(names_within(source, paths), paths, strict=True):
        try:
            found[name] = path, _stamp(path)
        except FileNotFoundError:
            continue
    return found


def _stamp(path: Path) -> str:
    return json.dumps(stamp_sources([path])[0])


def _is_marked(path: Path) -> bool:
    """Whether a marker that is not older than the file says that it is whole."""
    markers = (path.with_name(path.name + DONE), path.with_name(SUCCESS))
    try:
        written = path.stat().st_mtime_ns
    except OSError:
        return False
    return any(_time(marker) >= written for marker in markers)


def _time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return -1
