"""Poisoned regression: ours beside TRIM, Huber, RANSAC and plain residuals, on the same rows."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import HuberRegressor, RANSACRegressor, Ridge, RidgeCV
from sklearn.model_selection import cross_val_predict

from benchmarks.regression import POISONS, ROWS, Case, Flags, Judged, tables
from benchmarks.results import Cell, Grid, publish, say
from benchmarks.tables import Table, arguments, data_folder
from sanitizers.core.data import Dataset
from sanitizers.core.encoder import as_numbers
from sanitizers.core.kernels import robust_scale

Floats = NDArray[np.float64]
#: What plain residuals call an outlier (Iglewicz and Hoaglin 1993).
USUAL_LINE = 3.5
STARTS = 10
_ALPHAS = np.logspace(-2, 3, 11)
NOTES = (
    f"At most {ROWS:,} rows of a table, no trusted rows; every contender sees the same encoded "
    "features. Each is judged twice: by its own rule, and by its own ranking of the rows, cut "
    "where it loses as many clean rows as ours did by its rule. Only TRIM is told how many rows "
    "are poison.",
    "TRIM (Jagielski et al. 2018) is written from the paper: a ridge fit and the rows with the "
    "smallest residuals in turn, until their error falls no more; a row is found when it is not "
    "among them. The paper starts from random rows, and here the best of "
    f"{STARTS} such starts is kept; its authors' program starts once, from a fit on all rows. The "
    "penalty is chosen by cross-validation on all rows. Huber is scikit-learn's `outliers_`, and "
    "RANSAC its `inlier_mask_`, as they come. Residuals are those of a five-fold cross-fitted "
    f"ridge, with a line at {USUAL_LINE} robust deviations.",
)


@dataclass(frozen=True)
class Finding:
    """What a contender says of rows.

    Parameters
    ----------
    found : ndarray of bool, shape (n,)
        What it would remove.
    scores : ndarray of float64, shape (n,)
        Higher is worse.
    """

    found: Flags
    scores: Floats


#: Takes features, targets, and how many rows are poison.
Contender = Callable[[Floats, Floats, int], Finding]


def trim(X: Floats, y: Floats, count: int, starts: list[NDArray[np.int64]]) -> Finding:
    """TRIM with the number of poisoned rows, the best of several starts.

    Parameters
    ----------
    X, y : ndarray of float64
    count : int
        Poisoned rows.
    starts : list of ndarray of int64
        Rows that the first fit sees.
    """
    alpha = float(RidgeCV(_ALPHAS).fit(X, y).alpha_)
    least, best = np.inf, np.zeros(len(y))
    for start in starts:
        kept, before, error = start, np.inf, float(np.finfo(np.float64).max)
        errors = np.zeros(len(y))
        while error < before * (1 - 1e-9):
            before = error
            errors = (y - Ridge(alpha).fit(X[kept], y[kept]).predict(X)) ** 2
            kept = np.argsort(errors, kind="stable")[: len(y) - count]
            error = float(errors[kept].sum())
        if error < least:
            least, best = error, errors
    found = np.ones(len(y), dtype=bool)
    found[np.argsort(best, kind="stable")[: len(y) - count]] = False
    return Finding(found, best)


def trim_at_random(X: Floats, y: Floats, count: int) -> Finding:
    """TRIM from random rows, as in the paper."""
    rng = np.random.default_rng(0)
    return trim(X, y, count, [rng.permutation(len(y))[: len(y) - count] for _ in range(STARTS)])


def trim_from_all(X: Floats, y: Floats, count: int) -> Finding:
    """TRIM from a fit on all rows, as in its authors' program."""
    return trim(X, y, count, [np.arange(len(y))])


def huber(X: Floats, y: Floats, count: int) -> Finding:
    """What ``HuberRegressor`` calls outliers."""
    fitted = HuberRegressor(max_iter=500).fit(X, y)
    return Finding(np.asarray(fitted.outliers_), np.abs(y - fitted.predict(X)))


def ransac(X: Floats, y: Floats, count: int) -> Finding:
    """What ``RANSACRegressor`` does not call an inlier."""
    fitted = RANSACRegressor(random_state=0).fit(X, y)
    return Finding(~np.asarray(fitted.inlier_mask_), np.abs(y - fitted.predict(X)))


