"""A run by its stages, without their order from Prefect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import steps
from pipelines.job import Job
from pipelines.progress import SILENT
from pipelines.work import Work


@dataclass(frozen=True)
class Ran:
    """A run, and its release."""

    work: Work
    release: Path

    def part(self, folder: str) -> pa.Table:
        """The rows of ``clean``, ``review`` or ``quarantine``."""
        return part_of(self.release, folder)

    @property
    def page(self) -> str:
        """The text of the report."""
        return (self.release / "report.html").read_text()


def part_of(release: Path, folder: str) -> pa.Table:
    """The rows of ``clean``, ``review`` or ``quarantine`` of a release."""
    parts = sorted((release / folder).glob("part-*"))
    return pa.concat_tables(pq.read_table(p) for p in parts)


def judge_stages(job: Job) -> Work:
    """Ingest, examine, look for risks and decide."""
    work = job.ingested(steps.ingest_inputs(job, SILENT))
    for name in work.chosen.run:
        steps.examine_with(work, name, SILENT)
    steps.look_for_risks(work, SILENT)
    steps.decide_all(work, SILENT)
    return work


def run_stages(job: Job) -> Ran:
    """Judge and publish; there must be a release."""
    work = judge_stages(job)
    outcome = steps.publish_rows(work, SILENT)
    assert outcome.release is not None
    return Ran(work, Path(outcome.release))
