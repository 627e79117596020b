"""What a runner is, and what all of them share."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol, TypeVar

from pipelines.quiet import quiet
from sanitizers.core.errors import SanitizeError, StoreError

T = TypeVar("T")
#: What is done with a shard, given by its number. It travels to the workers, so it is a plain
#: object of a module that they can import; what it returns is small.
Work = Callable[[int], T]

#: How often shards are handed out: a second time where a worker was lost.
ATTEMPTS = 2
#: Groups of shards that a worker is handed, at least, so that a slow one holds up few.
GROUPS = 4
#: Groups in all, at most.
MAX_GROUPS = 64


class Runner(Protocol):
    """Does the same work on many shards. May be asked from several threads at once."""

    def map(self, work: Work[T], count: int, *, device: str = "cpu") -> Iterator[T]:
        """Do the work on the shards from 0 to ``count``.

        Parameters
        ----------
        work : callable
            From the number of a shard to something small.
        count : int
            How many shards there are.
        device : {"cpu", "cuda"}
            What the work computes on.

        Yields
        ------
        object
            What the work returns, in the order in which it is done.

        Raises
        ------
        SanitizeError
            If workers are lost, or the work cannot be handed to them.
        Exception
            What the work raised, as it was raised.
        """
        ...

    def close(self) -> None:
        """End all workers; what is under way may end first, and nothing else begins."""
        ...


@dataclass(frozen=True)
class Local:
    """Works in this process, on one shard after the other."""

    def map(self, work: Work[T], count: int, *, device: str = "cpu") -> Iterator[T]:
        return map(work, range(count))

    def close(self) -> None:
        """Nothing was opened."""


LOCAL = Local()


def groups(count: int, workers: int) -> list[range]:
    """Cut the numbers of shards into groups of neighbours, a few for each worker."""
    parts = max(1, min(count, GROUPS * workers, MAX_GROUPS))
    ends = [count * part // parts for part in range(parts + 1)]
    return [range(*span) for span in pairwise(ends) if span[0] < span[1]]


def do(work: Work[T], numbers: Sequence[int]) -> list[T]:
    """Do the work on a group of shards: what a worker runs."""
    with quiet():
        return [work(number) for number in numbers]


def lost(why: str, do: str) -> SanitizeError:
    """The error where workers were lost more often than is made up for."""
    text = " ".join(why.split())[:300]
    return SanitizeError(f"workers were lost {ATTEMPTS} times: {text}", do=do)


def stranded(error: BaseException) -> SanitizeError:
    """The error where the work cannot be handed to a worker."""
    text = " ".join(str(error.__cause__ or error).split())[:300]
    return SanitizeError(
        f"the work cannot be handed to a worker: {text}", do="run it with --runner local"
    )


def require_folder(folder: Path) -> None:
    """Refuse to work where the folder is not at hand into which the result belongs.

    Raises
    ------
    StoreError
        If it is not there: whoever gave out the work has made it.
    """
    if not folder.is_dir():
        raise StoreError(
            f"a worker on {socket.gethostname()} finds no folder {folder}",
            expected="the store under the same path on every machine",
            do="mount it there, or run with --runner local",
        )


def check_written(files: Sequence[Path]) -> None:
    """Refuse to go on where a file is not at hand that a worker says it has written.

    Raises
    ------
    StoreError
    """
    # Listing a folder asks a network drive what is there now; its cache may not know yet.
    there = {folder: set(os.listdir(folder)) for folder in {file.parent for file in files}}
    missing = [file for file in files if file.name not in there[file.parent]]
    if missing:
        raise StoreError(
            f"{len(missing):,} files that workers have written are not here, such as {missing[0]}",
            expected="the same store under this path on every machine",
            do="mount it there, or run with --runner local",
        )
