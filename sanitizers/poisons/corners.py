"""Rows in a corner of the space of the features, where no other row is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sanitizers.core.data import Roles
from sanitizers.core.design import Design, fit_design, measure
from sanitizers.core.errors import InputError, PlanError
from sanitizers.poisons.classes import classes_of
from sanitizers.poisons.poison import Act, Poisoned, Scene, added, overwrite, start

#: Corners that are drawn; the one that is farthest from the rows is taken.
_CORNERS = 64
#: Rows that a corner is compared with.
_SAMPLE = 2_000


@dataclass(frozen=True)
class FarCorner:
    """Rows are added near a corner of the features that is far from all others.

    Threat: rows that pull a model where nothing contradicts them; crude, and strong.

    Knows: the observed range of every feature, and how the rows lie in it.

    Parameters
    ----------
    spread : float
        Standard deviation around the corner, in shares of the range.

    Notes
    -----
    Of 64 corners drawn the one with the farthest nearest row is taken. All added rows have
    one label, drawn; a target gets the end of its range that is farther from its mean.
    Rows lie behind rows drawn, whose other columns (time, source) they copy.

    References
    ----------
    Nelson et al., "Exploiting machine learning to subvert your spam filter", LEET 2008, for
    injected extremes. We differ in staying within the observed range.
    """

    name: ClassVar[str] = "far-corner"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    act: ClassVar[Act] = "add"

    spread: float = 0.02

    def __post_init__(self) -> None:
        if not 0 <= self.spread <= 1:
            raise PlanError(f"far-corner.spread is {self.spread}", expected="a share in [0, 1]")

    def poison(self, table: pa.Table, roles: Roles, rate: float, seed: int) -> Poisoned:
        scene = start(self, table, roles, rate, seed)
        design = fit_design(scene.table, roles.features)
        if not design.columns:
            raise InputError("no feature has two values", expected="features that vary")
        matrix = design.encode(scene.table)
        corner = _far_corner(design, matrix, scene.rng)
        away = np.abs(scene.rng.normal(0, self.spread, (scene.count, matrix.shape[1])))
        hosts = scene.rng.integers(0, scene.rows, scene.count)
        near = np.where(corner > 0.5, corner - away, corner + away)
        rows = design.write(scene.table.take(pa.array(hosts)), near)
        return added(scene, self.name, answered(scene, rows), hosts)


def _far_corner(
    design: Design, matrix: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    corners = design.repair(rng.integers(0, 2, (_CORNERS, matrix.shape[1])).astype(float))
    size = min(len(matrix), _SAMPLE)
    sample = matrix[rng.choice(len(matrix), size, replace=False)]
    nearest = [((sample - corner) ** 2).sum(axis=1).min() for corner in corners]
    return np.asarray(corners[int(np.argmax(nearest))])


def answered(scene: Scene, rows: pa.Table) -> pa.Table:
    """Give all rows one label, or an extreme target, where there is such a role."""
    everywhere = np.arange(rows.num_rows)
    if scene.roles.label:
        classes = classes_of(scene)
        code = np.full(rows.num_rows, scene.rng.integers(len(classes.names)))
        rows = overwrite(rows, scene.roles.label, everywhere, classes.values(code))
    if scene.roles.target:
        column = scene.table.column(scene.roles.target)
        target = measure(scene.roles.target, column)
        if target is not None:
            mean = float(np.mean(target.encode(column)))
            values = target.decode(np.full(rows.num_rows, float(mean < 0.5)))
            rows = overwrite(rows, scene.roles.target, everywhere, values)
    return rows
