"""What `sanitize run` does on a file, stage by stage in the order of the flow, without Prefect."""

from __future__ import annotations

import sys
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pipelines import steps
from pipelines.job import Job
from pipelines.outcome import Outcome
from pipelines.plan import Plan
from pipelines.progress import SILENT
from pipelines.store import Store
from pipelines.timing import Timed


def run(job: Job, workers: int = 1) -> Outcome:
    """Ingest, examine, decide and publish.

    Parameters
    ----------
    job : Job
    workers : int
        Sanitizers that are fitted at once.
    """
    timed = Timed(SILENT)
    work = job.ingested(steps.ingest_inputs(job, timed))
    steps.embed_images(work, "auto", timed)
    with ThreadPoolExecutor(workers) as pool:
        running: list[Future[Any]] = [
            pool.submit(steps.examine_with, work, name, timed) for name in work.chosen.run
        ]
        running.append(pool.submit(steps.look_for_risks, work, timed))
        for scored in running:
            scored.result()
    decided = steps.decide_all(work, timed)
    outcome = (steps.report_held if decided.held else steps.publish_rows)(work, timed)
    metrics = steps.measure(work, outcome, timed)
    steps.worth_telling(work, metrics)
    return outcome


def main(file: str, store: str, workers: str) -> None:
    """Run the stages on a file of rows with labels, in a new store."""
    plan = Plan.make({"dataset": {"name": "rows", "source": file}, "roles": {"label": "label"}})
    job = Job(plan, Store.open(store))
    if job.published() is None:
        with job.store.at_work(job.name, tell=SILENT.note):
            run(job, int(workers))


if __name__ == "__main__":
    main(*sys.argv[1:])
