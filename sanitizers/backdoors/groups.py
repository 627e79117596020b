"""Groups of rows that look planted, and share no stamp: warps, patches that move.

They are suspicions only. That a model answers otherwise without them is no proof (so it does
without half of a natural class), and there is no stamp to try on innocent pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sanitizers.backdoors.arrays import Floats, Images, Mask, Proposal, Rows, View
from sanitizers.backdoors.neighbours import diversity, neighbour_labels

#: Groups with fewer rows are not tested.
GROUP_LEAST = 30
#: The largest share of its label that a group may be.
GROUP_SHARE = 0.85
#: What neighbours must say of a grown group: the share that deny its label, and how many
#: labels they have instead. Groups with a planted warp or a moving patch were measured at .91
#: to .99 and 6.8 to 9.5; natural ones up to .87 with 4.5, and .74 with 7.8.
DENIED, LOOKS = 0.85, 6.0


@dataclass(frozen=True, eq=False)
class Group:
    """Rows of one label that look like rows of many others.

    Parameters
    ----------
    rows : ndarray of int64, shape (m,)
    label : int
    denied : float
        The share of neighbours outside of the group that have another label.
    looks : float
        How many labels the neighbours have, effectively.
    """

    rows: Rows
    label: int
    denied: float
    looks: float

    @property
    def rank(self) -> float:
        """The order in which groups are tested."""
        return self.denied * float(np.log(max(self.looks, 1)) * np.log(max(len(self.rows), 1)))


def candidate_groups(
    seen: View,
    proposals: Sequence[Proposal],
    features: Floats,
    belief: Floats,
    claimed: Mask,
    looks: Rows,
    seed: int,
    most: int = 3,
) -> list[Group]:
    """Groups whose rows, by their neighbours, belong to many other labels; grown.

    Parameters
    ----------
    seen : View
    proposals : sequence of Proposal
    features : ndarray of float32, shape (n, 64)
        Of the audit net.
    belief : ndarray of float32, shape (n,)
        The net's probability of the label.
    claimed : ndarray of bool, shape (n,)
        Rows that a stamp explains.
    looks : ndarray of int64, shape (n,)
        The commonest label of the neighbours.
    seed, most : int
    """
    tested = []
    for p in proposals:
        share = len(p.rows) / max(len(seen.of(p.label)), 1)
        if p.origin == "window" or len(p.rows) < GROUP_LEAST or share > GROUP_SHARE:
            continue
        if belief[p.rows].mean() < 0.7 or claimed[p.rows].mean() > 0.5:
            continue
        group = look_around(seen, p.rows, p.label, seed)
        if group.denied >= 0.6 and group.looks >= 4.5:
            tested.append(group)
    tested.sort(key=lambda g: -g.rank)
    grown: list[Group] = []
    for group in tested[: 2 * most]:
        own = seen.of(group.label)
        rows = own[self_train(describe(seen, features, own), np.isin(own, group.rows))]
        if not GROUP_LEAST <= len(rows) <= GROUP_SHARE * len(own):
            continue
        known = any(len(np.intersect1d(rows, g.rows)) > 0.5 * len(rows) for g in grown)
        if known or diversity(seen, rows, looks, seed) < 0.4:
            continue
        again = look_around(seen, rows, group.label, seed)
        if again.denied >= DENIED and again.looks >= LOOKS and len(grown) < most:
            grown.append(again)
    return grown


def look_around(seen: View, rows: Rows, label: int, seed: int) -> Group:
    """What the neighbours of a group say that are not in it."""
    votes = neighbour_labels(seen, seed, allowed=~seen.mask(rows), of=rows)
    return Group(rows, label, float((votes != label).mean()), effective(votes.ravel()))


def effective(labels: Rows) -> float:
    """How many labels there are, effectively: the exponential of the entropy."""
    if not len(labels):
        return 0.0
    shares = np.bincount(labels) / len(labels)
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def describe(seen: View, features: Floats, rows: Rows) -> Floats:
    """What tells rows with a trigger from others of their label, standardised.

    The features of the net, the coarse components of the pixels, and the logarithm of the
    local energy of the Laplacian on a grid of 7 x 7: an interpolation smooths.
    """
    parts = [features[rows], seen.coarse[rows], roughness(seen.images[rows])]
    x = np.concatenate(parts, axis=1)
    return np.asarray((x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6), dtype=np.float32)


def self_train(x: Floats, start: Mask, rounds: int = 5) -> Mask:
    """Fit a strongly regularised logistic regression to its own verdicts, a few times.

    Parameters
    ----------
    x : ndarray of float32, shape (n, d)
    start : ndarray of bool, shape (n,)
    rounds : int

    Returns
    -------
    ndarray of bool, shape (n,)

    References
    ----------
    Yarowsky, "Unsupervised word sense disambiguation", ACL 1995, for self-training.
    """
    from sklearn.linear_model import LogisticRegression

    inside = start
    for _ in range(rounds):
        if inside.all() or not inside.any():
            break
        model = LogisticRegression(C=0.003, max_iter=200).fit(x, inside)
        inside = np.asarray(model.predict(x), dtype=bool)
    return inside


def roughness(images: Images, grid: int = 7) -> NDArray[np.float32]:
    """The logarithm of the local energy of the Laplacian on a grid, shape (n, grid ** 2)."""
    grey = images.astype(np.float32).mean(axis=3)
    energy = _laplacian(grey)
    n, height, width = energy.shape
    rows = np.linspace(0, height, grid + 1).astype(int)
    columns = np.linspace(0, width, grid + 1).astype(int)
    sums = np.add.reduceat(np.add.reduceat(energy, rows[:-1], axis=1), columns[:-1], axis=2)
    flat = np.log1p(sums.reshape(n, -1))
    return np.asarray(flat, dtype=np.float32)


def _laplacian(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    p = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = p[:, :-2, 1:-1] + p[:, 2:, 1:-1] + p[:, 1:-1, :-2] + p[:, 1:-1, 2:]
    return np.asarray(np.abs(around - 4 * grey), dtype=np.float32)
