"""Combine: the sum of what several sanitizers say of each row, as evidence of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.disk import make_folder, write_table
from pipelines.examined import Examined, evidence_file, read_evidence, read_trusted
from pipelines.ingest import Ingested
from pipelines.progress import SILENT, Progress
from pipelines.store import key_of
from sanitizers.core.consensus import CONSENSUS, CalibratedSum
from sanitizers.core.data import ROW_ID
from sanitizers.core.errors import IntegrityError

#: Counts up when the evidence of the sum changes its meaning.
SUM_FORMAT = 1


def sum_key(evidence: Mapping[str, str]) -> str:
    """Name the evidence of the sum by that of all sanitizers of the run, by their keys."""
    return key_of("sum", SUM_FORMAT, dict(evidence))


def combine(
    ingested: Ingested,
    evidence: Mapping[str, Path],
    folder: Path,
    *,
    progress: Progress = SILENT,
) -> Examined:
    """Sum the surprises of the sanitizers whose p-values come from trusted rows.

    A finished folder is loaded, not done again; an unfinished one is done anew.

    Parameters
    ----------
    ingested : Ingested
    evidence : mapping of str to Path
        For each sanitizer of the run the folder of its evidence.
    folder : Path
        Named by `sum_key`.
    progress : Progress

    Raises
    ------
    PlanError
        If too few trusted rows have p-values.
    IntegrityError
        If evidence is missing, or is about other rows than the input.
    """
    count = len(ingested.shards)
    if found := Examined.finished(folder, count):
        return found
    make_folder(folder)
    started, abstained = time.monotonic(), 0
    with progress.stage(f"examine: {CONSENSUS}", ingested.rows, count) as stage:
        names = [name for name in evidence if Examined.load(evidence[name]).conformal]
        fitted = CalibratedSum.fit(_trusted_scores(names, evidence))
        for number, shard in enumerate(ingested.shard_files()):
            ids = shard.read([ROW_ID]).column(ROW_ID)
            said = {name: read_evidence(evidence[name], number, ids) for name in names}
            summed = fitted.evidence(said)
            write_table(summed, evidence_file(folder, number))
            abstained += summed.column("score").null_count
            stage.advance(shard.rows)
    seconds = round(time.monotonic() - started, 3)
    done = Examined(CONSENSUS, folder, ingested.rows, abstained, seconds, terms=tuple(names))
    return done.write({})


def _trusted_scores(
    names: Sequence[str], evidence: Mapping[str, Path]
) -> dict[str, NDArray[np.float64]]:
    """The scores of the trusted rows by each sanitizer, in one order."""
    tables: dict[str, pa.Table] = {name: read_trusted(evidence[name]) for name in names}
    for name, table in tables.items():
        if not table.column(ROW_ID).equals(tables[names[0]].column(ROW_ID)):
            raise IntegrityError(
                f"the trusted rows of {name} are not those of {names[0]}",
                do=f"remove {evidence[name]} and run again",
            )
    return {n: np.asarray(t.column("score").to_numpy(), np.float64) for n, t in tables.items()}
