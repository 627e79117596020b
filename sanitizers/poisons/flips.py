"""Labels that are changed, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sanitizers.core.data import Roles
from sanitizers.core.design import fit_design
from sanitizers.core.errors import InputError
from sanitizers.poisons.classes import (
    Classes,
    attacker_scores,
    checked_model,
    classes_of,
    flip,
    labelled,
    margins,
)
from sanitizers.poisons.poison import Act, Poisoned, Scene, start


def draw_flips(
    codes: NDArray[np.int64], classes: int, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw rows, and for each a class that it does not have.

    Parameters
    ----------
    codes : ndarray of int64, shape (n,)
        The class of each row, from 0; -1 where it has none.
    classes, count : int
    rng : numpy.random.Generator
        Draws the rows first, without repetition, then the steps to the other classes.

    Returns
    -------
    rows, to : ndarray of int64, shape (count,)
    """
    rows = rng.choice(np.flatnonzero(codes >= 0), size=count, replace=False)
    return rows, (codes[rows] + rng.integers(1, classes, size=count)) % classes


@dataclass(frozen=True)
class FlipRandom:
    """Random rows get the label of another class, drawn evenly.

    Threat: careless or paid annotators; an attacker who can change labels, not features.

    Knows: the classes.

    References
    ----------
    Frénay and Verleysen, "Classification in the presence of label noise: a survey", IEEE
    TNNLS 2014 (noise completely at random).
    """

    name: ClassVar[str] = "flip-random"
    needs: ClassVar[frozenset[str]] = frozenset({"label"})
    act: ClassVar[Act] = "flip"

    def poison(self, table: pa.Table, roles: Roles, rate: float, seed: int) -> Poisoned:
        scene = start(self, table, roles, rate, seed)
        classes = classes_of(scene)
        labelled(scene, classes, classes.codes >= 0)
        rows, to = draw_flips(classes.codes, len(classes.names), scene.count, scene.rng)
        return flip(scene, self.name, classes, rows, to)


@dataclass(frozen=True)
class FlipPair:
    """Random rows of each class get the label of the next class.

    Threat: classes that annotators mix up; an attacker who wants one class taken for another.

    Knows: the classes. Numbers follow by value, names by the alphabet, the first class
    follows the last.

    References
    ----------
    Han et al., "Co-teaching: robust training of deep neural networks with extremely noisy
    labels", NeurIPS 2018 (pair flipping).
    """

    name: ClassVar[str] = "flip-pair"
    needs: ClassVar[frozenset[str]] = frozenset({"label"})
    act: ClassVar[Act] = "flip"

    def poison(self, table: pa.Table, roles: Roles, rate: float, seed: int) -> Poisoned:
        scene = start(self, table, roles, rate, seed)
        classes = classes_of(scene)
        able = labelled(scene, classes, classes.codes >= 0)
        rows = scene.rng.choice(able, scene.count, replace=False)
        to = (classes.codes[rows] + 1) % len(classes.names)
        return flip(scene, self.name, classes, rows, to)


@dataclass(frozen=True)
class FlipTarget:
    """Random rows of one class get the label of another; which two, the seed says.

    Threat: an attacker who wants rows of one class taken for another, and nothing else to
    change: fraud that passes for honest, a stop sign for a speed limit.

    Knows: the classes, and their numbers of rows: where a class has twice as many as are to be
    flipped, one of these is attacked.

    References
    ----------
    Tolpegin, Truex, Gursoy and Liu, "Data poisoning attacks against federated learning
    systems", ESORICS 2020 (targeted label flipping).
    """

    name: ClassVar[str] = "flip-target"
    needs: ClassVar[frozenset[str]] = frozenset({"label"})
    act: ClassVar[Act] = "flip"

    def poison(self, table: pa.Table, roles: Roles, rate: float, seed: int) -> Poisoned:
        scene = start(self, table, roles, rate, seed)
        classes = classes_of(scene)
        sizes = np.bincount(classes.codes[classes.codes >= 0], minlength=len(classes.names))
        large = np.flatnonzero(sizes >= min(2 * scene.count, int(sizes.max())))
        source = int(scene.rng.choice(large))
        step = int(scene.rng.integers(1, len(classes.names)))
        able = labelled(scene, classes, classes.codes == source)
        rows = scene.rng.choice(able, scene.count, replace=False)
        to = np.full(scene.count, (source + step) % len(classes.names))
        return flip(scene, self.name, classes, rows, to)


