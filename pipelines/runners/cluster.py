"""A Ray cluster: the one that runs here, one that is started for the run, or one elsewhere."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, redirect_stdout, suppress
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from pipelines.manifest import tool
from pipelines.quiet import quiet
from pipelines.runners.runner import LOCAL, Work, do, groups, lost, stranded
from sanitizers.core.errors import PlanError, SanitizeError
from sanitizers.core.images import cores

T = TypeVar("T")

#: Told to Ray unless the user has said otherwise.
_SETTINGS = {
    # Nothing is sent anywhere.
    "RAY_USAGE_STATS_ENABLED": "0",
    # Else SIGTERM prints a trace, and aborts the process three seconds later.
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
    # The first error of a run is told; those of other shards would be logged besides.
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
}
_AGAIN = "see what the cluster says of its memory; the same command goes on where this stopped"
_START = (
    "start one (where it asks for a token, set RAY_AUTH_MODE=token and have it in "
    "~/.ray/auth_token), or run with --runner local"
)


@dataclass
class Cluster:
    """Works on a Ray cluster; connects to it, or starts it, with the first work.

    A worker takes one core; one whose work computes on CUDA takes a GPU besides.

    Parameters
    ----------
    address : str, optional
        ``ray://HOST:PORT``. By default the cluster that runs on this machine, else one that
        is started here and ends with the run.
    workers : int, optional
        Start a cluster of so many here, whatever runs already.
    """

    address: str | None = None
    workers: int | None = None
    _home: ThreadPoolExecutor | None = field(default=None, repr=False)
    _closed: bool = field(default=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _open: ExitStack = field(default_factory=ExitStack, repr=False)

    def map(self, work: Work[T], count: int, *, device: str = "cpu") -> Iterator[T]:
        if count < 2:
            yield from LOCAL.map(work, count)
            return
        ray = self._connected()
        try:
            have = ray.cluster_resources()
            if device == "cuda" and have.get("GPU", 0) < 1:
                raise PlanError("no machine of the Ray cluster has a GPU", do="say --device cpu")
            parts = groups(count, self.workers or int(have.get("CPU", 1)))
            yield from _hand_out(ray, work, parts, 1 if device == "cuda" else 0)
        except (ConnectionError, ray.exceptions.RayError) as error:
            raise lost(f"{type(error).__name__}: {error}", _AGAIN) from error

    def close(self) -> None:
        with self._lock:
            home, self._home, self._closed = self._home, None, True
        if home is not None:
            home.submit(_leave).result()
            home.shutdown()
            self._open.close()

    def _connected(self) -> Any:
        with self._lock:
            if self._closed:
                raise SanitizeError("the run has ended, and its workers with it")
            if self._home is None:
                # The processes of a cluster end with the thread that starts them, and hear
                # Ctrl-C where it does; and Ray takes signals over in a main thread.
                blocked = (signal.SIG_BLOCK, {signal.SIGINT})
                home = ThreadPoolExecutor(1, "ray", signal.pthread_sigmask, blocked)
                try:
                    home.submit(self._start).result()
                except BaseException:
                    home.shutdown()
                    self._open.close()
                    raise
                self._home = home
        import ray

        return ray

    def _start(self) -> None:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        import ray

        # What Ray has to say of workers it prints, and standard output is for the outcome.
        self._open.enter_context(redirect_stdout(sys.stderr))
        logs: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            with quiet():
                if self.address:
                    ray.init(self.address, **logs)
                elif self.workers or not _joined(ray, logs):
                    ray.init("local", **logs, **self._settings())
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            text = " ".join(str(error).split())[:300]
            where = f"answers at {self.address}" if self.address else "starts here"
            raise PlanError(f"no Ray cluster {where}: {text}", do=_START) from error

    def _settings(self) -> dict[str, Any]:
        """Of a cluster that is started here: for this run only, and heard by nobody else."""
        # Short, for Ray makes sockets in it, whose paths may have 107 characters.
        folder = TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        return {
            "num_cpus": self.workers or cores(),
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
            # Its own folder, so that no other run joins a cluster that ends with this one.
            "_temp_dir": self._open.enter_context(folder),
        }


def _joined(ray: Any, logs: dict[str, Any]) -> bool:
    """Connect to the cluster that runs on this machine, if one does."""
    try:
        ray.init("auto", **logs)
    except ConnectionError:
        return False
    return True


def _leave() -> None:
    import ray

    ray.shutdown()


def _hand_out(ray: Any, work: Work[T], parts: list[range], gpus: int) -> Iterator[T]:
    """Have groups of shards worked on, each by a worker with a core and so many GPUs."""
    task = ray.remote(_do_alike).options(num_cpus=1, num_gpus=gpus, max_retries=1)
    try:
        handed = ray.put(work)
    except TypeError as error:
        raise stranded(error) from error
    running = [task.remote(tool().version, handed, part) for part in parts]
    try:
        while running:
            (first, *_), running = ray.wait(running)
            yield from _fetched(ray, first)
    finally:
        for left in running:
            with suppress(Exception):  # the cluster may be gone, and a first error is told
                ray.cancel(left)


def _fetched(ray: Any, reference: Any) -> list[Any]:
    """What a worker has returned, or the error that it raised, as it was raised."""
    try:
        return list(ray.get(reference))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from error
        raise stranded(error) from error
    except ray.exceptions.RaySystemError as error:
        # What a worker could not even unpack, for instance for a module that it does not have.
        raise stranded(error) from error


def _do_alike(version: str, work: Work[T], numbers: range) -> list[T]:
    """Do the work on a group of shards, where the same version of this product is installed."""
    here = tool().version
    if here != version:
        raise PlanError(
            f"a Ray worker has version {here} of {tool().name}, and the run version {version}",
            do="install the same version on every machine",
        )
    return do(work, numbers)
