"""Targets that no model of the other rows explains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sanitizers.core.calibration import ConformalNull, Null
from sanitizers.core.data import Batch, Dataset
from sanitizers.core.encoder import as_numbers
from sanitizers.core.errors import PlanError
from sanitizers.core.kernels import robust_scale
from sanitizers.core.sanitizer import Influence
from sanitizers.core.tails import tail_end

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Predict = Callable[[Floats], Floats]
Fit = Callable[[Floats, Floats], Predict]

#: Rows with a target that a fit needs, at least: with fewer, tails cost clean rows.
LEAST_ROWS = 250
#: Trusted rows below this number do not lead the fit.
TRUSTED_LEAST = 100
#: A trusted row counts as much as this many others.
TRUSTED_WEIGHT = 3
#: Ridge penalties to choose from. Not less: a weak penalty lets poison buy itself a
#: coefficient of a rare feature, and then looks innocent.
PENALTIES = (30.0, 100.0, 1000.0)
#: Deviations are not told apart from rounding below this share of the target's own spread.
FINEST = 0.03
#: Boosting is added where it brings the typical error below this share of the line's.
WORTH = 0.8
#: Without models there are no finds.
NO_FINDS = Influence(0.0)
METHODS = ("trimmed", "huber", "ransac")
#: A deviation reaches as far as that of the normal distribution of which this share is as near.
REACH = 0.95
_REACH = NormalDist().inv_cdf((1 + REACH) / 2)


@dataclass(frozen=True)
class Regression:
    """How far the target lies from what the other rows predict, in robust deviations.

    Threat: rows made to bend a regression: targets pushed to the far end, at points of
    high leverage, up to a third of the data. How many is not known.

    Blind spots: stealthy poison within the noise, two or three deviations from the
    prediction: none of it is found. Of the doses of warfarin 8 % of it changes half by 7 %
    or more, and raises the squared error by 5 % (``benchmarks/results/warfarin.md``).
    Data that the features hardly explain, where poison and noise look alike. More poison
    than `trim`. Without trusted rows, poison that thins out as a heavy tail does: it is for
    review at most (`sanitizers.core.tails`).

    Parameters
    ----------
    method : {"trimmed", "huber", "ransac"}
        How the first rows to believe are found. Only the first stands up to poison of high
        leverage; the others are there to compare.
    folds : int
        A row is judged by models that saw neither it nor its fold; folds come from salted ids.
    sample : int
        Rows that models are fitted on, at most. All rows are judged. Cost: about 4 s to
        fit on 20,000 rows of 20 columns, and 1 s per 1,000,000 rows judged.
    trim : float
        The share of rows left out of the first fit: more than the poison that is feared.
    cutoff : float
        Rows within this many deviations are believed again.
    seed : int

    Notes
    -----
    First too many rows are trimmed: alternating between a ridge fit and the rows that it
    explains best, from several starts (rows of low leverage, rows with a central target,
    random ones), of which the best is kept. Then rows are believed again, by residuals of
    models that did not see them, until nothing changes. Where gradient boosting on the
    residuals of the line explains the believed rows much better, it joins the line. With at
    least 100 trusted rows, the first model is theirs, they join every fit, and p-values are
    conformal.

    Score: absolute cross-fitted residual, centred and divided by the deviation of the
    believed rows: their median absolute deviation, or, where tails are heavy, as much as lets
    95 % of them lie as near as those of a normal distribution. By the first alone, rows in
    heavy tails are doubted one after the other, and clean rows are lost. Without trusted rows
    a row is quarantined only beyond the data's own tail: of 40 clean tables that nobody chose
    2.3 % of the rows were lost before, on 12 of them more than 1 %, and none now; of poison in
    these 78 % is found, where it was 81, for 0.1 % of the clean rows, where it was 1.9.

    References
    ----------
    Jagielski et al., "Manipulating machine learning", IEEE S&P 2018 (TRIM). We differ in
    not knowing the number of poisoned rows, in the starts, in believing rows again by
    cross-fitting, and in the added boosting. Rousseeuw and Van Driessen, "Computing LTS
    regression for large data sets", 2006, for the alternation.
    """

    name: ClassVar[str] = "regression"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "target"})

    method: str = "trimmed"
    folds: int = 5
    sample: int = 20_000
    trim: float = 0.35
    cutoff: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise PlanError(f"regression.method is {self.method!r}", expected=", ".join(METHODS))
        if self.folds < 2 or not 0 < self.trim < 0.5 or self.cutoff <= 0:
            raise PlanError(
                f"folds={self.folds}, trim={self.trim}, cutoff={self.cutoff}",
                expected="folds >= 2, 0 < trim < 0.5 and cutoff > 0",
            )

    def fit(self, data: Dataset) -> RegressionScorer:
        sample = data.sample(self.sample, "regression")
        rows = _Rows.of(sample, self.folds)
        if len(rows.y) < LEAST_ROWS or not rows.X.shape[1]:
            return RegressionScorer(())
        trusted = data.trusted_rows
        vouched = _Rows.of(trusted, self.folds) if trusted is not None else None
        if vouched is None or len(vouched.y) < TRUSTED_LEAST:
            return self._fit_alone(rows)
        return self._fit_with(rows, vouched)

    def _fit_alone(self, rows: _Rows) -> RegressionScorer:
        core = self._core(rows)
        believed = self._believe(rows, fit_ridge, core)
        residuals = rows.crossed(fit_ridge, core)
        boosted = rows.crossed(fit_boosted, core)
        if np.median(np.abs(boosted[core])) >= WORTH * np.median(np.abs(residuals[core])):
            return self._scorer(rows, fit_ridge, believed)
        # The line's own doubts are too wide here: begin again from what it is sure of.
        middle, spread = robust_scale(rows.crossed(fit_ridge, believed)[believed])
        sure = core & (np.abs(residuals - middle) <= 3 * max(spread, rows.finest))
        bent = self._believe(rows, fit_boosted, sure)
        if bent.sum() < (1 - self.trim) * len(bent):
            # It believes fewer rows than can be poison: the line is the safer judge.
            return self._scorer(rows, fit_ridge, believed)
        return self._scorer(rows, fit_boosted, bent)

    def _core(self, rows: _Rows) -> Mask:
        """The rows to begin with: at most ``1 - trim`` of all, and hardly any poison."""
        if self.method != "trimmed":
            return _inliers(self.method, rows, self.seed)
        keep = int((1 - self.trim) * len(rows.y))
        rng = np.random.default_rng(self.seed)
        leverage = (rows.X**2).sum(axis=1)
        distance = np.abs(rows.y - np.median(rows.y))
        starts = [
            _lowest(leverage, 0.5),
            _lowest(distance, 0.5),
            _lowest(distance, 0.75),
            _lowest(leverage, 0.7) & _lowest(distance, 0.7),
            rng.random(len(rows.y)) < keep / 2 / len(rows.y),
            rng.random(len(rows.y)) < keep / 2 / len(rows.y),
        ]
        found = [_trimmed(rows.X, rows.y, keep, start) for start in starts if start.sum() > 2]
        return min(found, key=lambda pair: pair[1])[0]

    def _believe(self, rows: _Rows, fit: Fit, believed: Mask, trusted: _Rows | None = None) -> Mask:
        """Believe rows by the residuals of models that did not see them, until it settles."""
        for _ in range(10):
            residuals = rows.crossed(fit, believed, trusted)
            middle, spread = deviation(residuals[believed])
            fresh = np.abs(residuals - middle) <= self.cutoff * max(spread, rows.finest)
            if (fresh != believed).sum() <= 0.001 * len(fresh) or not fresh.any():
                break
            believed = fresh
        return believed

    def _fit_with(self, rows: _Rows, trusted: _Rows) -> RegressionScorer:
        everyone = np.ones(len(trusted.y), dtype=bool)
        fit = fit_ridge
        line, boosted = (trusted.crossed(f, everyone) for f in (fit_ridge, fit_boosted))
        if np.median(np.abs(boosted)) < WORTH * np.median(np.abs(line)):
            fit = fit_boosted
        own = np.abs(trusted.crossed(fit, everyone))
        believed = np.abs(rows.y - fit(trusted.X, trusted.y)(rows.X)) <= _line(own)
        for _ in range(4):
            if not believed.any():
                break
            residuals = rows.crossed(fit, believed, trusted)
            own = np.abs(trusted.judged_by(rows, fit, believed))
            believed = np.abs(residuals) <= _line(own)
        return self._scorer(rows, fit, believed, trusted)

    def _scorer(
        self, rows: _Rows, fit: Fit, believed: Mask, trusted: _Rows | None = None
    ) -> RegressionScorer:
        models = rows.models(fit, believed, trusted)
        residuals = rows.y - _by_fold(models, rows)
        middle, spread = deviation(residuals[believed])
        spread = max(spread, rows.finest)
        null = None
        if trusted is not None:
            own = trusted.y - _by_fold(models, trusted)
            null = ConformalNull.fit(np.abs(own - middle) / spread)
        bend = np.sqrt(np.mean((fit(rows.X, rows.y)(rows.X) - _by_fold(models, rows)) ** 2))
        # Trusted rows show the tail: then p-values tell.
        tail = tail_end((residuals - middle) / spread, rows.y / spread) if trusted is None else 0.0
        influence = Influence(float(bend / spread), tail)
        return RegressionScorer(models, middle, spread, influence, null)

    def reason(self, score: float, hint: str | None) -> str:
        """Say how far the target lies from the prediction, and on which side."""
        side = f"{hint} for" if hint else "from what is expected by"
        return f"its target is {score:.1f} robust standard deviations {side} models of other rows"


@dataclass(frozen=True)
class RegressionScorer:
    """Fitted models per fold; none where the data are too few.

    Parameters
    ----------
    models : tuple of callable
        Per fold the model that did not see it.
    middle, spread : float
        Median and deviation of the believed rows' residuals, in the target's unit.
    influence : Influence
        How far the predictions move when the rows that are not believed are let in: root
        mean square, in units of `spread`. And, without trusted rows, where the tail ends.
    null : Null or None
    """

    models: tuple[Predict, ...] = field(repr=False)
    middle: float = 0.0
    spread: float = 1.0
    influence: Influence = NO_FINDS
    null: Null | None = None

    def score(self, batch: Batch) -> Floats:
        return np.abs(self._deviations(batch))

    def hint(self, batch: Batch) -> Sequence[str | None]:
        return _sides(self._deviations(batch))

    def score_and_hint(self, batch: Batch) -> tuple[Floats, Sequence[str | None]]:
        found = self._deviations(batch)
        return np.abs(found), _sides(found)

    def _deviations(self, batch: Batch) -> Floats:
        found = np.full(len(batch), np.nan)
        if self.models and len(batch):
            rows = _Rows.of(batch, len(self.models), known=False)
            residuals = rows.y - _by_fold(self.models, rows)
            # Rounded, so that the last bits of a matrix product, which depend on how many
            # rows come at once, never reach a verdict.
            found = np.round((residuals - self.middle) / self.spread, 4)
        return np.where(np.isfinite(found), found, np.nan)


def _sides(deviations: Floats) -> Sequence[str | None]:
    return [None if np.isnan(d) else "too high" if d > 0 else "too low" for d in deviations]


@dataclass(frozen=True)
class _Rows:
    """Features, target and fold of some rows."""

    X: Floats
    y: Floats
    fold: NDArray[np.int64]
    folds: int

    @classmethod
    def of(cls, batch: Batch, folds: int, *, known: bool = True) -> _Rows:
        """The rows of a batch; only those with a target where `known`."""
        name = batch.roles.target
        y = as_numbers(batch.table.column(name)) if name else np.full(len(batch), np.nan)
        fold = batch.buckets(folds, "regression/fold")
        there = np.isfinite(y) if known else np.ones(len(y), dtype=bool)
        return cls(batch.X[there].astype(np.float64), y[there], fold[there], folds)

    @property
    def finest(self) -> float:
        """The smallest deviation that counts, in the target's unit."""
        return FINEST * robust_scale(self.y)[1]

    def models(self, fit: Fit, believed: Mask, trusted: _Rows | None = None) -> tuple[Predict, ...]:
        """Per fold a model of the believed and the trusted rows of the other folds."""
        made = []
        for k in range(self.folds):
            mine = believed & (self.fold != k)
            X, y = [self.X[mine]], [self.y[mine]]
            if trusted is not None:
                theirs = trusted.fold != k
                X += [trusted.X[theirs]] * TRUSTED_WEIGHT
                y += [trusted.y[theirs]] * TRUSTED_WEIGHT
            made.append(fit(np.vstack(X), np.concatenate(y)))
        return tuple(made)

    def crossed(self, fit: Fit, believed: Mask, trusted: _Rows | None = None) -> Floats:
        """Residuals of every row by the model that did not see it."""
        return self.y - _by_fold(self.models(fit, believed, trusted), self)

    def judged_by(self, others: _Rows, fit: Fit, believed: Mask) -> Floats:
        """Residuals of trusted rows by models of other rows and of the other trusted folds."""
        return self.y - _by_fold(others.models(fit, believed, self), self)


