"""Disjoint slices of the data, by time, by source or by salted id, and a small model of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sanitizers.core.data import Batch
from sanitizers.core.kernels import nearest_distances

#: A slice with fewer rows in the sample has no model of its own.
LEAST_ROWS = 30
#: Fewer slices than this cannot outvote one another.
LEAST_SLICES = 4


class Slicing(Protocol):
    """A fitted cut of the data into disjoint slices."""

    @property
    def names(self) -> Sequence[str]:
        """One name per slice."""
        ...

    def assign(self, batch: Batch) -> NDArray[np.int64]:
        """The slice of every row, -1 for none, shape (n,)."""
        ...


@dataclass(frozen=True)
class TimeSlices:
    """Slices of equal size along the time column."""

    edges: NDArray[np.float64]
    names: tuple[str, ...]

    @classmethod
    def fit(cls, sample: Batch, count: int) -> TimeSlices:
        times = sample.times[np.isfinite(sample.times)]
        edges = np.unique(np.quantile(times, np.arange(1, count) / count)) if len(times) else times
        return cls(
            edges, tuple(f"time slice {i + 1} of {len(edges) + 1}" for i in range(len(edges) + 1))
        )

    def assign(self, batch: Batch) -> NDArray[np.int64]:
        slices = np.searchsorted(self.edges, batch.times, side="right")
        return np.where(np.isfinite(batch.times), slices, -1)


@dataclass(frozen=True)
class SourceSlices:
    """A slice per source; the smallest sources beyond `count` have none."""

    names: tuple[str, ...]

    @classmethod
    def fit(cls, sample: Batch, count: int) -> SourceSlices:
        known = sample.sources[np.array([s is not None for s in sample.sources], dtype=bool)]
        values, sizes = np.unique(known.astype(str), return_counts=True)
        order = np.lexsort((values, -sizes))[:count]
        return cls(tuple(sorted(str(v) for v in values[order])))

    def assign(self, batch: Batch) -> NDArray[np.int64]:
        index = {name: i for i, name in enumerate(self.names)}
        return np.array([index.get(s, -1) for s in batch.sources], dtype=np.int64)


@dataclass(frozen=True)
class HashSlices:
    """Slices of rows by their salted ids: nobody who supplies rows can choose one."""

    names: tuple[str, ...]

    @classmethod
    def fit(cls, count: int) -> HashSlices:
        return cls(tuple(f"slice {i + 1}" for i in range(count)))

    def assign(self, batch: Batch) -> NDArray[np.int64]:
        return batch.buckets(len(self.names), "micro-models/slice")


@dataclass(frozen=True)
class SliceModels:
    """One nearest-neighbour model per slice, on at most `rows` of its rows.

    Parameters
    ----------
    slicing : Slicing
    references : tuple of ndarray of float32, each of shape (m_s, d)
    keys : tuple of ndarray of uint64, each of shape (m_s,)
        The row keys of the references, so that no model judges its own rows.
    neighbours : int
    offset : float
        Added to distances before the logarithm, so that duplicates stay finite.
    """

    slicing: Slicing
    references: tuple[NDArray[np.float32], ...] = field(repr=False)
    keys: tuple[NDArray[np.uint64], ...] = field(repr=False)
    neighbours: int
    offset: float = 0.0

    @classmethod
    def fit(cls, sample: Batch, slicing: Slicing, rows: int, neighbours: int) -> SliceModels | None:
        """Fit to a sample; None where too few slices have enough rows."""
        assigned = slicing.assign(sample)
        references, keys = [], []
        for s in range(len(slicing.names)):
            mine = np.flatnonzero(assigned == s)[:rows]
            enough = len(mine) >= LEAST_ROWS
            references.append(sample.wide[mine] if enough else sample.wide[:0])
            keys.append(np.sort(sample.keys[mine]) if enough else sample.keys[:0])
        if sum(len(r) > 0 for r in references) < LEAST_SLICES or not sample.wide.shape[1]:
            return None
        models = cls(slicing, tuple(references), tuple(keys), neighbours)
        typical = float(np.nanmedian(models.distances(sample)))
        offset = 0.1 * typical if typical > 0 else 1e-6
        return cls(slicing, tuple(references), tuple(keys), neighbours, offset)

    def distances(self, batch: Batch) -> NDArray[np.float64]:
        """Mean distance of every row to its neighbours in every slice, shape (n, slices).

        A row that is in a slice's reference is not its own neighbour. NaN for a slice
        without a model.
        """
        out = np.full((len(batch), len(self.references)), np.nan)
        for s, reference in enumerate(self.references):
            if len(reference):
                out[:, s] = self._nearest(s, batch, self.neighbours).mean(axis=1)
        return out

    def origins(self, batch: Batch, count: int) -> NDArray[np.int64]:
        """The slices that the nearest references of all slices are from, shape (n, count).

        The nearest first, those that are as near as one another in no order; -1 where there are
        fewer.
        """
        parts = [self._nearest(s, batch, count) for s in range(len(self.references))]
        slices = np.repeat(np.arange(len(parts)), [part.shape[1] for part in parts])
        # An order of its own, so that of many copies not all come from the first slices.
        mixed = np.random.default_rng(0).permutation(len(slices))
        near = np.hstack(parts)[:, mixed]
        nearest = np.argsort(near, axis=1, kind="stable")[:, :count]
        out = np.full((len(batch), count), -1)
        out[:, : nearest.shape[1]] = slices[mixed][nearest]
        return out

    def _nearest(self, s: int, batch: Batch, count: int) -> NDArray[np.float32]:
        """Distances to a slice's nearest references but the row itself, at most `count` of them."""
        reference, keys = self.references[s], self.keys[s]
        if not len(reference):
            return np.empty((len(batch), 0), np.float32)
        k = min(count, len(reference) - 1)
        near = nearest_distances(batch.wide, reference, k + 1)
        at = np.minimum(np.searchsorted(keys, batch.keys), len(keys) - 1)
        itself = (keys[at] == batch.keys)[:, None]
        return np.where(itself, near[:, 1:], near[:, :k])

    def logs(self, batch: Batch) -> NDArray[np.float64]:
        """Logarithms of `distances`, shape (n, slices)."""
        return np.log(self.distances(batch) + self.offset)

    def split(
        self, batch: Batch
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """The logs to foreign slices (own slice NaN), to the own slice, and the slices."""
        logs, own = self.logs(batch), self.slicing.assign(batch)
        rows = np.flatnonzero(own >= 0)
        home = np.full(len(batch), np.nan)
        home[rows] = logs[rows, own[rows]]
        logs[rows, own[rows]] = np.nan
        return logs, home, own


def cut_by(sample: Batch, by: str, slices: int) -> Slicing:
    """Fit a cut by ``time``, by ``source``, or by the salted id."""
    if by == "time":
        return TimeSlices.fit(sample, slices)
    if by == "source":
        return SourceSlices.fit(sample, 2 * slices)
    return HashSlices.fit(slices)


def chance_of_crowding(shares: NDArray[np.float64], draws: int) -> NDArray[np.float64]:
    """How unevenly rows that are drawn at random come from slices, by `crowding`.

    Parameters
    ----------
    shares : ndarray of float64, shape (s,)
        The slices' shares of the rows, which sum to one.
    draws : int
        At most so many are drawn.

    Returns
    -------
    ndarray of float64, shape (draws + 1, draws**2 + 1)
        For each number of draws the chance of each sum of squares.
    """
    # Slice by slice, in exponential generating functions: a slice that gives i of the draws adds
    # i**2 to the sum, and a factor of share**i / i!.
    weight = np.zeros((draws + 1, draws**2 + 1))
    weight[0, 0] = 1.0
    for share in shares[shares > 0]:
        before, factor = weight.copy(), 1.0
        for i in range(1, draws + 1):
            factor *= share / i
            weight[i:, i * i :] += factor * before[: draws + 1 - i, : draws**2 + 1 - i * i]
    orders = np.cumprod(np.maximum(np.arange(draws + 1), 1).astype(np.float64))
    return np.asarray(weight * orders[:, None])


def crowding(origins: NDArray[np.int64], slices: int) -> NDArray[np.int64]:
    """The sum of the squares of how many come from each slice, shape (n,).

    Parameters
    ----------
    origins : ndarray of int64, shape (n, k)
        Slices; -1 is none.
    slices : int
    """
    counts = (np.count_nonzero(origins == s, axis=1) for s in range(slices))
    return np.asarray(sum(c * c for c in counts), dtype=np.int64)
