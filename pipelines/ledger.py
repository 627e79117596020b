"""The ledger of arrivals: what has come, by its content, and what became of it.

One small file per content, so that a restart, a second event, a copy under another name or
a touch finds what is known already. An entry is made by whoever lists the source first, and
changed only by the one run that works through arrivals. Beside the entries lies what was
seen of each file, so that only new and changed files are hashed; that is a cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from pipelines.disk import json_object, make_folder, pretty, write_json, write_new
from pipelines.store import Store
from sanitizers.core.errors import IntegrityError, StoreError

#: States of an arrival.
ARRIVED, PUBLISHED, HELD, FAILED = "arrived", "published", "held", "failed"
STATES = (ARRIVED, PUBLISHED, HELD, FAILED)

#: Seconds until a failed arrival is tried again: after the first failure, the second, …
DELAYS = (10.0, 60.0, 300.0)
#: A batch during which the process died so often is not begun again by itself.
MOST_BEGUN = 12

#: Bytes of an entry, and of what was seen of all files, at most.
_ENTRY_BYTES, _SEEN_BYTES = 65_536, 256 * 2**20
#: Characters that an entry keeps of why it failed.
_WHY = 2_000
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Arrival:
    """One content that has arrived.

    Parameters
    ----------
    sha256 : str
    name : str
        The name under which it was first seen.
    bytes : int
    arrived : float
        When it was first seen whole; seconds since 1970.
    state : {"arrived", "published", "held", "failed"}
    version : str or None
        The release that holds it.
    run : str or None
        The key of the run that was held.
    why : str
        Why it failed, or is held.
    attempts : int
        How often it has failed.
    begun : int
        How often it was begun since it last ended.
    tried : float
        When it was last begun; seconds since 1970.
    """

    sha256: str
    name: str
    bytes: int
    arrived: float
    state: str = ARRIVED
    version: str | None = None
    run: str | None = None
    why: str = ""
    attempts: int = 0
    begun: int = 0
    tried: float = 0.0

    @property
    def is_final(self) -> bool:
        """Whether it was published, or a run with it was held."""
        return self.state in {PUBLISHED, HELD}

    @property
    def is_given_up(self) -> bool:
        """Whether it failed so often that only a person lets it be tried again."""
        return self.state == FAILED and (self.attempts > len(DELAYS) or self.begun >= MOST_BEGUN)

    def is_due(self, now: float) -> bool:
        """Whether it is to be processed now."""
        if self.state == ARRIVED:
            return True
        if self.state != FAILED or self.is_given_up:
            return False
        return now >= self.tried + DELAYS[min(self.attempts, len(DELAYS)) - 1]

    @classmethod
    def load(cls, value: Mapping[str, Any]) -> Self:
        """Make an arrival from JSON.

        Raises
        ------
        ValueError
            If a key or a type is wrong.
        """
        kinds = {"str": str, "int": int, "float": (int, float), "str | None": (str, type(None))}
        known = {f.name: kinds[str(f.type)] for f in fields(cls)}
        for name, kind in known.items():
            if not isinstance(value.get(name), kind):  # type: ignore[arg-type]
                raise ValueError(f"{name} is {value.get(name)!r}"[:200])
        if set(value) != set(known) or value["state"] not in STATES:
            raise ValueError("its keys or its state are not known")
        return cls(**value)


#: Of one file: what changes when it is written to, and the SHA-256 that it had then.
Seen = dict[str, tuple[str, str]]


@dataclass(frozen=True)
class Ledger:
    """What is known of the arrivals of one dataset.

    Parameters
    ----------
    folder : Path
    store : Store, optional
        Where it lies, so that other machines learn of it where that is a bucket.
    """

    folder: Path
    store: Store | None = None

    @classmethod
    def of(cls, store: Store, dataset: str) -> Self:
        """The ledger of a dataset in a store."""
        return cls(store.arrivals(dataset), store)

    def refresh(self) -> None:
        """Have the entries as they are now, where other machines write them too."""
        if self.store:
            self.store.refresh(self.folder)

    def add(self, arrival: Arrival) -> bool:
        """Write down an arrival, unless its content is known.

        Returns
        -------
        bool
            False where the content is known.
        """
        make_folder(self.folder)
        path, told = self._path(arrival.sha256), asdict(arrival)
        if self.store and not self.store.give_file(path, pretty(told), new=True):
            return False
        return write_new(path, told)

    def put(self, arrival: Arrival) -> None:
        """Write down what became of an arrival."""
        told = asdict(arrival) | {"why": arrival.why[:_WHY]}
        path = self._path(arrival.sha256)
        if self.store:
            self.store.give_file(path, pretty(told))
        write_json(path, told)

    def get(self, sha256: str) -> Arrival | None:
        """What is known of a content.

        Raises
        ------
        IntegrityError
            If the entry is damaged.
        """
        path = self._path(sha256)
        data = _read(path, _ENTRY_BYTES)
        if data is None:
            return None
        try:
            found = Arrival.load(json_object(data, path))
        except ValueError as error:
            raise _damaged(path, str(error)) from None
        if found.sha256 != sha256:
            raise _damaged(path, f"it speaks of {found.sha256[:64]!r}")
        return found

    def __iter__(self) -> Iterator[Arrival]:
        """All arrivals, oldest first."""
        known = self.folder.iterdir() if self.folder.is_dir() else ()
        names = [p.stem for p in known if p.suffix == ".json" and _SHA256.fullmatch(p.stem)]
        found = [arrival for name in names if (arrival := self.get(name)) is not None]
        return iter(sorted(found, key=oldest_first))

    def seen(self) -> Seen:
        """What was last seen of each file."""
        path = self.folder / "seen.json"
        data = _read(path, _SEEN_BYTES)
        if data is None:
            return {}
        files = json_object(data, path).get("files")
        if not isinstance(files, dict) or not all(_is_stamp(s) for s in files.values()):
            raise _damaged(path, "it does not list files")
        return {name: (stamp, sha256) for name, (stamp, sha256) in files.items()}

    def remember(self, seen: Mapping[str, tuple[str, str]]) -> None:
        """Keep what was seen of each file."""
        make_folder(self.folder)
        write_json(self.folder / "seen.json", {"files": dict(seen)})

    def _path(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise IntegrityError(f"{sha256[:80]!r} names no content", expected="a SHA-256 in hex")
        return self.folder / f"{sha256}.json"


def oldest_first(arrival: Arrival) -> tuple[float, str, str]:
    """The order in which arrivals are processed."""
    return arrival.arrived, arrival.name, arrival.sha256


def _is_stamp(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], str)
        and _SHA256.fullmatch(value[1]) is not None
    )


def _read(path: Path, most: int) -> bytes | None:
    """The bytes of a file; None where there is none."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > most:
        raise _damaged(path, f"it has more than {most:,} bytes")
    return data


def _damaged(path: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"{path} is damaged: {why}", do="remove it; what it told is found out again"
    )
