"""Serving plans: one process at a time per dataset, and a Prefect server, ours or another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from pipelines.disk import locked, make_folder
from pipelines.plan import Plan
from pipelines.prefect_server import PrefectServer, listen
from pipelines.prefect_settings import prepare_to_serve
from pipelines.store import Store
from pipelines.terminal import StderrConsole, plain
from sanitizers.core.errors import PlanError

if TYPE_CHECKING:
    from pathlib import Path

#: Seconds that a server that was killed may take to let go of its datasets.
LOCK_SECONDS = 5.0


def serve(
    plans: Sequence[Plan], *, port: int | None, runner: str | None = None, verbose: bool = False
) -> None:
    """Run plans by the clock and when data arrive, until the process is asked to end.

    Parameters
    ----------
    plans : sequence of Plan
    port : int, optional
        Of the page; by default 4200, or another where that is taken.
    runner : str, optional
        Where shards are scored.
    verbose : bool
        Show what Prefect logs on the terminal too.

    Raises
    ------
    PlanError
        If two plans are of the same dataset.
    StoreError
        If another process serves one of the datasets, or the server ends.
    """
    console = StderrConsole()
    opened = [(plan, Store.open(plan.store)) for plan in plans]
    _check(opened)
    with ExitStack() as stack:
        for plan, store in opened:
            stack.enter_context(_only_server(store.arrivals(plan.dataset.name), plan.dataset.name))
        page, is_alive = stack.enter_context(_orchestrator(opened[0][1].root, port, verbose))
        from pipelines import arrivals

        def ready() -> None:
            for plan, _ in opened:
                console.print(plain(f"{plan.dataset.name}: {_when(plan)}"), soft_wrap=True)
            console.print(plain(f"serving; runs are shown at {page}"), soft_wrap=True)

        arrivals.serve(opened, ready, is_alive, runner)


def _check(opened: Sequence[tuple[Plan, Store]]) -> None:
    names = [plan.dataset.name for plan, _ in opened]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PlanError(
            f"two plans are of a dataset {twice[0]!r}",
            expected="one plan for each dataset, also where they have stores of their own",
            do="give one of them another name",
        )


@contextmanager
def _only_server(folder: Path, dataset: str) -> Iterator[None]:
    make_folder(folder)
    busy = f"the dataset {dataset!r} is served by another process"
    with locked(folder / ".served", LOCK_SECONDS, busy):
        yield


@contextmanager
def _orchestrator(
    store: Path, port: int | None, verbose: bool
) -> Iterator[tuple[str, Callable[[], bool]]]:
    """The Prefect server: the one that the user has named, or one of our own.

    Yields
    ------
    (str, callable)
        The address of its page, and what says whether it is alive, as far as we know.
    """
    given = os.environ.get("PREFECT_API_URL")
    if given:
        prepare_to_serve(store, None, verbose=verbose)
        yield given.removesuffix("/").removesuffix("/api"), lambda: True
        return
    listener = listen(port)
    prepare_to_serve(store, listener.getsockname()[1], verbose=verbose)
    server = PrefectServer.start(listener)
    try:
        # Both take seconds; the one need not wait for the other.
        import pipelines.arrivals  # noqa: F401

        server.wait()
        yield server.page, lambda: server.is_alive
    finally:
        server.stop()


def _when(plan: Plan) -> str:
    """In words, when a plan is run."""
    said = []
    if plan.schedule is not None:
        said.append(f"by the clock, {plan.schedule.cron} ({plan.schedule.timezone})")
    if plan.arrivals is not None:
        said.append(f"when data arrive in {plan.dataset.source}")
    return " and ".join(said) or "by hand only: the plan has no [schedule] and no [arrivals]"
