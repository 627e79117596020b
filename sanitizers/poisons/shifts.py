"""Features that are shifted for a while."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sanitizers.core.data import Roles
from sanitizers.core.design import Measured, fit_design
from sanitizers.core.errors import InputError, PlanError
from sanitizers.core.numbers import digits_of, raw_numbers, typed
from sanitizers.poisons.poison import Act, Poisoned, Scene, changed, overwrite, start
from sanitizers.poisons.spans import check_shares, span_of


@dataclass(frozen=True)
class FeatureShift:
    """Some of the features are shifted, in one span of time.

    Threat: a sensor that is bent, a unit that is changed, a supplier that fills a column
    otherwise; and the attacker who does the same.

    Knows: the standard deviations of the features.

    Parameters
    ----------
    share : float
        The share of the columns of numbers that are shifted; at least one is.
    deviations : float
        How far, in standard deviations; up or down is drawn for each column.

    Notes
    -----
    The rows follow one another in time (in the file, where there is no role for the time).
    Missing values stay missing, and a row in which nothing changed is not in the truth.
    Numbers stop at what their type can hold.

    References
    ----------
    Rabanser, Günnemann and Lipton, "Failing loudly: an empirical study of methods for
    detecting dataset shift", NeurIPS 2019. We differ in shifting rows within one data set.
    """

    name: ClassVar[str] = "feature-shift"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    act: ClassVar[Act] = "change"

    share: float = 1 / 3
    deviations: float = 3.0

    def __post_init__(self) -> None:
        check_shares(self.name, share=self.share)
        if not 0 < self.deviations < 1e6:
            found = f"{self.name}.deviations is {self.deviations}"
            raise PlanError(found, expected="a number above 0")

    def poison(self, table: pa.Table, roles: Roles, rate: float, seed: int) -> Poisoned:
        scene = start(self, table, roles, rate, seed)
        fitted = fit_design(scene.table, roles.features).columns
        able = [c.name for c in fitted if isinstance(c, Measured)]
        if not able:
            raise InputError("no feature is a number that varies", expected="numbers to shift")
        count = max(1, round(self.share * len(able)))
        names = scene.rng.choice(able, count, replace=False).tolist()
        span = np.sort(span_of(scene, scene.count))
        bent, hit = scene.table, np.zeros(len(span), dtype=bool)
        for name in names:
            values, moved = _shifted(scene, name, span, self.deviations)
            bent = overwrite(bent, name, span[moved], values.filter(pa.array(moved)))
            hit |= moved
        rows = span[hit]
        return changed(scene, self.name, bent, rows, [None] * len(rows))


def _shifted(
    scene: Scene, name: str, rows: NDArray[np.int64], deviations: float
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Values of some rows of a column, shifted; and which of them changed."""
    column = scene.table.column(name)
    numbers = raw_numbers(column)
    by = deviations * float(np.nanstd(numbers))
    old = numbers[rows]
    known = ~np.isnan(old)
    digits = digits_of(numbers, column.type)
    sign = -1.0 if scene.rng.random() < 0.5 and _may_fall(column, by) else 1.0
    fresh = typed(np.round(np.where(known, old, 0.0) + sign * by, digits), column.type)
    moved = known & (raw_numbers(pa.chunked_array([fresh])) != old)
    return fresh, moved


def _may_fall(column: pa.ChunkedArray, by: float) -> bool:
    """Whether all values can be lowered: counts and prices have no values below 0."""
    lowest = float(np.nanmin(raw_numbers(column)))
    return lowest < 0 or lowest >= by
