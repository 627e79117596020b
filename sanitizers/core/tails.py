"""Whether deviations are the tail of the data themselves, or lie apart from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Deviations are looked at from this score on. Below it all is usual.
FAR = 8.0
#: Rows that lie apart are at least this share, and this many times as many as those that lie
#: between half of their least score and it. Of 40 clean tables (tuning half of
#: ``benchmarks.strangers``), 13 of them with rows beyond `FAR`, up to 4.4 times as many;
#: nine poisonings in ten of those that are found are beyond 8, or alike.
GROUP, APART = 0.01, 8.0
#: Far rows are alike where the targets of the middle half of them lie within so many deviations.
#: In those clean tables they were 11 and more apart, in poison hardly ever.
ALIKE = 2.0
#: A side, too high or too low, with a smaller share of the far rows does not count.
SIDE = 0.1
#: Steps between the scores that are tried, in their logarithm.
_STEP = 0.05


def tail_end(deviations: Floats, targets: Floats) -> float:
    """The score up to which deviations are taken for the data's own tail.

    Heavy tails, and groups of rows that follow another law than most, are found far out,
    and fewer and fewer of them the farther out. Poison is far out all together; or its
    targets are alike, whatever is predicted, for they are where they do the most harm: at an
    end of their range.

    Parameters
    ----------
    deviations : ndarray of float64, shape (n,)
        From what is predicted, in robust standard deviations; the score is their size. Those
        that are not finite do not count.
    targets : ndarray of float64, shape (n,)
        In the same unit.

    Returns
    -------
    float
        At least `FAR` where rows lie apart; zero where there is no tail, for far rows are
        alike; infinite where all of them belong to the tail.
    """
    known = np.isfinite(deviations)
    deviations, targets = deviations[known], targets[known]
    scores = np.abs(deviations)
    times, apart = _largest_gap(scores)
    if times >= APART:
        return apart
    far = scores > FAR
    return 0.0 if far.any() and _alike(deviations[far], targets[far]) else float("inf")


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


def _alike(deviations: Floats, targets: Floats) -> bool:
    sides = (targets[deviations > 0], targets[deviations < 0])
    ranges = [np.quantile(s, [0.25, 0.75]) for s in sides if len(s) >= SIDE * len(targets)]
    return all(high - low <= ALIKE for low, high in ranges)
