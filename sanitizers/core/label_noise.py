"""The noise of labels, told from the doubt of models: a mixture, its null, its temperatures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

from sanitizers.core.calibration import ModelNull

#: Out-of-fold class probabilities of some rows, shape (n, k), and their labels, shape (n,).
Labelled = tuple[NDArray[np.float64], NDArray[np.int64]]

#: A trusted row counts as much as this many others.
TRUSTED_WEIGHT = 3.0
#: The smallest probability that is told from zero; scores end at its logarithm.
_FLOOR = 1e-12
#: Added to probabilities before their logarithm.
_SMOOTH = 1e-4
#: Where the logarithm of the temperature and the logit of the rate of flips may lie.
TEMPERATURES, _RATES = (-3.0, 1.5), (-9.0, -0.4)
#: The share of a class that is replaced, at most.
_GONE = 0.9
_COARSE = {"xatol": 0.01}
#: Log-likelihoods by which a rate of zero is ruled out (68 %), and within which the rate
#: may lie above its likeliest value (68 %).
RULED_OUT, UPPER = 0.5, 0.5
#: Where nobody vouches for any label: log-likelihoods by which a rate of zero is to be ruled out,
#: unless models without the noise are sure; the largest rate that is believed; and how sure models
#: are to be at least, and to be sure, in the mean over the rows. Of 60 clean tables, classes that
#: follow from the features by steps gain up to 6 in all but four; where features hardly tell two
#: classes apart, overlap looks like a rate of 0.3 to 0.4; and models that know few of the rows
#: took others for noise (19 % of blood groups). Flips of 10 % that are found gain 6 and more where
#: classes overlap, and those of 20 % never looked like more than 0.23.
ALONE, MOST_ALONE, LEAST_SURE, SURE = 6.0, 0.25, 0.7, 0.95
#: Log-likelihoods by which labels that are vouched for rule out a temperature (95 %).
CONTRADICTED = 2.0


@dataclass(frozen=True)
class Temperatures:
    """The temperatures that labels without noise allow.

    Parameters
    ----------
    low, likeliest, high : float
        Those outside of `low` and `high` are ruled out (95 %).
    log_likelihood : float
        Of the labels, at the likeliest.
    """

    low: float
    likeliest: float
    high: float
    log_likelihood: float


def sharpen(P: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Class probabilities at another temperature: ``P**(1/T)``, normalised, shape (n, k)."""
    powers = np.exp(logs_of(P) / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class LabelLikelihood:
    """How likely labels are, some of which were replaced.

    Parameters
    ----------
    logs : ndarray of float64, shape (n, k)
        Class probabilities, as `logs_of` gives them.
    y : ndarray of int64, shape (n,)
        Observed labels.
    pattern : ndarray of float64, shape (k, k)
        Where replaced labels go: at a rate of 1 the share of the rows of one class that get
        the label of another; the diagonal is zero.
    """

    logs: NDArray[np.float64] = field(repr=False)
    y: NDArray[np.int64] = field(repr=False)
    pattern: NDArray[np.float64] = field(repr=False)

    @cached_property
    def _come(self) -> NDArray[np.float64]:
        return np.ascontiguousarray(self.pattern[:, self.y].T)

    @cached_property
    def _gone(self) -> NDArray[np.float64]:
        return np.asarray(self.pattern.sum(axis=1)[self.y])

    def loss(self, log_temperature: float, rate: float) -> float:
        """The negative log-likelihood."""
        Q = np.exp(self.logs * np.exp(-log_temperature))
        whole = Q.sum(axis=1)
        stayed = Q[np.arange(len(self.y)), self.y] * (1 - np.minimum(rate * self._gone, _GONE))
        come = rate * np.einsum("ij,ij->i", Q, self._come)
        return -float(np.log((stayed + come) / whole + _FLOOR).sum())


def logs_of(P: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of class probabilities, the largest of each row 0, shape (n, k)."""
    logs = np.log(P + _SMOOTH)
    return np.asarray(logs - logs.max(axis=1, keepdims=True))


def evenly(classes: int) -> NDArray[np.float64]:
    """The pattern of labels that are replaced by any other class alike, shape (k, k)."""
    return np.asarray((1 - np.eye(classes)) / max(classes - 1, 1))


def fit_mixture(
    P: NDArray[np.float64],
    y: NDArray[np.int64],
    vouched: Labelled | None = None,
    pattern: NDArray[np.float64] | None = None,
    *,
    alone: bool = False,
) -> tuple[float, float]:
    """Tell the noise of labels from the doubt of models, by maximum likelihood.

    The model of an observed label: with probability `r` it was replaced by one of the
    other classes, each alike or by a pattern, else it was drawn from `P` at temperature `T`.

    Parameters
    ----------
    P : ndarray of float64, shape (n, k)
        Out-of-fold class probabilities.
    y : ndarray of int64, shape (n,)
        Observed labels.
    vouched : Labelled, optional
        Labels that carry no noise: all doubt of them is the models' own. Each counts
        `TRUSTED_WEIGHT` times.
    pattern : ndarray of float64, shape (k, k), optional
        Where replaced labels go; see `LabelLikelihood`. None: to all other classes alike.
    alone : bool
        Whether nobody vouches for any label, so that nothing tells overlap from noise: then
        the data have to say more, see `ALONE`.

    Returns
    -------
    (float, float)
        T and r: zero where the data do not rule that out, else the upper end of its 68 %
        profile likelihood interval; with a pattern, which was chosen for its likelihood and so
        claims flips enough, the likeliest.
    """
    alike = evenly(P.shape[1])
    likelihood = LabelLikelihood(logs_of(P), y, alike if pattern is None else pattern)
    doubt = None if vouched is None else _doubt(vouched)

    def profile(logit: float) -> tuple[float, float]:
        """The best log-temperature for a rate of flips, and its negative log-likelihood."""
        rate = float(expit(logit))

        def loss(v: float) -> float:
            own = likelihood.loss(v, rate)
            return own if doubt is None else own + TRUSTED_WEIGHT * doubt(v)

        found = minimize_scalar(loss, bounds=TEMPERATURES, method="bounded", options=_COARSE)
        return float(found.fun), float(found.x)

    none, cold = profile(-np.inf)
    best = minimize_scalar(
        lambda v: profile(v)[0], bounds=_RATES, method="bounded", options=_COARSE
    )
    rate, gained = float(best.x), none - float(best.fun)
    doubt_only = float(np.exp(cold)), 0.0
    # A pattern was believed for more than what `_overlaps` asks.
    wary = alone and pattern is None
    if gained < RULED_OUT or (wary and expit(rate) > MOST_ALONE):
        return doubt_only
    if pattern is None:
        most = float(best.fun) + UPPER
        rate = _edge(lambda v: profile(v)[0], rate, _RATES[1], most)
    temperature = float(np.exp(profile(rate)[1]))
    if wary and _overlaps(sharpen(P, temperature), gained):
        return doubt_only
    return temperature, float(expit(rate))


def _overlaps(clean: NDArray[np.float64], gained: float) -> bool:
    """Whether classes of these probabilities overlap so much that it may pass for noise."""
    sure = float(clean.max(axis=1).mean())
    return sure < LEAST_SURE or (sure < SURE and gained < ALONE)


def temperatures(P: NDArray[np.float64], y: NDArray[np.int64]) -> Temperatures:
    """The temperatures that labels without noise allow, by their likelihood.

    Parameters
    ----------
    P : ndarray of float64, shape (n, k)
        Out-of-fold class probabilities.
    y : ndarray of int64, shape (n,)
        Labels that are vouched for.
    """
    doubt = _doubt((P, y))
    best = minimize_scalar(doubt, bounds=TEMPERATURES, method="bounded", options=_COARSE)
    most = float(best.fun) + CONTRADICTED
    low, high = (_edge(doubt, float(best.x), end, most) for end in TEMPERATURES)
    low, likeliest, high = (float(np.exp(v)) for v in (low, float(best.x), high))
    return Temperatures(low, likeliest, high, -float(best.fun))


def label_null(P: NDArray[np.float64]) -> ModelNull:
    """The scores of labels drawn from `P`: what clean labels would score, shape (n, k)."""
    surprises = surprise(P).ravel()
    order = np.argsort(surprises, kind="stable")
    survival = np.cumsum(P.ravel()[order][::-1])[::-1] / len(P)
    grid = np.linspace(0.0, -np.log10(_FLOOR), 2401)
    # The share at or above the grid point below a score: never too small a p-value.
    at = np.searchsorted(surprises[order], grid, side="left")
    padded = np.append(survival, 0.0)
    return ModelNull(grid, np.clip(padded[at], _FLOOR, 1.0))


def surprise(P: NDArray[np.float64]) -> NDArray[np.float64]:
    """``-log10`` of probabilities, of their shape."""
    # Rounded, so that the last bits of a matrix product, which depend on how many rows
    # come at once, never reach a verdict.
    rounded = np.round(-np.log10(np.maximum(P, _FLOOR)), 4)
    return np.asarray(np.abs(rounded), dtype=np.float64)


def _given(P: NDArray[np.float64], y: NDArray[np.int64]) -> Callable[[float], NDArray[np.float64]]:
    """The chance of every label, as a function of the logarithm of the temperature."""
    logs = logs_of(P)
    own = logs[np.arange(len(y)), y]

    def given(v: float) -> NDArray[np.float64]:
        t = np.exp(-v)
        return np.asarray(np.exp(own * t) / np.exp(logs * t).sum(axis=1))

    return given


def _doubt(labelled: Labelled) -> Callable[[float], float]:
    """The negative log-likelihood of labels without noise, by the log-temperature."""
    given = _given(*labelled)
    return lambda v: -float(np.log(given(v) + _FLOOR).sum())


def _edge(loss: Callable[[float], float], inside: float, end: float, most: float) -> float:
    """How far from `inside` towards `end` a loss stays within `most`."""
    while abs(end - inside) > 0.05:
        middle = (inside + end) / 2
        inside, end = (middle, end) if loss(middle) <= most else (inside, middle)
    return inside