def residuals(X: Floats, y: Floats, count: int) -> Finding:
    """Cross-fitted residuals of a ridge on all rows."""
    off = y - cross_val_predict(RidgeCV(_ALPHAS), X, y, cv=5)
    middle, spread = robust_scale(off)
    scores = np.abs(off - middle) / spread
    return Finding(scores > USUAL_LINE, scores)


CONTENDERS: Mapping[str, Contender] = {
    f"TRIM, number known, {STARTS} starts": trim_at_random,
    "TRIM, number known, from all rows": trim_from_all,
    "HuberRegressor": huber,
    "RANSACRegressor": ransac,
    "cross-fitted residuals": residuals,
}


def measured(data: Dataset, bad: Flags) -> dict[str, list[float]]:
    """For ours and every contender: recall, lost, recall at the share that ours lost, seconds."""
    started = time.perf_counter()
    judged = Judged.of(data)
    seconds = time.perf_counter() - started
    hit = judged.quarantine
    recall, lost = float(hit[bad].mean()), float(hit[~bad].mean())
    out = {"ours": [recall, lost, recall, seconds]}
    (batch,) = data.batches()
    X = batch.X.astype(np.float64)
    y = as_numbers(batch.table.column(str(data.roles.target)))
    for name, contender in CONTENDERS.items():
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            finding = contender(X, y, int(bad.sum()))
        seconds = time.perf_counter() - started
        at_line = np.sort(finding.scores[~bad])[::-1][int(hit[~bad].sum())]
        out[name] = [
            float(finding.found[bad].mean()),
            float(finding.found[~bad].mean()),
            float((finding.scores[bad] > at_line).mean()),
            seconds,
        ]
    return out


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    data = data_folder(given.data)
    raw: list[dict[str, object]] = []
    for low in (False, True):
        for table in tables(given.half, data, low=low):
            raw += _rows("low" if low else "usual", table, given.seeds)
            say(f"{table.name} done")
    grids = [_grid(raw, "usual"), _grid(raw, "low"), _by_table(raw)]
    kept = "regression_contenders" + ("" if given.half == "report" else "_tuning")
    command = f"python -m benchmarks.regression_contenders --half {given.half}"
    publish(kept, f"{command} --seeds {given.seeds}", grids, NOTES, raw)


def _rows(kind: str, table: Table, seeds: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for seed in range(seeds):
        case = Case.drawn(table, seed)
        for attack, rate in POISONS:
            if attack == "stealthy":
                continue
            mixed, bad = case.poisoned(attack, rate, seed)
            told = {"tables": kind, "table": table.name, "poison": attack, "rate": rate}
            for name, found in measured(case.data(mixed, vouched=False), bad).items():
                rows.append({**told, "seed": seed, "contender": name, "found": found})
    return rows


def _mean(raw: list[dict[str, object]], **wanted: object) -> list[float]:
    mine = [r["found"] for r in raw if all(r[k] == v for k, v in wanted.items())]
    return [float(value) for value in np.array(mine, dtype=float).mean(axis=0)]


def _grid(raw: list[dict[str, object]], kind: str) -> Grid:
    rows: list[list[Cell]] = []
    for attack in ("statistical", "gradient"):
        for name in ("ours", *CONTENDERS):
            recall, lost, same, seconds = _mean(raw, tables=kind, poison=attack, contender=name)
            rows.append([attack, name, recall, lost, same, f"{seconds:.2f}"])
    columns = ["poison", "contender", "recall %", "lost %", "recall at our loss %", "seconds"]
    return Grid(f"{kind} tables, mean over 4, 8 and 20 %", columns, rows)


def _by_table(raw: list[dict[str, object]]) -> Grid:
    rows: list[list[Cell]] = []
    for table in dict.fromkeys(str(r["table"]) for r in raw):
        cells = [_mean(raw, table=table, contender=name)[2] for name in ("ours", *CONTENDERS)]
        rows.append([table, *cells])
    columns = ["table", *(f"{name} %" for name in ("ours", *CONTENDERS))]
    return Grid("recall at our loss, table by table, both poisons and all rates", columns, rows)


if __name__ == "__main__":
    main()
