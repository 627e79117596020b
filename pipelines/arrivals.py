"""Plans that run by the clock and when data arrive, on a Prefect server.

Prefect starts the runs and shows them. What has arrived, and what became of it, is in the
ledger of the store, so nothing hangs on an event, a run, or a server that is lost.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.events import DeploymentEventTrigger, emit_event
from prefect.runtime import flow_run
from prefect.schedules import Cron
from prefect.states import Crashed
from prefect.types.entrypoint import EntrypointType

from pipelines.board import Board
from pipelines.bound import SERVED_BY, end_with_server
from pipelines.terminal import tell
from sanitizers.core.errors import StoreError

# A run is to start at once: what it, or what serves, needs besides takes seconds to import.
if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment
    from prefect.runner import Runner

    from pipelines.plan import Plan
    from pipelines.store import Store
    from pipelines.watch import Watch

Json = dict[str, Any]

#: The event that data have arrived; its resource is the dataset.
EVENT = "dataset.arrived"
#: Seconds between two looks of the runner for runs that are to start.
POLL_SECONDS = 1.0
#: Seconds between two looks whether the server is alive.
WAIT_SECONDS = 1.0
#: Runs that are at work, or were when the server died.
_AT_WORK = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


def resource_of(dataset: str) -> str:
    """Name a dataset among the resources of events."""
    return f"dataset.{dataset}"


def _name_of_run() -> str:
    plan = flow_run.parameters.get("plan")
    return str(plan["dataset"]["name"] if isinstance(plan, dict) else plan)


@flow(
    name="sanitize-arrivals",
    flow_run_name=_name_of_run,
    persist_result=False,
    validate_parameters=False,
)
def sanitize_arrivals(
    plan: Json | str,
    store: str | None = None,
    arrived: bool = False,
    again: bool = False,
    wait: bool = True,
    device: str = "auto",
    runner: str | None = None,
) -> Json:
    """Process what has arrived for a plan; started by the clock or by hand, run the plan too.

    Parameters
    ----------
    plan : dict or str
        A `Plan` as JSON, or the path of a plan file.
    store : str, optional
        The root of the store; by default the plan's.
    arrived : bool
        Do no more than process what has arrived.
    again : bool
        Process also what has failed so often that it was given up.
    wait : bool
        Wait for another run of the dataset that is at work; else leave it to that one.
    device : {"auto", "cpu", "cuda"}
        What encoders compute on.
    runner : str, optional
        Where shards are scored.

    Returns
    -------
    dict
        How many batches were run, and, where the plan was run, what came of it.
    """
    end_with_server()
    from pipelines.plan import Plan
    from pipelines.served import Served
    from pipelines.store import Store

    given = Plan.read(Path(plan)) if isinstance(plan, str) else Plan.make(plan)
    served = Served(given, Store.open(store or given.store), _board, device, runner)
    if not wait and served.store.worker(served.name) is not None:
        served.tell("another run is at work")
        return {"batches": 0}
    batches = served.drain(again=again) if given.arrivals or arrived else 0
    grows = given.arrivals and given.dataset.grow
    return {"batches": batches} | ({} if arrived or grows else served.run_plan())


def _board(name: str) -> Board:
    """Show progress in the page of the server: an artifact of the run, and lines of its log."""
    made = cast("UUID", create_progress_artifact(0.0, key="progress", description=name))

    def post(done: float, stage: str) -> None:
        update_progress_artifact(made, done, description=f"{name}: {stage}")

    return Board(post, get_run_logger().info)


def deployment_of(plan: Plan, store: Store, runner: str | None = None) -> RunnerDeployment:
    """The deployment of a plan: how, when and on which event it is run.

    Parameters
    ----------
    plan : Plan
    store : Store
    runner : str, optional
        Where shards are scored.
    """
    name, schedule = plan.dataset.name, plan.schedule
    parameters: Json = {"plan": plan.model_dump(mode="json"), "store": store.address}
    arrived = DeploymentEventTrigger(
        name=f"{name} has arrived",
        expect={EVENT},
        match={"prefect.resource.id": resource_of(name)},
        parameters={"arrived": True},
    )
    clock = []
    if schedule is not None:
        # A run by the clock that meets another one at work leaves all to that one.
        once = {"wait": False}
        clock.append(Cron(schedule.cron, timezone=schedule.timezone, parameters=once))
    made = sanitize_arrivals.to_deployment(
        name,
        schedules=clock,
        triggers=[arrived] if plan.arrivals else [],
        parameters=parameters | ({"runner": runner} if runner else {}),
        description=f"{plan.dataset.source} → {store.dataset(name)}",
        entrypoint_type=EntrypointType.MODULE_PATH,
        enforce_parameter_schema=False,
    )
    # Prefect types what a function may return, called in a loop or not.
    return cast("RunnerDeployment", made)


@dataclass(frozen=True)
class PrefectOffice:
    """The deployment of a dataset on a Prefect server.

    Parameters
    ----------
    client : SyncPrefectClient
    dataset : str
    deployment : UUID
    """

    client: SyncPrefectClient
    dataset: str
    deployment: UUID

    def is_busy(self) -> bool:
        """Whether a run is at work, or is to start now."""
        soon = datetime.now(UTC) + timedelta(seconds=2 * POLL_SECONDS)
        return bool(self._runs(_AT_WORK) or self._runs([StateType.SCHEDULED], before=soon))

    def announce(self, contents: int) -> None:
        """Raise the event that starts a run."""
        resource = {"prefect.resource.id": resource_of(self.dataset)}
        emit_event(EVENT, resource=resource, payload={"contents": contents})

    def bury(self) -> None:
        """Say of runs that a server left behind when it died that they have crashed."""
        left = self._runs(_AT_WORK)
        ids = [run.id for run in left]
        if not ids:
            return
        parents = FlowRunFilterParentFlowRunId(any_=ids)
        children = self.client.read_flow_runs(
            flow_run_filter=FlowRunFilter(parent_flow_run_id=parents, state=_state_filter(_AT_WORK))
        )
        state: State[Any] = Crashed(message="the server that ran it ended")
        for run in [*left, *children]:
            self.client.set_flow_run_state(run.id, state, force=True)

    def catch_up(self) -> None:
        """Of the runs by the clock that were missed meanwhile, keep the last one only."""
        missed = self._runs([StateType.SCHEDULED], before=datetime.now(UTC))
        clock = [run for run in missed if run.auto_scheduled and run.expected_start_time]
        clock.sort(key=lambda run: run.expected_start_time or datetime.now(UTC))
        for run in clock[:-1]:
            self.client.delete_flow_run(run.id)

    def _runs(self, states: list[StateType], before: datetime | None = None) -> list[FlowRun]:
        chosen = FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[self.deployment]),
            state=_state_filter(states),
        )
        if before is not None:
            chosen.expected_start_time = FlowRunFilterExpectedStartTime.model_validate(
                {"before_": before}
            )
        return list(self.client.read_flow_runs(flow_run_filter=chosen))


def _state_filter(states: list[StateType]) -> FlowRunFilterState:
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=states))


def serve(
    plans: Sequence[tuple[Plan, Store]],
    ready: Callable[[], None],
    is_alive: Callable[[], bool],
    runner: str | None = None,
) -> None:
    """Run plans by the clock and when data arrive, until the process is asked to end.

    Parameters
    ----------
    plans : sequence of (Plan, Store)
        At least one.
    ready : callable
        Called once all is set up.
    is_alive : callable
        Whether the Prefect server that was started for this is.
    runner : str, optional
        Where shards are scored.

    Raises
    ------
    StoreError
        If the server, or what starts runs, ends.
    """
    from prefect.runner import Runner

    os.environ[SERVED_BY] = str(os.getpid())
    at_once = max(2, len(plans))
    works = Runner("sanitize", query_seconds=POLL_SECONDS, limit=at_once, pause_on_shutdown=False)
    with get_client(sync_client=True) as client:
        watches = [w for plan, store in plans for w in _open(works, client, plan, store, runner)]
        thread = threading.Thread(
            target=asyncio.run, args=(works.start(),), name="runner", daemon=True
        )
        thread.start()
        for watch in watches:
            watch.start()
        ready()
        while thread.is_alive() and is_alive():
            thread.join(WAIT_SECONDS)
        raise StoreError(
            "what starts the runs has ended" if is_alive() else "Prefect's server has ended",
            do="start this again; nothing is lost",
        )


def _open(
    works: Runner, client: SyncPrefectClient, plan: Plan, store: Store, runner: str | None
) -> list[Watch]:
    """Tell the server of a plan; return what watches its source, where that is asked for."""
    from pipelines.drain import inbox_of
    from pipelines.watch import Watch

    deployment = cast("UUID", works.add_deployment(deployment_of(plan, store, runner)))
    office = PrefectOffice(client, plan.dataset.name, deployment)
    office.bury()
    office.catch_up()
    if plan.arrivals is None:
        return []
    return [Watch(inbox_of(plan, store), office, partial(tell, plan.dataset.name))]
