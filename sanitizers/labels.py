"""Labels that models trained on the other rows do not believe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sanitizers.core.calibration import Null
from sanitizers.core.classes import apart, classes_of, codes_of
from sanitizers.core.classifiers import bounded, fit_all, mean_probabilities
from sanitizers.core.data import Batch, Dataset
from sanitizers.core.errors import PlanError
from sanitizers.core.label_noise import (
    TRUSTED_WEIGHT,
    Labelled,
    Temperatures,
    fit_mixture,
    label_null,
    sharpen,
    surprise,
    temperatures,
)
from sanitizers.core.threads import in_threads
from sanitizers.core.transitions import Transitions, fit_transitions

#: Trusted rows below this number do not clean the training folds.
TRUSTED_LEAST = 100
#: Pass by pass: a label this much less probable than the likeliest does not train models.
DENIED = (0.3, 0.5)
#: From this share of labels on that were replaced, as the first models and trusted rows tell,
#: those that the models deny train no second ones. With 10 % random flips they tell at least 9 %;
#: of seven clean tables of the tuning half one tells more than this, and loses no row by it.
NOISY = 0.02
#: At the temperature of each: models of all rows pass over a label that is at most so much less
#: probable than the likeliest, which models without some rows deny by at least so much.
HIDDEN = (0.3, 0.7)
#: Log-likelihoods that trusted labels gain, at least, where rows are to be left out. With flips
#: far from the boundary, and in clusters that are found, they gain 6 to 31 on the tuning tables.
LIKELIER = 3.0
#: So far, in total variation, may the classes of trusted rows be from those of the data beyond
#: chance, for models of theirs to leave rows out. Flips of 20 % move the data by 0.2 at most.
APART = 0.2


@dataclass(frozen=True)
class Labels:
    """How surprising the given label is, in powers of ten.

    Threat: flipped and mistaken labels. The attacker changes labels of rows, at random
    or from one class to another, and leaves the features alone.

    Blind spots: flips that agree with one another: all rows of a region or a cluster
    flipped together, or those far from the boundary first. Of 10 % flips far from the
    boundary 11 % are found, with 300 trusted rows 90 %; of a cluster of 5 % none, and one in
    four, where `label-regions` finds most (``benchmarks/results/quality.md``). Classes that
    the features cannot tell apart, where the rule abstains rather than guesses; which of two
    classes went over into the other, which only three and more tell; triggers with a target
    label, which models learn. Trusted rows that a person chose for their
    doubtful labels: hardly a flip is found beside them; vouch for rows drawn at random.

    Parameters
    ----------
    folds : int
        At most. A row is judged by models that saw neither it nor its fold; folds come from
        salted ids. Where there are more rows than a model takes, fewer folds leave it as many:
        two, for twice as many rows and more.
    rows : int
        Rows that a model is fitted on, at most. All rows are judged. Cost: about 3 s of one
        processor for each fold, with 20 columns and 4 classes, and 15 s per 1,000,000 rows judged.
    trees : int
        Trees of the extra-trees model. Of 100 the ranking is no better than of 50.
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
    do not rule out that no label was replaced (68 % likelihood ratio; where nobody vouches for any
    row far more is asked: see `sanitizers.core.label_noise.ALONE`), r is zero: doubt
    stays doubt, and hardly a row is found. Else r is the upper end of its 68 % interval,
    for models that have learned the noise themselves understate it.

    Trusted rows join the training folds. They also tell the temperature, for their labels
    carry no noise; but a hundred labels tell it roughly, and wrongly where the rows are no
    random sample. So the data's own temperature stands unless the trusted labels rule it
    out (95 %): it rises as far as they ask, or, where the data are more doubtful than they
    allow, theirs is taken. It also falls where the mixture of both has a lower one, in which
    a trusted label counts three times and is never noise.

    Flips that agree with one another are believed by models of all rows, so a second set of
    models is fitted in two passes, where the trusted rows have the classes of the data in
    about their shares: rows that a model of the trusted rows alone denies leave
    the training folds; then those that these models deny leave, and the others return.
    Unless trusted rows are denied as often, by models of the other trusted rows: then none
    leaves, for what is rare among clean rows would be made to look wrong. The second set
    judges only where trusted labels are likelier by it, and where it denies labels that the
    first set passes over, more often than trusted ones, or where the data were more doubtful
    than trusted labels allow and are no longer. Flips at random are seen by both, and better
    by models of all rows. Clean rows that were left out pass for noise, so the temperature
    is then the higher of the data's and the trusted rows' own.

    Where no such flips come to light and labels are noisy all the same, rows that the models
    deny leave, but at least half of every class stays, and second models take the place of the
    first where trusted labels are likelier by them. Without trusted rows nothing tells where
    second models are too sure of themselves, and they cost more finds than they won (of 20 %
    random flips, seven tuning tables: 51 against 57 %).

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
    rows: int = 16_000
    trees: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds < 2 or self.rows < 1 or self.trees < 1:
            raise PlanError(
                f"labels: folds={self.folds}, rows={self.rows}, trees={self.trees}",
                expected="folds >= 2, rows >= 1, trees >= 1",
            )

    def fit(self, data: Dataset) -> LabelScorer:
        folds = self._folds_of(data.rows)
        sample = data.sample(self.rows * folds // (folds - 1), "labels")
        classes = classes_of(sample.labels)
        if len(classes) < 2 or not sample.X.shape[1]:
            return LabelScorer((), ())
        rows = sample.take(codes_of(sample.labels, classes) >= 0)
        trusted = _useful(data.trusted_rows, classes)
        plain = LabelScorer(classes, self._fit_folds(rows, trusted, classes, folds))
        plain, P = _unmixed(plain, rows)
        if trusted is None:
            observed = _known(P, rows, classes)
            told_alone = fit_mixture(*observed, pattern=plain.pattern, alone=True)
            return _calibrate(plain, observed[0], *told_alone)
        told = _Told.of(plain, P, rows, trusted)
        if (sifted := self._sift(rows, trusted, classes, folds)) is not None:
            told_then = _Told.of(*sifted, rows, trusted)
            if told_then.uncovers(told):
                return _calibrate(sifted[0], told_then.P, told_then.careful, told_then.rate)
        if told.rate >= NOISY:
            believed = rows.take(_believed(P, rows, classes))
            second = LabelScorer(classes, self._fit_folds(believed, trusted, classes, folds))
            second, P = _unmixed(second, rows)
            told_then = _Told.of(second, P, rows, trusted)
            if told_then.likelier(told):
                plain, told = second, told_then
        return _calibrate(plain, told.P, told.together, told.rate)

    def _folds_of(self, rows: int) -> int:
        """The fewest folds, so that the others hold as many rows as a model takes."""
        return next(
            (k for k in range(2, self.folds) if rows * (k - 1) >= self.rows * k), self.folds
        )

    def _sift(
        self, rows: Batch, trusted: Batch, classes: tuple[str, ...], folds: int
    ) -> tuple[LabelScorer, NDArray[np.float64]] | None:
        """Models of the trusted rows and of those rows that they do not deny, if they do any.

        And what they say of all rows, shape (n, k).
        """
        given, own = (codes_of(batch.labels, classes) for batch in (trusted, rows))
        if apart(given, own, len(classes)) > APART:
            # Models of trusted rows that somebody chose, most of one class, would deny the others.
            return None
        X, y, _ = _training(trusted, classes, 1)
        ones = np.ones(len(y))
        (models,) = fit_all([(X, y, ones)], len(classes), trees=self.trees, seed=self.seed)
        margin = _margins(mean_probabilities(models, bounded(rows.X), len(classes)), rows, classes)
        alone = LabelScorer(classes, self._fit_folds(trusted, None, classes, self.folds))
        usual = _margins(alone.probabilities(trusted), trusted, classes)
        if not _more_often(margin >= DENIED[0], usual >= DENIED[0]):
            # As doubtful as labels that a person vouches for: none is to be left out.
            return None
        for line in DENIED:
            believed = rows.take(margin < line)
            sifted = LabelScorer(classes, self._fit_folds(believed, trusted, classes, folds))
            P = sifted.probabilities(rows)
            margin = _margins(P, rows, classes)
        return sifted, P

    def _fit_folds(
        self, rows: Batch, trusted: Batch | None, classes: tuple[str, ...], folds: int
    ) -> tuple[tuple[Any, ...], ...]:
        X, y, fold = _training(rows, classes, folds)
        weight = np.ones(len(y))
        if trusted is not None:
            TX, Ty, Tfold = _training(trusted, classes, folds)
            X, y = np.vstack([X, TX]), np.concatenate([y, Ty])
            fold = np.concatenate([fold, Tfold])
            weight = np.concatenate([weight, np.full(len(Ty), TRUSTED_WEIGHT)])
        others = [fold != k for k in range(folds)]
        parts = [(X[o], y[o], weight[o]) for o in others]
        return fit_all(parts, len(classes), trees=self.trees, seed=self.seed)

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
    transitions : Transitions or None
        Which labels replaced which, where the data tell.
    """

    classes: tuple[str, ...]
    folds: tuple[tuple[Any, ...], ...] = field(repr=False)
    temperature: float = 1.0
    flip_rate: float = 0.0
    null: Null | None = None
    transitions: Transitions | None = field(default=None, repr=False)

    @property
    def pattern(self) -> NDArray[np.float64] | None:
        """Where replaced labels go, where the data tell."""
        return self.transitions.pattern if self.transitions else None

    def probabilities(self, batch: Batch) -> NDArray[np.float64]:
        """Out-of-fold class probabilities before calibration, shape (n, classes)."""
        P = np.full((len(batch), len(self.classes)), np.nan)
        if not self.folds:
            return P
        fold, X = batch.buckets(len(self.folds), "labels/fold"), bounded(batch.X)

        def predict(k: int) -> None:
            mine = fold == k
            if mine.any() and self.folds[k]:
                P[mine] = mean_probabilities(self.folds[k], X[mine], len(self.classes))

        in_threads(predict, range(len(self.folds)))
        return self.transitions.unmix(P) if self.transitions else P

    def score(self, batch: Batch) -> NDArray[np.float64]:
        return self._scores(batch, self.probabilities(batch))

    def hint(self, batch: Batch) -> Sequence[str | None]:
        return self._hints(self.probabilities(batch))

    def score_and_hint(self, batch: Batch) -> tuple[NDArray[np.float64], Sequence[str | None]]:
        P = self.probabilities(batch)
        return self._scores(batch, P), self._hints(P)

    def _scores(self, batch: Batch, P: NDArray[np.float64]) -> NDArray[np.float64]:
        scores = np.full(len(batch), np.nan)
        codes = codes_of(batch.labels, self.classes)
        judged = np.flatnonzero(codes >= 0)
        if len(judged) and self.folds:
            sharp = sharpen(P[judged], self.temperature)
            scores[judged] = surprise(sharp[np.arange(len(judged)), codes[judged]])
        return scores

    def _hints(self, P: NDArray[np.float64]) -> Sequence[str | None]:
        if not self.folds:
            return [None] * len(P)
        best = np.nan_to_num(P, nan=0.0).argmax(axis=1)
        return list(np.asarray(self.classes, dtype=object)[best])


@dataclass(frozen=True)
class _Told:
    """What labels tell of models: those of the data, and those that are vouched for.

    Parameters
    ----------
    P : ndarray of float64, shape (n, k)
        The probabilities of the data's rows.
    own : float
        The temperature that the data's labels tell by themselves.
    joint : float
        The temperature that both tell.
    rate : float
        The share of the data's labels that were replaced, as both tell.
    vouched : Temperatures
        What those tell that are vouched for.
    margins, usual : ndarray of float64, shape (n,)
        How much likelier than the given label another class is at the joint temperature: of
        the data's rows, and of the trusted ones.
    """

    P: NDArray[np.float64]
    own: float
    joint: float
    rate: float
    vouched: Temperatures
    margins: NDArray[np.float64]
    usual: NDArray[np.float64]

    @classmethod
    def of(cls, fitted: LabelScorer, P: NDArray[np.float64], rows: Batch, trusted: Batch) -> _Told:
        said = ((P, rows), (fitted.probabilities(trusted), trusted))
        own_rows, vouched = (_known(*one, fitted.classes) for one in said)
        own, _ = fit_mixture(*own_rows, pattern=fitted.pattern)
        joint, rate = fit_mixture(*own_rows, vouched, fitted.pattern)
        margins, usual = (
            _margins(sharpen(given, joint), batch, fitted.classes) for given, batch in said
        )
        return cls(own_rows[0], own, joint, rate, temperatures(*vouched), margins, usual)

    def likelier(self, plain: _Told) -> bool:
        """Whether trusted labels are likelier by models without some rows."""
        return self.vouched.log_likelihood - plain.vouched.log_likelihood >= LIKELIER

    def uncovers(self, plain: _Told) -> bool:
        """Whether models without some rows tell of flips that models of all rows believe in.

        Trusted labels are likelier by them, and they deny rows that the others pass over, more
        often than trusted ones; or the data were more doubtful than trusted labels allow, for
        flips that agree look like classes that overlap, and are no longer.
        """
        if not self.likelier(plain):
            return False
        hidden, usual = (
            (before <= HIDDEN[0]) & (after >= HIDDEN[1])
            for before, after in ((plain.margins, self.margins), (plain.usual, self.usual))
        )
        explains = plain.own > plain.vouched.high and self.own <= self.vouched.high
        return explains or _more_often(hidden, usual)

    @property
    def together(self) -> float:
        """A temperature where all rows train: never more careful than need be.

        The data's own stands unless trusted labels rule it out, so that a few of them cost no
        finds; and it falls where both together tell a lower one. Data that are more doubtful
        than trusted labels allow do not speak of models alone: then those labels do.
        """
        if self.own > self.vouched.high:
            return self.vouched.likeliest
        return min(max(self.own, self.vouched.low), self.joint)

    @property
    def careful(self) -> float:
        """A temperature where rows were left out: those of them that are clean look like noise.

        So the data's own is too low, and a trusted one too where few labels tell it.
        """
        return max(min(self.own, self.vouched.high), self.vouched.likeliest)


def _calibrate(
    fitted: LabelScorer, P: NDArray[np.float64], temperature: float, rate: float
) -> LabelScorer:
    if not len(P):
        return LabelScorer((), ())
    null = label_null(sharpen(P, temperature))
    return replace(fitted, temperature=temperature, flip_rate=rate, null=null)


def _unmixed(fitted: LabelScorer, rows: Batch) -> tuple[LabelScorer, NDArray[np.float64]]:
    """The same models; where labels replaced one another by a pattern, it is taken out.

    And what they say of these rows then, shape (n, k).
    """
    P = fitted.probabilities(rows)
    told = fit_transitions(*_known(P, rows, fitted.classes))
    return (replace(fitted, transitions=told), told.unmix(P)) if told else (fitted, P)


def _known(P: NDArray[np.float64], rows: Batch, classes: Sequence[str]) -> Labelled:
    """The probabilities and labels of those rows that the models can judge."""
    known = np.isfinite(P).all(axis=1)
    return P[known], codes_of(rows.labels, classes)[known]


def _margins(P: NDArray[np.float64], rows: Batch, classes: Sequence[str]) -> NDArray[np.float64]:
    """How much likelier than the given label the likeliest class is, 0 where unknown, (n,)."""
    given = P[np.arange(len(rows)), codes_of(rows.labels, classes)]
    return np.asarray(np.nan_to_num(P.max(axis=1) - given))


def _more_often(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Whether the share in `one` exceeds that in `other` by two standard errors."""
    a, b = float(one.mean()), max(float(other.mean()), 1 / len(other))
    return bool(a - b > 2 * np.sqrt(a * (1 - a) / len(one) + b * (1 - b) / len(other)))


def _useful(trusted: Batch | None, classes: tuple[str, ...]) -> Batch | None:
    """The trusted rows of these classes; None where they are too few, or of one class."""
    if trusted is None:
        return None
    codes = codes_of(trusted.labels, classes)
    known = codes >= 0
    enough = known.sum() >= TRUSTED_LEAST and len(np.unique(codes[known])) >= 2
    return trusted.take(known) if enough else None


def _believed(P: NDArray[np.float64], rows: Batch, classes: Sequence[str]) -> NDArray[np.bool_]:
    """Rows that models do not deny, and at least half of those with each label, shape (n,).

    Else a class that is rare and hard to tell would go whole, and its clean rows be denied.
    """
    margins = _margins(P, rows, classes)
    codes = codes_of(rows.labels, classes)
    kept = margins < DENIED[0]
    for code in np.unique(codes):
        mine = codes == code
        kept[mine] |= margins[mine] <= np.median(margins[mine])
    return kept


def _training(
    batch: Batch, classes: Sequence[str], folds: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    codes = codes_of(batch.labels, classes)
    known = codes >= 0
    fold = batch.buckets(folds, "labels/fold")
    return bounded(batch.X)[known], codes[known], fold[known]
