"""Labels that models trained on the other rows do not believe."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

from sanitizers.core.calibration import ModelNull, Null
from sanitizers.core.data import Batch, Dataset
from sanitizers.core.errors import PlanError

T = TypeVar("T")

#: Classes with fewer rows in the sample cannot be judged.
CLASS_LEAST = 10
#: Trusted rows below this number do not clean the training folds.
TRUSTED_LEAST = 100
#: A trusted row counts as much as this many others.
TRUSTED_WEIGHT = 3.0
#: Pass by pass: a label this much less probable than the likeliest does not train models.
DENIED = (0.3, 0.5)
#: The smallest probability that is told from zero; scores end at its logarithm.
_FLOOR = 1e-12
#: Added to probabilities before their logarithm.
_SMOOTH = 1e-4
#: Where the logarithm of the temperature and the logit of the rate of flips may lie.
_TEMPERATURES, _RATES = (-3.0, 1.5), (-9.0, -0.4)
_COARSE = {"xatol": 0.01}
#: Log-likelihoods by which a rate of zero is ruled out (68 %), and within which the rate
#: may lie above its likeliest value (68 %).
RULED_OUT, UPPER = 0.5, 0.5


@dataclass(frozen=True)
class Labels:
    """How surprising the given label is, in powers of ten.

    Threat: flipped and mistaken labels. The attacker changes labels of rows, at random
    or from one class to another, and leaves the features alone.

    Blind spots: flips that agree with one another: all rows of a region or a cluster
    flipped together, or those far from the boundary first. Of 10 % flips far from the
    boundary 3 % are found, with 300 trusted rows 90 %; of a cluster of 5 % none, and 37 %
    (``benchmarks/results/quality.md``). Classes that the features cannot tell apart, where
    the rule abstains rather than guesses; triggers with a target label, which models learn.

    Parameters
    ----------
    folds : int
        A row is judged by models that saw neither it nor its fold; folds come from salted ids.
    sample : int
        Rows that models are fitted on, at most. All rows are judged. Cost: about 15 s to
        fit on 20,000 rows of 20 columns, and 40 s per 1,000,000 rows judged.
    trees : int
        Trees of the extra-trees model.
    seed : int

    Notes
    -----
    Class probabilities are the mean of three unlike models: logistic regression, extra
    trees, gradient boosting. A mixture fitted to the observed labels, *with probability
    r the label was replaced by another class at random, else it was drawn from the
    probabilities at temperature T*, tells the noise of the labels (r) from the doubt of
    the models (T). The score of a row is ``-log10`` of its label's probability at
    temperature T: what the models would say of clean labels. From the same
    probabilities comes the null: the scores that clean labels would have. Where the data
    do not rule out that no label was replaced (68 % likelihood ratio), r is zero: doubt
    stays doubt, and hardly a row is found. Else r is the upper end of its 68 % interval,
    for models that have learned the noise themselves understate it.

    With trusted rows there are two passes: rows that a model of the trusted rows alone
    denies leave the training folds, which the trusted rows join; then those that these
    models deny leave, and the others return. Unless trusted rows are denied as often, by
    models of the other trusted rows: then none leaves, for what is rare among clean rows
    would be made to look wrong.

    References
    ----------
    Northcutt, Jiang and Chuang, "Confident learning", JAIR 2021, for out-of-fold
    probabilities. Guo et al., "On calibration of modern neural networks", ICML 2017, for
    temperature. We differ in fitting noise rate and temperature together, and in drawing
    the line by the model's own null instead of counting thresholds.
    """

    name: ClassVar[str] = "labels"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "label"})

    folds: int = 5
    sample: int = 20_000
    trees: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds < 2 or self.sample < 1 or self.trees < 1:
            raise PlanError(
                f"labels: folds={self.folds}, sample={self.sample}, trees={self.trees}",
                expected="folds >= 2, sample >= 1, trees >= 1",
            )

    def fit(self, data: Dataset) -> LabelScorer:
        sample = data.sample(self.sample, "labels")
        classes = _classes(sample.labels)
        if len(classes) < 2 or not sample.X.shape[1]:
            return LabelScorer((), ())
        trusted = data.trusted_rows
        if trusted is not None and not _useful(trusted, classes):
            trusted = None
        rows = sample.take(_codes(sample.labels, classes) >= 0)
        if trusted is None:
            fitted = LabelScorer(classes, self._fit_folds(rows, None, classes))
        else:
            fitted = self._fit_with(rows, trusted, classes)
        return _calibrate(fitted, rows, trusted)

    def _fit_with(self, rows: Batch, trusted: Batch, classes: tuple[str, ...]) -> LabelScorer:
        """Models of the trusted rows and of those rows that they do not deny."""
        trusted = trusted.take(_codes(trusted.labels, classes) >= 0)
        X, y, _ = _training(trusted, classes, 1)
        models = self._fit_models(X, y, np.ones(len(y)), len(classes))
        margin = _margins(_mean_probabilities(models, _bounded(rows), len(classes)), rows, classes)
        alone = LabelScorer(classes, self._fit_folds(trusted, None, classes))
        usual = _margins(alone.probabilities(trusted), trusted, classes)
        if not _more_often(margin >= DENIED[0], usual >= DENIED[0]):
            # As doubtful as labels that a person vouches for: none is to be left out.
            margin = np.zeros(len(rows))
        for line in DENIED:
            folds = self._fit_folds(rows.take(margin < line), trusted, classes)
            fitted = LabelScorer(classes, folds)
            if not margin.any():
                break
            margin = _margins(fitted.probabilities(rows), rows, classes)
        return fitted

    def _fit_folds(
        self, rows: Batch, trusted: Batch | None, classes: tuple[str, ...]
    ) -> tuple[tuple[Any, ...], ...]:
        X, y, fold = _training(rows, classes, self.folds)
        weight = np.ones(len(y))
        if trusted is not None:
            TX, Ty, Tfold = _training(trusted, classes, self.folds)
            X, y = np.vstack([X, TX]), np.concatenate([y, Ty])
            fold = np.concatenate([fold, Tfold])
            weight = np.concatenate([weight, np.full(len(Ty), TRUSTED_WEIGHT)])

        def fit(k: int) -> tuple[Any, ...]:
            return self._fit_models(X[fold != k], y[fold != k], weight[fold != k], len(classes))

        return tuple(_in_threads(fit, range(self.folds)))

    def _fit_models(
        self, X: NDArray[np.float64], y: NDArray[np.int64], weight: NDArray[np.float64], count: int
    ) -> tuple[Any, ...]:
        from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
        from sklearn.linear_model import LogisticRegression

        if len(np.unique(y)) < 2:
            return ()
        # Boosting grows a tree per class and round: fewer rounds where classes are many.
        rounds = 80 if count <= 5 else max(15, 400 // count)
        models = (
            LogisticRegression(max_iter=300),
            ExtraTreesClassifier(
                n_estimators=self.trees, min_samples_leaf=2, random_state=self.seed
            ),
            HistGradientBoostingClassifier(
                max_iter=rounds, max_leaf_nodes=15, early_stopping=False, random_state=self.seed
            ),
        )
        return tuple(model.fit(X, y, sample_weight=weight) for model in models)

    def reason(self, score: float, hint: str | None) -> str:
        """Say how unlikely the label is, and which class the models would have given."""
        instead = f", and would say {hint!r}" if hint else ""
        return f"models of the other rows give its label a chance of {10.0**-score:.2g}{instead}"


@dataclass(frozen=True)
class LabelScorer:
    """Models per fold, and how their probabilities become chances of clean labels.

    Parameters
    ----------
    classes : tuple of str
        The classes that are judged.
    folds : tuple of tuple of estimator
        Per fold the models that did not see it.
    temperature, flip_rate : float
        The fitted mixture. `flip_rate` is the estimated share of labels replaced.
    null : Null or None
    """

    classes: tuple[str, ...]
    folds: tuple[tuple[Any, ...], ...] = field(repr=False)
    temperature: float = 1.0
    flip_rate: float = 0.0
    null: Null | None = None

    def probabilities(self, batch: Batch) -> NDArray[np.float64]:
        """Out-of-fold class probabilities before calibration, shape (n, classes)."""
        P = np.full((len(batch), len(self.classes)), np.nan)
        fold, X = batch.buckets(len(self.folds), "labels/fold"), _bounded(batch)

        def predict(k: int) -> None:
            mine = fold == k
            if mine.any() and self.folds[k]:
                P[mine] = _mean_probabilities(self.folds[k], X[mine], len(self.classes))

        _in_threads(predict, range(len(self.folds)))
        return P

    def score(self, batch: Batch) -> NDArray[np.float64]:
        scores = np.full(len(batch), np.nan)
        codes = _codes(batch.labels, self.classes)
        judged = np.flatnonzero(codes >= 0)
        if len(judged) and self.folds:
            P = sharpen(self.probabilities(batch.take(judged)), self.temperature)
            scores[judged] = _surprise(P[np.arange(len(judged)), codes[judged]])
        return scores

    def hint(self, batch: Batch) -> Sequence[str | None]:
        if not self.folds:
            return [None] * len(batch)
        best = np.nan_to_num(self.probabilities(batch), nan=0.0).argmax(axis=1)
        return list(np.asarray(self.classes, dtype=object)[best])


def sharpen(P: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Class probabilities at another temperature: ``P**(1/T)``, normalised, shape (n, k)."""
    logs = np.log(P + _SMOOTH) / temperature
    logs -= logs.max(axis=1, keepdims=True)
    powers = np.exp(logs)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fit_mixture(
    P: NDArray[np.float64], y: NDArray[np.int64], *, noisy: bool = True
) -> tuple[float, float]:
    """Tell the noise of labels from the doubt of models, by maximum likelihood.

    The model of an observed label: with probability `r` it was replaced by one of the
    other classes, each alike, else it was drawn from `P` at temperature `T`.

    Parameters
    ----------
    P : ndarray of float64, shape (n, k)
        Out-of-fold class probabilities.
    y : ndarray of int64, shape (n,)
        Observed labels.
    noisy : bool
        False where a person vouches for the labels: then r is zero, and all doubt is the
        models' own.

    Returns
    -------
    (float, float)
        T and r: zero where the data do not rule that out, else the upper end of its 68 %
        profile likelihood interval.
    """
    logs, others = np.log(P + _SMOOTH), P.shape[1] - 1
    logs -= logs.max(axis=1, keepdims=True)
    own = logs[np.arange(len(y)), y]

    def profile(logit: float) -> tuple[float, float]:
        """The best log-temperature for a rate of flips, and its negative log-likelihood."""
        rate = expit(logit)

        def loss(v: float) -> float:
            t = np.exp(-v)
            given = np.exp(own * t) / np.exp(logs * t).sum(axis=1)
            mixed = (1 - rate) * given + rate * (1 - given) / others
            return float(-np.log(mixed + _FLOOR).sum())

        found = minimize_scalar(loss, bounds=_TEMPERATURES, method="bounded", options=_COARSE)
        return float(found.fun), float(found.x)

    none, cold = profile(-np.inf)
    if not noisy:
        return float(np.exp(cold)), 0.0
    best = minimize_scalar(
        lambda v: profile(v)[0], bounds=_RATES, method="bounded", options=_COARSE
    )
    if none - float(best.fun) < RULED_OUT:
        return float(np.exp(cold)), 0.0
    low, high, most = float(best.x), _RATES[1], float(best.fun) + UPPER
    while high - low > 0.05:
        middle = (low + high) / 2
        low, high = (middle, high) if profile(middle)[0] <= most else (low, middle)
    return float(np.exp(profile(low)[1])), float(expit(low))


