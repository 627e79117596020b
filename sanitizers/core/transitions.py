"""Which labels replace which: noise that goes from one class to another more than to the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import gammaln

from sanitizers.core.label_noise import (
    TEMPERATURES,
    LabelLikelihood,
    evenly,
    fit_mixture,
    logs_of,
    sharpen,
)

#: Fewer classes have nothing to choose from; of more the labels do not tell as many transitions.
CLASSES = (3, 100)
#: Rows that tell the transitions, at most.
ROWS = 4_000
#: Log-evidence for one pattern over all classes alike, at least. Of 38 clean samples, made hard on
#: purpose, 14 have more, 13 of them where classes overlap (`SURE`). From 5 to 100 nearly the same
#: flips are found; with 200 targeted ones are not (`benchmarks/results/transitions_tuning.md`).
EVIDENCE = 50.0
#: Log-likelihood that probabilities gain when the noise that models learned is taken out of
#: them, at least. Of flips from class to class it finds half as many again (26 to 39 %).
UNMIXED = 2.0
#: How sure models without the noise are to be, in the mean over the rows: the probability of
#: their likeliest class. Where classes overlap more than this, overlap and noise look alike:
#: flips from class to class cost twice as many clean rows (1.1 against 0.5 %) for a fifth more
#: of the flips. Of CIFAR-10 by its pixels (0.47) 3.6 % of the clean rows were lost once.
SURE = 0.83
#: The largest share of the labels that is believed to have gone from class to class. Flips of 20 %
#: look like up to 0.31; a clean table of repeated measurements, whose classes hardly any feature
#: tells, looked like 0.37, and lost a third of its rows.
MOST = 0.3
#: Each transition counts so many flips before any is seen, spread evenly.
PRIOR = 0.3
#: A class loses at most this share of its labels; most of them are left in every class.
LOST = 0.45
#: Where climbs begin: models as doubtful as they are, and models that learned noise.
_BEGIN = (1.0, 0.4)
_RATE, _ROUNDS, _STEPS = 0.1, 8, 3
#: How often the noise that is found is taken out, and looked for again.
_AGAIN = 4


@dataclass(frozen=True)
class Transitions:
    """How labels of each class were replaced.

    Parameters
    ----------
    pattern : ndarray of float64, shape (k, k)
        Flips from class to class, as `sanitizers.core.label_noise.LabelLikelihood` takes them.
    unmixing : ndarray of float64, shape (k, k)
        Takes the noise out of probabilities that models learned with it: the inverse of the
        transition matrix; the identity where they did not learn it.
    evidence : float
        The log of the Bayes factor for these transitions over all alike.
    sure : float
        The mean probability of the likeliest class, without the noise.
    """

    pattern: NDArray[np.float64] = field(repr=False)
    unmixing: NDArray[np.float64] = field(repr=False)
    evidence: float
    sure: float

    def unmix(self, P: NDArray[np.float64]) -> NDArray[np.float64]:
        """Class probabilities without the noise, shape (n, k)."""
        return _unmixed(P, self.unmixing)


@dataclass(frozen=True)
class _Climb:
    """Where alternating over flips and temperature has come to."""

    log_temperature: float
    rate: float
    pattern: NDArray[np.float64]
    counts: NDArray[np.float64]
    loss: float


@dataclass(frozen=True)
class Gates:
    """Where transitions are believed; `benchmarks.transitions` measures other lines.

    Parameters
    ----------
    evidence, unmixed, sure : float
        See `EVIDENCE`, `UNMIXED` and `SURE`.
    """

    evidence: float = EVIDENCE
    unmixed: float = UNMIXED
    sure: float = SURE


def fit_transitions(
    P: NDArray[np.float64], y: NDArray[np.int64], gates: Gates = Gates()
) -> Transitions | None:
    """Tell which labels replaced which, where the labels tell it beyond chance.

    Parameters
    ----------
    P : ndarray of float64, shape (n, k)
        Out-of-fold class probabilities.
    y : ndarray of int64, shape (n,)
        Observed labels.
    gates : Gates

    Returns
    -------
    Transitions or None
        None where replacing any class by any other, all alike, says as much.

    Notes
    -----
    Expectation and maximisation over the transitions, and a search for the temperature, take
    turns. Where it is likelier so, the transitions are taken out of the probabilities (backward
    correction), and looked for in what is left.

    References
    ----------
    Patrini et al., "Making deep neural networks robust to label noise: a loss correction
    approach", CVPR 2017, for transition matrices and their inverse. We differ in estimating
    them without anchor points, together with the temperature, and in abstaining.
    """
    k = P.shape[1]
    step = max(1, len(y) // ROWS)
    P, y = P[::step], y[::step]
    if not CLASSES[0] <= k <= CLASSES[1] or not len(y):
        return None
    even, best = (
        min((_climb(P, y, t, free=free) for t in _BEGIN), key=attrgetter("loss"))
        for free in (False, True)
    )
    evidence = _evidence(best.counts, y)
    if even.loss <= best.loss or evidence < gates.evidence:
        return None
    reached, unmixing, least = best, np.eye(k), best.loss - gates.unmixed
    for _ in range(_AGAIN):
        inverse = np.asarray(np.linalg.inv(_matrix(best)), np.float64)
        clean = _unmixed(P, inverse)
        best = _climb(clean, y, float(np.exp(best.log_temperature)), free=True, since=best)
        if best.loss < least:
            reached, unmixing, least = best, inverse, best.loss
    clean = _unmixed(P, unmixing)
    temperature, rate = fit_mixture(clean, y, pattern=reached.pattern)
    sure = float(sharpen(clean, temperature).max(axis=1).mean())
    if sure < gates.sure or rate > MOST:
        return None
    return Transitions(reached.pattern, unmixing, evidence, sure)


def _climb(
    P: NDArray[np.float64],
    y: NDArray[np.int64],
    temperature: float,
    *,
    free: bool,
    since: _Climb | None = None,
) -> _Climb:
    """Alternate over flips and temperature; where not `free` all transitions stay alike."""
    n, k = P.shape
    logs, v = logs_of(P), float(np.log(temperature))
    pattern, rate = (since.pattern, since.rate) if since else (evenly(k), _RATE)
    share = _shares(y, k)
    alike = share[:, None] * evenly(k)
    counts, loss = np.zeros((k, k)), np.inf
    for _ in range(_ROUNDS):
        for _ in range(_STEPS):
            counts = _flips(logs, y, v, rate, pattern)
            rate = max(counts.sum() / n, 1 / n)
            if free:
                prior = PRIOR * k * (k - 1)
                weights = (counts + prior * alike) / (counts.sum() + prior)
                pattern = weights / share[:, None]
        likelihood = LabelLikelihood(logs, y, pattern)
        best = minimize_scalar(
            likelihood.loss,
            args=(rate,),
            bounds=TEMPERATURES,
            method="bounded",
            options={"xatol": 0.02},
        )
        v, loss = float(best.x), float(best.fun)
    return _Climb(v, rate, pattern, counts, loss)


def _flips(
    logs: NDArray[np.float64],
    y: NDArray[np.int64],
    log_temperature: float,
    rate: float,
    pattern: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The flips from class to class that are to be expected, shape (k, k)."""
    Q = np.exp(logs * np.exp(-log_temperature))
    Q /= Q.sum(axis=1, keepdims=True)
    lost = np.minimum(rate * pattern.sum(axis=1), LOST)
    come = rate * Q * pattern[:, y].T
    stayed = Q[np.arange(len(y)), y] * (1 - lost[y])
    come /= (come.sum(axis=1) + stayed + 1e-12)[:, None]
    counts = np.zeros_like(pattern)
    np.add.at(counts, y, come)
    return counts.T


