"""A finished run, written by hand for the tests of the report: rows, evidence, verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.decide import Decision
from pipelines.ingest import (
    FILE,
    ROW,
    UNREADABLE,
    ColumnProfile,
    Ingested,
    ShardFile,
    SourceFile,
)
from pipelines.report_facts import RunFacts, SanitizerCard
from pipelines.shards import shard_name
from sanitizers.core.data import ROW_ID, ROW_KEY, Roles
from sanitizers.core.evidence import SCHEMA
from sanitizers.core.lines import Threshold
from sanitizers.core.verdicts import KEEP, QUARANTINE, REVIEW, VERDICT_SCHEMA, VERDICTS

LINES = {"outliers": (9.0, 6.0), "labels": (0.97, 0.9), "micro-votes": (0.9, None)}
CARDS = {
    "outliers": SanitizerCard(
        "How far a row lies from all others, in robust standard deviations.",
        "injected rows that resemble nothing in the data: corner points, broken records, rows of "
        "another source. The attacker may add rows but has not looked at the clean ones.",
        "poison inside the cloud of clean rows (label flips, most triggers); a dense cluster, "
        "which gives its own members near neighbours (covered by `micro-concentration`).",
    ),
    "labels": SanitizerCard(
        "How sure models that never saw the row are that its label is another one.",
        "labels flipped at random or towards one class.",
        "labels that follow a trigger; classes with few rows.",
    ),
    "micro-votes": SanitizerCard("The share of small models that call the row unlikely."),
    "micro-concentration": SanitizerCard(
        "How much a row is at home in its own slice only.",
        "a cluster of poison that was slipped in through one source or at one time.",
        "poison that is spread evenly over the slices.",
    ),
}
WORDS = ("low", "middle", "high", "very high", "unknown")


def make_run(
    root: Path,
    rows: int = 300,
    *,
    shard_rows: int = 100,
    features: int = 4,
    texts: Sequence[str] = WORDS,
    columns: Sequence[str] = (),
    files: Sequence[str] = ("incoming/a.csv", "incoming/b.csv"),
    unreadable: Sequence[str] = (),
    roles: Roles | None = None,
    version: str | None = "1.2.0",
    held: str = "",
    trusted_rows: int = 0,
    seed: int = 0,
) -> RunFacts:
    """Write the folders of a run, and name its facts.

    `texts` are the values of the columns class, source and note; `columns` are the names of
    the features; what is not named is called x0, x1 and so on.
    """
    rng = np.random.default_rng(seed)
    names = [*columns, *(f"x{i}" for i in range(features))][: max(features, len(columns))]
    roles = roles or Roles(label="class", source="from", time="at", features=tuple(names))
    folders = {name: root / "evidence" / name for name in LINES}
    for folder in (root / "input", root / "run", *folders.values()):
        folder.mkdir(parents=True)
    shards, counts = [], {KEEP: 0, REVIEW: 0, QUARANTINE: len(unreadable)}
    found = {n: {"scored": 0, "abstained": 0, REVIEW: 0, QUARANTINE: 0} for n in LINES}
    for number, start in enumerate(range(0, rows, shard_rows)):
        table = _rows(rng, start, min(shard_rows, rows - start), names, texts, len(files))
        path = root / "input" / shard_name(number)
        pq.write_table(table, path, compression="zstd")
        shards.append(ShardFile(path.name, table.num_rows, "0" * 64, path.stat().st_size))
        scores = _scores(rng, table.num_rows)
        for name, values in scores.items():
            pq.write_table(
                _evidence(name, table, values), folders[name] / shard_name(number, "evidence")
            )
        _count(scores, found)
        verdicts = _verdicts(table, scores, texts)
        pq.write_table(verdicts, root / "run" / shard_name(number, "verdicts"))
        for verdict in counts:
            counts[verdict] += verdicts.column("verdict").to_pylist().count(verdict)
    if unreadable:
        pq.write_table(_unreadable(unreadable, files[0]), root / "input" / UNREADABLE)
    ingested = Ingested(
        root / "input",
        tuple(SourceFile(f, "csv", 12_345, "ab" * 32, rows // len(files), 0) for f in files),
        tuple(shards),
        rows,
        len(unreadable),
        tuple(
            ColumnProfile(str(n), str(t), 0, 9)
            for n, t in _types(rng, names, texts)
            if n not in {ROW_ID, ROW_KEY, FILE, ROW}
        ),
        None,
        "cd" * 32,
        "ef" * 8,
    )
    decision = Decision(
        rows + len(unreadable),
        counts[KEEP],
        counts[REVIEW],
        counts[QUARANTINE],
        len(unreadable),
        tuple(_threshold(name) for name in LINES),
        found,
        bool(held),
        held,
    )
    return RunFacts(
        dataset="loans",
        ingested=ingested,
        roles=roles,
        roles_notes=("label: class, as given",),
        decision=decision,
        evidence=folders,
        runs_folder=root / "run",
        plan={"dataset": {"name": "loans"}, "policy": {"clean_loss": 0.01, "budget": 0.2}},
        not_run=(("micro-concentration", "no column has the role time or source"),),
        cards=CARDS,
        trusted_rows=trusted_rows,
        version=version,
        created="2026-01-02T03:04:05+00:00",
        run="0123456789abcdef",
        tool_version="0.1.0",
        release=f"store/loans/releases/{version}" if version else "",
        reasons={name: lambda score, hint: f"scores {score:.3g}, {hint}" for name in LINES},
        needs={name: frozenset({"features"}) for name in LINES},
    )


def _types(
    rng: np.random.Generator, names: Sequence[str], texts: Sequence[str]
) -> list[tuple[str, pa.DataType]]:
    schema = _rows(rng, 0, 0, names, texts, 1).schema
    return list(zip(schema.names, schema.types, strict=True))


def _rows(
    rng: np.random.Generator,
    start: int,
    rows: int,
    names: Sequence[str],
    texts: Sequence[str],
    files: int,
) -> pa.Table:
    # One class, one source and one month carry more of what is found than the others.
    chosen = rng.integers(0, len(texts), rows)
    seconds = 1_699_920_000 + (start + np.arange(rows)) * 3_600
    text = pa.array(list(texts)).take(pa.array(chosen))
    columns = {
        **{n: pa.array(np.round(rng.normal(size=rows), 4)) for n in names},
        "class": text,
        "from": pa.array(list(texts)).take(pa.array((chosen + start // 100) % len(texts))),
        "at": pa.array(seconds * 1_000_000, pa.timestamp("us")),
        "note": text,
        ROW_ID: pa.array([f"row-{i:07d}" for i in range(start, start + rows)]),
        ROW_KEY: pa.array(rng.integers(0, 2**63, rows), pa.uint64()),
        FILE: pa.array(rng.integers(0, files, rows), pa.int32()),
        ROW: pa.array(np.arange(start, start + rows), pa.int64()),
    }
    return pa.table(columns)


def _scores(rng: np.random.Generator, rows: int) -> dict[str, NDArray[np.float64]]:
    outliers = rng.standard_t(3, rows) + 1
    labels = np.where(rng.random(rows) < 0.02, rng.random(rows), rng.beta(1, 12, rows))
    votes = np.round(rng.beta(1, 20, rows), 1)
    votes[rng.random(rows) < 0.05] = np.nan
    return {"outliers": outliers, "labels": labels, "micro-votes": votes}


def _evidence(name: str, table: pa.Table, scores: NDArray[np.float64]) -> pa.Table:
    rows, absent = table.num_rows, np.isnan(scores)
    p_values = pa.array(np.exp(-np.abs(scores)), mask=absent) if name == "labels" else None
    classes = table.column("class").to_pylist()
    others = pa.array([*classes[1:], *classes[:1]], pa.string())
    return pa.table(
        [
            table.column(ROW_ID),
            pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array([name])),
            pa.array(scores, mask=absent),
            p_values if p_values is not None else pa.nulls(rows, pa.float64()),
            others.dictionary_encode(),
        ],
        schema=SCHEMA,
    )


def _over(name: str, scores: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    bad, odd = LINES[name]
    high = scores > bad
    return high, (scores > odd) & ~high if odd is not None else np.zeros(len(scores), bool)


def _count(scores: dict[str, NDArray[np.float64]], found: dict[str, dict[str, int]]) -> None:
    for name, values in scores.items():
        high, middle = _over(name, values)
        absent = int(np.isnan(values).sum())
        for key, number in (
            ("scored", len(values) - absent),
            ("abstained", absent),
            (QUARANTINE, int(high.sum())),
            (REVIEW, int(middle.sum())),
        ):
            found[name][key] += number


def _verdicts(
    table: pa.Table, scores: dict[str, NDArray[np.float64]], texts: Sequence[str]
) -> pa.Table:
    verdicts = np.full(table.num_rows, KEEP, dtype=object)
    reasons: list[list[dict[str, object]]] = [[] for _ in verdicts]
    for name, values in scores.items():
        high, middle = _over(name, values)
        for i in np.flatnonzero(high | middle).tolist():
            message = f"lies {values[i]:.3g} out; {texts[i % len(texts)]}"
            reason = {"sanitizer": name, "score": values[i], "threshold": 1.0, "message": message}
            reasons[i].append(reason)
        verdicts[middle & (verdicts == KEEP)] = REVIEW
        verdicts[high] = QUARANTINE
    words = pa.array([VERDICTS.index(v) for v in verdicts], pa.int8())
    return pa.table(
        [
            table.column(ROW_ID),
            pa.DictionaryArray.from_arrays(words, pa.array(VERDICTS)),
            pa.array(reasons, VERDICT_SCHEMA.field("reasons").type),
        ],
        schema=VERDICT_SCHEMA,
    )


def _unreadable(raws: Sequence[str], file: str) -> pa.Table:
    return pa.table(
        {
            ROW_ID: [f"unreadable-{i}" for i in range(len(raws))],
            "file": [file] * len(raws),
            "row": pa.array(range(len(raws)), pa.int64()),
            "raw": list(raws),
            "reason": [f"{5 + i % 2} fields, expected 4" for i in range(len(raws))],
        }
    )


def _threshold(name: str) -> Threshold:
    bad, odd = LINES[name]
    return Threshold(
        name,
        bad,
        odd,
        "p <= 0.002" if name == "labels" else f"score > {bad:g}",
        "" if odd is None else f"score > {odd:g}",
        "default, measured on five clean tables without trusted rows",
    )
