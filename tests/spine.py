"""What the tests of the stages share: rows of many types, an input by hand, toy sanitizers."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.decide import Decision, verdicts_file
from pipelines.disk import digest_of, make_folder, write_json, write_table
from pipelines.ingest import FILE, MARKER, ROW, UNREADABLE, Ingested, ShardFile, SourceFile
from pipelines.manifest import Check, NotRun, Run
from pipelines.publish import Published, publish
from pipelines.shards import shard_name, write_shard
from pipelines.store import Store, key_of
from sanitizers.core.calibration import Null
from sanitizers.core.data import ROW_ID, ROW_KEY, Batch, Dataset, row_keys
from sanitizers.core.verdicts import KEEP, QUARANTINE, REVIEW, VERDICT_SCHEMA

SALT = bytes(range(32))
CREATED = "2026-01-01T00:00:00+00:00"


def mixed(rows: int, seed: int = 0) -> pa.Table:
    """Rows of every kind of type that has to survive, with nulls everywhere."""
    rng = np.random.default_rng(seed)
    gone = rng.random(rows) < 0.2

    def column(values: list[object], kind: pa.DataType) -> pa.Array:
        kept = [None if absent else v for v, absent in zip(values, gone, strict=True)]
        return pa.array(kept, kind)

    numbers = [int(n) for n in rng.integers(0, 100, rows)]
    moment = dt.datetime(2024, 1, 1, 12, 30, 0, 123456)
    words = ["", "a", "ä\u202e", "x\x00y", "b" * 50]
    texts = [words[n % 5] for n in numbers]
    return pa.table(
        {
            "x": pa.array(rng.normal(size=rows), pa.float64()),
            "nan": pa.array([[np.nan, -0.0, np.inf, 1e-310][n % 4] for n in numbers]),
            "int8": column([n - 50 for n in numbers], pa.int8()),
            "uint64": column([2**64 - 1 - n for n in numbers], pa.uint64()),
            "half": column([np.float16(n) for n in numbers], pa.float16()),
            "flag": column([n % 2 == 0 for n in numbers], pa.bool_()),
            "text.dotted": column(list(texts), pa.string()),
            "large": column(list(texts), pa.large_string()),
            "category": column(list(texts), pa.string()).dictionary_encode(),
            "small": column(list(texts), pa.string()).cast(pa.dictionary(pa.int8(), pa.string())),
            "codes": column([n % 3 for n in numbers], pa.int64()).dictionary_encode(),
            "bytes": column([bytes([n, 0, 255]) for n in numbers], pa.binary()),
            "fixed": column([bytes([n] * 4) for n in numbers], pa.binary(4)),
            "money": column([Decimal(n) / 100 for n in numbers], pa.decimal128(12, 2)),
            "day": column([moment.date() + dt.timedelta(n) for n in numbers], pa.date32()),
            "at": column([moment + dt.timedelta(n) for n in numbers], pa.timestamp("us")),
            "zone": column([moment] * rows, pa.timestamp("ns", "Europe/Berlin")),
            "clock": column([moment.time()] * rows, pa.time32("s")),
            "span": column([dt.timedelta(seconds=n) for n in numbers], pa.duration("ms")),
            "list": column([[n, None, 1] for n in numbers], pa.list_(pa.int32())),
            "deep": column(
                [{"k": [{"v": t}]} for t in texts],
                pa.struct([("k", pa.list_(pa.struct([("v", pa.string())])))]),
            ),
            "vector": column([[1.0, float(n)] for n in numbers], pa.list_(pa.float32(), 2)),
            "empty": pa.nulls(rows),
            "verdict": column(list(texts), pa.string()),
        }
    )


def hand_in(
    folder: Path,
    table: pa.Table,
    *,
    shard_rows: int = 100,
    ids: Sequence[str] | None = None,
    unreadable: int = 0,
) -> Ingested:
    """Write an input folder as an ingest would."""
    make_folder(folder)
    names = list(ids) if ids is not None else content_ids(table)
    whole = (
        table.append_column(ROW_ID, pa.array(names, pa.string()))
        .append_column(ROW_KEY, pa.array(row_keys(names, SALT), pa.uint64()))
        .append_column(FILE, pa.array([0] * table.num_rows, pa.int32()))
        .append_column(ROW, pa.array(range(table.num_rows), pa.int64()))
    )
    shards = []
    for number, at in enumerate(range(0, max(table.num_rows, 1), shard_rows)):
        path = folder / shard_name(number)
        part = whole.slice(at, shard_rows)
        write_shard(path, part)
        shards.append(ShardFile(path.name, part.num_rows, digest_of(path), path.stat().st_size))
    if unreadable:
        write_shard(folder / UNREADABLE, _unreadable(unreadable))
    digest = hashlib.sha256(repr(table.to_pydict()).encode()).hexdigest()
    source = SourceFile("in.csv", "csv", 1, digest, table.num_rows, unreadable)
    made = Ingested(
        folder,
        (source,),
        tuple(shards),
        table.num_rows,
        unreadable,
        (),
        "id" if ids is not None else None,
        digest,
        "salt",
    )
    write_json(folder / MARKER, {k: v for k, v in asdict(made).items() if k != "folder"})
    return made


def content_ids(table: pa.Table) -> list[str]:
    """Ids that hang on the content of a row and its place among its equals."""
    seen: dict[str, int] = {}
    out = []
    for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
        name = hashlib.blake2b(repr(row).encode(), digest_size=16).hexdigest()
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}-{seen[name] - 1}")
    return out


def _unreadable(rows: int) -> pa.Table:
    return pa.table(
        {
            ROW_ID: [f"unreadable-{i}" for i in range(rows)],
            "file": ["in.csv"] * rows,
            "row": pa.array(range(rows), pa.int64()),
            "raw": [f"1,2,\\xff{i}" for i in range(rows)],
            "reason": ["3 fields, expected 2"] * rows,
        }
    )


@dataclass(frozen=True)
class ToyScorer:
    column: str
    null: Null | None = None

    def score(self, batch: Batch) -> NDArray[np.float64]:
        column = batch.table.column(self.column)
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)

    def hint(self, batch: Batch) -> list[str | None]:
        return ["high" if s > 0 else None for s in self.score(batch)]


@dataclass(frozen=True)
class Toy:
    """The value of a column is the score."""

    column: str = "x"
    name: ClassVar[str] = "toy"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def fit(self, data: Dataset) -> ToyScorer:
        return ToyScorer(self.column)

    def reason(self, score: float, hint: str | None) -> str:
        return f"its value is {score:.3g}"


@dataclass(frozen=True)
class Stage:
    """A store, and a run in it that is ready to be published."""

    store: Store
    run: Run
    ingested: Ingested
    decision: Decision
    report: Path
    table: pa.Table = field(repr=False)
    verdicts: tuple[str, ...] = field(repr=False)

    def publish(self) -> Published:
        return publish(self.store, self.run, self.ingested, self.decision, self.write_report)

    def write_report(self, version: str, created: str) -> Path:
        self.report.write_text(f"<!doctype html><p>release {version}")
        return self.report


def stage(
    root: Path,
    table: pa.Table,
    verdicts: Sequence[str],
    *,
    shard_rows: int = 100,
    ids: Sequence[str] | None = None,
    unreadable: int = 0,
    plan: str = "",
) -> Stage:
    """Prepare a run with these verdicts, one per row."""
    store = Store.open(root, SALT)
    content = hashlib.sha256(repr(table.to_pydict()).encode()).hexdigest()
    key = key_of(content, list(ids or ()), shard_rows, unreadable)
    ingested = hand_in(
        store.inputs("toys", key), table, shard_rows=shard_rows, ids=ids, unreadable=unreadable
    )
    run = Run(
        "toys",
        key_of(key, list(verdicts), plan),
        CREATED,
        key,
        {},
        {"note": plan},
        (Check("toy", ("features",), {"column": "x"}, 1, 0, 0, 0, "score > 1", "", 1.0, None, ""),),
        (NotRun("labels", "no label"),),
    )
    folder = store.run("toys", run.key)
    make_folder(folder)
    for number, shard in enumerate(ingested.shard_files()):
        given = list(verdicts[number * shard_rows : (number + 1) * shard_rows])
        write_table(
            verdict_table(shard.read([ROW_ID]).column(ROW_ID), given), verdicts_file(folder, number)
        )
    decision = Decision(
        table.num_rows + unreadable,
        list(verdicts).count(KEEP),
        list(verdicts).count(REVIEW),
        list(verdicts).count(QUARANTINE) + unreadable,
        unreadable,
        (),
        {"toy": {"scored": 1, "abstained": 0, "review": 0, "quarantine": 0}},
    )
    write_json(folder / "decision.json", asdict(decision))
    report = folder / "report.html"
    run.write(folder)
    return Stage(store, run, ingested, decision, report, table, tuple(verdicts))


def verdict_table(ids: pa.ChunkedArray, verdicts: Sequence[str]) -> pa.Table:
    """Verdicts as `judge` gives them, each with a reason."""
    reason = {"sanitizer": "toy", "score": 1.5, "p_value": None, "threshold": 1.0, "message": "it"}
    return pa.table(
        {
            ROW_ID: ids,
            "verdict": pa.array(verdicts, pa.string()).cast(VERDICT_SCHEMA.field("verdict").type),
            "reasons": pa.array(
                [[] if v == KEEP else [reason] for v in verdicts],
                VERDICT_SCHEMA.field("reasons").type,
            ),
        },
        schema=VERDICT_SCHEMA,
    )