def _evidence(counts: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    """The log of the Bayes factor for any transitions over all alike (Dirichlet-multinomial)."""
    k = len(counts)
    other = ~np.eye(k, dtype=bool)
    alike = (_shares(y, k)[:, None] * evenly(k))[other]
    alike /= alike.sum()
    seen, before = counts[other], PRIOR * k * (k - 1) * alike
    whole = gammaln(before.sum()) - gammaln(before.sum() + seen.sum())
    each = gammaln(before + seen) - gammaln(before) - seen * np.log(alike)
    return float(whole + each.sum())


def _shares(y: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """The share of each class, none of them zero, shape (k,)."""
    return np.asarray(np.bincount(y, minlength=k) / len(y) + 1 / (len(y) * k))


def _matrix(climb: _Climb) -> NDArray[np.float64]:
    """The transition matrix; the greater part of every class stays, so that it has an inverse."""
    go = climb.rate * climb.pattern
    lost = go.sum(axis=1)
    go *= (np.minimum(lost, LOST) / np.maximum(lost, 1e-12))[:, None]
    return np.asarray(go + np.diag(1 - go.sum(axis=1)))


def _unmixed(P: NDArray[np.float64], unmixing: NDArray[np.float64]) -> NDArray[np.float64]:
    clean = np.maximum(P @ unmixing, 0.0)
    return np.asarray(clean / clean.sum(axis=1, keepdims=True))
