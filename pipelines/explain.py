"""Explain: everything that is known of one row."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.base import releases_by_run, runs_until
from pipelines.decide import Decision, verdicts_file
from pipelines.examined import read_evidence
from pipelines.ingest import FILE, ROW, Ingested
from pipelines.manifest import Manifest, Run
from pipelines.pictures import described
from pipelines.rulings import Rulings
from pipelines.shards import ParquetShard
from pipelines.split import INTERNAL
from pipelines.store import Store
from pipelines.terminal import plain
from sanitizers.core.data import ROW_ID
from sanitizers.core.errors import PlanError, did_you_mean
from sanitizers.core.lines import Threshold
from sanitizers.core.verdicts import QUARANTINE

#: Characters of a value that are shown to people, at most.
SHOWN = 200


@dataclass(frozen=True)
class Opinion:
    """What one sanitizer says of a row.

    Parameters
    ----------
    sanitizer : str
    score : float or None
        None where it abstained.
    p_value : float or None
        None where it knows no null.
    quarantine, review : float or None
        Its lines: scores above them get the verdict.
    hint, message : str or None
        What makes it concrete; the reason, where it led to the verdict.
    """

    sanitizer: str
    score: float | None
    p_value: float | None
    quarantine: float | None
    review: float | None
    hint: str | None
    message: str | None


@dataclass(frozen=True)
class Explanation:
    """Everything that is known of one row.

    Parameters
    ----------
    dataset, row_id, run : str
    version : str or None
        The latest release of the rows of the run; None where there is none.
    file : str
        The input file.
    row : int
        Which of its rows, from 0; the record's number where it could not be read.
    verdict : str
    values : dict
        The row's values, as JSON can hold them.
    opinions : tuple of Opinion
    message : str or None
        Why a row could not be read.
    rulings : tuple of str
        What people have ruled about it, the last one last. They do not change the verdict
        here, which is that of the run.
    """

    dataset: str
    row_id: str
    run: str
    version: str | None
    file: str
    row: int
    verdict: str
    values: dict[str, Any]
    opinions: tuple[Opinion, ...]
    message: str | None = None
    rulings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As an object that JSON can hold."""
        return asdict(self)

    def lines(self) -> list[str]:
        """As lines for people, safe to print."""
        place = f"file {self.file}, row {self.row} (the first is 0)"
        release = f"release {self.version}" if self.version else "not published"
        out = [
            f"{self.dataset} {self.row_id}: {self.verdict}",
            f"  from      {place}",
            f"  run       {self.run}, {release}",
        ]
        if self.message:
            out.append(f"  reason    {self.message}")
        out += [f"  ruling    {_short(ruling)}" for ruling in self.rulings]
        out += [f"  {_opinion(opinion)}" for opinion in self.opinions]
        out.append("  values")
        out += [f"    {name} = {_short(value)}" for name, value in self.values.items()]
        return [plain(line) for line in out]


def explain(store: Store, dataset: str, row_id: str, version: str | None = None) -> Explanation:
    """Gather everything that is known of one row.

    Parameters
    ----------
    store : Store
    dataset : str
    row_id : str
    version : str, optional
        The release to speak of; the latest run where none is given. Where a release grew,
        its rows are those of the runs before it too.

    Raises
    ------
    PlanError
        If there is no such dataset, release, run or row.
    """
    folder = _run(store, store.known(dataset), version)
    first = Run.load(folder)
    for run in runs_until(store, first):
        if found := _in_run(store, run, row_id):
            log = Rulings.of(store, dataset).read()
            told = tuple(ruling.sentence for ruling in log if row_id in ruling.row_ids)
            made = releases_by_run(store, dataset).get(run.key)
            return replace(found, version=made[-1] if made else None, rulings=told)
    near = _near(Ingested.load(store.inputs(dataset, first.input)), row_id)
    raise PlanError(
        f"no row {row_id!r} in run {first.key} of {dataset!r}",
        do=near or "row ids are in the column 'row_id' of a release",
    )


def _in_run(store: Store, run: Run, row_id: str) -> Explanation | None:
    """What a run knows of a row; None where the row is not of it."""
    ingested = Ingested.load(store.inputs(run.dataset, run.input))
    for number, shard in enumerate(ingested.shard_files()):
        at = pc.index(shard.read([ROW_ID]).column(ROW_ID), row_id).as_py()
        if at >= 0:
            return explain_at(store, run, ingested, None, (number, at))
    unreadable = ingested.unreadable_file()
    if unreadable is not None:
        table = ParquetShard(unreadable).read([ROW_ID, "file", "row", "raw", "reason"])
        at = pc.index(table.column(ROW_ID), row_id).as_py()
        if at >= 0:
            return _unreadable(run, table.slice(at, 1).to_pylist()[0])
    return None


