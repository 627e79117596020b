"""The evidence schema, and a sanitizer's promises, enforced."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sanitizers.core.calibration import Null
from sanitizers.core.data import Batch
from sanitizers.core.errors import EvidenceError
from sanitizers.core.sanitizer import Scorer, Telling

#: One row per scored row, in the order of the shard; the sanitizer is the file's.
SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("sanitizer", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("p_value", pa.float64()),
        pa.field("hint", pa.dictionary(pa.int32(), pa.string())),
    ]
)


def examine_batch(
    name: str, scorer: Scorer, batch: Batch, blank: NDArray[np.bool_] | None = None
) -> pa.Table:
    """Score a batch and hold the scorer to its promises.

    Parameters
    ----------
    name : str
        The sanitizer's name.
    scorer : Scorer
    batch : Batch
    blank : ndarray of bool, shape (n,), optional
        Rows that hold nothing to go by: no score counts of these.

    Returns
    -------
    pyarrow.Table
        Evidence with `SCHEMA`, one row per row of the batch, in its order. A score
        is null where the scorer abstained, a p-value where no null is known.

    Raises
    ------
    EvidenceError
        If scores are not one float per row, or are infinite, p-values are not shares, or
        a hint is missing.
    """
    n = len(batch)
    if isinstance(scorer, Telling):
        told = scorer.score_and_hint(batch)
    else:
        told = scorer.score(batch), scorer.hint(batch)
    scores, hints = np.asarray(told[0]), list(told[1])
    if scores.shape != (n,) or scores.dtype.kind != "f":
        raise EvidenceError(
            f"sanitizer {name!r} gave scores of shape {scores.shape} and type {scores.dtype} "
            f"for {n} rows",
            expected=f"floats of shape ({n},)",
        )
    scores = scores.astype(np.float64)
    if blank is not None:
        scores[blank] = np.nan
    if np.isinf(scores).any():
        raise EvidenceError(
            f"sanitizer {name!r} gave {int(np.isinf(scores).sum())} infinite scores",
            expected="finite scores, or NaN to abstain",
        )
    if len(hints) != n:
        raise EvidenceError(f"sanitizer {name!r} gave {len(hints)} hints for {n} rows")
    if not all(h is None or isinstance(h, str) for h in hints):
        raise EvidenceError(f"sanitizer {name!r} gave hints that are not text")
    abstained = np.isnan(scores)
    p_values = np.full(n, np.nan)
    if scorer.null is not None:
        p_values[~abstained] = _shares(name, scorer.null, scores[~abstained])
    names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int8)), pa.array([name]))
    return pa.table(
        [
            batch.row_ids,
            names,
            pa.array(scores, mask=abstained),
            pa.array(p_values, mask=np.isnan(p_values)),
            pa.array(hints, type=pa.string()).dictionary_encode(),
        ],
        schema=SCHEMA,
    )


def _shares(name: str, null: Null, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    p_values = np.asarray(null.p_value(scores))
    if p_values.shape != scores.shape or not ((p_values >= 0) & (p_values <= 1)).all():
        raise EvidenceError(
            f"sanitizer {name!r} gave p-values that are not one share in [0, 1] per score"
        )
    return p_values
