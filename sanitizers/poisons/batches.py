"""Poison that arrives together: floods of near-copies, skewing batches, shifted spans."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sanitizers.core.data import Roles
from sanitizers.core.design import Measured, fit_design
from sanitizers.core.errors import InputError, PlanError
from sanitizers.core.numbers import digits_of, raw_numbers, typed
from sanitizers.poisons.classes import attacker_scores, classes_of, margins
from sanitizers.poisons.poison import Act, Poisoned, Scene, added, changed, overwrite, start


@dataclass(frozen=True)
class DuplicateFlood:
    """Near-copies of a few rows, within one span of time.

    Threat: cases that shall count for more than they are: clicks, reviews, claims of
    one customer. Each copy is harmless; their number is the poison.

    Knows: the rows that it copies.

    Parameters
    ----------
    originals : int
        Rows that are copied.
    spread : float
        Standard deviation of numbers around the original, in shares of their range.
    span : float
        The share of the time in which the copies arrive; of the file, where there is no
        role for the time.

    Notes
    -----
    A copy has label, target and categories of its original, and time, source and all other
    columns of the row behind which it lies. Truth marks the copies, not the originals.

    References
    ----------
    Known as flooding or replay, from click fraud and spam filters; no paper is followed.
    """

    name: ClassVar[str] = "duplicate-flood"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    act: ClassVar[Act] = "add"

    originals: int = 3
    spread: float = 0.005
    span: float = 0.15

    def __post_init__(self) -> None:
        if self.originals < 1:
            raise PlanError(f"{self.name}.originals is {self.originals}", expected="at least 1")
        _check_shares(self.name, spread=self.spread, span=self.span)

    def poison(self, table: pa.Table, roles: Roles, rate: float, seed: int) -> Poisoned:
        scene = start(self, table, roles, rate, seed)
        span = _span(scene, max(1, round(self.span * scene.rows)))
        hosts = scene.rng.choice(span, scene.count)
        few = scene.rng.choice(scene.rows, min(self.originals, scene.rows), replace=False)
        originals = scene.rng.choice(few, scene.count)
        rows = _copies(scene, originals, self.spread)
        kept = {roles.time, roles.source, roles.id}
        own = [c for c in (*roles.features, roles.label, roles.target) if c and c not in kept]
        onto = scene.table.take(pa.array(hosts))
        for name in own:
            onto = overwrite(onto, name, np.arange(scene.count), rows.column(name))
        return added(scene, self.name, onto, hosts)


@dataclass(frozen=True)
class SkewBatch:
    """A new batch of near-identical rows by the decision boundary, with the wrong label.

    Threat: model skewing: feedback that teaches a model, a batch at a time, to decide one
    kind of case otherwise.

    Knows: the features and labels of four fifths of the rows, drawn.

    Parameters
    ----------
    spread : float
        Standard deviation of numbers around the row that is copied, in shares of their range.

    Notes
    -----
    The row that is copied is one of the twenty nearest to the boundary of a logistic
    regression that it gets right; the label is that of the class beyond. All rows of the
    batch come last, at the latest time, from a source that was not there before (a name
    that counts one further than the last).

    References
    ----------
    Named by Google's security team (Bursztein, "Attacks against machine learning", 2018); no
    paper is followed.
    """

    name: ClassVar[str] = "skew-batch"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "label"})
    act: ClassVar[Act] = "add"

    spread: float = 0.005

    def __post_init__(self) -> None:
        _check_shares(self.name, spread=self.spread)

    def poison(self, table: pa.Table, roles: Roles, rate: float, seed: int) -> Poisoned:
        scene = start(self, table, roles, rate, seed)
        classes = classes_of(scene)
        margin, best = margins(attacker_scores(scene, classes, "linear"), classes.codes)
        right = np.flatnonzero((margin > 0) & (classes.codes >= 0))
        if not len(right):
            raise InputError("a model gets no row right", expected="labels that can be learned")
        nearest = right[np.argsort(margin[right], kind="stable")[:20]]
        row = int(scene.rng.choice(nearest))
        rows = _copies(scene, np.full(scene.count, row), self.spread)
        everywhere = np.arange(scene.count)
        labels = classes.values(np.full(scene.count, best[row]))
        rows = overwrite(rows, str(roles.label), everywhere, labels)
        if roles.time:
            latest = pc.array_sort_indices(
                scene.table.column(roles.time), order="descending", null_placement="at_end"
            )[0].as_py()
            times = scene.table.column(roles.time).take(pa.array([latest] * scene.count))
            rows = overwrite(rows, roles.time, everywhere, times)
        if roles.source:
            rows = _from_new_source(scene, rows, roles.source)
        return added(scene, self.name, rows, np.full(scene.count, scene.rows - 1))


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
        _check_shares(self.name, share=self.share)
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
        span = np.sort(_span(scene, scene.count))
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


def _span(scene: Scene, rows: int) -> NDArray[np.int64]:
    """Rows that follow one another in time, from a place that is drawn."""
    order = np.arange(scene.rows)
    if scene.roles.time:
        order = pc.array_sort_indices(scene.table.column(scene.roles.time)).to_numpy()
    first = int(scene.rng.integers(0, scene.rows - rows + 1))
    return np.asarray(order[first : first + rows], dtype=np.int64)


def _copies(scene: Scene, rows: NDArray[np.int64], spread: float) -> pa.Table:
    """Near-copies of rows: numbers a little off, where they are not missing."""
    table = scene.table.take(pa.array(rows))
    design = fit_design(scene.table, scene.roles.features)
    for column in design.columns:
        if not isinstance(column, Measured):
            continue
        values = table.column(column.name)
        known = ~np.isnan(raw_numbers(values))
        near = column.encode(values)[:, 0] + scene.rng.normal(0, spread, len(rows))
        moved = column.decode(near).filter(pa.array(known))
        table = overwrite(table, column.name, np.flatnonzero(known), moved)
    return table


def _from_new_source(scene: Scene, rows: pa.Table, name: str) -> pa.Table:
    """Give rows a source that counts one further than the last: ``s9`` becomes ``s10``."""
    column = scene.table.column(name)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    known = pc.unique(column.cast(kind).drop_null()).to_pylist()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        fresh: object = _next_name(known)
    elif pa.types.is_integer(kind):
        fresh = max(known, default=0) + 1
    else:
        raise InputError(f"the source {name!r} is of type {kind}", expected="texts or numbers")
    values = pa.array([fresh] * rows.num_rows, kind).cast(column.type)
    return overwrite(rows, name, np.arange(rows.num_rows), values)


def _next_name(known: list[str]) -> str:
    counted = [re.fullmatch(r"(.*?)(\d{1,9})", name, re.DOTALL) for name in known]
    found = [(int(m[2]), m[1], len(m[2])) for m in counted if m]
    if not found:
        number, stem, width = 1, f"{max(known, default='batch')}-", 1
    else:
        number, stem, width = max(found)
    while (name := f"{stem}{number + 1:0{width}d}") in known:
        number += 1
    return name


def _check_shares(poison: str, **shares: float) -> None:
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise PlanError(f"{poison}.{name} is {value}", expected="a share in [0, 1]")
