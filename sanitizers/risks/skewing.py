"""Batches that crowd a place where the earlier rows are few."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sanitizers.core.kernels import nearest_distances
from sanitizers.risks.comparisons import Comparison
from sanitizers.risks.finding import ALARM, WARNING, Finding
from sanitizers.risks.look import Look

Floats32 = NDArray[np.float32]

#: Rows of the batch and of each half of the earlier rows, at most; and at least.
ROWS, LEAST = 3_000, 200
NEIGHBOURS = 10
#: The line of a row: this quantile of the earlier rows' own halves, and never below.
QUANTILE, LEAST_RATIO = 0.995, 1.0
#: The share of rows above that is told, and the median ratio of these that is an alarm.
SHARE, ALARM_RATIO = 0.01, 2.0


def crowds(look: Look) -> Iterator[Finding]:
    """Find new batches with rows that are near each other and far from the earlier rows.

    The ratio of a row is the logarithm of its distance to earlier rows over its distance
    to rows of its own batch, each to the tenth nearest. The line is what two halves of
    the earlier rows, each held against the other, say of ratios.
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
    ratios, usual = ratio(batch, first, batch), ratio(second, first, second)
    line = max(float(np.quantile(usual, QUANTILE)), LEAST_RATIO)
    above = ratios > line
    share = float(above.mean())
    # Half of a percent may lie above by the making of the line; this many seldom do.
    expected = (1 - QUANTILE) * rows
    if share < SHARE or above.sum() < expected + 4 * np.sqrt(expected) + 3:
        return
    median = float(np.median(ratios[above]))
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


def ratio(rows: Floats32, others: Floats32, own: Floats32) -> NDArray[np.float64]:
    """The logarithm of the distance to `others` over the distance to `own`, shape (n,).

    Parameters
    ----------
    rows : ndarray of float32, shape (n, d)
    others : ndarray of float32, shape (m, d)
    own : ndarray of float32, shape (n, d)
        `rows` themselves; no row is a neighbour of its own.
    """
    far = nearest_distances(rows, others, NEIGHBOURS)[:, -1].astype(np.float64)
    near = nearest_distances(rows, own, NEIGHBOURS + 1)[:, -1].astype(np.float64)
    # Where most rows repeat, a tenth of nothing would make every ratio infinite.
    little = 0.1 * float(np.median(far)) or 1e-6
    return np.asarray(np.log((far + little) / (near + little)))
