"""What the attacker of a regression works with: a ridge regression, and how poison moves it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sanitizers.core.design import Design, Measured, fit_design, measure
from sanitizers.core.errors import InputError
from sanitizers.core.numbers import raw_numbers
from sanitizers.poisons.poison import Scene

#: Rows that the attacker fits on, at most; they count for all.
MODEL_ROWS = 20_000
#: Shares of the penalty among which the attacker chooses by cross-validation.
_ALPHAS = tuple(np.logspace(-2, 3, 11).tolist())


@dataclass(frozen=True)
class Victim:
    """Ridge regression of a target on features, fitted on clean rows and poison together.

    The loss is ``sum (x w + b - y)^2 + alpha |w|^2``; features and target lie in 0 to 1.

    Parameters
    ----------
    X : ndarray of float64, shape (n, d)
        Clean rows.
    y : ndarray of float64, shape (n,)
    alpha : float
    weight : float
        How many rows each clean row stands for.
    """

    X: NDArray[np.float64]
    y: NDArray[np.float64]
    alpha: float
    weight: float = 1.0

    def moments(self) -> Moments:
        """All that poison needs to know of the clean rows."""
        X = _with_one(self.X)
        return Moments(X.T @ X, X.T @ self.y, float(self.y @ self.y), len(X), self)

    def fit(self) -> NDArray[np.float64]:
        """Weights, then the intercept, without poison; shape (d + 1,)."""
        moments = self.moments()
        solved = np.linalg.solve(self.weight * moments.gram + moments.penalty, moments.product)
        return np.asarray(self.weight * solved)


@dataclass(frozen=True)
class Moments:
    """Sums over the clean rows, which do not change while poison does."""

    gram: NDArray[np.float64]
    product: NDArray[np.float64]
    square: float
    rows: int
    victim: Victim

    @property
    def penalty(self) -> NDArray[np.float64]:
        """The penalty as a matrix; next to none on the intercept."""
        size = np.full(len(self.gram), self.victim.alpha)
        size[-1] = 1e-9
        return np.diag(size)

    def gradient(
        self, P: NDArray[np.float64], t: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Damage of poison, and how it grows with every feature and target of it.

        Parameters
        ----------
        P : ndarray of float64, shape (p, d)
        t : ndarray of float64, shape (p,)

        Returns
        -------
        float
            Mean squared error, on the clean rows, of the ridge fitted on all rows.
        ndarray of float64, shape (p, d)
        ndarray of float64, shape (p,)

        Notes
        -----
        With ``A theta = X'y`` for the fitted weights, a small change of one poison row
        ``(x, t)`` of residual ``r = x theta - t`` changes ``theta`` by
        ``-A^-1 (dx r + x (dx theta - dt))``. With ``u = A^-1 g``, where ``g`` is the
        gradient of the error with respect to ``theta``, the error changes by
        ``-(u dx) r - (u x)(dx theta - dt)``.
        """
        P1 = _with_one(P)
        weight = self.victim.weight
        A = weight * self.gram + self.penalty + P1.T @ P1
        theta = np.linalg.solve(A, weight * self.product + P1.T @ t)
        toward = self.gram @ theta - self.product
        error = (theta @ (toward - self.product) + self.square) / self.rows
        u = np.linalg.solve(A, 2.0 * toward / self.rows)
        residual, reach = P1 @ theta - t, P1 @ u
        by_feature = -(np.outer(residual, u[:-1]) + np.outer(reach, theta[:-1]))
        return float(error), by_feature, reach


@dataclass(frozen=True)
class Regression:
    """A table seen as a regression.

    Parameters
    ----------
    design : Design
    target : Measured
    victim : Victim
    hosts : ndarray of int64
        Rows of the table whose target is known.
    """

    design: Design
    target: Measured
    victim: Victim
    hosts: NDArray[np.int64]


def regression_of(scene: Scene) -> Regression:
    """Fit the attacker's model on the clean table.

    Raises
    ------
    InputError
        If no feature or no target varies.
    """
    from sklearn.linear_model import RidgeCV

    name = str(scene.roles.target)
    column = scene.table.column(name)
    target = measure(name, column)
    design = fit_design(scene.table, scene.roles.features)
    if target is None or not design.columns:
        what = f"the target {name!r} has not" if target is None else "no feature has"
        raise InputError(f"{what} two values", expected="numbers that vary")
    hosts = np.flatnonzero(~np.isnan(raw_numbers(column)))
    rows = np.sort(scene.rng.choice(hosts, min(len(hosts), MODEL_ROWS), replace=False))
    part = scene.table.take(pa.array(rows))
    X, y = design.encode(part), target.encode(part.column(name))[:, 0]
    alpha = float(RidgeCV(_ALPHAS).fit(X, y).alpha_)
    return Regression(design, target, Victim(X, y, alpha, len(hosts) / len(rows)), hosts)


def predict(theta: NDArray[np.float64], X: NDArray[np.float64]) -> NDArray[np.float64]:
    """What weights and an intercept, shape (d + 1,), make of rows."""
    return np.asarray(X @ theta[:-1] + theta[-1])


def _with_one(X: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.hstack([X, np.ones((len(X), 1))])