def _run(store: Store, dataset: str, version: str | None) -> Path:
    """The folder of the run that made a release, or of the latest run."""
    if version is not None:
        release = store.release(dataset, version)
        if not release.is_dir():
            known = [path.name for path in store.releases(dataset)]
            raise PlanError(
                f"no release {version!r} of {dataset!r}",
                do=did_you_mean(version, known) or "no release was published yet",
            )
        return store.run(dataset, Manifest.load(release).run)
    runs = [(Run.load(folder).created, folder) for folder in store.runs(dataset)]
    if not runs:
        raise PlanError(f"no run of {dataset!r} has ended yet", do="run 'sanitize run' first")
    return max(runs)[1]


def explain_at(
    store: Store, run: Run, ingested: Ingested, version: str | None, place: tuple[int, int]
) -> Explanation:
    """Gather everything that is known of a row whose place is known.

    Parameters
    ----------
    store : Store
    run : Run
    ingested : Ingested
        Its input.
    version : str or None
        The release that the run made.
    place : (int, int)
        The shard of the input, and the row of it.
    """
    number, at = place
    shard = ingested.shard_files()[number]
    ids = shard.read([ROW_ID]).column(ROW_ID)
    row = shard.row(at)
    folder = store.run(run.dataset, run.key)
    judged = ParquetShard(verdicts_file(folder, number)).row(at).to_pylist()[0]
    lines = {line.sanitizer: line for line in Decision.load(folder).thresholds}
    messages = {reason["sanitizer"]: reason["message"] for reason in judged["reasons"] or ()}
    opinions = []
    for name, key in run.evidence.items():
        table = read_evidence(store.evidence(run.dataset, key), number, ids)
        said = table.slice(at, 1).to_pylist()[0]
        opinions.append(_said(said, lines[name], messages.get(name)))
    shown = [name for name in row.column_names if name not in INTERNAL and name != ROW_ID]
    return Explanation(
        run.dataset,
        str(ids[at]),
        run.key,
        version,
        ingested.files[row.column(FILE)[0].as_py()].path,
        row.column(ROW)[0].as_py(),
        judged["verdict"],
        {name: _json(row.column(name)[0]) for name in shown},
        tuple(opinions),
    )


def _said(said: dict[str, Any], line: Threshold, message: str | None) -> Opinion:
    return Opinion(
        line.sanitizer,
        said["score"],
        said["p_value"],
        line.quarantine,
        line.review,
        said["hint"],
        message,
    )


def _unreadable(run: Run, row: dict[str, Any]) -> Explanation:
    return Explanation(
        run.dataset,
        row[ROW_ID],
        run.key,
        None,
        row["file"],
        row["row"],
        QUARANTINE,
        {"raw": row["raw"]},
        (),
        f"it could not be read: {row['reason']}",
    )


def _near(ingested: Ingested, row_id: str) -> str:
    """Name a row whose id starts with what was written, since ids are long."""
    if len(row_id) < 4:
        return ""
    for shard in ingested.shard_files():
        ids = shard.read([ROW_ID]).column(ROW_ID)
        near = ids.filter(pc.starts_with(ids, row_id))
        if len(near):
            return f"did you mean {str(near[0])!r}?"
    return ""


def _json(value: pa.Scalar) -> Any:
    """A value as JSON can hold it; what JSON has no words for becomes text."""
    return _plain_value(value.as_py()) if not pa.types.is_temporal(value.type) else _text(value)


def _text(value: pa.Scalar) -> str | None:
    # Nanoseconds have no Python type that keeps them, and Arrow writes them out.
    return str(pc.cast(value, pa.string()).as_py()) if value.is_valid else None


def _plain_value(value: object) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, dict):
        return {str(k): _plain_value(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_value(v) for v in value]
    return described(value) or value.hex() if isinstance(value, bytes) else str(value)


def _opinion(opinion: Opinion) -> str:
    name = f"{opinion.sanitizer:<20}"
    if opinion.score is None:
        return f"{name} abstained"
    parts = [f"score {opinion.score:.6g}"]
    if opinion.p_value is not None:
        parts.append(f"p {opinion.p_value:.3g}")
    for verdict, line in (("quarantine", opinion.quarantine), ("review", opinion.review)):
        if line is not None:
            parts.append(f"{verdict} above {line:.6g}")
    if opinion.hint and opinion.hint not in (opinion.message or ""):
        parts.append(f"hint {_short(opinion.hint)}")
    if opinion.message:
        parts.append(_short(opinion.message))
    return f"{name} {', '.join(parts)}"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text):,} characters)"