@dataclass(frozen=True)
class FlipNear:
    """The rows nearest to the decision boundary get the label of the class beyond it.

    Threat: flips that no one would call wrong at a glance; they move the boundary little.

    Knows: the features and labels of four fifths of the rows, drawn.

    Parameters
    ----------
    model : str
        ``"linear"``, a logistic regression, or ``"trees"``, extremely randomised trees.

    References
    ----------
    Biggio, Nelson and Laskov, "Support vector machines under adversarial label noise", ACML
    2011. We differ in the model, and in choosing among the rows that it gets right first.
    """

    name: ClassVar[str] = "flip-near"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "label"})
    act: ClassVar[Act] = "flip"

    model: str = "linear"

    def __post_init__(self) -> None:
        checked_model(self.name, self.model)

    def poison(self, table: pa.Table, roles: Roles, rate: float, seed: int) -> Poisoned:
        scene = start(self, table, roles, rate, seed)
        classes = classes_of(scene)
        able = labelled(scene, classes, classes.codes >= 0)
        margin, best = margins(attacker_scores(scene, classes, self.model), classes.codes)
        order = np.lexsort([np.abs(margin[able]), margin[able] < 0])
        rows = able[order[: scene.count]]
        return flip(scene, self.name, classes, rows, best[rows])


@dataclass(frozen=True)
class FlipFar:
    """The rows that a model is surest of get the label that it finds least likely.

    Threat: the flips that hurt a model most for their number. They agree with one another,
    so that without trusted rows the poisoned data bear them out.

    Knows: the features and labels of four fifths of the rows, drawn.

    Parameters
    ----------
    model : str
        ``"linear"``, a logistic regression, or ``"trees"``, extremely randomised trees.

    References
    ----------
    Xiao, Xiao and Eckert, "Adversarial label flips attack on support vector machines", ECAI
    2012 (farthest first). We differ in the model, and in having several classes.
    """

    name: ClassVar[str] = "flip-far"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "label"})
    act: ClassVar[Act] = "flip"

    model: str = "linear"

    def __post_init__(self) -> None:
        checked_model(self.name, self.model)

    def poison(self, table: pa.Table, roles: Roles, rate: float, seed: int) -> Poisoned:
        scene = start(self, table, roles, rate, seed)
        classes = classes_of(scene)
        able = labelled(scene, classes, classes.codes >= 0)
        scores = attacker_scores(scene, classes, self.model)
        margin, _ = margins(scores, classes.codes)
        # Trees are equally sure of many rows; among equals the seed decides.
        tie = scene.rng.random(len(able))
        rows = able[np.lexsort([tie, -margin[able]])[: scene.count]]
        unlike = np.where(np.isfinite(scores), scores, np.inf)
        unlike[np.arange(scene.rows), classes.codes] = np.inf
        return flip(scene, self.name, classes, rows, unlike[rows].argmin(axis=1))


@dataclass(frozen=True)
class FlipCluster:
    """One cluster of the features gets the label of one other class.

    Threat: a group of cases that shall be decided otherwise: a region, a product, a
    customer. Neighbours agree with one another, so models of the data learn it.

    Knows: the features and labels of all rows.

    Notes
    -----
    The cluster are the rows nearest to a row that is drawn, in the observed ranges of the
    features; those of them that do not have the new label already get it. The new label is
    drawn among those that are not the most frequent there: else hardly anything would be
    decided otherwise.

    References
    ----------
    Jagielski et al., "Subpopulation data poisoning attacks", CCS 2021. We differ in changing
    labels of rows that are there, and adding none.
    """

    name: ClassVar[str] = "flip-cluster"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "label"})
    act: ClassVar[Act] = "flip"

    def poison(self, table: pa.Table, roles: Roles, rate: float, seed: int) -> Poisoned:
        scene = start(self, table, roles, rate, seed)
        classes = classes_of(scene)
        known = labelled(scene, classes, classes.codes >= 0)
        matrix = fit_design(scene.table, roles.features).encode(scene.table)
        centre = matrix[int(scene.rng.choice(known))]
        distance = ((matrix - centre) ** 2).sum(axis=1)
        near = known[np.argsort(distance[known], kind="stable")[: scene.count]]
        to = self._other(scene, classes, classes.codes[near])
        able = known[classes.codes[known] != to]
        rows = able[np.argsort(distance[able], kind="stable")[: scene.count]]
        return flip(scene, self.name, classes, rows, np.full(len(rows), to))

    def _other(self, scene: Scene, classes: Classes, there: NDArray[np.int64]) -> int:
        """A class that is not the most frequent of the cluster, and that enough rows lack."""
        counts = np.bincount(classes.codes[classes.codes >= 0], minlength=len(classes.names))
        room = counts.sum() - counts >= scene.count
        room[int(np.bincount(there).argmax())] = False
        if not room.any():
            raise InputError(
                f"{scene.count:,} rows are to get one label, and too few have another one",
                do="choose a lower rate",
            )
        return int(scene.rng.choice(np.flatnonzero(room)))
