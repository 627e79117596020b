"""Export: what is known of every row as one table, in the words that label tools use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pipelines.base import Base, runs_until
from pipelines.decide import verdicts_file
from pipelines.disk import remove, temporary_of, writing
from pipelines.examined import read_evidence
from pipelines.ingested import Ingested
from pipelines.manifest import Run, roles_in
from pipelines.rulings import Ruling, Rulings
from pipelines.shards import ParquetShard
from pipelines.split import RULINGS
from pipelines.store import Store
from sanitizers.core.data import ROW_ID
from sanitizers.core.errors import PlanError
from sanitizers.core.verdicts import KEEP

#: The columns of an export: those of cleanlab's table of label issues, and ours.
SCHEMA = pa.schema(
    [
        (ROW_ID, pa.string()),
        ("is_label_issue", pa.bool_()),
        ("label_score", pa.float64()),
        ("given_label", pa.string()),
        ("predicted_label", pa.string()),
        ("verdict", pa.string()),
        ("reasons", pa.string()),
    ]
)
LABELS = "labels"
ENDINGS = (".csv", ".parquet")
#: What a spreadsheet takes for a formula, where a cell begins with it.
_FORMULA = r"^([=+\-@\t\r\n|%])"


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Parameters
    ----------
    file : Path
    rows, label_issues : int
    """

    file: Path
    rows: int
    label_issues: int


def export(store: Store, dataset: str, out: Path) -> Exported:
    """Write a line for every row of the last release that could be read.

    ``label_score`` is the chance that models of the other rows give the label of a row, from
    0 to 1, low where the label is doubtful; ``is_label_issue`` says whether the sanitizer
    *labels* put it over a line. Both are missing where it gave no score. In CSV, texts that a
    spreadsheet would take for formulas begin with an apostrophe.

    Parameters
    ----------
    store : Store
    dataset : str
    out : Path
        Ends in ``.csv`` or ``.parquet``.

    Raises
    ------
    PlanError
        If there is no release, or the file ends otherwise.
    IntegrityError
        If evidence or verdicts are missing or about other rows.
    StoreError
        If the file cannot be written.
    """
    if out.suffix not in ENDINGS:
        raise PlanError(f"{out.name} ends in {out.suffix!r}", expected=" or ".join(ENDINGS))
    base = Base.of(store, store.known(dataset))
    if base is None:
        raise PlanError(f"no release of {dataset!r} yet", do="run 'sanitize run' first")
    last = Run.load(store.run(dataset, base.manifest.run))
    # Those that the release obeys, not what came since.
    rulings = Rulings(base.folder / RULINGS).standing() if base.manifest.ruled else {}
    rows = issues = 0
    temporary = temporary_of(out)
    try:
        with writing(out):
            with _writer(temporary, out.suffix) as writer:
                for run in reversed(list(runs_until(store, last))):
                    for table in _tables(store, run, rulings):
                        writer.write_table(_safe(table) if out.suffix == ".csv" else table)
                        rows += table.num_rows
                        issues += pc.sum(table.column("is_label_issue")).as_py() or 0
            os.replace(temporary, out)
    finally:
        remove(temporary)
    return Exported(out, rows, issues)


def _writer(path: Path, ending: str) -> pa.csv.CSVWriter | pq.ParquetWriter:
    return pa.csv.CSVWriter(path, SCHEMA) if ending == ".csv" else pq.ParquetWriter(path, SCHEMA)


def _tables(store: Store, run: Run, rulings: Mapping[str, Ruling]) -> Iterator[pa.Table]:
    """The rows of a run, shard by shard."""
    ingested = Ingested.load(store.inputs(run.dataset, run.input))
    label = roles_in(run.plan).label
    lines = {check.sanitizer: check for check in run.checks}
    for number, shard in enumerate(ingested.shard_files()):
        table = shard.read([ROW_ID, *([label] if label else [])])
        ids = table.column(ROW_ID)
        judged = ParquetShard(verdicts_file(store.run(run.dataset, run.key), number)).read()
        scores = np.full(len(table), np.nan)
        predicted = pa.nulls(len(table), pa.string())
        over = pa.nulls(len(table), pa.bool_())
        if LABELS in run.evidence:
            said = read_evidence(store.evidence(run.dataset, run.evidence[LABELS]), number, ids)
            found = said.column("score").to_numpy()
            scores = 10.0 ** -np.maximum(found, 0.0)
            predicted = said.column("hint").cast(pa.string())
            check = lines[LABELS]
            cuts = [c for c in (check.review_above, check.quarantine_above) if c is not None]
            over = pa.array(found > min(cuts, default=np.inf), mask=np.isnan(found))
        given = table.column(label).cast(pa.string()) if label else pa.nulls(len(table))
        verdicts, reasons = _judged(judged, rulings)
        yield pa.table(
            [
                ids.cast(pa.string()),
                over,
                pa.array(scores, mask=np.isnan(scores)),
                given.cast(pa.string()),
                predicted,
                verdicts,
                reasons,
            ],
            schema=SCHEMA,
        )


def _judged(judged: pa.Table, rulings: Mapping[str, Ruling]) -> tuple[pa.Array, pa.Array]:
    """Verdicts and reasons in words, after what people have ruled."""
    verdicts = judged.column("verdict").cast(pa.string()).to_pylist()
    reasons: list[str | None] = [None] * len(judged)
    marked = np.flatnonzero(np.array(verdicts, dtype=object) != KEEP)
    for row, told in zip(
        marked.tolist(), judged.column("reasons").take(pa.array(marked)).to_pylist(), strict=True
    ):
        reasons[row] = "; ".join(f"{one['sanitizer']}: {one['message']}" for one in told)
    if rulings:
        for row, row_id in enumerate(judged.column(ROW_ID).to_pylist()):
            if ruling := rulings.get(row_id):
                verdicts[row] = ruling.verdict
                reasons[row] = ruling.sentence
    return pa.array(verdicts, pa.string()), pa.array(reasons, pa.string())


def _safe(table: pa.Table) -> pa.Table:
    """The same with an apostrophe before every text that would be a formula."""
    for at, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            quoted = pc.replace_substring_regex(table.column(at), _FORMULA, r"'\1")
            table = table.set_column(at, field, quoted)
    return table
