"""Columns that give the answer away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from sanitizers.core.encoder import as_numbers
from sanitizers.risks.columns import Column, columns
from sanitizers.risks.finding import ALARM, WARNING, Finding
from sanitizers.risks.look import Look
from sanitizers.risks.measures import auc

#: Rows that trees are fitted to, at most; folds.
ROWS, FOLDS = 6_000, 3
#: Classes that are told from the others, the most frequent ones, and the least rows of each.
MOST_CLASSES, LEAST = 10, 20
#: A tree of 8 leaves tells two classes apart; a number needs more steps.
DEPTH, TARGET_DEPTH = 3, 6

ALARM_AUC, WARN_AUC, AHEAD_AUC = 0.99, 0.93, 0.08
ALARM_R2, WARN_R2, AHEAD_R2 = 0.99, 0.93, 0.25


def leaks(look: Look) -> Iterator[Finding]:
    """Find columns that by themselves predict the label or the target.

    One small tree per column is fitted on two thirds of the rows and measured on the
    third: by the AUC (for several classes the mean over one against the rest, weighted by
    their rows) or, for a target, by R2. Categories become the mean answer of their rows
    in the training folds.

    Lines, measured on 18 clean real tables: their best column has an AUC of 0.67 to 0.95
    (annthyroid: 0.988, a hormone level that nearly defines the disease). A copy of the
    label has 1.00 with no noise, 0.98 to 0.99 with 2 % and 0.94 to 0.95 with 10 %. An alarm
    from 0.99; a warning from 0.93 where the second column is 0.08 behind. On 6 clean
    regression tables the best R2 is 0.09 to 0.68; a true leak, the registered riders among
    all riders of the bike rental data, has 0.946 with the next 0.33 behind.
    """
    roles, batch = look.data.roles, look.first(ROWS)
    if roles.label:
        label = look.classes(batch, LEAST)
        answers, measure = ([] if label is None else _one_vs_rest(label)), "AUC"
        known = np.zeros(0, bool) if label is None else label.codes >= 0
    elif roles.target:
        target = as_numbers(batch.table.column(roles.target))
        answers, measure, known = [target], "R2", np.isfinite(target)
    else:
        return
    if known.sum() < FOLDS * LEAST:
        return
    rows = batch.take(known)
    fold = rows.buckets(FOLDS, "risks/leakage")
    answers = [answer[known] for answer in answers]
    strengths = {
        c.name: _strength(c, answers, fold, measure) for c in columns(rows.table, roles.features)
    }
    yield from _judge(strengths, measure, str(roles.label or roles.target))


def _judge(strengths: Mapping[str, float], measure: str, answer: str) -> Iterator[Finding]:
    lines = {"AUC": (ALARM_AUC, WARN_AUC, AHEAD_AUC), "R2": (ALARM_R2, WARN_R2, AHEAD_R2)}
    alarm, warn, ahead = lines[measure]
    ranked = sorted(strengths.items(), key=lambda item: (-item[1], item[0]))
    floor = 0.5 if measure == "AUC" else 0.0
    for at, (name, value) in enumerate(ranked):
        second = ranked[at + 1][1] if at + 1 < len(ranked) else floor
        if value < alarm and (value < warn or value < second + ahead):
            return
        yield Finding(
            "leakage",
            ALARM if value >= alarm else WARNING,
            name,
            value,
            alarm if value >= alarm else warn,
            f"column {name!r} alone predicts {answer!r} with {measure} {value:.3f}; it may hold "
            "the answer, or be known only after it",
            {"measure": measure, "next_best": round(second, 4)},
        )


def _one_vs_rest(label: Column) -> list[NDArray[np.float64]]:
    """For each of the most frequent classes whether a row is of it; one of two is enough."""
    counts = np.bincount(label.codes[label.codes >= 0])
    order = np.argsort(-counts, kind="stable")[:MOST_CLASSES]
    chosen = order[:1] if len(counts) == 2 else order
    return [(label.codes == c).astype(np.float64) for c in chosen]


def _strength(
    column: Column, answers: list[NDArray[np.float64]], fold: NDArray[np.int64], measure: str
) -> float:
    """How well a column predicts, out of fold: the mean over answers, by their rows."""
    values, weights = [], []
    for answer in answers:
        guessed = _out_of_fold(column, answer, fold, measure)
        if measure == "AUC":
            parts = [auc(guessed[fold == k], answer[fold == k] > 0) for k in range(FOLDS)]
            values.append(float(np.nanmean([0.5, *parts] if np.isnan(parts).all() else parts)))
            weights.append(float(answer.sum()))
        else:
            spread = float(((answer - answer.mean()) ** 2).sum())
            left = float(((answer - guessed) ** 2).sum())
            values.append(1.0 - left / spread if spread else 0.0)
            weights.append(1.0)
    return round(float(np.average(values, weights=weights)), 4)


def _out_of_fold(
    column: Column, answer: NDArray[np.float64], fold: NDArray[np.int64], measure: str
) -> NDArray[np.float64]:
    from sklearn.tree import DecisionTreeRegressor

    # For an answer of 0 or 1 the squared error grows the tree that Gini impurity grows.
    depth = DEPTH if measure == "AUC" else TARGET_DEPTH
    guessed = np.zeros(len(answer))
    for k in range(FOLDS):
        train, test = fold != k, fold == k
        if column.categories is not None:
            guessed[test] = _means(column, answer, train)[column.codes[test]]
            continue
        X = np.clip(column.values, -1e30, 1e30).reshape(-1, 1)
        tree = DecisionTreeRegressor(max_depth=depth, min_samples_leaf=5, random_state=0)
        guessed[test] = tree.fit(X[train], answer[train]).predict(X[test])
    return guessed


def _means(
    column: Column, answer: NDArray[np.float64], train: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The mean answer of each category; of those that the training rows do not have, of all."""
    codes, known = column.codes[train], answer[train]
    size = len(column.categories or ())
    rows = np.bincount(codes, minlength=size)
    sums = np.bincount(codes, weights=known, minlength=size)
    return np.where(rows > 0, sums / np.maximum(rows, 1), known.mean())
