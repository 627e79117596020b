"""A tight cluster of rows that belongs to a while of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sanitizers.core.data import Roles
from sanitizers.core.design import Design, Measured, fit_design
from sanitizers.core.errors import InputError
from sanitizers.poisons.corners import answered
from sanitizers.poisons.poison import Act, Poisoned, Scene, added, start
from sanitizers.poisons.spans import check_shares, span_of


@dataclass(frozen=True)
class DenseCluster:
    """A tight cluster is slipped in among the rows of one span of time.

    Threat: an attacker who feeds a stream for some weeks, with rows that are near to one
    another, each of whose values is common.

    Knows: the quantiles of every feature.

    Parameters
    ----------
    spread : float
        Standard deviation of numbers around the centre, in those of the column.
    span : float
        The share of the time in which the rows arrive; of the file, where there is no role
        for the time.
    at_a_row : bool
        Whether the centre is a row that is there; else each feature has its own value, drawn
        between the 5 % and 95 % quantiles of its column.

    Notes
    -----
    All added rows have one label, drawn; a target gets the end of its range that is farther
    from its mean. Time, source and other columns are those of the row behind which each lies.

    References
    ----------
    The attack that micro-models are made for: Cretu et al., "Casting out demons: sanitizing
    training data for anomaly sensors", IEEE S&P 2008.
    """

    name: ClassVar[str] = "dense-cluster"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    act: ClassVar[Act] = "add"

    spread: float = 0.05
    span: float = 0.15
    at_a_row: bool = False

    def __post_init__(self) -> None:
        check_shares(self.name, spread=self.spread, span=self.span)

    def poison(self, table: pa.Table, roles: Roles, rate: float, seed: int) -> Poisoned:
        scene = start(self, table, roles, rate, seed)
        design = fit_design(scene.table, roles.features)
        if not design.columns:
            raise InputError("no feature has two values", expected="features that vary")
        matrix = design.encode(scene.table)
        centre = self._centre(scene, design, matrix)
        noise = scene.rng.normal(0, self.spread, (scene.count, matrix.shape[1]))
        near = centre + np.where(design.is_free, matrix.std(axis=0), 0.0) * noise
        span = span_of(scene, max(1, round(self.span * scene.rows)))
        hosts = scene.rng.choice(span, scene.count)
        rows = design.write(scene.table.take(pa.array(hosts)), near)
        return added(scene, self.name, answered(scene, rows), hosts)

    def _centre(
        self, scene: Scene, design: Design, matrix: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        centre: NDArray[np.float64] = matrix[int(scene.rng.integers(scene.rows))].copy()
        if self.at_a_row:
            return centre
        for column, place in zip(design.columns, design.places, strict=True):
            if isinstance(column, Measured) and design.is_free[place.start]:
                low, high = np.quantile(matrix[:, place.start], [0.05, 0.95])
                centre[place] = scene.rng.uniform(low, high)
            elif not isinstance(column, Measured):
                centre[place] = matrix[int(scene.rng.integers(scene.rows)), place]
        return centre
