"""Rows that are added to bend a regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sanitizers.core.data import Roles
from sanitizers.core.errors import PlanError
from sanitizers.poisons.ascent import Ascent
from sanitizers.poisons.poison import Act, Poisoned, Scene, added, overwrite, start
from sanitizers.poisons.ridge import Regression, predict, regression_of

Matrix = NDArray[np.float64]


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
        return _strongest(scene, self.name, self.steps, np.inf)


@dataclass(frozen=True)
class Stealthy:
    """Rows that harm as much as they can while their targets stay likely.

    Threat: an attacker who knows that residuals are looked at, and keeps below the line.

    Knows: all clean rows, the model, and its penalty.

    Parameters
    ----------
    deviations : float
        How far a target lies from the prediction of a ridge regression of the clean rows,
        in standard deviations of its residuals, at most.
    steps : int
        As for `Gradient`.

    Notes
    -----
    As `Gradient`, with each target at that end of its band that harms more. A row that was
    moved to where the whole range of the target lies outside the band keeps the features of
    the row that it was copied from.

    References
    ----------
    Jagielski et al., "Manipulating machine learning: poisoning attacks and countermeasures
    for regression learning", IEEE S&P 2018, for what is bounded here.
    """

    name: ClassVar[str] = "stealthy"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "target"})
    act: ClassVar[Act] = "add"

    deviations: float = 2.0
    steps: int = 80

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise PlanError(f"stealthy.steps is {self.steps}", expected="at least 1")
        if not 0 < self.deviations < np.inf:
            raise PlanError(f"stealthy.deviations is {self.deviations}", expected="more than 0")

    def poison(self, table: pa.Table, roles: Roles, rate: float, seed: int) -> Poisoned:
        scene = start(self, table, roles, rate, seed)
        return _strongest(scene, self.name, self.steps, self.deviations)


def _strongest(scene: Scene, kind: str, steps: int, deviations: float) -> Poisoned:
    """Poison that climbed from copies and from corners, whichever harms more."""
    regression = regression_of(scene)
    ascent = Ascent.of(regression, deviations)
    hosts = scene.rng.choice(regression.hosts, scene.count)
    copies = _clones(scene, regression, hosts)
    starts = (copies, _corners(scene, regression))
    ends = [ascent.moved(*begin, steps, copies[0]) for begin in starts]
    _, rows, target = max(ends, key=lambda end: end[0])
    return _added(scene, kind, regression, rows, target, hosts)


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
    expected = predict(regression.victim.fit(), rows)
    return rows, (expected < 0.5).astype(float)


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
