"""Rows that are added to bend a regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sanitizers.core.data import Roles
from sanitizers.core.design import Design
from sanitizers.core.errors import PlanError
from sanitizers.poisons.poison import Act, Poisoned, Scene, added, overwrite, start
from sanitizers.poisons.ridge import Moments, Regression, regression_of

Matrix = NDArray[np.float64]

#: How far a value goes in the first step, in shares of its range, and at most.
_FIRST_STEP, _LONGEST_STEP = 0.25, 1.0
#: The last share of the steps moves numbers only, with the categories settled.
_SETTLED = 0.25


@dataclass(frozen=True)
class Statistical:
    """Corner rows that keep the data's correlations, with the opposite of what is expected.

    Threat: an attacker who adds rows and needs to know little; strong, and quick to make.

    Knows: mean and covariance of the features, and what a model predicts.

    Notes
    -----
    Features are drawn from the normal distribution of the clean rows and rounded to the
    nearer end of their range; of each set of one-hot columns, and of each category, the
    likeliest value is taken. The target is the end of its range that is farther from the
    prediction of a ridge regression. Other columns are those of rows drawn, behind which
    the poison lies.

    References
    ----------
    Jagielski et al., "Manipulating machine learning: poisoning attacks and countermeasures
    for regression learning", IEEE S&P 2018 (StatP). We differ in taking the observed range
    of every column for what is feasible.
    """

    name: ClassVar[str] = "statistical"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "target"})
    act: ClassVar[Act] = "add"

    def poison(self, table: pa.Table, roles: Roles, rate: float, seed: int) -> Poisoned:
        scene = start(self, table, roles, rate, seed)
        regression = regression_of(scene)
        rows, target = _corners(scene, regression)
        return _added(scene, self.name, regression, rows, target)


@dataclass(frozen=True)
class Gradient:
    """Rows that are moved, step by step, to where they harm a ridge regression most.

    Threat: the strongest known attack on linear regression; 8 % of it change predictions by
    more than half.

    Knows: all clean rows, the model, and its penalty.

    Parameters
    ----------
    steps : int
        Cost: one step is two solutions of d equations, and p × d numbers.

    Notes
    -----
    Starts once from copies of rows drawn, with the far end of the target, and once from the
    rows of `Statistical`, and keeps what harms more. Features and target follow the exact
    gradient of the mean squared error on the clean rows, within the observed ranges; a step
    that does not raise the error is halved. In the last quarter each row has one category of
    each column, and numbers move on. Other columns are those of rows drawn.

    References
    ----------
    Jagielski et al., "Manipulating machine learning: poisoning attacks and countermeasures
    for regression learning", IEEE S&P 2018 (OptP). We differ in moving all rows at once,
    along an exact gradient, and in keeping every row one that the table could hold.
    """

    name: ClassVar[str] = "gradient"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "target"})
    act: ClassVar[Act] = "add"

    steps: int = 80

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise PlanError(f"gradient.steps is {self.steps}", expected="at least 1")

    def poison(self, table: pa.Table, roles: Roles, rate: float, seed: int) -> Poisoned:
        scene = start(self, table, roles, rate, seed)
        regression = regression_of(scene)
        hosts = scene.rng.choice(regression.hosts, scene.count)
        starts = (_clones(scene, regression, hosts), _corners(scene, regression))
        ends = [self._moved(regression, *begin) for begin in starts]
        _, rows, target = max(ends, key=lambda end: end[0])
        return _added(scene, self.name, regression, rows, target, hosts)

    def _moved(
        self, regression: Regression, rows: Matrix, target: Matrix
    ) -> tuple[float, Matrix, Matrix]:
        """How much error poison makes, where it has gone, and with which target."""
        design, moments = regression.design, regression.victim.moments()
        everything = np.ones(rows.shape[1], dtype=bool)
        settled = round(_SETTLED * self.steps)
        rows, target = _climb(moments, design, rows, target, everything, self.steps - settled)
        rows, target = _climb(moments, design, design.repair(rows), target, design.is_free, settled)
        rows = design.repair(rows)
        # Between the ends of its range a target does less harm than at one of them.
        target = (moments.gradient(rows, target)[2] > 0).astype(float)
        return moments.gradient(rows, target)[0], rows, target


def _clones(
    scene: Scene, regression: Regression, hosts: NDArray[np.int64]
) -> tuple[Matrix, Matrix]:
    """Rows that are there, with the far end of the target."""
    part = scene.table.take(pa.array(hosts))
    target = regression.target.encode(part.column(regression.target.name))[:, 0]
    return np.clip(regression.design.encode(part), 0.0, 1.0), (target < 0.5).astype(float)


def _corners(scene: Scene, regression: Regression) -> tuple[Matrix, Matrix]:
    """Rows drawn like the clean ones and rounded to a corner, with the opposite target."""
    X = regression.victim.X
    covariance = np.atleast_2d(np.cov(X, rowvar=False))
    # A covariance of one-hot columns is singular, and rounded to slightly less.
    drawn = scene.rng.multivariate_normal(
        X.mean(axis=0), covariance, scene.count, check_valid="ignore", method="eigh"
    )
    free = regression.design.is_free
    drawn[:, free] = drawn[:, free] >= 0.5
    rows = regression.design.repair(drawn)
    theta = regression.victim.fit()
    return rows, (rows @ theta[:-1] + theta[-1] < 0.5).astype(float)


def _climb(
    moments: Moments,
    design: Design,
    rows: Matrix,
    target: Matrix,
    free: NDArray[np.bool_],
    steps: int,
) -> tuple[Matrix, Matrix]:
    """Follow the gradient, each row with a step of its own scale, within the feasible."""
    size = _FIRST_STEP
    error, by_feature, by_target = moments.gradient(rows, target)
    for _ in range(steps):
        scale = np.abs(by_feature[:, free]).max(axis=1, initial=1e-300)[:, None]
        ahead = _feasible(design, rows + size * free * by_feature / scale)
        wanted = np.clip(target + size * np.sign(by_target), 0.0, 1.0)
        found = moments.gradient(ahead, wanted)
        if found[0] > error:
            rows, target, (error, by_feature, by_target) = ahead, wanted, found
            size = min(size * 1.5, _LONGEST_STEP)
        else:
            size /= 2.0
    return rows, target


def _feasible(design: Design, rows: Matrix) -> Matrix:
    """Between 0 and 1, and the shares of the categories of a column add up to 1."""
    out = np.clip(rows, 0.0, 1.0)
    for group in design.groups:
        total = out[:, group].sum(axis=1, keepdims=True)
        out[:, group] = np.divide(out[:, group], total, out=out[:, group], where=total > 1)
    return out


def _added(
    scene: Scene,
    kind: str,
    regression: Regression,
    rows: Matrix,
    target: Matrix,
    hosts: NDArray[np.int64] | None = None,
) -> Poisoned:
    if hosts is None:
        hosts = scene.rng.integers(0, scene.rows, scene.count)
    table = regression.design.write(scene.table.take(pa.array(hosts)), rows)
    everywhere = np.arange(scene.count)
    values = regression.target.decode(target)
    table = overwrite(table, regression.target.name, everywhere, values)
    return added(scene, kind, table, scene.rng.integers(0, scene.rows, scene.count))
