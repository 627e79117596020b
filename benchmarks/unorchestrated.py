"""The stages of a run on a file, in the order of the flow, without Prefect."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from pipelines import steps
from pipelines.job import Job
from pipelines.plan import Plan
from pipelines.progress import SILENT
from pipelines.store import Store


def run(file: str, store: str, workers: int) -> None:
    """Ingest, examine, decide and publish.

    Parameters
    ----------
    file : str
    store : str
        The root of a new store.
    workers : int
        Sanitizers that are fitted at once.
    """
    plan = Plan.make({"dataset": {"name": "rows", "source": file}, "roles": {"label": "label"}})
    job = Job(plan, Store.open(store))
    work = job.ingested(steps.ingest_inputs(job, SILENT))
    steps.embed_images(work, "auto", SILENT)
    with ThreadPoolExecutor(workers) as pool:
        looked = pool.submit(steps.look_for_risks, work, SILENT)
        list(pool.map(lambda name: steps.examine_with(work, name, SILENT), work.chosen.run))
        looked.result()
    decided = steps.decide_all(work, SILENT)
    (steps.report_held if decided.held else steps.publish_rows)(work, SILENT)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