def label_null(P: NDArray[np.float64]) -> ModelNull:
    """The scores of labels drawn from `P`: what clean labels would score, shape (n, k)."""
    surprise = _surprise(P).ravel()
    order = np.argsort(surprise, kind="stable")
    survival = np.cumsum(P.ravel()[order][::-1])[::-1] / len(P)
    grid = np.linspace(0.0, -np.log10(_FLOOR), 2401)
    # The share at or above the grid point below a score: never too small a p-value.
    at = np.searchsorted(surprise[order], grid, side="left")
    padded = np.append(survival, 0.0)
    return ModelNull(grid, np.clip(padded[at], _FLOOR, 1.0))


def _calibrate(fitted: LabelScorer, sample: Batch, trusted: Batch | None) -> LabelScorer:
    P = fitted.probabilities(sample)
    y = _codes(sample.labels, fitted.classes)
    known = np.isfinite(P).all(axis=1)
    if not known.any():
        return LabelScorer((), ())
    temperature, rate = fit_mixture(P[known], y[known])
    if trusted is not None:
        # Trusted labels carry no noise, so they tell the temperature alone.
        trusted_y = _codes(trusted.labels, fitted.classes)
        vouched = fitted.probabilities(trusted)[trusted_y >= 0]
        temperature, _ = fit_mixture(vouched, trusted_y[trusted_y >= 0], noisy=False)
    null = label_null(sharpen(P[known], temperature))
    return LabelScorer(fitted.classes, fitted.folds, temperature, rate, null)


