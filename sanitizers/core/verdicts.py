"""Verdicts: what the lines make of the evidence, row by row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sanitizers.core.lines import Threshold
from sanitizers.core.sanitizer import Witness

KEEP, REVIEW, QUARANTINE = "keep", "review", "quarantine"
VERDICTS = (KEEP, REVIEW, QUARANTINE)

#: Why a row is not kept: one entry per sanitizer whose line it crossed.
REASON = pa.struct(
    [
        ("sanitizer", pa.string()),
        ("score", pa.float64()),
        ("p_value", pa.float64()),
        ("threshold", pa.float64()),
        ("message", pa.string()),
    ]
)
#: One row per row of a shard, in its order; `reasons` is empty where the verdict is keep.
VERDICT_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("verdict", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        pa.field("reasons", pa.list_(REASON), nullable=False),
    ]
)


def judge(
    evidence: Mapping[str, pa.Table],
    thresholds: Mapping[str, Threshold],
    recipes: Mapping[str, Witness],
    trusted: NDArray[np.bool_],
) -> pa.Table:
    """Give every row of a shard its verdict, the worst over all sanitizers.

    Parameters
    ----------
    evidence : mapping of str to pyarrow.Table
        For each sanitizer its evidence on the shard, all in the same order.
    thresholds : mapping of str to Threshold
    recipes : mapping of str to Witness
        They say what a score means.
    trusted : ndarray of bool, shape (n,)
        Rows that a person vouches for: always kept.

    Returns
    -------
    pyarrow.Table
        `VERDICT_SCHEMA`, one row per row, in the same order.
    """
    worst = np.zeros(len(trusted), dtype=np.int8)
    rows: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    reasons: list[pa.Array] = []
    for name, table in evidence.items():
        level = _levels(table, thresholds[name])
        level[trusted] = 0
        over = np.flatnonzero(level)
        worst = np.maximum(worst, level)
        rows.append(over)
        reasons.append(_reasons(name, table, over, level, thresholds[name], recipes[name]))
    where = np.concatenate(rows)
    order = np.argsort(where, kind="stable")
    offsets = np.searchsorted(where[order], np.arange(len(trusted) + 1))
    stacked = pa.chunked_array(reasons, type=REASON).take(pa.array(order)).combine_chunks()
    listed = pa.ListArray.from_arrays(pa.array(offsets, type=pa.int32()), stacked)
    words = pa.DictionaryArray.from_arrays(pa.array(worst), pa.array(VERDICTS))
    ids = next(iter(evidence.values())).column("row_id")
    return pa.table([ids, words, listed], schema=VERDICT_SCHEMA)


def _levels(table: pa.Table, threshold: Threshold) -> NDArray[np.int8]:
    """0 keep, 1 review, 2 quarantine for every row by one sanitizer."""
    scores = table.column("score").to_numpy(zero_copy_only=False).astype(np.float64)
    level = np.zeros(len(scores), dtype=np.int8)
    for verdict, cut in ((1, threshold.review), (2, threshold.quarantine)):
        if cut is not None:
            level[scores > cut] = verdict
    return level


def _reasons(
    name: str,
    table: pa.Table,
    over: NDArray[np.int64],
    level: NDArray[np.int8],
    threshold: Threshold,
    recipe: Witness,
) -> pa.Array:
    found = table.take(pa.array(over))
    scores = found.column("score").to_pylist()
    hints = found.column("hint").cast(pa.string()).to_pylist()
    cuts = [threshold.quarantine if level[row] == 2 else threshold.review for row in over]
    return pa.StructArray.from_arrays(
        [
            pa.array([name] * len(over), type=pa.string()),
            pa.array(scores, type=pa.float64()),
            found.column("p_value").combine_chunks().cast(pa.float64()),
            pa.array(cuts, type=pa.float64()),
            pa.array(
                [recipe.reason(s, h) for s, h in zip(scores, hints, strict=True)], type=pa.string()
            ),
        ],
        fields=list(REASON),
    )
