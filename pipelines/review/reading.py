"""Reading the held rows of a shard: who holds each, what it shares with others, when it came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.decide import verdicts_file
from pipelines.examined import Examined, evidence_file
from pipelines.ingested import Ingested
from pipelines.shards import ParquetShard
from pipelines.store import key_of
from sanitizers.core.data import ROW_ID, Roles
from sanitizers.core.encoder import as_numbers, is_number
from sanitizers.core.verdicts import KEEP, QUARANTINE

#: Sanitizers whose hint names a thing that rows share, so that one look decides on them all:
#: a trigger, the slice where a cluster is at home, a region that trusted rows contradict. Of
#: others a hint is about the row alone, unless they leave something that they have found, as
#: those do that look for triggers.
GROUPED = ("backdoors", "micro-concentration", "label-regions", "shared-values")
#: Who holds the rows that could not be read.
INGEST = "ingest"
#: Characters that are kept of a reason, and of a class or a source.
REASON, NAME = 300, 120

_NUMBERS = ("score", "line", "p_value", "excess", "time")
HELD_SCHEMA = pa.schema(
    [
        ("part", pa.int16()),
        ("shard", pa.int32()),
        ("position", pa.int64()),
        ("row_id", pa.string()),
        ("verdict", pa.string()),
        ("opinions", pa.int16()),
        ("sanitizers", pa.list_(pa.string())),
        ("sanitizer", pa.string()),
        ("score", pa.float64()),
        ("line", pa.float64()),
        ("p_value", pa.float64()),
        ("excess", pa.float64()),
        ("message", pa.string()),
        ("shared", pa.string()),
        ("grouped_by", pa.string()),
        ("label", pa.string()),
        ("source", pa.string()),
        ("time", pa.float64()),
    ]
)


def held_rows(
    ingested: Ingested,
    roles: Roles,
    run: Path,
    evidence: Mapping[str, Path],
    grave: Mapping[str, float | None],
    at: tuple[int, int],
) -> pa.Table:
    """Read the held rows of one shard.

    Parameters
    ----------
    ingested : Ingested
    roles : Roles
    run : Path
        The folder of the verdicts.
    evidence : mapping of str to Path
        For each sanitizer the folder of its evidence.
    grave : mapping of str to float or None
        For each sanitizer the line of its quarantine.
    at : (int, int)
        Which part and which shard.

    Returns
    -------
    pyarrow.Table
        `HELD_SCHEMA`.
    """
    part, shard = at
    judged = ParquetShard(verdicts_file(run, shard)).read()
    held = np.flatnonzero(pc.not_equal(judged.column("verdict").cast(pa.string()), KEEP).to_numpy())
    positions = pa.array(held, pa.int64())
    judged = judged.take(positions)
    reasons = judged.column("reasons").combine_chunks()
    by_hint = {name: evidence[name] for name in grouping(evidence)}
    told = _lead(reasons, len(held), grave, list(by_hint))
    told |= _shared(reasons, by_hint, shard, positions)
    told |= _told(ingested.shard_files()[shard], roles, positions)
    columns = {
        "part": pa.array(np.full(len(held), part), pa.int16()),
        "shard": pa.array(np.full(len(held), shard), pa.int32()),
        "position": positions,
        "row_id": judged.column(ROW_ID),
        "verdict": judged.column("verdict").cast(pa.string()),
    }
    return pa.table(columns | told).select(HELD_SCHEMA.names).cast(HELD_SCHEMA)


def unreadable_rows(path: Path, part: int) -> Iterator[pa.Table]:
    """Read the rows that could not be read: those of one reason are a group.

    Parameters
    ----------
    path : Path
    part : int
    """
    start = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=[ROW_ID, "reason"]):
            n = len(batch)
            reasons = batch.column(1).to_pylist()
            table = pa.table(
                {
                    "part": pa.array([part] * n, pa.int16()),
                    "shard": pa.array([-1] * n, pa.int32()),
                    "position": pa.array(range(start, start + n), pa.int64()),
                    "row_id": batch.column(0),
                    "verdict": [QUARANTINE] * n,
                    "opinions": pa.array([0] * n, pa.int16()),
                    "sanitizers": pa.array([[INGEST]] * n, pa.list_(pa.string())),
                    "sanitizer": [INGEST] * n,
                    **{name: pa.nulls(n, pa.float64()) for name in _NUMBERS},
                    "message": [f"it could not be read: {r}"[:REASON] for r in reasons],
                    "shared": [shared_key(INGEST, r) for r in reasons],
                    "grouped_by": [INGEST] * n,
                    "label": pa.nulls(n, pa.string()),
                    "source": pa.nulls(n, pa.string()),
                }
            )
            start += n
            yield table.select(HELD_SCHEMA.names).cast(HELD_SCHEMA)


def grouping(evidence: Mapping[str, Path]) -> tuple[str, ...]:
    """Which sanitizers of a run have hints that rows share, those first that have proven them."""
    proving = [name for name, folder in evidence.items() if Examined.load(folder).kept]
    return tuple(dict.fromkeys([*proving, *(name for name in GROUPED if name in evidence)]))


def shared_key(sanitizer: str, hint: str) -> str:
    """Name a group by what its rows share."""
    return key_of("group", sanitizer, hint)


def _lead(
    reasons: pa.ListArray, rows: int, grave: Mapping[str, float | None], grouped: Sequence[str]
) -> dict[str, pa.Array]:
    """Of the reasons of each row the gravest, farthest over its line as lines go."""
    parents, flat = np.asarray(pc.list_parent_indices(reasons)), pc.list_flatten(reasons)
    names = _names(flat)
    scores, lines = (_floats(flat.field(name)) for name in ("score", "threshold"))
    with np.errstate(all="ignore"):
        excess = scores - lines
        share = np.nan_to_num(excess / (np.abs(scores) + np.abs(lines)), nan=-1.0)
    graver = np.array([grave.get(n) == line for n, line in zip(names, lines, strict=True)], bool)
    # A sanitizer whose hint rows share leads, so that a group stays together.
    order = np.lexsort((-share, ~graver, ~np.isin(names, grouped), parents))
    opinions = np.bincount(parents, minlength=rows)
    first = np.searchsorted(parents[order], np.arange(rows))
    # The last place stands for rows without a reason, which a fault alone can bring about.
    lead = pa.array(np.append(order, 0)[first], pa.int64(), mask=opinions == 0)
    found = flat.take(lead)
    return {
        "opinions": pa.array(opinions, pa.int16()),
        "sanitizers": pa.ListArray.from_arrays(reasons.offsets, flat.field("sanitizer")),
        "sanitizer": pc.fill_null(found.field("sanitizer"), "unknown"),
        "score": found.field("score"),
        "line": found.field("threshold"),
        "p_value": found.field("p_value"),
        "excess": pa.array(excess, pa.float64()).take(lead),
        "message": pc.utf8_slice_codeunits(found.field("message"), 0, REASON),
    }


def _names(reasons: pa.StructArray) -> NDArray[np.str_]:
    return np.array(reasons.field("sanitizer").to_pylist(), dtype=str)


def _shared(
    reasons: pa.ListArray, evidence: dict[str, Path], shard: int, positions: pa.Array
) -> dict[str, pa.Array]:
    """What rows have in common, by the hints of sanitizers that hold them."""
    parents, names = np.asarray(pc.list_parent_indices(reasons)), _names(pc.list_flatten(reasons))
    shared: NDArray[np.object_] = np.full(len(positions), None, dtype=object)
    by = shared.copy()
    for name in reversed(evidence):
        flagged = np.unique(parents[names == name])
        if len(flagged):
            hints = ParquetShard(evidence_file(evidence[name], shard)).read(["hint"]).column(0)
            said = hints.cast(pa.string()).take(positions).to_pylist()
            keys = {hint: shared_key(name, hint) for hint in set(said) if hint}
            for row in flagged.tolist():
                if said[row]:
                    shared[row], by[row] = keys[said[row]], name
    return {"shared": pa.array(shared, pa.string()), "grouped_by": pa.array(by, pa.string())}


def _told(shard: ParquetShard, roles: Roles, positions: pa.Array) -> dict[str, pa.Array]:
    """Class, source and time of the rows, where there are such columns."""
    wanted = [name for name in (roles.label, roles.source, roles.time) if name]
    table = shard.read(list(dict.fromkeys(wanted))).take(positions)
    return {
        "label": _named(table, roles.label, len(positions)),
        "source": _named(table, roles.source, len(positions)),
        "time": _times(table, roles.time, len(positions)),
    }


def _named(table: pa.Table, name: str | None, rows: int) -> pa.Array:
    if name is None:
        return pa.nulls(rows, pa.string())
    return pc.utf8_slice_codeunits(table.column(name).cast(pa.string()), 0, NAME).combine_chunks()


def _times(table: pa.Table, name: str | None, rows: int) -> pa.Array:
    if name is None or not is_number(table.column(name).type):
        return pa.nulls(rows, pa.float64())
    return pa.array(as_numbers(table.column(name)), pa.float64(), from_pandas=True)


def _floats(column: pa.Array) -> NDArray[np.float64]:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)
