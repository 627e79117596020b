"""Three unlike classifiers, and the mean of what they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanitizers.core.threads import in_threads

#: Features, labels as numbers and weights of the rows that models are fitted on.
Training = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]


def bounded(X: NDArray[np.float32]) -> NDArray[np.float64]:
    """Features within a few standard deviations, shape (n, d).

    So that linear models stay conditioned, and no feature outweighs the others in a distance.
    """
    return np.clip(X, -5.0, 5.0).astype(np.float64)


def fit_all(
    parts: Sequence[Training], count: int, *, trees: int, seed: int
) -> tuple[tuple[Any, ...], ...]:
    """Fit boosting, extra trees and logistic regression to each part.

    Parameters
    ----------
    parts : sequence of tuple
        Features (n, d), labels as numbers (n,) and weights (n,) of each.
    count : int
        Classes.
    trees : int
        Of the extra trees.
    seed : int

    Returns
    -------
    tuple of tuple of estimator
        None for a part with one class only.
    """
    known = [k for k, (_, y, _) in enumerate(parts) if len(np.unique(y)) >= 2]
    # The longest first, so that no processor waits for one that began late.
    jobs = [(model, parts[k]) for model in _models(count, trees, seed) for k in known]
    fitted = in_threads(lambda job: _fitted(*job), jobs)
    of = {k: tuple(fitted[place :: len(known)]) for place, k in enumerate(known)}
    return tuple(of.get(k, ()) for k in range(len(parts)))


def mean_probabilities(
    models: Sequence[Any], X: NDArray[np.float64], count: int
) -> NDArray[np.float64]:
    """The mean of what the models say of each class, shape (n, count)."""
    total: NDArray[np.float64] = np.zeros((len(X), count))
    for model in models:
        total[:, model.classes_] += model.predict_proba(X)
    return total / len(models)


def _models(count: int, trees: int, seed: int) -> tuple[Any, ...]:
    from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    # Boosting grows a tree per class and round: fewer rounds where classes are many. Where
    # they are few, half as many greater steps rank flips as well (20 samples of the tuning
    # half); where they are many, rare classes would be learned too little, and their clean
    # rows be lost (nsl_kdd: 0.8 against 0.03 %).
    rounds, rate = (40, 0.15) if count <= 5 else (max(15, 400 // count), 0.1)
    return (
        HistGradientBoostingClassifier(
            max_iter=rounds,
            learning_rate=rate,
            max_leaf_nodes=15,
            early_stopping=False,
            random_state=seed,
        ),
        ExtraTreesClassifier(n_estimators=trees, min_samples_leaf=2, random_state=seed),
        LogisticRegression(max_iter=300),
    )


def _fitted(model: Any, rows: Training) -> Any:
    from sklearn.base import clone
    from sklearn.ensemble import HistGradientBoostingClassifier

    X, y, weight = rows
    if isinstance(model, HistGradientBoostingClassifier):
        # With weights it takes three times as long as with a few rows more.
        times = weight.astype(np.int64)
        return clone(model).fit(np.repeat(X, times, axis=0), np.repeat(y, times))
    return clone(model).fit(X, y, sample_weight=weight)
