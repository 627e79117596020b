"""Which runner is meant: ``local``, ``processes:4``, ``ray`` or ``ray://host:10001``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from pipelines.runners.cluster import Cluster
from pipelines.runners.processes import Processes
from pipelines.runners.runner import LOCAL, Runner
from sanitizers.core.errors import PlanError, did_you_mean
from sanitizers.core.images import cores

#: The environment variable that names a runner.
RUNNER_VARIABLE = "SANITIZE_RUNNER"
#: Workers that one machine is asked for, at most: a typing error should not take it down.
MAX_WORKERS = 512

_LOCAL, _PROCESSES, _RAY = "local", "processes", "ray"
_EXPECTED = "local, processes, processes:N, ray, ray:N or ray://HOST:PORT"


def find_runner(said: str | None = None) -> Runner:
    """The runner of a name. Starts nothing yet.

    Parameters
    ----------
    said : str, optional
        ``local``; ``processes`` or ``processes:N``; ``ray`` (the cluster that runs here, or
        one that is started for the run), ``ray:N`` (one of N workers, started for the run) or
        ``ray://HOST:PORT``. By default what ``SANITIZE_RUNNER`` names, else ``local``.

    Raises
    ------
    PlanError
        If there is no such runner, or what it needs is not installed.
    """
    word = said or os.environ.get(RUNNER_VARIABLE) or _LOCAL
    kind, colon, rest = word.partition(":")
    if word == _LOCAL:
        return LOCAL
    if kind == _PROCESSES:
        return Processes(_workers(word, rest) if colon else cores())
    if kind != _RAY:
        where = "" if said else f"{RUNNER_VARIABLE}: "
        near = did_you_mean(kind, (_LOCAL, _PROCESSES, _RAY))
        raise PlanError(f"{where}no runner {word!r}", do=near)
    if rest.startswith("//") and not rest.strip("/"):
        raise PlanError(f"the runner {word!r} names no host", expected=_EXPECTED)
    if find_spec("ray") is None:
        raise PlanError(
            f"the runner {word!r} needs the package ray, which is not installed",
            do="install the extra: pip install 'dataset-sanitizer[ray]'",
        )
    if rest.startswith("//"):
        return Cluster(address=word)
    return Cluster(workers=_workers(word, rest) if colon else None)


def check_runner(said: str | None = None) -> None:
    """Refuse a runner that is not there, before any data are read.

    Raises
    ------
    PlanError
    """
    find_runner(said)


@contextmanager
def opened(said: str | None = None) -> Iterator[Runner]:
    """A runner by its name, as `find_runner` knows it; its workers end with the block."""
    runner = find_runner(said)
    try:
        yield runner
    finally:
        runner.close()


def _workers(word: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_WORKERS:
        raise PlanError(f"no runner {word!r}", expected=f"{_EXPECTED}; N from 1 to {MAX_WORKERS}")
    return int(text)
