"""The classes of a table, and how sure a model of the attacker's is of each row."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sanitizers.core.design import fit_design
from sanitizers.core.errors import InputError, PlanError, did_you_mean
from sanitizers.core.numbers import strings
from sanitizers.poisons.poison import Poisoned, Scene, changed, overwrite

#: Rows that the attacker's model is fitted on, at most.
MODEL_ROWS = 20_000
#: The attacker has this share of the rows; which, the seed says.
KNOWN_SHARE = 0.8
#: The models that an attacker may choose.
MODELS = ("linear", "trees")


@dataclass(frozen=True)
class Classes:
    """The labels of a table as numbers.

    Parameters
    ----------
    names : tuple of str
        In their natural order.
    codes : ndarray of int64, shape (n,)
        -1 where the label is missing.
    column : pyarrow.ChunkedArray
        The labels as they are in the table.
    """

    names: tuple[str, ...]
    codes: NDArray[np.int64]
    column: pa.ChunkedArray

    def values(self, codes: NDArray[np.int64]) -> pa.ChunkedArray:
        """Labels of the table's type, for codes."""
        first = np.array([np.flatnonzero(self.codes == k)[0] for k in range(len(self.names))])
        return self.column.take(pa.array(first[codes]))


def classes_of(scene: Scene) -> Classes:
    """Read the labels of a table.

    Raises
    ------
    InputError
        If there are not two classes.
    """
    name = str(scene.roles.label)
    column = scene.table.column(name)
    texts = strings(column)
    found = pc.unique(texts.drop_null()).to_pylist()
    if len(found) < 2:
        raise InputError(
            f"the label {name!r} has {len(found)} class(es)", expected="at least 2 to attack"
        )
    names = tuple(sorted(found, key=_natural))
    codes = pc.fill_null(pc.index_in(texts, value_set=pa.array(names, pa.string())), -1)
    return Classes(names, codes.to_numpy().astype(np.int64), column)


def flip(
    scene: Scene, kind: str, classes: Classes, rows: NDArray[np.int64], to: NDArray[np.int64]
) -> Poisoned:
    """Give rows other labels.

    Parameters
    ----------
    scene : Scene
    kind : str
    classes : Classes
    rows, to : ndarray of int64
        Which rows, and the code of the new label of each.
    """
    table = overwrite(scene.table, str(scene.roles.label), rows, classes.values(to))
    return changed(scene, kind, table, rows, [classes.names[k] for k in classes.codes[rows]])


def labelled(scene: Scene, classes: Classes, possible: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The rows that can be attacked, if they are enough.

    Raises
    ------
    InputError
        If they are too few.
    """
    rows = np.flatnonzero(possible & (classes.codes >= 0))
    if len(rows) < scene.count:
        raise InputError(
            f"{scene.count:,} rows are to be poisoned, and {len(rows):,} can be",
            do="choose a lower rate",
        )
    return rows


def attacker_scores(scene: Scene, classes: Classes, model: str) -> NDArray[np.float64]:
    """How strongly a model of the attacker's says each class of each row.

    It is fitted on a share of the rows, drawn. Trees are asked about rows out of their bags.

    Returns
    -------
    ndarray of float64, shape (n, number of classes)
        -inf for classes that the model does not know.
    """
    known = np.flatnonzero(classes.codes >= 0)
    size = min(max(2, round(KNOWN_SHARE * len(known))), MODEL_ROWS)
    rows = np.sort(scene.rng.choice(known, size=size, replace=False))
    matrix = fit_design(scene.table, scene.roles.features).encode(scene.table)
    y = classes.codes[rows]
    out = np.full((scene.rows, len(classes.names)), -np.inf)
    if not matrix.shape[1] or len(np.unique(y)) < 2:
        raise InputError("a model has nothing to learn from", expected="features, and two classes")
    fit = _linear if model == "linear" else _trees
    known_to_model, scores = fit(matrix, rows, y, int(scene.rng.integers(2**31)))
    out[:, known_to_model] = scores
    return out


def _linear(
    matrix: NDArray[np.float64], rows: NDArray[np.int64], y: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The classes that a logistic regression knows, and its decision values for all rows."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
        scores = fitted.fit(matrix[rows], y).decision_function(matrix)
    scores = np.column_stack([-scores, scores]) / 2 if scores.ndim == 1 else scores
    return fitted.classes_, scores


def _trees(
    matrix: NDArray[np.float64], rows: NDArray[np.int64], y: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The classes that trees know, and their shares; of rows they were fitted on, out of bag."""
    from sklearn.ensemble import ExtraTreesClassifier

    fitted = ExtraTreesClassifier(
        100, min_samples_leaf=2, bootstrap=True, oob_score=True, random_state=seed
    )
    scores = fitted.fit(matrix[rows], y).predict_proba(matrix)
    scores[rows] = np.nan_to_num(fitted.oob_decision_function_)
    return fitted.classes_, scores


def checked_model(name: str, model: str) -> None:
    """Refuse a model that is not one of `MODELS`."""
    if model not in MODELS:
        raise PlanError(f"{name}.model is {model!r}", do=did_you_mean(model, MODELS))


def margins(
    scores: NDArray[np.float64], codes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """How far the own class is ahead of the best other one, and which that is.

    Returns
    -------
    ndarray of float64, shape (n,)
        Meaningless where the label is missing.
    ndarray of int64, shape (n,)
    """
    rows = np.arange(len(codes))
    others = scores.copy()
    others[rows, codes] = -np.inf
    best = others.argmax(axis=1)
    with np.errstate(invalid="ignore"):
        return scores[rows, codes] - others[rows, best], best


def target_code(name: str, target: str, classes: Classes, rng: np.random.Generator) -> int:
    """The code of the class that an attack is for: the one that is named, or a drawn one.

    Raises
    ------
    PlanError
        If there is no such class.
    """
    if not target:
        return int(rng.integers(len(classes.names)))
    if target not in classes.names:
        raise PlanError(f"{name}: no class {target!r}", do=did_you_mean(target, classes.names))
    return classes.names.index(target)


def _natural(name: str) -> tuple[float, str]:
    try:
        return float(name), name
    except ValueError:
        return np.inf, name
