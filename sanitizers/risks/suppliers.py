"""Sources whose labels models of the other sources do not believe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanitizers.core.data import Batch, mix, row_keys
from sanitizers.core.encoder import as_numbers
from sanitizers.core.kernels import robust_scale
from sanitizers.risks.columns import Column, classes
from sanitizers.risks.finding import ALARM, Finding
from sanitizers.risks.look import Look

Floats = NDArray[np.float64]

#: Rows that models are fitted to, at most; folds of sources.
ROWS, FOLDS = 10_000, 5
#: Sources, and rows of each, without which nothing is said.
SOURCES, SOURCE_ROWS = 4, 20
#: Robust standard deviations above the median source.
LINE = 4.0
_CLASS_LEAST = 10


def bad_sources(look: Look) -> Iterator[Finding]:
    """Find sources whose rows cost models of the other sources much more than usual.

    The sources are cut into folds; the rows of a fold are judged by models that saw none
    of its sources. What is compared is the mean loss of each source.

    Measured on 4 real tables, 2 repeats each, 20 sources of 200 rows, two of them bad: with
    20 % of their labels flipped 81 % are found, with 30 % and 50 % all, and no other source
    is accused. On 18 clean real tables with 10 sources none is.
    """
    roles = look.data.roles
    if not roles.source or not (roles.label or roles.target):
        return
    batch = look.first(ROWS)
    known = np.array([s is not None for s in batch.sources], dtype=bool)
    if roles.label:
        label = classes(batch, _CLASS_LEAST)
        if label is None:
            return
        answer = label.values
        known &= answer >= 0
    else:
        label, answer = None, as_numbers(batch.table.column(str(roles.target)))
        known &= np.isfinite(answer)
    if known.any():
        yield from _judge(look, batch.take(known), answer[known], label)


def _judge(look: Look, rows: Batch, answer: Floats, label: Column | None) -> Iterator[Finding]:
    names, codes = np.unique(rows.sources.astype(str), return_inverse=True)
    sizes = np.bincount(codes)
    judged = sizes >= SOURCE_ROWS
    if judged.sum() < SOURCES or not rows.X.shape[1]:
        return
    fold = source_folds(names, sizes, look.data.salt)
    losses = cross_source_losses(rows.X, answer, fold[codes], classify=label is not None)
    means = np.bincount(codes, weights=losses) / np.maximum(sizes, 1)
    spreads = np.bincount(codes, weights=(losses - means[codes]) ** 2) / np.maximum(sizes - 1, 1)
    scores = robust_scores(means, np.sqrt(spreads / np.maximum(sizes, 1)), judged)
    middle = float(np.median(means[judged]))
    for i in np.flatnonzero(scores > LINE):
        yield Finding(
            "suppliers",
            ALARM,
            str(names[i]),
            round(float(scores[i]), 4),
            LINE,
            f"models of the other sources are wrong about source {str(names[i])!r} much more "
            f"than about others: mean loss {means[i]:.3f}, the median source has {middle:.3f} "
            f"({scores[i]:.1f} robust standard deviations)",
            {"rows": int(sizes[i]), "loss": float(means[i]), "median_loss": middle},
        )


def robust_scores(means: Floats, errors: Floats, judged: NDArray[np.bool_]) -> Floats:
    """Mean losses in robust standard deviations above the median source, NaN if not judged.

    The scale is never below the standard error of the source itself, so that a few
    sources that agree by chance do not accuse the next one.
    """
    middle, scale = robust_scale(means[judged])
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = (means - middle) / np.maximum(scale, errors)
    return np.where(judged, np.nan_to_num(scores, nan=0.0, posinf=0.0, neginf=0.0), np.nan)


def source_folds(
    names: NDArray[np.str_], sizes: NDArray[np.int64], salt: bytes
) -> NDArray[np.int64]:
    """Cut sources into folds of about as many sources each, by their salted names."""
    keys = mix(row_keys([str(name) for name in names], salt), "risks/suppliers")
    fold = np.empty(len(names), dtype=np.int64)
    fold[np.argsort(keys, kind="stable")] = np.arange(len(names)) % min(FOLDS, len(names))
    return fold


def cross_source_losses(
    X: NDArray[np.float32], answer: Floats, fold: NDArray[np.int64], *, classify: bool
) -> Floats:
    """The loss of every row under models that saw none of its fold, shape (n,).

    One less the probability of the label; or the distance from the target in units of the
    median distance, at most 10, so that no single row speaks for its source.
    """
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

    losses = np.zeros(len(X))
    kind: Any = ExtraTreesClassifier if classify else ExtraTreesRegressor
    for k in np.unique(fold):
        train, test = fold != k, fold == k
        model = kind(n_estimators=60, min_samples_leaf=3, random_state=0, n_jobs=1)
        model.fit(X[train], answer[train].astype(np.int64) if classify else answer[train])
        if classify:
            at = {int(c): i for i, c in enumerate(model.classes_)}
            P = np.hstack([model.predict_proba(X[test]), np.zeros((int(test.sum()), 1))])
            own = np.array([at.get(int(a), P.shape[1] - 1) for a in answer[test]])
            losses[test] = 1.0 - P[np.arange(len(own)), own]
        else:
            losses[test] = np.abs(answer[test] - model.predict(X[test]))
    if not classify:
        usual = float(np.median(losses)) or float(losses.mean()) or 1.0
        losses = np.minimum(losses / usual, 10.0)
    return losses
