"""Transitions between labels: found where they are, not where classes overlap, and taken out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sanitizers.core.label_noise import LabelLikelihood, evenly, fit_mixture, logs_of, sharpen
from sanitizers.core.transitions import fit_transitions

Known = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]


def learned(seed: int, matrix: NDArray[np.float64], n: int = 4_000, overlap: float = 0.5) -> Known:
    """What models learn of noisy labels, such labels, and which were replaced.

    The logits of classes are Gaussian; the more overlap, the less clear the class is.
    """
    rng = np.random.default_rng(seed)
    k = len(matrix)
    home = rng.integers(k, size=n)
    logits = (4.0 * np.eye(k)[home] + rng.normal(size=(n, k))) / overlap / 2
    clean = np.exp(logits - logits.max(axis=1, keepdims=True))
    clean /= clean.sum(axis=1, keepdims=True)
    true = drawn(rng, clean)
    given = drawn(rng, matrix[true])
    # Means of unlike models are less sure than they may be; on real tables as much as this.
    return sharpen(clean, 2.0) @ matrix, given, given != true


def drawn(rng: np.random.Generator, P: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.asarray((P.cumsum(axis=1) < rng.random((len(P), 1))).sum(axis=1), dtype=np.int64)


def pairs(k: int, rate: float) -> NDArray[np.float64]:
    """Each class goes over into the next."""
    return (1 - rate) * np.eye(k) + rate * np.roll(np.eye(k), 1, axis=1)


@pytest.mark.parametrize("matrix", [pairs(4, 0.1), pairs(8, 0.2)])
def test_flips_from_class_to_class_are_told(matrix: NDArray[np.float64]) -> None:
    told = fit_transitions(*learned(0, matrix, overlap=0.3)[:2])
    assert told is not None
    went = matrix - np.diag(np.diag(matrix))
    assert np.corrcoef(told.pattern.ravel(), went.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("matrix", [pairs(4, 0.1), pairs(8, 0.2)])
def test_noise_that_models_learned_is_taken_out(matrix: NDArray[np.float64]) -> None:
    P, y, flipped = learned(0, matrix, overlap=0.3)
    told = fit_transitions(P, y)
    assert told is not None
    before = P[np.arange(len(y)), y]
    after = told.unmix(P)[np.arange(len(y)), y]
    assert np.median(after[flipped]) < np.median(before[flipped]) / 2
    assert np.median(after[~flipped]) > np.median(before[~flipped])
    rate = fit_mixture(told.unmix(P), y, pattern=told.pattern)[1]
    assert rate == pytest.approx(flipped.mean(), rel=0.3)


@pytest.mark.parametrize("k", [3, 6, 12])
@pytest.mark.parametrize("overlap", [0.3, 1.0, 2.0])
def test_clean_labels_of_classes_that_overlap_have_no_transitions(k: int, overlap: float) -> None:
    for seed in range(4):
        P, y, _ = learned(seed, np.eye(k), 2_000, overlap)
        assert fit_transitions(P, y) is None


def test_two_classes_that_overlap_with_one_another_alone_are_no_pattern() -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        home = rng.integers(5, size=3_000)
        at = np.eye(5)[home] * 5 + rng.normal(size=(3_000, 5))
        # The first two classes differ by little more than noise.
        at[:, 0], at[:, 1] = (at[:, 0] + at[:, 1]) / 2, (at[:, 0] + at[:, 1]) / 2 - 0.5
        P = np.exp(at)
        P /= P.sum(axis=1, keepdims=True)
        assert fit_transitions(P, drawn(rng, P)) is None


@pytest.mark.parametrize("seed", range(3))
def test_where_classes_overlap_much_noise_is_not_told_from_overlap(seed: int) -> None:
    clear, dim = (learned(seed, pairs(5, 0.2), overlap=overlap) for overlap in (0.3, 1.5))
    assert fit_transitions(*clear[:2]) is not None
    assert fit_transitions(*dim[:2]) is None


def test_more_transitions_than_anyone_would_plant_are_overlap() -> None:
    many, too_many = (learned(0, pairs(5, rate), overlap=0.3) for rate in (0.25, 0.4))
    assert fit_transitions(*many[:2]) is not None
    assert fit_transitions(*too_many[:2]) is None


@pytest.mark.parametrize("rate", [0.1, 0.2])
def test_flips_to_all_classes_alike_are_no_pattern(rate: float) -> None:
    matrix = (1 - rate) * np.eye(6) + rate * evenly(6)
    assert fit_transitions(*learned(1, matrix)[:2]) is None


def test_two_classes_and_none_have_nothing_to_choose_from() -> None:
    assert fit_transitions(*learned(0, pairs(2, 0.2))[:2]) is None
    assert fit_transitions(np.empty((0, 4)), np.empty(0, np.int64)) is None


def test_a_class_without_rows_and_probabilities_that_are_zero_are_borne() -> None:
    P, y, _ = learned(2, pairs(4, 0.2))
    wide = np.column_stack([P, np.zeros(len(P))])
    told = fit_transitions(wide, y)
    assert told is not None
    clean = told.unmix(wide)
    assert np.isfinite(clean).all()
    assert clean.sum(axis=1) == pytest.approx(1.0)
    assert (clean >= 0).all()


def test_unknown_probabilities_stay_unknown() -> None:
    P, y, _ = learned(0, pairs(4, 0.2))
    told = fit_transitions(P, y)
    assert told is not None
    P[7] = np.nan
    assert np.flatnonzero(np.isnan(told.unmix(P)).all(axis=1)).tolist() == [7]


def test_the_likelihood_of_labels_is_that_of_the_noisy_channel() -> None:
    P, y, _ = learned(3, pairs(3, 0.1), 200)
    pattern = np.array([[0, 1.5, 0], [0.5, 0, 0.5], [0, 0, 0]])
    rate, temperature = 0.2, 0.8
    channel = rate * pattern + np.diag(1 - rate * pattern.sum(axis=1))
    chances = (sharpen(P, temperature) @ channel)[np.arange(len(y)), y]
    loss = LabelLikelihood(logs_of(P), y, pattern).loss(float(np.log(temperature)), rate)
    assert loss == pytest.approx(-np.log(chances).sum(), rel=1e-6)
