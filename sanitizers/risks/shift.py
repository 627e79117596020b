"""Batches whose rows are distributed differently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sanitizers.core.calibration import benjamini_hochberg
from sanitizers.core.data import Batch
from sanitizers.core.threads import in_threads
from sanitizers.risks.columns import Column, categorical, column, columns
from sanitizers.risks.comparisons import Comparison
from sanitizers.risks.finding import NOTE, WARNING, Finding
from sanitizers.risks.look import Look
from sanitizers.risks.measures import auc, auc_variance, binned, chi2, ks, psi

#: False discoveries among all columns of all comparisons.
FALSE_SHARE = 0.01
#: The population stability index that is told, and that is a warning.
NOTE_PSI, WARN_PSI = 0.1, 0.2
#: Columns of one comparison that are told one by one, the most shifted.
MOST_TOLD = 5
#: Frequent categories of which each is counted alone.
CATEGORIES = 20
#: Rows of either side that columns are compared on, at most.
COLUMN_ROWS = 5_000
#: Rows of either side that the domain classifier learns from, at most; folds.
DOMAIN_ROWS, FOLDS = 1_500, 3
#: How much wider the mean over folds spreads than independent folds would: their models
#: share rows. Measured: 1.11 to 1.23 on normal, duplicated and two real tables.
FOLD_SPREAD = 1.25
#: Standard errors from 0.5 that are told; with this AUC they are a warning.
NOTE_Z, WARN_Z, WARN_AUC = 3.0, 4.0, 0.65


@dataclass(frozen=True)
class Difference:
    """How one column differs between the two sides of a comparison."""

    comparison: Comparison
    column: str
    test: str
    statistic: float
    p_value: float
    psi: float


def shifts(look: Look) -> Iterator[Finding]:
    """Find batches that differ from the others, column by column and as a whole.

    Each column is compared by Kolmogorov and Smirnov's test (categories by chi-squared),
    with false discoveries held down over all columns and comparisons; a classifier that
    is to tell the batches apart finds what no single column shows. A column is told once
    for all times, once for all sources and once for the reference, where it differs most.
    Only against a reference is a difference a warning: seasons and suppliers differ.

    Measured on batches of 800 rows, 4 real tables, 4 repeats each: told with nothing
    planted 0, a mean moved by 0.2 or 0.5 standard deviations 1.0, correlations broken 1.0,
    rare classes three times as many 1.0, a dense 5 % 0.06 (see `skewing`). As a warning 0,
    0.81, 1.0, 1.0, 0.62, 0. On 50 clean synthetic tables with times, sources and a
    reference no warning, and one note. Real data in order of time drift: bike rentals and
    air quality give 7 notes each.
    """
    differences = [d for c in look.comparisons for d in _differences(c)]
    level = benjamini_hochberg(np.array([d.p_value for d in differences]), FALSE_SHARE)
    for role in ("reference", "time", "source"):
        mine = [d for d in differences if d.comparison.role == role]
        yield from _told([d for d in mine if d.p_value <= level], len({d.column for d in mine}))
        if role != "source":
            yield from _domain([c for c in look.comparisons if c.role == role])


def _differences(comparison: Comparison) -> Iterator[Difference]:
    sides = (comparison.mine, ~comparison.mine)
    chosen = np.sort(np.concatenate([np.flatnonzero(side)[:COLUMN_ROWS] for side in sides]))
    rows, mine = comparison.rows.take(chosen), comparison.mine[chosen]
    found = columns(rows.table, rows.roles.features)
    if rows.roles.label:
        found.append(categorical(rows.table, rows.roles.label))
    target = column(rows.table, rows.roles.target) if rows.roles.target else None
    for one in [*found, target] if target else found:
        yield _difference(comparison, one, mine)


def _difference(comparison: Comparison, one: Column, mine: NDArray[np.bool_]) -> Difference:
    if one.categories is not None:
        codes = _frequent(one)
        size = int(codes.max()) + 1
        counts = [np.bincount(codes[side], minlength=size) for side in (~mine, mine)]
        old, new = (c.astype(np.float64) for c in counts)
        effect, p_value = chi2(np.stack([old, new]))
        return Difference(comparison, one.name, "chi2", effect, p_value, psi(old, new))
    values, known = one.values, np.isfinite(one.values)
    distance, p_value = ks(values[~mine & known], values[mine & known])
    counted = [[float((known[s]).sum()), float((~known[s]).sum())] for s in (~mine, mine)]
    _, missing = chi2(np.array(counted))
    # Two tests of one column, so the smaller p-value counts twice.
    p_value = min(1.0, 2 * min(p_value, missing)) if not known.all() else p_value
    index = psi(*binned(values[~mine], values[mine]))
    return Difference(comparison, one.name, "KS", distance, p_value, index)


def _frequent(one: Column) -> NDArray[np.int64]:
    """The codes of frequent categories, all others as one."""
    counts = np.bincount(one.codes)
    order = np.argsort(-counts, kind="stable")[:CATEGORIES]
    place = np.full(len(counts), len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return np.asarray(place[one.codes], dtype=np.int64)


def _told(differences: Sequence[Difference], columns: int) -> Iterator[Finding]:
    ranked = sorted(differences, key=lambda d: (-d.psi, d.column, d.comparison.name))
    worst = {d.column: d for d in reversed(ranked)}
    found = [d for d in ranked if worst[d.column] is d]
    told = [d for d in found if d.psi >= NOTE_PSI][:MOST_TOLD]
    for one in told:
        comparison = one.comparison
        grave = one.psi >= WARN_PSI and comparison.role == "reference"
        yield Finding(
            "shift",
            WARNING if grave else NOTE,
            one.column,
            one.psi,
            WARN_PSI if grave else NOTE_PSI,
            f"column {one.column!r} is distributed differently in {comparison.name} than in "
            f"{comparison.against}: PSI {one.psi:.2f}, {one.test} {one.statistic:.2f}",
            _detail(comparison) | {"test": one.test, "p_value": one.p_value},
        )
    rest = found[len(told) :]
    if rest:
        comparison = rest[0].comparison
        named = ", ".join(repr(d.column) for d in rest[:5])
        yield Finding(
            "shift",
            NOTE,
            comparison.name,
            rest[0].psi,
            0.0,
            f"{len(rest):,} {'more ' if told else ''}of {columns:,} columns differ, the first of "
            f"them most in {comparison.name} (PSI {rest[0].psi:.2f}): {named}"
            f"{' ...' if len(rest) > 5 else ''}",
            _detail(comparison) | {"columns": {d.column: round(d.psi, 4) for d in rest[:50]}},
        )


def _detail(comparison: Comparison) -> dict[str, object]:
    return {
        "batch": comparison.name,
        "rows": int(comparison.mine.sum()),
        "against": comparison.against,
        "against_rows": int((~comparison.mine).sum()),
    }


def _domain(held: Sequence[Comparison]) -> Iterator[Finding]:
    tried = [(*domain_auc(c.rows, c.mine), c) for c in held]
    if not tried:
        return
    value, z, comparison = max(tried, key=lambda t: (t[1], t[2].name))
    if z <= NOTE_Z:
        return
    grave = z > WARN_Z and value >= WARN_AUC and comparison.role == "reference"
    yield Finding(
        "shift",
        WARNING if grave else NOTE,
        comparison.name,
        value,
        WARN_AUC if grave else 0.5,
        f"a model tells {comparison.name} from {comparison.against} with AUC {value:.2f} "
        f"({z:.1f} standard errors above chance)",
        _detail(comparison) | {"z": round(z, 2)},
    )


def domain_auc(rows: Batch, mine: NDArray[np.bool_]) -> tuple[float, float]:
    """How well gradient boosting tells two sides apart, out of fold.

    Returns
    -------
    (float, float)
        The mean AUC over folds, and its standard errors above 0.5. The rows of a fold are
        ranked by a model that has not seen them, so where the sides are alike every order
        of them is as likely, and the error is that of Mann and Whitney's statistic, times
        `FOLD_SPREAD`.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    chosen = np.sort(np.concatenate([np.flatnonzero(side)[:DOMAIN_ROWS] for side in (mine, ~mine)]))
    some, y = rows.take(chosen), mine[chosen]
    X = np.hstack([some.X, _answers(some)])
    if not X.shape[1]:
        return 0.5, 0.0
    fold = some.buckets(FOLDS, "risks/domain")
    if min(np.bincount(y[fold == k], minlength=2).min() for k in range(FOLDS)) < 10:
        return 0.5, 0.0

    def ranked(k: int) -> float:
        model = HistGradientBoostingClassifier(
            max_iter=50, max_leaf_nodes=15, early_stopping=False, random_state=0
        )
        guessed = model.fit(X[fold != k], y[fold != k]).decision_function(X[fold == k])
        return auc(np.asarray(guessed, dtype=np.float64), y[fold == k])

    mean = float(np.mean(in_threads(ranked, range(FOLDS))))
    variances = [auc_variance(y[fold == k]) for k in range(FOLDS)]
    error = FOLD_SPREAD * float(np.sqrt(np.sum(variances))) / FOLDS
    return round(mean, 4), (mean - 0.5) / error


def _answers(rows: Batch) -> NDArray[np.float32]:
    """The label as one number per frequent class, or the target: a batch may differ in these."""
    if rows.roles.label:
        codes = _frequent(categorical(rows.table, rows.roles.label))
        return np.asarray(codes[:, None] == np.arange(min(10, CATEGORIES)), dtype=np.float32)
    target = column(rows.table, rows.roles.target) if rows.roles.target else None
    if target is None:
        return np.empty((len(rows), 0), dtype=np.float32)
    return np.nan_to_num(target.values, nan=0.0).clip(-1e30, 1e30)[:, None].astype(np.float32)
