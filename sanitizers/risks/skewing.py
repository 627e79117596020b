"""Batches that crowd a place where the earlier rows are few."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sanitizers.core.kernels import nearest_distances
from sanitizers.risks.comparisons import Comparison
from sanitizers.risks.finding import ALARM, WARNING, Finding
from sanitizers.risks.look import Look

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]

#: Rows of the batch and of each half of the earlier rows, at most; and at least.
ROWS, LEAST = 3_000, 200
NEIGHBOURS = 10
#: Parts of the median distance that soften a ratio: much where a row is held against the
#: line, so that repeated rows do not raise it; little where the crowd is weighed.
SOFT, HARD = 0.1, 0.02
#: The line of a row: this quantile of the earlier rows' own halves, and never below.
QUANTILE, LEAST_RATIO = 0.995, 1.0
#: The share of rows above that is told, and the median ratio of these that is an alarm.
SHARE, ALARM_RATIO = 0.01, 2.0


def crowds(look: Look) -> Iterator[Finding]:
    """Find new batches with rows that are near each other and far from the earlier rows.

    The ratio of a row is the logarithm of its distance to earlier rows over its distance
    to rows of its own batch, each to the tenth nearest. The line is what two halves of
    the earlier rows, each held against the other, say of ratios.

    Measured on 4 real tables, 4 repeats each: 5 % and 20 % of near-identical rows in a batch
    of 800 are found every time, always as an alarm (median ratio 2.1 to 2.9); with
    nothing planted never. The attacks of NSL-KDD's test set against its training set are a warning
    (21 % of the rows, median ratio 1.8), and so is the winter at the end of the bike rentals
    (8 %, 1.3): an alarm from 2.
    """
    for comparison in look.comparisons:
        if comparison.newest:
            yield from _crowd(comparison)


def _crowd(comparison: Comparison) -> Iterator[Finding]:
    X, mine = comparison.rows.X, comparison.mine
    rows = min(ROWS, int(mine.sum()), int((~mine).sum()) // 2)
    if rows < LEAST or not X.shape[1]:
        return
    batch, old = X[mine][:rows], X[~mine]
    first, second = old[:rows], old[rows : 2 * rows]
    far, near = distances(batch, first)
    ratios, usual = ratio(far, near, SOFT), ratio(*distances(second, first), SOFT)
    line = max(float(np.quantile(usual, QUANTILE)), LEAST_RATIO)
    above = ratios > line
    share = float(above.mean())
    # Half of a percent may lie above by the making of the line; this many seldom do.
    expected = (1 - QUANTILE) * rows
    if share < SHARE or above.sum() < expected + 4 * np.sqrt(expected) + 3:
        return
    median = float(np.median(ratio(far, near, HARD)[above]))
    grave = median >= ALARM_RATIO
    yield Finding(
        "skewing",
        ALARM if grave else WARNING,
        comparison.name,
        share,
        SHARE,
        f"{share:.1%} of {comparison.name} crowd together where {comparison.against} have few "
        f"rows: {np.exp(median):.1f} times nearer to each other than to those",
        {"rows": rows, "ratio_line": round(line, 4), "median_ratio": round(median, 4)},
    )


def distances(rows: Floats32, others: Floats32) -> tuple[Floats, Floats]:
    """The distances of rows to the tenth nearest of `others`, and of themselves.

    Parameters
    ----------
    rows : ndarray of float32, shape (n, d)
    others : ndarray of float32, shape (m, d)
    """
    far = nearest_distances(rows, others, NEIGHBOURS)[:, -1]
    near = nearest_distances(rows, rows, NEIGHBOURS + 1)[:, -1]
    return far.astype(np.float64), near.astype(np.float64)


def ratio(far: Floats, near: Floats, soft: float) -> Floats:
    """The logarithm of ``far / near``, with a part of the median of `far` added to both.

    Where most rows repeat, a part of nothing would make every ratio infinite.
    """
    little = soft * float(np.median(far)) or 1e-6
    return np.asarray(np.log((far + little) / (near + little)))
