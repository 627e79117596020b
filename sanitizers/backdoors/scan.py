"""Windows that occur again and again at one place: opaque patches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sanitizers.backdoors.arrays import Images, Proposal, View

#: Values that occur less often at a place are not counted there.
_LEAST = 5


def scan_windows(
    seen: View, side: int, most: int, *, shift: int = 5, seed: int = 0
) -> list[Proposal]:
    """Find windows of `side` pixels whose content is common at one place and nowhere else.

    Every position of the window is hashed after its grey levels were cut to ``8 - shift``
    bits; contents seen in at least 15 rows and .1 % of the rows are ranked by

    ``min(ratio, 50) * texture * (1/4 + share of the commonest label)``

    where `ratio` is the count here over the highest count of the same content at any
    other place, and `texture` the standard deviation of its levels. Nature repeats itself
    wherever it can: a sky is a sky at every place.

    Parameters
    ----------
    seen : View
    side : int
    most : int
        Proposals, at most.
    shift : int
        Bits that are cut.
    seed : int
        Of the hash.

    Returns
    -------
    list of Proposal
    """
    if min(seen.images.shape[1:3]) < side:
        return []
    hashes = _hashes((seen.images >> shift).astype(np.uint8), side, seed)
    across = seen.images.shape[2] - side + 1
    least = max(15, len(seen) // 1000)
    found = _frequent(hashes, least)
    scored = []
    for place, value, ratio in found:
        rows = np.flatnonzero(hashes[:, place] == value)
        shares = np.bincount(seen.labels[rows], minlength=seen.classes) / len(rows)
        top, left = divmod(place, across)
        window = seen.images[rows[0], top : top + side, left : left + side] >> shift
        rough = float(window.std())
        if rough > 0:
            score = min(ratio, 50.0) * min(rough, 1.0) * (0.25 + float(shares.max()))
            scored.append((score, ratio, int(shares.argmax()), rows))
    scored.sort(key=lambda item: (-item[0], int(item[3][0])))
    return _distinct(scored, most)


def _hashes(levels: Images, side: int, seed: int) -> NDArray[np.int64]:
    """A hash of every window, shape (n, places): levels times odd random numbers, summed."""
    n, height, width, channels = levels.shape
    odd = np.random.default_rng(seed).integers(-(2**62), 2**62, (side, side, channels)) | 1
    down, across = height - side + 1, width - side + 1
    hashes = np.zeros((n, down, across), np.int64)
    for i in range(side):
        for j in range(side):
            for c in range(channels):
                hashes += levels[:, i : i + down, j : j + across, c] * odd[i, j, c]
    return hashes.reshape(n, -1)


def _frequent(hashes: NDArray[np.int64], least: int) -> list[tuple[int, int, float]]:
    """Place, content and ratio of every content that is common at one place above all."""
    places, values, counts = [], [], []
    for place in range(hashes.shape[1]):
        value, count = np.unique(hashes[:, place], return_counts=True)
        often = count >= _LEAST
        places.append(np.full(int(often.sum()), place))
        values.append(value[often])
        counts.append(count[often])
    at, what, how = (np.concatenate(parts) for parts in (places, values, counts))
    # Per content the commonest place first, the second commonest after it.
    order = np.lexsort((at, -how, what))
    at, what, how = at[order], what[order], how[order]
    first = np.ones(len(what), dtype=bool)
    first[1:] = what[1:] != what[:-1]
    second = np.full(len(what), _LEAST)
    again = np.flatnonzero(first[:-1] & ~first[1:])
    second[again] = np.maximum(how[again + 1], _LEAST)
    chosen = np.flatnonzero(first & (how >= least) & (how >= 2 * second))
    return [(int(at[i]), int(what[i]), float(how[i] / second[i])) for i in chosen]


def _distinct(
    scored: list[tuple[float, float, int, NDArray[np.int64]]], most: int
) -> list[Proposal]:
    """The best, leaving out those that share most of their rows with a better one."""
    kept: list[Proposal] = []
    for _, ratio, label, rows in scored:
        if len(kept) == most:
            break
        if all(_overlap(rows, other.rows) < 0.5 for other in kept):
            kept.append(Proposal(rows, label, "window", ratio=ratio))
    return kept


def _overlap(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / min(len(one), len(other))
