"""What poison that arrives together has in common: a span of time, and rows that are alike."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sanitizers.core.design import Measured, fit_design
from sanitizers.core.errors import PlanError
from sanitizers.core.numbers import raw_numbers
from sanitizers.poisons.poison import Scene, overwrite


def span_of(scene: Scene, rows: int) -> NDArray[np.int64]:
    """Rows that follow one another in time, from a place that is drawn."""
    order = np.arange(scene.rows)
    if scene.roles.time:
        order = pc.array_sort_indices(scene.table.column(scene.roles.time)).to_numpy()
    first = int(scene.rng.integers(0, scene.rows - rows + 1))
    return np.asarray(order[first : first + rows], dtype=np.int64)


def near_copies(scene: Scene, rows: NDArray[np.int64], spread: float) -> pa.Table:
    """Near-copies of rows: numbers off by `spread` standard deviations, where not missing."""
    table = scene.table.take(pa.array(rows))
    design = fit_design(scene.table, scene.roles.features)
    for column in design.columns:
        if not isinstance(column, Measured):
            continue
        values = table.column(column.name)
        known = ~np.isnan(raw_numbers(values))
        deviation = spread * float(np.std(column.encode(scene.table.column(column.name))))
        near = column.encode(values)[:, 0] + scene.rng.normal(0, deviation, len(rows))
        moved = column.decode(near).filter(pa.array(known))
        table = overwrite(table, column.name, np.flatnonzero(known), moved)
    return table


def check_shares(poison: str, **shares: float) -> None:
    """Refuse settings that are no shares.

    Raises
    ------
    PlanError
        If one is not in [0, 1].
    """
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise PlanError(f"{poison}.{name} is {value}", expected="a share in [0, 1]")
