"""Many small models on disjoint slices of the data, each judging the rows of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sanitizers.core.calibration import ConformalNull, Null, benjamini_hochberg
from sanitizers.core.data import Batch, Dataset
from sanitizers.core.errors import PlanError
from sanitizers.core.kernels import robust_scale
from sanitizers.core.slices import (
    LEAST_ROWS,
    LEAST_SLICES,
    SliceModels,
    chance_of_crowding,
    crowding,
    cut_by,
)

TRUSTED_LEAST = 100
#: So many nearest rows of a concentrated one are looked at for the slices that they are from.
NEAREST = (8, 15, 30, 60)
#: A high score stands where chance would crowd the nearest rows as much for at most this share of
#: the rows; and for a larger one, as long as one in ten of the scores that stand is by chance.
CHANCE, FALSE = 1e-4, 0.1
#: Rows that are looked at together, for as many times the slices times `NEAREST` are in memory.
BLOCK = 4_096
#: What a score is cut to where chance alone may have brought the rows together.
BY_CHANCE = 3.0


def _check(slices: int, neighbours: int, rows: int) -> None:
    if slices < LEAST_SLICES:
        raise PlanError(f"{slices} slices cannot vote", expected=f"at least {LEAST_SLICES}")
    if neighbours < 1 or rows < LEAST_ROWS:
        raise PlanError(
            f"neighbours={neighbours}, rows={rows}",
            expected=f"neighbours >= 1, rows >= {LEAST_ROWS}",
        )


@dataclass(frozen=True)
class MicroVotes:
    """The distance, in robust standard deviations, that most foreign slices agree on.

    Threat: rows that belong to no period: injected outliers, a new kind of row that
    came with one delivery. A slice that is itself poisoned has one vote only.

    Blind spots: poison in half of the slices or more; clusters that every slice has a
    few of; poison inside the cloud of clean rows.

    Parameters
    ----------
    slices : int
        How many slices of equal size, in time where a time is known, else by source, else
        by the salted id of the row.
    rows : int
        Rows per slice that its model keeps. Cost: about 30 s per 1,000,000 rows and
        20 columns at 20 slices of 500.
    neighbours : int

    Notes
    -----
    A slice's model is the mean distance to the nearest of its rows; its vote on a foreign
    row is the robust z-score of the logarithm of that distance. The score is the median
    vote: it lies above a line exactly when more than half of the foreign slices do. What it
    finds others find as well, so the default policy lets it have 0.2 % of the clean rows that
    may be lost: only what is very far from all periods is held by it.

    References
    ----------
    Cretu et al., "Casting out demons: sanitizing training data for anomaly sensors", IEEE
    S&P 2008. We differ in the model (neighbours, not n-grams), in slicing by salted id
    where no time is known, and in the median vote, which needs no voting threshold.
    """

    name: ClassVar[str] = "micro-votes"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    #: Slices of salted ids are alike, whatever an attacker does: their votes find nothing that
    #: `outliers` does not, and cost clean rows (``benchmarks/results/quality.md``).
    needs_unless_named: ClassVar[frozenset[str]] = frozenset({"time|source"})

    slices: int = 20
    rows: int = 500
    neighbours: int = 5

    def __post_init__(self) -> None:
        _check(self.slices, self.neighbours, self.rows)

    def fit(self, data: Dataset) -> VoteScorer:
        sample = data.sample(2 * self.slices * self.rows, "micro-models")
        present = data.roles.present
        by = "time" if "time" in present else "source" if "source" in present else "hash"
        slices = max(LEAST_SLICES, min(self.slices, len(sample) // (2 * LEAST_ROWS)))
        models = SliceModels.fit(sample, cut_by(sample, by, slices), self.rows, self.neighbours)
        if models is None:
            return VoteScorer(None, np.empty((0, 2)), None)
        foreign, _, _ = models.split(sample)
        scales = np.array([robust_scale(column) for column in foreign.T])
        return VoteScorer(models, scales, self._null(models, scales, data.trusted_rows))

    def _null(
        self, models: SliceModels, scales: NDArray[np.float64], trusted: Batch | None
    ) -> Null | None:
        if trusted is None or len(trusted) < TRUSTED_LEAST:
            return None
        return ConformalNull.fit(VoteScorer(models, scales, None).score(trusted))

    def reason(self, score: float, hint: str | None) -> str:
        """Say how far most of the other slices find the row."""
        where = f", most of all in column {hint!r}" if hint else ""
        return f"most other slices find it {score:.1f} robust standard deviations too far{where}"


@dataclass(frozen=True)
class VoteScorer:
    """Fitted slice models and the scale of each; no models where slices are too few."""

    models: SliceModels | None
    scales: NDArray[np.float64]
    null: Null | None

    def score(self, batch: Batch) -> NDArray[np.float64]:
        if self.models is None:
            return np.full(len(batch), np.nan)
        foreign, _, _ = self.models.split(batch)
        votes = (foreign - self.scales[:, 0]) / self.scales[:, 1]
        return np.asarray(np.nanmedian(votes, axis=1))

    def hint(self, batch: Batch) -> Sequence[str | None]:
        return batch.farthest_columns()


@dataclass(frozen=True)
class MicroConcentration:
    """How much more at home a row is in its own slice than in the farther third of the others.

    Threat: a cluster of similar rows that came with a few deliveries: injected clusters,
    duplicate floods, a feature shift in one source. Each row looks innocent to detectors
    that see all rows, since its accomplices lie beside it.

    Blind spots: an attack on more than two thirds of the slices (it breaks exactly there);
    fewer than about `neighbours` similar rows a slice; rows that are new by nature (a product
    launch) look the same, so read the reasons.

    Parameters
    ----------
    slices : int
        How many slices of equal size in time. Every source is a slice of its own.
    rows : int
        Rows per slice that its model keeps. Cost: about 45 s per 1,000,000 rows and
        20 columns at 20 slices of 500, for time and for source each.
    neighbours : int
        More see fainter clusters and miss smaller ones.

    Notes
    -----
    Score: the logarithm of (distance to the neighbours in a far foreign slice / distance to
    the neighbours in the own slice), as a robust z-score over the data. With both a time and
    a source the larger of the two counts. Two thirds of the foreign slices are not farther
    than the *far* one. The median would be no majority: slices of time have equal numbers of
    rows, so an attacker who *adds* rows to 9 of 20 days until they are 30 % of them has rows
    in 11 of 20 slices.

    Rows of kinds that are rare and dense by nature can be at home in their own slice by chance:
    it has five of a dozen, and another none. So a high score stands only where the nearest rows
    of all slices crowd into a few of them (the sum of squares of how many each slice has), more
    than in any order of the rows: one in ten of such scores, at most, is then by chance.
    Otherwise it is 3, which is not unusual.

    References
    ----------
    Our own rule; near to Cretu et al. 2008 in slicing, and to density-ratio tests such as
    Hido et al., "Statistical outlier detection using direct density ratio estimation",
    KAIS 2011.
    """

    name: ClassVar[str] = "micro-concentration"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "time|source"})

    slices: int = 20
    rows: int = 500
    neighbours: int = 15

    def __post_init__(self) -> None:
        _check(self.slices, self.neighbours, self.rows)

    def fit(self, data: Dataset) -> ConcentrationScorer:
        sample = data.sample(2 * self.slices * self.rows, "micro-models")
        views = []
        for by in ("time", "source"):
            if by not in data.roles.present:
                continue
            slices = max(LEAST_SLICES, min(self.slices, len(sample) // (2 * LEAST_ROWS)))
            slicing = cut_by(sample, by, slices)
            models = SliceModels.fit(sample, slicing, self.rows, self.neighbours)
            if models is not None:
                views.append(ConcentrationView.of(models, sample))
        return ConcentrationScorer(tuple(views))

    def reason(self, score: float, hint: str | None) -> str:
        """Say where the row is at home."""
        where = hint or "its own slice"
        return (
            f"has near neighbours in {where} and not elsewhere "
            f"({score:.1f} robust standard deviations)"
        )


@dataclass(frozen=True)
class ConcentrationView:
    """The models of one cut, and what is usual of them.

    Parameters
    ----------
    models : SliceModels
    middle, spread : float
        Of the log-ratios.
    chances : ndarray of float64, shape (len(NEAREST), max(NEAREST)**2 + 1)
        For each of `NEAREST` the chance of as much `crowding`, or more, in any order of rows.
    level : float
        A high score whose `chance` is above this is explained by it.
    """

    models: SliceModels
    middle: float
    spread: float
    chances: NDArray[np.float64] = field(repr=False)
    level: float

    @classmethod
    def of(cls, models: SliceModels, sample: Batch) -> ConcentrationView:
        """See what is usual in a sample."""
        sizes = np.array([len(reference) for reference in models.references], dtype=np.float64)
        chances = chance_of_crowding(sizes / sizes.sum(), max(NEAREST))[list(NEAREST)]
        at_least = np.minimum(chances[:, ::-1].cumsum(axis=1)[:, ::-1], 1.0)
        ratios = _log_ratio(models, sample)
        view = cls(models, *robust_scale(ratios), at_least, CHANCE)
        high = np.flatnonzero((ratios - view.middle) / view.spread > BY_CHANCE)
        p_values = np.ones(len(sample))
        p_values[high] = view.chance(sample.take(high))
        return replace(view, level=max(CHANCE, benjamini_hochberg(p_values, FALSE)))

    def score(self, batch: Batch) -> NDArray[np.float64]:
        """The log-ratios in robust deviations; `BY_CHANCE` at most where that explains them."""
        scores = (_log_ratio(self.models, batch) - self.middle) / self.spread
        high = np.flatnonzero(scores > BY_CHANCE)
        scores[high[self.chance(batch.take(high)) > self.level]] = BY_CHANCE
        return scores

    def chance(self, batch: Batch) -> NDArray[np.float64]:
        """For which share of rows chance crowds their nearest rows as much, shape (n,)."""
        blocks = range(0, len(batch), BLOCK)
        parts = [batch.take(np.arange(b, min(b + BLOCK, len(batch)))) for b in blocks]
        return np.concatenate([self._chance(part) for part in parts] or [np.empty(0)])

    def _chance(self, batch: Batch) -> NDArray[np.float64]:
        origins = self.models.origins(batch, max(NEAREST))
        slices = len(self.models.references)
        least = [
            at_least[crowding(origins[:, :count], slices)]
            for count, at_least in zip(NEAREST, self.chances, strict=True)
        ]
        return np.asarray(np.minimum(np.min(least, axis=0) * len(NEAREST), 1.0))


def _log_ratio(models: SliceModels, batch: Batch) -> NDArray[np.float64]:
    foreign, home, _ = models.split(batch)
    ratio = np.full(len(batch), np.nan)
    judged = np.isfinite(home)
    ratio[judged] = _far(foreign[judged]) - home[judged]
    return ratio


def _far(foreign: NDArray[np.float64]) -> NDArray[np.float64]:
    """The foreign slice that two thirds of the foreign slices are not farther than, per row."""
    known = np.count_nonzero(~np.isnan(foreign), axis=1)
    place = 2 * (known - 1) // 3
    # Slices without a model are NaN, which sorts last.
    return np.asarray(np.sort(foreign, axis=1)[np.arange(len(foreign)), place])


@dataclass(frozen=True)
class ConcentrationScorer:
    """Fitted slice models by time, by source, or both."""

    views: tuple[ConcentrationView, ...]
    null: None = None

    def score(self, batch: Batch) -> NDArray[np.float64]:
        scores = np.full(len(batch), np.nan)
        for view in self.views:
            scores = np.fmax(scores, view.score(batch))
        return scores

    def hint(self, batch: Batch) -> Sequence[str | None]:
        # With two views a row is at home in one of them at least.
        places: list[list[str]] = [[] for _ in range(len(batch))]
        for view in self.views:
            slicing = view.models.slicing
            for place, s in zip(places, slicing.assign(batch), strict=True):
                if s >= 0:
                    place.append(slicing.names[s])
        return [" or ".join(place) or None for place in places]
