"""The stages of a run on a file, in the order of the flow, without Prefect."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from pipelines import steps
from pipelines.job import Job
from pipelines.outcome import Outcome
from pipelines.plan import Plan
from pipelines.progress import SILENT
from pipelines.store import Store


def run(job: Job, workers: int = 1) -> Outcome:
    """Ingest, examine, decide and publish.

    Parameters
    ----------
    job : Job
    workers : int
        Sanitizers that are fitted at once.
    """
    work = job.ingested(steps.ingest_inputs(job, SILENT))
    steps.embed_images(work, "auto", SILENT)
    with ThreadPoolExecutor(workers) as pool:
        looked = pool.submit(steps.look_for_risks, work, SILENT)
        list(pool.map(lambda name: steps.examine_with(work, name, SILENT), work.chosen.run))
        looked.result()
    decided = steps.decide_all(work, SILENT)
    return (steps.report_held if decided.held else steps.publish_rows)(work, SILENT)


def main(file: str, store: str, workers: str) -> None:
    """Run the stages on a file of rows with labels, in a new store."""
    plan = Plan.make({"dataset": {"name": "rows", "source": file}, "roles": {"label": "label"}})
    run(Job(plan, Store.open(store)), int(workers))


if __name__ == "__main__":
    main(*sys.argv[1:])
