"""Several processes of one machine, by joblib's loky, which scikit-learn brings along.

They are started anew and never forked: after OpenMP has been at work a fork hangs.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import BrokenExecutor, Future, as_completed
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from pipelines.runners.runner import ATTEMPTS, LOCAL, Work, do, groups, lost, stranded
from sanitizers.core.errors import SanitizeError
from sanitizers.core.images import thread_count

if TYPE_CHECKING:
    from joblib.externals.loky.process_executor import ProcessPoolExecutor

T = TypeVar("T")
# Semaphores of a run that was cut off, which are removed, as a filter of warnings.
_LEFT = "ignore:resource_tracker:UserWarning"
#: Seconds between two looks of a worker at whether the process that started it still lives.
LOOK_SECONDS = 1.0


@dataclass
class Processes:
    """Works in processes of its own, which start with the first work.

    Parameters
    ----------
    workers : int
        How many there are; each takes its part of the cores for what computes in threads.
    """

    workers: int
    _pool: ProcessPoolExecutor | None = field(default=None, repr=False)
    _closed: bool = field(default=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def map(self, work: Work[T], count: int, *, device: str = "cpu") -> Iterator[T]:
        # On a GPU processes would only stand in one another's way.
        if device != "cpu" or count < 2:
            yield from LOCAL.map(work, count)
            return
        left, why = groups(count, self.workers), ""
        for _ in range(ATTEMPTS):
            left, why = yield from self._try(work, left)
            if not left:
                return
        raise lost(why, "most often memory ran out: take fewer (--runner processes:N) or local")

    def close(self) -> None:
        with self._lock:
            pool, self._pool, self._closed = self._pool, None, True
        if pool is not None:
            # Told to kill workers that are at work, loky stumbles over what they return. What
            # has begun ends by itself; where the process ends sooner, workers go with it.
            pool.shutdown()

    def _try(self, work: Work[T], left: list[range]) -> Generator[T, None, tuple[list[range], str]]:
        """Hand out groups of shards; return those whose worker was lost, and how."""
        from joblib.externals.loky.process_executor import PicklingError

        pool, again, why = self._workers(), [], ""
        running: dict[Future[list[T]], range] = {}
        try:
            for group in left:
                running[_hand_in(pool, work, group)] = group
            for future in as_completed(running):
                try:
                    done = future.result()
                except BrokenExecutor as error:
                    again.append(running[future])
                    why = str(error.__cause__ or error)
                else:
                    yield from done
        except PicklingError as error:
            raise stranded(error) from error
        finally:
            for future in running:
                future.cancel()
        if again:
            self._renew(pool)
        return again, why

    def _workers(self) -> ProcessPoolExecutor:
        from joblib.externals.loky.process_executor import ProcessPoolExecutor

        with self._lock:
            if self._closed:
                raise SanitizeError("the run has ended, and its workers with it")
            if self._pool is None:
                _hush()
                threads = max(1, thread_count() // self.workers)
                self._pool = ProcessPoolExecutor(
                    self.workers,
                    initializer=_settle,
                    initargs=(os.getpid(),),
                    env={"OMP_NUM_THREADS": str(threads)},
                )
            return self._pool

    def _renew(self, pool: ProcessPoolExecutor) -> None:
        """Leave a pool whose workers are lost; the next work finds another."""
        with self._lock:
            if self._pool is pool:
                self._pool = None
        pool.shutdown()


def _hand_in(pool: ProcessPoolExecutor, work: Work[T], group: range) -> Future[list[T]]:
    """Hand in a group; where the work of another thread has just broken the pool, it is lost."""
    try:
        handed: Future[list[T]] = pool.submit(do, work, group)
    except BrokenExecutor as error:
        handed = Future()
        handed.set_exception(error)
    return handed


def _hush() -> None:
    """Let the process that tidies up after a pool say nothing where a run was cut off."""
    said = os.environ.get("PYTHONWARNINGS", "")
    if _LEFT not in said:
        os.environ["PYTHONWARNINGS"] = f"{said},{_LEFT}".strip(",")


def _settle(parent: int) -> None:
    """Make a new process a good worker: it goes with its parent, and only then."""
    from joblib.externals.loky import process_executor

    # Else a worker that has grown by 300 MB is replaced, with a warning; shards are large.
    process_executor._USE_PSUTIL = False
    # Ctrl-C in a terminal reaches every process; the parent says what is to be done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(parent,), name="parent", daemon=True).start()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)
