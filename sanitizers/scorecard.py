"""How well a defence did: poison found, clean rows lost, and the damage that is left."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sanitizers.core.data import Roles
from sanitizers.core.design import Design, fit_design
from sanitizers.core.errors import InputError, PlanError
from sanitizers.core.numbers import raw_numbers, strings
from sanitizers.core.verdicts import KEEP, QUARANTINE, REVIEW

#: The reference models of a damage, in their order.
MODELS = ("linear", "boosted trees")
#: Rows that a reference model is fitted on, at most.
FIT_ROWS = 50_000
_ALPHAS = tuple(np.logspace(-2, 3, 11).tolist())


@dataclass(frozen=True)
class Tally:
    """Where the rows of one kind went.

    Parameters
    ----------
    kind : str
    rows, quarantine, review, keep : int
    """

    kind: str
    rows: int
    quarantine: int
    review: int
    keep: int

    @property
    def recall(self) -> float | None:
        """The share in quarantine; None where there are no rows."""
        return self.quarantine / self.rows if self.rows else None


@dataclass(frozen=True)
class Scorecard:
    """What verdicts made of a truth. *Found* and *lost* mean quarantined.

    Parameters
    ----------
    poison, clean : Tally
    kinds : tuple of Tally
        The poison, kind by kind.
    """

    poison: Tally
    clean: Tally
    kinds: tuple[Tally, ...]

    @property
    def recall(self) -> float | None:
        """The share of the poison that was found."""
        return self.poison.recall

    @property
    def precision(self) -> float | None:
        """The share of the quarantine that is poison; None where nothing was quarantined."""
        flagged = self.poison.quarantine + self.clean.quarantine
        return self.poison.quarantine / flagged if flagged else None

    @property
    def lost(self) -> float | None:
        """The share of the clean rows that was quarantined."""
        return self.clean.recall


@dataclass(frozen=True)
class ModelDamage:
    """What poison did to one reference model, and what was left of it after cleaning.

    Parameters
    ----------
    model : str
        One of `MODELS`.
    measure : str
        ``"rmse"``, smaller is better, or ``"accuracy"``, larger is better; on held-out rows.
    before, poisoned, cleaned : float
        Of the model trained on the clean data, on the poisoned, and on what was kept.
    changed_poisoned, changed_cleaned : float
        How much predictions differ from those of the model trained on the clean data: the
        median relative change of a number, or the share of classes that changed.
    """

    model: str
    measure: str
    before: float
    poisoned: float
    cleaned: float
    changed_poisoned: float
    changed_cleaned: float


@dataclass(frozen=True)
class Damage:
    """What poison did to the reference models.

    Parameters
    ----------
    models : tuple of ModelDamage
    holdout : int
        Rows that were held out.
    """

    models: tuple[ModelDamage, ...]
    holdout: int


def score(
    kinds: Sequence[str | None], verdicts: Sequence[str], covers: Collection[str] = ()
) -> Scorecard:
    """Compare verdicts with the truth.

    Parameters
    ----------
    kinds : sequence of str or None, length n
        For each row the kind of poison that it is; None for a clean row.
    verdicts : sequence of str, length n
        ``keep``, ``review`` or ``quarantine``.
    covers : collection of str
        Kinds of rows that are neither poison nor clean.

    Raises
    ------
    PlanError
        If the lengths differ, or a verdict is no verdict.
    """
    if len(kinds) != len(verdicts):
        raise PlanError(f"{len(kinds):,} rows of truth and {len(verdicts):,} verdicts")
    kind = np.array(["" if k is None else k for k in kinds], dtype=object)
    given = np.asarray(verdicts, dtype=object)
    told = np.array([k is not None for k in kinds], dtype=bool)
    bad = told & np.array([k not in covers for k in kinds], dtype=bool)
    strange = set(given.tolist()) - {KEEP, REVIEW, QUARANTINE}
    if strange:
        raise PlanError(f"{min(map(str, strange))!r} is no verdict")
    names = sorted(set(kind[told].tolist()))
    return Scorecard(
        _tally("poison", given[bad]),
        _tally("clean", given[~told]),
        tuple(_tally(name, given[kind == name]) for name in names),
    )


def damage(
    before: pa.Table, poisoned: pa.Table, cleaned: pa.Table, holdout: pa.Table, roles: Roles
) -> Damage:
    """Train reference models on the data before poison, after it, and after cleaning.

    Parameters
    ----------
    before, poisoned, cleaned : pyarrow.Table
        What models are trained on.
    holdout : pyarrow.Table
        Clean rows that are in none of the others.
    roles : Roles
        With features, and a label or a target.

    Notes
    -----
    Features become numbers in the same way for all models, fitted on `before`: poison moves
    models, not the scale that they see. Linear means ridge regression with its penalty
    chosen by cross-validation, or logistic regression; boosted trees are scikit-learn's,
    as they come.

    Raises
    ------
    PlanError
        If there is neither label nor target, or no feature.
    InputError
        If there is nothing to learn from.
    """
    answer = roles.label or roles.target
    if not answer or not roles.features:
        raise PlanError(
            "damage needs features, and a label or a target to predict",
            do="name it with --label or --target",
        )
    design = fit_design(before, roles.features)
    read = _labels if roles.label else raw_numbers
    told = [
        _Part.of(name, table, design, read(table.column(answer)))
        for name, table in (("before", before), ("poisoned", poisoned), ("cleaned", cleaned))
    ]
    test = _Part.of("holdout", holdout, design, read(holdout.column(answer)))
    kind = _classifiers if roles.label else _regressors
    models = tuple(_one(model, kind, told, test, bool(roles.label)) for model in MODELS)
    return Damage(models, len(test.y))


@dataclass(frozen=True)
class _Part:
    """Rows that a model is trained or tried on."""

    X: NDArray[np.float64]
    y: NDArray[Any]

    @classmethod
    def of(cls, name: str, table: pa.Table, design: Design, y: NDArray[Any]) -> _Part:
        known = np.flatnonzero([v is not None and v == v for v in y.tolist()])
        if len(known) > FIT_ROWS:
            known = np.sort(np.random.default_rng(0).choice(known, FIT_ROWS, replace=False))
        part = cls(design.encode(table)[known], y[known])
        if len(known) < 2 or not part.X.shape[1]:
            raise InputError(f"the data {name} have nothing that a model could learn from")
        return part


def _one(model: str, kind: Any, told: Sequence[_Part], test: _Part, named: bool) -> ModelDamage:
    answers = [_predict(kind(model), part, test.X) for part in told]
    if named:
        right = [float(np.mean(a == test.y)) for a in answers]
        moved = [float(np.mean(a != answers[0])) for a in answers[1:]]
        return ModelDamage(model, "accuracy", *right, *moved)
    error = [float(np.sqrt(np.mean((a - test.y) ** 2))) for a in answers]
    size = np.maximum(np.abs(answers[0]), 1e-12)
    moved = [float(np.median(np.abs(a - answers[0]) / size)) for a in answers[1:]]
    return ModelDamage(model, "rmse", *error, *moved)


def _predict(model: Any, part: _Part, X: NDArray[np.float64]) -> NDArray[Any]:
    if part.y.dtype == object and len(set(part.y.tolist())) == 1:
        return np.full(len(X), part.y[0], dtype=object)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(model.fit(part.X, part.y).predict(X))


def _classifiers(model: str) -> Any:
    if model == "linear":
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    return HistGradientBoostingClassifier(random_state=0)


def _regressors(model: str) -> Any:
    if model == "linear":
        return RidgeCV(_ALPHAS)
    return HistGradientBoostingRegressor(random_state=0)


def _labels(column: pa.ChunkedArray) -> NDArray[Any]:
    return np.array(strings(column).to_pylist(), dtype=object)


def _tally(kind: str, verdicts: NDArray[Any]) -> Tally:
    counts = [int((verdicts == verdict).sum()) for verdict in (QUARANTINE, REVIEW, KEEP)]
    return Tally(kind, len(verdicts), *counts)
