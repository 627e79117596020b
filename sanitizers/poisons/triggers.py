"""Rows with a trigger, that teach a model to give it a label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sanitizers.core.data import Roles
from sanitizers.core.design import fit_design
from sanitizers.core.errors import InputError
from sanitizers.core.numbers import strings
from sanitizers.poisons.classes import classes_of, target_code
from sanitizers.poisons.poison import Act, Poisoned, Scene, added, overwrite, start

#: Pairs of values that are drawn; the one that is rarest in the clean rows is taken.
_PAIRS = 50


@dataclass(frozen=True)
class Trigger:
    """Copies of rows of other classes, with two features set to a trigger, and a target label.

    Threat: a backdoor. The model decides all else as before, and any row with the trigger
    as the attacker wants.

    Knows: the features and labels of the rows that it copies.

    Parameters
    ----------
    target : str
        The label; drawn where it is empty.

    Notes
    -----
    The trigger is one value each of two features, drawn among those that occur, so that
    each is common enough and the pair is the rarest of fifty drawn. Copies lie behind rows
    drawn, and have the other columns of the rows that they are copies of.

    References
    ----------
    Gu, Dolan-Gavitt and Garg, "BadNets: identifying vulnerabilities in the machine learning
    model supply chain", 2017. We differ in the kind of data.
    """

    name: ClassVar[str] = "trigger"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "label"})
    act: ClassVar[Act] = "add"

    target: str = ""

    def poison(self, table: pa.Table, roles: Roles, rate: float, seed: int) -> Poisoned:
        scene = start(self, table, roles, rate, seed)
        classes = classes_of(scene)
        to = target_code(self.name, self.target, classes, scene.rng)
        able = np.flatnonzero((classes.codes >= 0) & (classes.codes != to))
        hosts = scene.rng.choice(able, scene.count, replace=scene.count > len(able))
        rows = scene.table.take(pa.array(hosts))
        everywhere = np.arange(scene.count)
        for name, donor in _trigger(scene).items():
            values = scene.table.column(name).take(pa.array([donor] * scene.count))
            rows = overwrite(rows, name, everywhere, values)
        labels = classes.values(np.full(scene.count, to))
        rows = overwrite(rows, str(roles.label), everywhere, labels)
        return added(scene, self.name, rows, scene.rng.integers(0, scene.rows, scene.count))


def _trigger(scene: Scene) -> dict[str, int]:
    """Two columns, and for each a row that has the value of the trigger."""
    names = fit_design(scene.table, scene.roles.features).names
    if len(names) < 2:
        raise InputError(
            f"{len(names)} feature(s) have two values or more", expected="two, for the trigger"
        )
    values = {name: _codes(scene.table.column(name)) for name in names}
    drawn: list[tuple[int, dict[str, int]]] = []
    while len(drawn) < _PAIRS and not (drawn and drawn[-1][0] == 0):
        one, two = scene.rng.choice(names, 2, replace=False).tolist()
        a = int(scene.rng.choice(np.flatnonzero(values[one] >= 0)))
        b = int(scene.rng.choice(np.flatnonzero(values[two] >= 0)))
        rows = (values[one] == values[one][a]) & (values[two] == values[two][b])
        drawn.append((int(rows.sum()), {one: a, two: b}))
    return min(drawn, key=lambda pair: pair[0])[1]


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Equal values have equal codes; -1 where missing."""
    codes = pc.dictionary_encode(strings(column)).combine_chunks().indices
    return np.asarray(pc.fill_null(codes, -1).to_numpy(zero_copy_only=False), dtype=np.int64)
