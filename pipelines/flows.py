"""The order of the stages, as a Prefect flow. No logic: what is done is in the stages.

Only keys, paths, counts and other small values pass between tasks. Prefect caches and
persists nothing: every stage names its work by its content, and does none twice.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.exceptions import TerminationSignal
from prefect.futures import PrefectFuture
from prefect.logging.configuration import setup_logging
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    temporary_settings,
)
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from pipelines import steps
from pipelines.interrupts import Terminated
from pipelines.job import Job
from pipelines.occasions import EVENTS, letter
from pipelines.outcome import Outcome
from pipelines.prefect_server import PrefectServer, single_server
from pipelines.progress import SILENT, Progress
from pipelines.runners import LOCAL, Runner, opened
from pipelines.terminal import StderrConsole
from pipelines.timing import WAIT, Timed
from pipelines.work import Work
from sanitizers.catalog import LIBRARIES
from sanitizers.core.errors import PlanError

#: Sanitizers that are fitted at once. Each uses threads of its own for the heavy part: on
#: 2 cores and 200,000 rows of 20 numbers two at once saved 10 % of the time for 80 MB.
WORKERS = 2


@dataclass(frozen=True)
class _Ahead:
    """What was done while a server of our own started.

    Parameters
    ----------
    inputs : dict of str to str
        The keys of what was read.
    timed : Timed
    """

    inputs: dict[str, str]
    timed: Timed


# A display is no value that a flow could take as a parameter, nor are open workers. Prefect
# copies the context into the threads of its tasks, so a context variable reaches them all.
_progress: ContextVar[Progress] = ContextVar("progress", default=SILENT)
_runner: ContextVar[Runner] = ContextVar("runner", default=LOCAL)
# So that files which were read to know the job by their digests are not read for them again.
_job: ContextVar[Job | None] = ContextVar("job", default=None)
_ahead: ContextVar[_Ahead | None] = ContextVar("ahead", default=None)

# Prefect types a flow's runner by the plain future, and this runner by one of its kinds.
_RUNNER = cast("TaskRunner[PrefectFuture[Any]]", ThreadPoolTaskRunner(max_workers=WORKERS))

#: Seconds that a notification may take.
TELL_SECONDS = 30.0
#: Characters of a line about what failed at the end of a run.
LINE = 500

Json = dict[str, Any]


def _work(plan: Json, store: str, inputs: Mapping[str, str]) -> Work:
    return Job.load(plan, store).ingested(inputs)


@task(name="ingest", cache_policy=NO_CACHE, persist_result=False)
def ingest(plan: Json, store: str, take: Json | None = None) -> dict[str, str]:
    """Read the data and the trusted rows; return the keys of what was read."""
    if (ahead := _ahead.get()) is not None:
        return ahead.inputs
    job = _job.get() or Job.load(plan, store, take)
    return steps.ingest_inputs(job, _progress.get())


@task(name="embed", cache_policy=NO_CACHE, persist_result=False)
def embed(plan: Json, store: str, inputs: Mapping[str, str], device: str) -> Json:
    """Make features of the images; return what they were computed on."""
    work = _work(plan, store, inputs)
    done = steps.embed_images(work, device, _progress.get(), _runner.get())
    return {"device": done[0].device, "seconds": done[0].seconds} if done else {}


@task(name="examine", task_run_name="examine-{name}", cache_policy=NO_CACHE, persist_result=False)
def examine(plan: Json, store: str, inputs: Mapping[str, str], name: str) -> Json:
    """Let one sanitizer score every row; return where its evidence lies."""
    work = _work(plan, store, inputs)
    done = steps.examine_with(work, name, _progress.get(), _runner.get())
    return {"folder": str(done.folder), "rows": done.rows, "seconds": done.seconds}


@task(name="risks", cache_policy=NO_CACHE, persist_result=False)
def risks(plan: Json, store: str, inputs: Mapping[str, str]) -> Json:
    """Look for risks of columns and batches; return how many findings there are."""
    done = steps.look_for_risks(_work(plan, store, inputs), _progress.get())
    return {"findings": len(done.findings), "seconds": done.seconds}


@task(name="decide", cache_policy=NO_CACHE, persist_result=False)
def decide(plan: Json, store: str, inputs: Mapping[str, str]) -> Json:
    """Judge every row; return the counts."""
    done = steps.decide_all(_work(plan, store, inputs), _progress.get())
    counts = {"rows": done.rows, "keep": done.keep, "review": done.review}
    return counts | {"quarantine": done.quarantine, "held": done.held}


@task(name="report", cache_policy=NO_CACHE, persist_result=False)
def report(plan: Json, store: str, inputs: Mapping[str, str]) -> Json:
    """Write the report of a run that is held; return the outcome of the run."""
    return asdict(steps.report_held(_work(plan, store, inputs), _progress.get()))


@task(name="publish", cache_policy=NO_CACHE, persist_result=False)
def publish(plan: Json, store: str, inputs: Mapping[str, str]) -> Json:
    """Publish the verdicts with their report; return the outcome of the run."""
    return asdict(steps.publish_rows(_work(plan, store, inputs), _progress.get()))


@flow(
    name="sanitize-dataset",
    flow_run_name="{plan[dataset][name]}",
    task_runner=_RUNNER,
    persist_result=False,
    validate_parameters=False,
)
def sanitize_dataset(
    plan: Json,
    store: str,
    device: str = "auto",
    take: Json | None = None,
    runner: str | None = None,
) -> Json:
    """Sanitize one dataset: ingest, embed, examine, decide, report, publish.

    Parameters
    ----------
    plan : dict
        A `Plan` as JSON.
    store : str
        The root of a store that exists, so that no salt passes through Prefect.
    device : {"auto", "cpu", "cuda"}
        What encoders compute on.
    take : dict, optional
        A `Take` as JSON: which files, where the dataset grows.
    runner : str, optional
        Where shards are scored, as `find_runner` knows it.

    Returns
    -------
    dict
        An `Outcome` as JSON.
    """
    with _timed() as timed:
        inputs = ingest(plan, store, take)
        work = _work(plan, store, inputs)
        for note in work.notes:
            timed.note(note)
        with _workers(runner):
            embed(plan, store, inputs, device)
            running = [examine.submit(plan, store, inputs, name) for name in work.chosen.run]
            running.append(risks.submit(plan, store, inputs))
            for scored in running:
                scored.result()
        held = decide(plan, store, inputs)["held"]
        outcome = (report if held else publish)(plan, store, inputs)
        _summarise(Outcome.load(outcome))
        _close(_work(plan, store, inputs), Outcome.load(outcome), timed)
    return outcome


@contextmanager
def _timed() -> Iterator[Timed]:
    """Time all tasks that are started within, and what was done ahead of them."""
    ahead = _ahead.get()
    timed = Timed(_progress.get()) if ahead is None else ahead.timed
    token = _progress.set(timed)
    try:
        yield timed
    finally:
        _progress.reset(token)


@contextmanager
def _workers(said: str | None) -> Iterator[None]:
    """Let all tasks that are started within work where it is said."""
    with opened(said) as runner:
        token = _runner.set(runner)
        try:
            yield
        finally:
            _runner.reset(token)


@task(name="tell", timeout_seconds=TELL_SECONDS, cache_policy=NO_CACHE, persist_result=False)
def tell(block: str, subject: str, text: str) -> None:
    """Write to those who asked to be told, through a notification block of Prefect."""
    loaded = Block.load(block, validate=False)
    if not isinstance(loaded, NotificationBlock):
        raise PlanError(f"the block {block!r} sends no notifications")
    with loaded.raise_on_failure():
        # Typed by what it is in a flow without a loop of events.
        cast(Any, loaded).notify(text, subject)


def _close(work: Work, outcome: Outcome, timed: Timed) -> None:
    """Write the metrics, and tell people; what was published stays so, whatever fails here."""
    try:
        metrics = steps.measure(work, outcome, timed)
        told = steps.worth_telling(work, metrics)
        for occasion in told:
            resource = {"prefect.resource.id": f"dataset.{outcome.dataset}"}
            payload = {"version": outcome.version, "why": occasion.why, "report": outcome.report}
            emit_event(EVENTS[occasion.kind], resource, payload=payload)
        notify = work.job.plan.notify
        asked = [occasion for occasion in told if occasion.kind in notify.when]
        if asked and notify.block:
            tell(notify.block, *letter(metrics, asked, outcome.report))
    except Exception as error:
        timed.note(f"{outcome.dataset}: nobody was told of the run: {error}"[:LINE])


def run(
    job: Job,
    progress: Progress,
    console: StderrConsole,
    server: PrefectServer | None = None,
    *,
    device: str = "auto",
    runner: str | None = None,
    verbose: bool = False,
) -> Outcome:
    """Run the flow for a job in this process.

    Parameters
    ----------
    job : Job
    progress : Progress
    console : StderrConsole
        Where Prefect's logs go, so that they do not tear the progress display.
    server : PrefectServer, optional
        One that was started for this run; else the settings of Prefect name one, or one is
        started here.
    device : {"auto", "cpu", "cuda"}
        What encoders compute on.
    runner : str, optional
        Where shards are scored, as `find_runner` knows it.
    verbose : bool
        Show all of Prefect's logs, not only warnings that are not told otherwise.

    Raises
    ------
    SanitizeError
        What a stage raised, as it was raised; or that no Prefect server answers.
    Terminated
        If the process was asked to end.
    """
    _share(console, verbose)
    done = None if server is None else _go_ahead(job, progress)
    token, given, ahead = _progress.set(progress), _job.set(job), _ahead.set(done)
    try:
        plan = job.plan.model_dump(mode="json")
        store, take = job.store.address, job.take.to_json()
        with _reached(server, done):
            return Outcome.load(sanitize_dataset(plan, store, device, take, runner))
    except TerminationSignal:
        raise Terminated from None
    except RuntimeError as error:
        raise _about_server(error) from error
    finally:
        _progress.reset(token)
        _job.reset(given)
        _ahead.reset(ahead)


def _go_ahead(job: Job, progress: Progress) -> _Ahead:
    """Do what needs no server while ours starts, which takes longer than to import Prefect."""
    for name in LIBRARIES:
        import_module(name)
    timed = Timed(progress)
    return _Ahead(steps.ingest_inputs(job, timed), timed)


@contextmanager
def _reached(server: PrefectServer | None, ahead: _Ahead | None = None) -> Iterator[None]:
    """Let flows run on a server of their own, or on the one that the settings name."""
    if server is not None:
        began = time.monotonic()
        server.wait()
        if ahead is not None:
            # It is part of the whole, and no stage that anybody needs to see.
            ahead.timed.seconds[WAIT] = time.monotonic() - began
        with temporary_settings({PREFECT_API_URL: server.api}), _without_heartbeat():
            yield
    elif PREFECT_API_URL.value():
        yield
    else:
        with single_server() as own, _reached(own):
            yield


@contextmanager
def shown_by(progress: Progress) -> Iterator[None]:
    """Let the flows that are called inside another one show their progress so."""
    token = _progress.set(progress)
    try:
        with _without_heartbeat():
            yield
    finally:
        _progress.reset(token)


def _without_heartbeat() -> AbstractContextManager[object]:
    """Let flows end a second sooner: they would wait for the thread that says they live.

    The server of a single run ends with it, and of a flow within another the outer one
    says whether it lives.
    """
    return temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})


def _about_server(error: RuntimeError) -> Exception:
    """Say what to do about a Prefect server that does not answer; other errors stay."""
    if "Failed to reach API" in str(error):
        return PlanError(
            f"no Prefect server answers at {PREFECT_API_URL.value()}",
            do="start it, or unset PREFECT_API_URL to run without one",
        )
    return error


def _share(console: StderrConsole, verbose: bool) -> None:
    """Let Prefect log through our console, at a volume that suits it."""
    setup_logging()
    for name in ("", "prefect", "prefect.flow_runs", "prefect.task_runs"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, PrefectConsoleHandler):
                handler.console = console
                if not verbose:
                    handler.setLevel(logging.WARNING)
                    handler.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a log line says what the command would not say anyway.

    The errors of runs reach the command as exceptions, and Prefect logs each of them
    three times with its whole traceback.
    """
    return not record.name.startswith(("prefect.flow_runs", "prefect.task_runs"))


def _summarise(outcome: Outcome) -> None:
    """Leave a summary in the Prefect UI."""
    lines = [
        f"**{outcome.dataset} {outcome.version or 'held: ' + outcome.held_because}**",
        "",
        "| verdict | rows |",
        "|---|---:|",
        *(f"| {name} | {getattr(outcome, name):,} |" for name in ("keep", "review", "quarantine")),
        "",
        f"Report: `{outcome.report}`",
    ]
    key = re.sub(r"[^a-z0-9]+", "-", f"sanitized-{outcome.dataset}")
    create_markdown_artifact("\n".join(lines), key=key, description=outcome.dataset)
    if outcome.report is not None:
        link = Path(outcome.report).absolute().as_uri()
        create_link_artifact(link, "the report", key=f"{key}-report", description=outcome.dataset)
