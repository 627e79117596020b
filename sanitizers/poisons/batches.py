"""Poison that arrives together: floods of near-copies, and batches that skew a model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sanitizers.core.data import Roles
from sanitizers.core.errors import InputError, PlanError
from sanitizers.poisons.classes import attacker_scores, classes_of, margins
from sanitizers.poisons.poison import Act, Poisoned, Scene, added, overwrite, start
from sanitizers.poisons.spans import check_shares, near_copies, span_of


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
        Standard deviation of numbers around the original, in those of the column.
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
    spread: float = 0.02
    span: float = 0.15

    def __post_init__(self) -> None:
        if self.originals < 1:
            raise PlanError(f"{self.name}.originals is {self.originals}", expected="at least 1")
        check_shares(self.name, spread=self.spread, span=self.span)

    def poison(self, table: pa.Table, roles: Roles, rate: float, seed: int) -> Poisoned:
        scene = start(self, table, roles, rate, seed)
        span = span_of(scene, max(1, round(self.span * scene.rows)))
        hosts = scene.rng.choice(span, scene.count)
        few = scene.rng.choice(scene.rows, min(self.originals, scene.rows), replace=False)
        originals = scene.rng.choice(few, scene.count)
        rows = near_copies(scene, originals, self.spread)
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
        Standard deviation of numbers around the row that is copied, in those of the column.

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

    spread: float = 0.02

    def __post_init__(self) -> None:
        check_shares(self.name, spread=self.spread)

    def poison(self, table: pa.Table, roles: Roles, rate: float, seed: int) -> Poisoned:
        scene = start(self, table, roles, rate, seed)
        classes = classes_of(scene)
        margin, best = margins(attacker_scores(scene, classes, "linear"), classes.codes)
        right = np.flatnonzero((margin > 0) & (classes.codes >= 0))
        if not len(right):
            raise InputError("a model gets no row right", expected="labels that can be learned")
        nearest = right[np.argsort(margin[right], kind="stable")[:20]]
        row = int(scene.rng.choice(nearest))
        rows = near_copies(scene, np.full(scene.count, row), self.spread)
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
