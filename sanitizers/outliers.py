"""Rows that lie far from all others, by the detectors of PyOD."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sanitizers.core.calibration import ConformalNull, Null
from sanitizers.core.data import Batch, Dataset
from sanitizers.core.errors import PlanError, did_you_mean
from sanitizers.core.kernels import robust_scale
from sanitizers.core.threads import in_threads

#: Settings with which we differ from PyOD's own defaults.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    # The mean over the neighbours is steadier than the distance to the last of them.
    "KNN": {"n_neighbors": 5, "method": "mean"},
    "IForest": {"n_estimators": 100, "max_samples": 256},
}
#: Detectors by name: the module of PyOD where it is not the name in lower case.
_MODULES = {"AutoEncoder": "auto_encoder", "DeepSVDD": "deep_svdd"}
#: Those that need no more than PyOD itself: no import has to show that they are there.
_USUAL = (
    *("ABOD", "CBLOF", "GMM", "HBOS", "IForest", "INNE", "KDE", "KNN", "LODA", "LOF", "MCD"),
    *("OCSVM", "PCA"),
)
#: Trusted rows below this number do not replace the data as the reference.
TRUSTED_LEAST = 100
#: Parts that trusted rows are cut into.
FOLDS = 5
#: The spread of a detector's scores is at least that of a normal distribution with the same share
#: below this quantile, which poison of less than 10 % hardly moves. By the median deviation alone,
#: clean tables of ``benchmarks.strangers`` lost .2 % of their rows on the mean, 5 % on the worst.
TAIL = 0.9
#: Rows on which a detector is tried before it is used.
TRIED_ROWS = 64
#: These draw no random numbers but their own, and score every row by itself: the tests hold
#: them to the laws, so they are not tried in every run, and fitted side by side.
LAWFUL = frozenset({"KNN", "IForest"})


@dataclass(frozen=True)
class Outliers:
    """How far a row lies from all others, in robust standard deviations.

    Threat: injected rows that resemble nothing in the data: corner points, broken
    records, rows of another source. The attacker may add rows but has not looked at
    the density of the clean ones.

    Blind spots: poison inside the cloud of clean rows (label flips, most triggers); a
    dense cluster, which gives its own members near neighbours (covered by
    `micro-concentration` where a time or a source is known; of 5 % of rows in a far corner
    20 % are found without that, and all with 300 trusted rows); natural rare groups look
    like poison, so read the reasons.

    Parameters
    ----------
    detectors : sequence of str
        Names of PyOD detectors. The worst of them counts for a row. A detector whose
        score of a row depends on the rows beside it (ECOD, COPOD, SOS and others) is
        refused, since its verdicts would depend on the sharding.
    sample : int
        Rows that detectors are fitted on, at most, chosen by salted ids. Cost of the
        default: about 1.5 s per 100,000 rows and 20 columns.

    Notes
    -----
    Detectors are fitted on two halves of the sample, and each row is scored by the half
    that it does not belong to. With at least 100 trusted rows they are fitted on those
    instead, on all fifths but one: then scores have p-values. Every row has a fifth by its
    salted id and is scored without it, trusted or not, so that the two are comparable.

    Score: the largest, over the detectors, of the robust z-score of the detector's own
    score (logarithm for scores that cannot be negative, such as distances). Its spread is the
    median deviation, or what a normal distribution of the same highest tenth would have, if
    that is more: rows of a rare category are no outliers for being rare.

    References
    ----------
    Zhao, Nasrullah and Li, "PyOD: a Python toolbox for scalable outlier detection", JMLR
    2019. We differ in never using its ``contamination``.
    """

    name: ClassVar[str] = "outliers"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    detectors: Sequence[str] = ("KNN", "IForest")
    sample: int = 10_000

    def __post_init__(self) -> None:
        named = all(isinstance(name, str) for name in self.detectors)
        if isinstance(self.detectors, str) or not self.detectors or not named:
            found = f"outliers.detectors is {self.detectors!r}"
            raise PlanError(found, expected="a list of names of PyOD detectors")
        if self.sample < 1:
            raise PlanError(f"outliers.sample is {self.sample}", expected="at least 1")
        object.__setattr__(self, "detectors", tuple(self.detectors))
        for name in self.detectors:
            if name not in _USUAL:
                detector_class(name)

    def fit(self, data: Dataset) -> OutlierScorer:
        sample = data.sample(self.sample, "outliers")
        for name in self.detectors:
            if name not in LAWFUL:
                _try_out(name, sample.wide[:TRIED_ROWS])
        trusted = data.trusted_rows
        if trusted is not None and len(trusted) >= TRUSTED_LEAST:
            scorer, scores = self._fit_parts(trusted, "outliers/fold", FOLDS)
            return replace(scorer, null=ConformalNull.fit(scores))
        return self._fit_parts(sample, "outliers/half", 2)[0]

    def _fit_parts(
        self, rows: Batch, purpose: str, parts: int
    ) -> tuple[OutlierScorer, NDArray[np.float64]]:
        """Fit to all parts of some rows but one, for each; and score the rows themselves."""
        part = rows.buckets(parts, purpose)
        of = [rows.wide[part != k] for k in range(parts)]
        jobs = [(name, there) for there in of for name in self.detectors]

        def fit(job: tuple[str, NDArray[np.float32]]) -> Any:
            return _fitted(*job) if _enough(job[1]) else None

        # Others may draw from the numbers of the whole process: one after the other.
        lawful = set(self.detectors) <= LAWFUL
        fitted = in_threads(fit, jobs) if lawful else [fit(job) for job in jobs]
        views = len(self.detectors)
        models = tuple(tuple(fitted[k * views : (k + 1) * views]) for k in range(parts))
        raw = _crossed(models, part, rows.wide)
        scales = _scales(raw)
        return OutlierScorer(models, scales, None, purpose), _combine(raw, scales)

    def reason(self, score: float, hint: str | None) -> str:
        """Say how far the row lies, and in which column most."""
        where = f", most of all in column {hint!r}" if hint else ""
        return f"lies {score:.1f} robust standard deviations beyond the usual rows{where}"


@dataclass(frozen=True)
class _Scale:
    """How one detector's own score becomes a robust z-score."""

    log_offset: float | None
    middle: float
    spread: float

    def apply(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        shaped = raw if self.log_offset is None else np.log(np.maximum(raw, 0) + self.log_offset)
        return np.asarray((shaped - self.middle) / self.spread)


@dataclass(frozen=True)
class OutlierScorer:
    """Fitted detectors: a set for each part of the rows, fitted on all other parts."""

    models: tuple[tuple[Any, ...], ...] = field(repr=False)
    scales: tuple[_Scale, ...]
    null: Null | None
    purpose: str

    def score(self, batch: Batch) -> NDArray[np.float64]:
        part = batch.buckets(len(self.models), self.purpose)
        return _combine(_crossed(self.models, part, batch.wide), self.scales)

    def hint(self, batch: Batch) -> Sequence[str | None]:
        return batch.farthest_columns()


def detector_class(name: str) -> type[Any]:
    """Find a detector of PyOD by its class name.

    Raises
    ------
    PlanError
        If PyOD has none of that name, or it needs a package that is not installed.
    """
    from pyod.models.base import BaseDetector

    module = _MODULES.get(name, name.lower())
    if not module.isidentifier():
        raise PlanError(f"{name!r} is not a PyOD detector", do=did_you_mean(name, _USUAL))
    try:
        found = getattr(importlib.import_module(f"pyod.models.{module}"), name, None)
    except ImportError as error:
        if (error.name or "").startswith("pyod"):
            found = None
        elif not error.name:
            raise PlanError(f"detector {name!r} cannot be used: {error}") from error
        else:
            raise PlanError(
                f"detector {name!r} needs the package {error.name!r}",
                do=f"pip install {error.name}",
            ) from error
    if not (isinstance(found, type) and issubclass(found, BaseDetector)):
        raise PlanError(f"{name!r} is not a PyOD detector", do=did_you_mean(name, _USUAL))
    return found


def _settings(name: str, rows: int) -> dict[str, Any]:
    settings = dict(_DEFAULTS.get(name, {}))
    if "random_state" in signature(detector_class(name)).parameters:
        settings["random_state"] = 0
    if "max_samples" in settings:
        settings["max_samples"] = min(settings["max_samples"], rows)
    return settings


def _enough(rows: NDArray[np.float32]) -> bool:
    return len(rows) >= 10 and rows.shape[1] > 0


def _fitted(name: str, rows: NDArray[np.float32]) -> Any:
    try:
        detector = detector_class(name)(**_settings(name, len(rows)))
        detector.fit(rows)
    except MemoryError:
        raise
    except Exception as error:
        raise PlanError(
            f"detector {name!r} cannot be fitted to these data: {error}",
            do="leave it out of outliers.detectors",
        ) from error
    return detector


def _try_out(name: str, rows: NDArray[np.float32]) -> None:
    """Refuse a detector that gives one row several scores.

    Some detectors of PyOD compare the rows that they score with one another, and some
    draw random numbers that cannot be seeded.
    """
    if not _enough(rows):
        return
    whole = _raw([_fitted(name, rows)], rows)
    again = _fitted(name, rows)
    half = len(rows) // 2
    parts = np.vstack([_raw([again], rows[:half]), _raw([again], rows[half:])])
    if not np.allclose(whole, parts, rtol=1e-6, atol=1e-6, equal_nan=True):
        raise PlanError(
            f"detector {name!r} gives a row another score when it is fitted again, or when "
            "other rows are scored beside it",
            expected="a detector that scores every row by itself, such as 'KNN' or 'IForest'",
        )


def _raw(detectors: Sequence[Any], rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """The detectors' own scores, NaN where none could be fitted, shape (n, detectors)."""
    raw = np.full((len(rows), len(detectors)), np.nan)
    for column, detector in enumerate(detectors):
        if detector is not None and len(rows):
            raw[:, column] = detector.decision_function(rows)
    return raw


def _crossed(
    models: Sequence[Sequence[Any]], part: NDArray[np.int64], rows: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The detectors' own scores of every row by the set that is not of its part."""
    raw = np.empty((len(rows), len(models[0])))

    def score(k: int) -> None:
        mine = part == k
        raw[mine] = _raw(models[k], rows[mine])

    in_threads(score, range(len(models)))
    return raw


def _scales(raw: NDArray[np.float64]) -> tuple[_Scale, ...]:
    scales = []
    for column in raw.T:
        known = column[np.isfinite(column)]
        offset = None
        if len(known) and known.min() >= 0 and np.median(known) > 0:
            offset = 0.1 * float(np.median(known))
            known = np.log(known + offset)
        middle, spread = robust_scale(known)
        if len(known):
            # Rare categories and missing values make a long tail of usual rows, which the median
            # deviation does not see: it is short where most rows are alike.
            tail = float(np.quantile(known, TAIL)) - middle
            spread = max(spread, tail / NormalDist().inv_cdf(TAIL))
        scales.append(_Scale(offset, middle, spread))
    return tuple(scales)


def _combine(raw: NDArray[np.float64], scales: Sequence[_Scale]) -> NDArray[np.float64]:
    views = np.column_stack([s.apply(raw[:, i]) for i, s in enumerate(scales)])
    finite = np.where(np.isfinite(views), views, -np.inf).max(axis=1)
    # Rounded, so that the last bits of a matrix product, which depend on how many rows
    # come at once, never reach a verdict.
    return np.asarray(np.round(np.where(np.isfinite(finite), finite, np.nan), 3))
