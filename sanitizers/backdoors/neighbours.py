"""What neighbours among the pixels say, whatever the labels of the rows themselves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sanitizers.backdoors.arrays import Floats, Mask, Proposal, Rows, View, spread

#: Rows among which neighbours are looked for.
REFERENCE = 6000
NEIGHBOURS = 12
#: Of the contrast of rows, what a trigger may leave: a picture may be mixed in at 30 %.
CONTRAST = 0.7


def neighbour_labels(
    seen: View, seed: int, allowed: Mask | None = None, of: Rows | None = None
) -> Rows:
    """Labels of the nearest reference rows, shape (m, 12); no row is its own neighbour.

    Parameters
    ----------
    seen : View
    seed : int
        Of the choice of reference rows.
    allowed : ndarray of bool, shape (n,), optional
        Rows that may be reference.
    of : ndarray of int64, shape (m,), optional
        Rows whose neighbours are wanted; all by default.
    """
    rng = np.random.default_rng(seed)
    pool = np.arange(len(seen)) if allowed is None else np.flatnonzero(allowed)
    rows = np.arange(len(seen)) if of is None else of
    reference = np.sort(rng.permutation(pool)[:REFERENCE])
    count = min(NEIGHBOURS + 1, len(reference))
    found = reference[_search(seen.coarse[rows], seen.coarse[reference], count)]
    own = found == rows[:, None]
    # Where a row is not among its own neighbours, the farthest is one too many.
    own[~own.any(axis=1), -1] = True
    return np.asarray(seen.labels[found[~own].reshape(len(rows), -1)])


def disagreement(seen: View, labels: Rows) -> Floats:
    """The share of neighbours with another label, shape (n,)."""
    return np.asarray((labels != seen.labels[:, None]).mean(axis=1), dtype=np.float32)


def nearest(seen: View, rows: Rows, allowed: Mask, count: int = 5) -> Rows:
    """The nearest allowed rows of each row, shape (len(rows), count).

    The mean of their pictures is what a picture would have been without its trigger,
    roughly.
    """
    pool = spread(np.flatnonzero(allowed), 12_000)
    return pool[_search(seen.coarse[rows], seen.coarse[pool], min(count, len(pool)))]


def diversity(seen: View, rows: Rows, looks: Rows, seed: int, most: int = 300) -> float:
    """How varied rows are beside random rows of the classes that they look like.

    Families are counted greedily: a row is taken, and all within a radius of it are
    left out. The radius is .35 of the median distance of random pairs of the label. 30
    frames of one traffic sign are one family; rows with a stamp are as varied as before, but
    for a picture that is mixed in, which takes contrast: where the rows lie closer together
    than those of their classes, down to .7 of their distances, the radius is smaller, too.

    Parameters
    ----------
    seen : View
    rows : ndarray of int64, shape (m,)
    looks : ndarray of int64, shape (n,)
        The label that the neighbours of each row of the data have most often.
    seed, most : int

    Returns
    -------
    float
        1 for random rows.
    """
    rng = np.random.default_rng(seed)
    some = spread(rows, most)
    label = int(np.bincount(seen.labels[rows]).argmax())
    own = seen.of(label)
    one, two = rng.choice(own, (2, 400))
    apart = np.linalg.norm(seen.coarse[one] - seen.coarse[two], axis=1)
    radius = 0.35 * float(np.median(apart))
    like = [seen.coarse[_like(looks, looks[some], rng)] for _ in range(2)]
    mine = seen.coarse[some]
    contrast = _distance(mine, rng) / max(float(np.mean([_distance(x, rng) for x in like])), 1e-9)
    usual = float(np.mean([_families(x, radius) for x in like]))
    return _families(mine, radius * float(np.clip(contrast, CONTRAST, 1.0))) / usual


def propose_neighbours(seen: View, apart: Floats, belief: Floats) -> list[Proposal]:
    """Rows that the net believes and their neighbours deny, per label.

    Parameters
    ----------
    apart : ndarray of float32, shape (n,)
        The disagreement of the neighbours.
    belief : ndarray of float32, shape (n,)
        The net's probability of the label.
    """
    chosen = (apart >= 0.8) & (belief > 0.9)
    found = [np.flatnonzero(chosen & (seen.labels == t)) for t in range(seen.classes)]
    return [Proposal(r, t, "neighbours") for t, r in enumerate(found) if len(r) >= 15]


def _like(looks: Rows, wanted: Rows, rng: np.random.Generator) -> Rows:
    """Random rows, as many of each look as are wanted."""
    out: list[NDArray[np.int64]] = []
    for look, count in zip(*np.unique(wanted, return_counts=True), strict=True):
        pool = np.flatnonzero(looks == look)
        out.append(rng.choice(pool, count, replace=len(pool) < count))
    return np.concatenate(out)


def _distance(points: Floats, rng: np.random.Generator) -> float:
    """The median distance of random pairs."""
    one, two = rng.integers(0, len(points), (2, 400))
    return float(np.median(np.linalg.norm(points[one] - points[two], axis=1)))


def _families(points: Floats, radius: float) -> int:
    squares = (points**2).sum(axis=1)
    near = squares[:, None] + squares - 2 * points @ points.T < radius**2
    free = np.ones(len(points), dtype=bool)
    count = 0
    for i in range(len(points)):
        if free[i]:
            free &= ~near[i]
            count += 1
    return count


def _search(queries: Floats, reference: Floats, count: int) -> Rows:
    import faiss

    index = faiss.IndexFlatL2(reference.shape[1])
    index.add(np.ascontiguousarray(reference))
    return np.asarray(index.search(np.ascontiguousarray(queries), count)[1], dtype=np.int64)
