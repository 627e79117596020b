"""Whether deviations are the tail of the data themselves, or lie apart from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Deviations are looked at from this score on. Below it all is usual.
FAR = 8.0
#: Rows that lie apart are at least this share, and this many times as many as those that lie
#: between half of their least score and it. Of clean tables up to 4.4 times as many (40 of the
#: tuning half of ``benchmarks.strangers``, 14 with a tail beyond `FAR`), poison that is apart
#: mostly 8 times and more.
GROUP, APART = 0.01, 5.0
#: Or so many of the far rows have a target among the lowest or highest of all, of which this
#: share is meant: there poison does the most harm. Of clean tables up to 86 %, of poison that
#: hides in the tail 97 % and more.
ENDS, END = 0.95, 0.02
#: Steps between the scores that are tried, in their logarithm.
_STEP = 0.05


def tail_end(scores: Floats, targets: Floats) -> float:
    """The score up to which deviations are taken for the data's own tail.

    Heavy tails, and groups of rows that follow another law than most, are found far out,
    and fewer and fewer of them the farther out. Poison is far out all together, or at the
    ends of the range of the target.

    Parameters
    ----------
    scores : ndarray of float64, shape (n,)
        Absolute deviations, in robust standard deviations.
    targets : ndarray of float64, shape (n,)

    Returns
    -------
    float
        At least `FAR` where rows lie apart; zero where there is no tail, only ends;
        infinite where all far rows belong to the tail.
    """
    most, apart = _largest_gap(scores)
    if most >= APART:
        return apart
    far = scores > FAR
    if not far.any():
        return float("inf")
    low, high = np.quantile(targets, [END, 1 - END])
    at_end = np.mean((targets[far] <= low) | (targets[far] >= high))
    return 0.0 if at_end >= ENDS else float("inf")


def _largest_gap(scores: Floats) -> tuple[float, float]:
    """How many times as many rows lie beyond a score as just below it, and the score."""
    ranked = np.sort(scores)
    if not len(ranked) or ranked[-1] <= FAR:
        return 0.0, FAR
    lines = FAR * np.exp(np.arange(0.0, np.log(ranked[-1] / FAR) + _STEP, _STEP))
    below, at = (np.searchsorted(ranked, line, side="right") for line in (lines / 2, lines))
    beyond = len(ranked) - at
    times = np.where(beyond >= GROUP * len(ranked), beyond / (at - below + 1), 0.0)
    best = int(np.argmax(times))
    return float(times[best]), float(lines[best])