def _surprise(P: NDArray[np.float64]) -> NDArray[np.float64]:
    # Rounded, so that the last bits of a matrix product, which depend on how many rows
    # come at once, never reach a verdict.
    surprise = np.round(-np.log10(np.maximum(P, _FLOOR)), 4)
    return np.asarray(np.abs(surprise), dtype=np.float64)


def _classes(labels: NDArray[np.object_]) -> tuple[str, ...]:
    known = labels[np.array([v is not None for v in labels], dtype=bool)].astype(str)
    values, counts = np.unique(known, return_counts=True)
    return tuple(str(v) for v in values[counts >= CLASS_LEAST])


def _codes(labels: NDArray[np.object_], classes: Sequence[str]) -> NDArray[np.int64]:
    """The position of every label in `classes`, -1 for others and for none, shape (n,)."""
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index.get(v, -1) for v in labels], dtype=np.int64)


def _margins(P: NDArray[np.float64], rows: Batch, classes: Sequence[str]) -> NDArray[np.float64]:
    """How much likelier than the given label the likeliest class is, 0 where unknown, (n,)."""
    given = P[np.arange(len(rows)), _codes(rows.labels, classes)]
    return np.asarray(np.nan_to_num(P.max(axis=1) - given))


def _more_often(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Whether the share in `one` exceeds that in `other` by two standard errors."""
    a, b = float(one.mean()), max(float(other.mean()), 1 / len(other))
    return bool(a - b > 2 * np.sqrt(a * (1 - a) / len(one) + b * (1 - b) / len(other)))


def _useful(trusted: Batch, classes: tuple[str, ...]) -> bool:
    codes = _codes(trusted.labels, classes)
    return bool((codes >= 0).sum() >= TRUSTED_LEAST and len(np.unique(codes[codes >= 0])) >= 2)


def _training(
    batch: Batch, classes: Sequence[str], folds: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    codes = _codes(batch.labels, classes)
    known = codes >= 0
    fold = batch.buckets(folds, "labels/fold")
    return _bounded(batch)[known], codes[known], fold[known]


def _bounded(batch: Batch) -> NDArray[np.float64]:
    """Features within a few standard deviations, so that linear models stay conditioned."""
    return np.clip(batch.X, -5.0, 5.0).astype(np.float64)


def _in_threads(work: Callable[[int], T], folds: Sequence[int]) -> list[T]:
    """Run folds side by side, each on one thread: they share better than their inner loops."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, folds))


def _mean_probabilities(
    models: Sequence[Any], X: NDArray[np.float64], count: int
) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.zeros((len(X), count))
    for model in models:
        total[:, model.classes_] += model.predict_proba(X)
    return total / len(models)
