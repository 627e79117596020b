"""Labels that many rows of a region have, and hardly any trusted row there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from sanitizers.core.classes import apart, classes_of, codes_of
from sanitizers.core.classifiers import bounded, fit_all, mean_probabilities
from sanitizers.core.data import Batch, Dataset
from sanitizers.core.errors import PlanError

#: Fewer trusted rows say nothing about regions; more than the most are not looked at.
TRUSTED_LEAST, TRUSTED_MOST = 100, 1_000
#: Regions hold so many trusted rows, from the smallest on, each a quarter more than the one
#: before, until a third of all are in one.
SMALLEST, GROWTH, LARGEST = 4, 1.25, 1 / 3
#: Regions that are kept, at most, the least likely ones.
REGIONS_MOST = 200
#: So far, in total variation, may the classes of trusted rows be from those of the data beyond
#: chance. Where half of the classes are a tenth as frequent among trusted rows (0.3 to 0.5 on
#: the tuning tables) clean rows make regions, whatever the odds.
APART = 0.1
#: So many trusted rows of each class are taken to have their labels as often as the data,
#: besides those that there are: a dozen of a class tell its share roughly.
PRIOR = 30.0
#: Trusted rows that a region lacks, at least.
LACKING = 2.0
#: Nearest rows whose labels tell of a row how doubtful its own is.
NEAREST = 10
#: By so many standard errors, at most, may trusted rows be more doubtful than those of the data.
DOUBTFUL = 2.5
#: Rows of either kind on which that is measured.
COMPARED_LEAST, COMPARED_MOST = 30, 1_000

_Codes = NDArray[np.int64]
_Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class LabelRegions:
    """The estimated chance that a label is wrong, in regions where trusted rows contradict it.

    Threat: flips that agree with one another: all rows of a region, a cluster or a group get
    another label. Models of the data learn it, and `labels` believes it.

    Blind spots: needs at least 100 trusted rows, drawn at random, and finds what several of
    them lie amid: with 300, two thirds of the rows in clusters of 5 %
    (``benchmarks/results/quality.md``), and few in those of 2 %. Of labels that agree by
    nature with half of the region it finds that they are too many, and not which. Flips
    that are scattered, one here and one there, are for `labels`. The rule abstains where
    trusted rows were chosen for their doubtful labels, and where their classes have other
    shares: also where more than about a tenth of all labels were changed into one class.

    Parameters
    ----------
    rows : int
        Rows that are looked at when fitted, at most, chosen by salted ids. Cost: up to 8 s;
        where regions are found, about 10 s per 1,000,000 rows besides.
    trees : int
        Trees of the extra-trees model.
    seed : int
    chance : float
        With which anything at all is found in data that are clean, at most. Regions overlap,
        so it is far less: of 120 draws of 18 clean tables four, at the default
        (``benchmarks/results/regions.md`` and ``regions_tuning.md``).

    Notes
    -----
    A region is a ball around a trusted row, up to another one. In it, each label is compared:
    if trusted rows were drawn from the data, how many of those within would have it? Too few
    by chance (hypergeometric; Bonferroni, over all centres, sizes and classes) make a find. A
    class that is rarer among all trusted rows *outside* of the region than in the data
    is expected to be as much rarer within, so that trusted rows need not have quite the same
    shares.

    The score of a row in such a region with such a label is ``1 - trusted / data``: the
    probability of the label by models of the trusted rows alone, by its share in the region,
    the smallest one that holds the row. The models are those of `labels`. Other rows score 0.

    Trusted rows whose labels surprise for another reason would make regions too: a person may
    vouch for rows just because their labels are doubtful. So the rule abstains where, outside
    of the regions found, trusted rows agree with the ten rows of the data nearest to them less
    than rows of the data do.

    References
    ----------
    Kulldorff, "A spatial scan statistic", Communications in Statistics 1997, for looking at
    regions of all sizes. We differ in comparing labels of two samples, class by class, with
    an exact distribution instead of a simulated one, and in balls by number of rows.
    """

    name: ClassVar[str] = "label-regions"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "label"})
    needs_trusted: ClassVar[bool] = True

    rows: int = 16_000
    trees: int = 50
    seed: int = 0
    chance: float = 0.5

    def __post_init__(self) -> None:
        if self.rows < 1 or self.trees < 1 or not 0 < self.chance < 1:
            raise PlanError(
                f"label-regions: rows={self.rows}, trees={self.trees}, chance={self.chance}",
                expected="rows >= 1, trees >= 1, chance in (0, 1)",
            )

    def fit(self, data: Dataset) -> RegionScorer:
        trusted = data.trusted_rows
        if trusted is None:
            return RegionScorer()
        sample = data.sample(self.rows, "label-regions")
        sample = sample.take(~np.isin(sample.keys, trusted.keys))
        classes = classes_of(sample.labels)
        rows, vouched = (_Points.of(batch, classes) for batch in (sample, trusted))
        vouched = vouched.first(TRUSTED_MOST)
        if len(vouched) < TRUSTED_LEAST or not len(rows) or len(classes) < 2:
            return RegionScorer()
        if apart(vouched.y, rows.y, len(classes)) > APART:
            return RegionScorer()
        scan = _Scan.of(rows, vouched, len(classes))
        regions = tuple(scan.regions(self.chance))
        if regions and scan.doubtful(regions):
            return RegionScorer()
        if not regions:
            return RegionScorer(classes, vouched)
        return RegionScorer(
            classes, vouched, regions[:REGIONS_MOST], self._models(vouched, classes)
        )

    def _models(self, vouched: _Points, classes: Sequence[str]) -> tuple[Any, ...]:
        part = (vouched.X, vouched.y, np.ones(len(vouched)))
        (models,) = fit_all([part], len(classes), trees=self.trees, seed=self.seed)
        if models:
            return models
        from sklearn.dummy import DummyClassifier

        # Trusted rows of one class: it is all that they tell.
        return (DummyClassifier().fit(vouched.X, vouched.y),)

    def reason(self, score: float, hint: str | None) -> str:
        """Say how many rows around it have its label, and how many trusted ones."""
        if score <= 0 or not hint:
            return "trusted rows near it do not contradict its label"
        # Models of a few hundred rows may say 0, and are never that sure.
        chance = "more than 99%" if score > 0.99 else f"{score:.0%}"
        return (
            f"{hint} around it have its label, which models of the trusted rows call wrong "
            f"with a chance of {chance}"
        )


@dataclass(frozen=True)
class Region:
    """A ball in which trusted rows contradict a label.

    Parameters
    ----------
    centre : int
        Which trusted row is in its midst.
    radius : float
    label : int
        Which class is contradicted.
    chance : float
        That of the trusted rows in it so few would have the label.
    rows, having : int
        Rows of the data within, of those that were looked at, and those of them with the label.
    trusted, vouched : int
        The same of trusted rows.
    """

    centre: int
    radius: float
    label: int
    chance: float
    rows: int
    having: int
    trusted: int
    vouched: int

    def __str__(self) -> str:
        return (
            f"{self.having:,} of {self.rows:,} rows and {self.vouched:,} of "
            f"{self.trusted:,} trusted ones"
        )


@dataclass(frozen=True)
class _Points:
    """Rows as points with a class: shapes (n, d) and (n,)."""

    X: _Matrix
    y: _Codes

    @classmethod
    def of(cls, batch: Batch, classes: Sequence[str]) -> _Points:
        """The rows of a batch that have one of the classes."""
        codes = codes_of(batch.labels, classes)
        known = (codes >= 0) & ~batch.blank
        return cls(bounded(batch.wide)[known], codes[known])

    def __len__(self) -> int:
        return len(self.y)

    def first(self, count: int) -> _Points:
        return _Points(self.X[:count], self.y[:count])


@dataclass(frozen=True)
class RegionScorer:
    """The regions that were found, the least likely first; without classes it abstains.

    And models of the trusted rows, where there are regions.
    """

    classes: tuple[str, ...] = ()
    vouched: _Points | None = field(repr=False, default=None)
    regions: tuple[Region, ...] = ()
    models: tuple[Any, ...] = field(repr=False, default=())
    null: None = None

    def score(self, batch: Batch) -> NDArray[np.float64]:
        codes = codes_of(batch.labels, self.classes)
        scores = np.where((codes >= 0) & ~batch.blank, 0.0, np.nan)
        smallest = sorted(range(len(self.regions)), key=lambda k: self.regions[k].rows)
        region, X = self._region_of(batch, codes, smallest), bounded(batch.wide)
        rows = np.flatnonzero(region >= 0)
        if not len(rows):
            return scores
        told = mean_probabilities(self.models, X[rows], len(self.classes))
        share = np.array([r.having / r.rows for r in self.regions])[region[rows]]
        wrong = 1 - told[np.arange(len(rows)), codes[rows]] / share
        scores[rows] = np.round(np.maximum(wrong, 0.0), 3)
        return scores

    def hint(self, batch: Batch) -> Sequence[str | None]:
        # Regions overlap: rows that are wrong together should be told of the same one.
        codes = codes_of(batch.labels, self.classes)
        region = self._region_of(batch, codes, range(len(self.regions)))
        told = [*map(str, self.regions), None]
        return [told[k] for k in region]

    def _region_of(self, batch: Batch, codes: _Codes, order: Sequence[int]) -> _Codes:
        """The first region in some order that contradicts each row, -1 for none, shape (n,)."""
        found = np.full(len(batch), -1)
        if self.vouched is None:
            return found
        X = bounded(batch.wide)
        for label in {region.label for region in self.regions}:
            able = np.flatnonzero((codes == label) & ~batch.blank)
            points, first = X[able], np.full(len(able), -1)
            for k in reversed(order):
                region = self.regions[k]
                if region.label == label:
                    away = cdist(points, self.vouched.X[[region.centre]])[:, 0]
                    first[away <= region.radius] = k
            found[able] = first
        return found


@dataclass(frozen=True)
class _Scan:
    """Rows and trusted rows, and how far each lies from every trusted one.

    Parameters
    ----------
    rows, vouched : _Points
        n and t of them.
    away : ndarray of float64, shape (n, t)
    between : ndarray of float64, shape (t, t)
    totals, trusted : ndarray of int64, shape (classes,)
        How many rows of each class there are, of all and of those vouched for.
    """

    rows: _Points
    vouched: _Points
    away: _Matrix
    between: _Matrix
    totals: _Codes
    trusted: _Codes

    @classmethod
    def of(cls, rows: _Points, vouched: _Points, classes: int) -> _Scan:
        return cls(
            rows,
            vouched,
            cdist(rows.X, vouched.X),
            cdist(vouched.X, vouched.X),
            np.bincount(rows.y, minlength=classes),
            np.bincount(vouched.y, minlength=classes),
        )

    def regions(self, chance: float) -> list[Region]:
        """All regions that are less likely than chance allows, the least likely first."""
        count = len(self.vouched)
        steps = int(np.log(max(count * LARGEST / SMALLEST, 1)) / np.log(GROWTH)) + 1
        sizes = np.unique(np.round(SMALLEST * GROWTH ** np.arange(steps)).astype(np.int64))
        level = chance / (count * len(sizes) * len(self.totals))
        found = [r for centre in range(count) for r in self._around(centre, sizes, level)]
        return sorted(found, key=lambda r: (r.chance, r.centre, r.radius, r.label))

    def _around(self, centre: int, sizes: _Codes, level: float) -> Iterator[Region]:
        """The regions of all sizes around a trusted row."""
        # Half a second: only for those who look for regions.
        from scipy.stats import hypergeom

        radii = np.sort(self.between[:, centre])[sizes - 1]
        having = _within(self.away[:, centre], self.rows.y, radii, len(self.totals))
        vouched = _within(self.between[:, centre], self.vouched.y, radii, len(self.totals))
        rows = having.sum(axis=1, keepdims=True)
        trusted = vouched.sum(axis=1, keepdims=True)
        alike = np.rint(rows * self._expected(having, vouched)).astype(np.int64)
        with np.errstate(divide="ignore", invalid="ignore"):
            sizes, labels = np.nonzero(alike / rows * trusted - vouched >= LACKING)
        if not len(sizes):
            return
        n, m, x = rows[sizes, 0], trusted[sizes, 0], vouched[sizes, labels]
        p = hypergeom.cdf(x, n + m, alike[sizes, labels] + x, m)
        for k in np.flatnonzero(p < level):
            counts = (n[k], having[sizes[k], labels[k]], m[k], x[k])
            radius, label = float(radii[sizes[k]]), int(labels[k])
            yield Region(centre, radius, label, float(p[k]), *map(int, counts))

    def _expected(self, having: _Codes, vouched: _Codes) -> _Matrix:
        """The share of each label that trusted rows would have in a region, shape (sizes, k).

        As in the data within, but for classes that all other trusted rows have more often, or
        less, than the data do.
        """
        others, trusted = self.totals - having, self.trusted - vouched
        share = others / np.maximum(others.sum(axis=1, keepdims=True), 1)
        usual = share * trusted.sum(axis=1, keepdims=True)
        weighted = having * (trusted + PRIOR) / (usual + PRIOR)
        return np.asarray(weighted / np.maximum(weighted.sum(axis=1, keepdims=True), 1e-12))

    def doubtful(self, regions: Sequence[Region]) -> bool:
        """Whether trusted rows outside of regions agree less with the data around them.

        Of all regions, or the least likely ones where all would leave too few rows.
        """
        outside, beyond = np.ones(len(self.rows), bool), np.ones(len(self.vouched), bool)
        for region in regions:
            left = outside & (self.away[:, region.centre] > region.radius)
            left_vouched = beyond & (self.between[:, region.centre] > region.radius)
            if left.sum() < COMPARED_LEAST or left_vouched.sum() < COMPARED_LEAST:
                break
            outside, beyond = left, left_vouched
        if outside.all():
            return True
        some = np.flatnonzero(outside)[:COMPARED_MOST]
        among = cdist(self.rows.X[some], self.rows.X)
        # A row is no neighbour of its own.
        among[np.arange(len(some)), some] = np.inf
        usual = self._agreement(among, self.rows.y[some])
        told = self._agreement(self.away.T[beyond], self.vouched.y[beyond])
        error = np.sqrt(usual.var() / len(usual) + told.var() / len(told))
        return bool(usual.mean() - told.mean() > DOUBTFUL * max(error, 1e-3))

    def _agreement(self, away: _Matrix, labels: _Codes) -> _Matrix:
        """The share of the nearest rows of the data that have the same label, shape (m,)."""
        count = min(NEAREST, away.shape[1])
        near = np.argpartition(away, count - 1, axis=1)[:, :count]
        return np.asarray((self.rows.y[near] == labels[:, None]).mean(axis=1))


def _within(away: _Matrix, codes: _Codes, radii: _Matrix, classes: int) -> _Codes:
    """How many points of each class lie within each radius, which rise: (radii, classes)."""
    # The first radius that reaches a point; all later ones do too.
    first = np.searchsorted(radii, away, side="left")
    cells = np.bincount(first * classes + codes, minlength=(len(radii) + 1) * classes)
    return np.asarray(cells.reshape(-1, classes)[:-1].cumsum(axis=0))
