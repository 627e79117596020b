"""The climb of poison along the gradient of the error that it makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sanitizers.core.design import Design
from sanitizers.poisons.ridge import Moments, Regression, predict

Matrix = NDArray[np.float64]

#: How far a value goes in the first step, in shares of its range, and at most.
_FIRST_STEP, _LONGEST_STEP = 0.25, 1.0
#: The last share of the steps moves numbers only, with the categories settled.
_SETTLED = 0.25


@dataclass(frozen=True)
class Ascent:
    """How an attacker moves rows to where they harm a ridge regression most.

    Parameters
    ----------
    regression : Regression
    moments : Moments
    theta : ndarray of float64, shape (d + 1,)
        The ridge regression of the clean rows.
    slack : float
        How far a target may lie from its prediction.
    """

    regression: Regression
    moments: Moments
    theta: Matrix
    slack: float

    @classmethod
    def of(cls, regression: Regression, deviations: float) -> Ascent:
        """An attack on a regression, its targets within so many standard deviations."""
        victim = regression.victim
        theta = victim.fit()
        spread = float(np.std(victim.y - predict(theta, victim.X)))
        return cls(regression, victim.moments(), theta, deviations * spread)

    def moved(
        self, rows: Matrix, target: Matrix, steps: int, home: Matrix
    ) -> tuple[float, Matrix, Matrix]:
        """How much error poison makes, where it has gone, and with which target.

        Parameters
        ----------
        rows : ndarray of float64, shape (p, d)
        target : ndarray of float64, shape (p,)
        steps : int
        home : ndarray of float64, shape (p, d)
            Where rows go that left what their targets can follow.
        """
        design = self.regression.design
        everything = np.ones(rows.shape[1], dtype=bool)
        settled = round(_SETTLED * steps)
        rows, target = self._climb(rows, target, everything, steps - settled)
        rows, target = self._climb(design.repair(rows), target, design.is_free, settled)
        rows = design.repair(rows)
        lost = self._beyond(rows)
        rows[lost] = home[lost]
        # Between the ends of its band a target does less harm than at one of them.
        toward = self.moments.gradient(rows, self._feasible_target(rows, target))[2]
        target = self._feasible_target(rows, (toward > 0).astype(float))
        return self.moments.gradient(rows, target)[0], rows, target

    def _climb(
        self, rows: Matrix, target: Matrix, free: NDArray[np.bool_], steps: int
    ) -> tuple[Matrix, Matrix]:
        """Follow the gradient, each row with a step of its own scale, within the feasible."""
        size = _FIRST_STEP
        target = self._feasible_target(rows, target)
        error, by_feature, by_target = self.moments.gradient(rows, target)
        for _ in range(steps):
            scale = np.abs(by_feature[:, free]).max(axis=1, initial=1e-300)[:, None]
            ahead = _feasible(self.regression.design, rows + size * free * by_feature / scale)
            wanted = self._feasible_target(ahead, target + size * np.sign(by_target))
            found = self.moments.gradient(ahead, wanted)
            if found[0] > error:
                rows, target, (error, by_feature, by_target) = ahead, wanted, found
                size = min(size * 1.5, _LONGEST_STEP)
            else:
                size /= 2.0
        return rows, target

    def _feasible_target(self, rows: Matrix, target: Matrix) -> Matrix:
        """Between 0 and 1, and not farther from the prediction than allowed."""
        if np.isinf(self.slack):
            return np.clip(target, 0.0, 1.0)
        expected = predict(self.theta, rows)
        return np.clip(np.clip(target, expected - self.slack, expected + self.slack), 0.0, 1.0)

    def _beyond(self, rows: Matrix) -> NDArray[np.bool_]:
        """Rows for which no target in the range is near enough to the prediction."""
        return np.abs(predict(self.theta, rows) - 0.5) > 0.5 + self.slack


def _feasible(design: Design, rows: Matrix) -> Matrix:
    """Between 0 and 1, and the shares of the categories of a column add up to 1."""
    out = np.clip(rows, 0.0, 1.0)
    for group in design.groups:
        total = out[:, group].sum(axis=1, keepdims=True)
        out[:, group] = np.divide(out[:, group], total, out=out[:, group], where=total > 1)
    return out