def fit_ridge(X: Floats, y: Floats) -> Predict:
    """Ridge regression, its penalty chosen by generalised cross-validation.

    Parameters
    ----------
    X : ndarray of float64, shape (n, d)
    y : ndarray of float64, shape (n,)
    """
    centre, offset = X.mean(axis=0), y.mean()
    Z, target = X - centre, y - offset
    values, vectors = np.linalg.eigh(Z.T @ Z)
    turned, projected = vectors.T @ (Z.T @ target), Z @ vectors
    best = np.inf
    weights = np.zeros(X.shape[1])
    for penalty in PENALTIES:
        shrunk = turned / (values + penalty)
        freedom = min(float((values / (values + penalty)).sum() + 1) / len(y), 0.95)
        error = float(np.mean((target - projected @ shrunk) ** 2)) / (1 - freedom) ** 2
        if error < best:
            best, weights = error, vectors @ shrunk
    return lambda rows: np.asarray((rows - centre) @ weights + offset)


def fit_boosted(X: Floats, y: Floats) -> Predict:
    """Gradient boosting on the residuals of `fit_ridge`: it bends where the data do, and
    goes on straight where there are none.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    line = fit_ridge(X, y)
    boosting = HistGradientBoostingRegressor(
        max_iter=60, max_leaf_nodes=15, early_stopping=False, random_state=0
    )
    with threadpool_limits(1, user_api="openmp"):
        boosting.fit(X, y - line(X))
    return lambda rows: np.asarray(line(rows) + boosting.predict(rows))


def deviation(residuals: Floats) -> tuple[float, float]:
    """Median, and a standard deviation that reaches as far as nearly all of the residuals.

    The larger one of two: by the median absolute deviation, which describes the middle, and
    by the quantile at `REACH`, which describes the tails. Heavy tails take the second.

    Parameters
    ----------
    residuals : ndarray of float64, shape (n,)

    Returns
    -------
    (float, float)
        ``(0.0, 1.0)`` without values.
    """
    middle, spread = robust_scale(residuals)
    if len(residuals):
        reach = float(np.quantile(np.abs(residuals - middle), REACH)) / _REACH
        spread = max(spread, reach)
    return middle, spread


def _trimmed(X: Floats, y: Floats, keep: int, start: Mask) -> tuple[Mask, float]:
    """Alternate between a fit and the rows that it explains best; rows and their error."""
    believed, before = start, np.inf
    for _ in range(20):
        errors = (y - fit_ridge(X[believed], y[believed])(X)) ** 2
        best = np.argpartition(errors, keep - 1)[:keep]
        error = float(errors[best].sum())
        if error >= before * (1 - 1e-6):
            break
        before = error
        believed = np.zeros(len(y), dtype=bool)
        believed[best] = True
    return believed, before


def _inliers(method: str, rows: _Rows, seed: int) -> Mask:
    from sklearn.linear_model import HuberRegressor, RANSACRegressor

    if method == "huber":
        return ~np.asarray(HuberRegressor(max_iter=500).fit(rows.X, rows.y).outliers_)
    found = RANSACRegressor(random_state=seed).fit(rows.X, rows.y)
    return np.asarray(found.inlier_mask_)


def _lowest(values: Floats, share: float) -> Mask:
    return np.asarray(values <= np.quantile(values, share))


def _line(own: Floats) -> float:
    """The largest residual that is still believed, from those of trusted rows."""
    return 1.15 * float(np.quantile(own, 0.99))


def _by_fold(models: Sequence[Any], rows: _Rows) -> Floats:
    predicted = np.full(len(rows.y), np.nan)
    for k, model in enumerate(models):
        mine = rows.fold == k
        if mine.any():
            predicted[mine] = model(rows.X[mine])
    return predicted
