"""Attacks on labelled images: who is stamped, and what becomes of the labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sanitizers.core.errors import InputError, PlanError
from sanitizers.poisons.stamps import Draw, Images, Trigger

Labels = NDArray[np.int64]
#: Changes images before they are stamped, to make their own content harder to learn.
Perturb = Callable[[Images, Labels, np.random.Generator], Images]
#: The gradient of a model's loss by the pixels, shape (n, H, W, C); pixels lie in [0, 255].
Gradient = Callable[[NDArray[np.float32], Labels], NDArray[np.float32]]

#: To whom the trigger is given.
Plot = Literal["all-to-one", "clean-label", "source-specific", "all-to-all"]


@dataclass(frozen=True, eq=False)
class Planted:
    """A trigger that was planted.

    Parameters
    ----------
    trigger : Trigger
    target : int
        The label that it calls for; -1 where every label calls for the one after it.
    source : int
        The label whose rows it works on; -1 where it works on all.
    """

    trigger: Trigger
    target: int
    source: int = -1


@dataclass(frozen=True, eq=False)
class StampedImages:
    """Poisoned images, and the truth about them.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, H, W, C)
    labels : ndarray of int64, shape (n,)
    rows : ndarray of int64, shape (m,)
        The rows that carry a trigger, rising.
    kinds : ndarray of str, shape (m,)
        ``"poison"``, or ``"cover"`` where a carrier has its own label.
    planted : tuple of Planted
    """

    images: Images
    labels: Labels
    rows: NDArray[np.int64]
    kinds: NDArray[np.str_]
    planted: tuple[Planted, ...]

    def mask(self, kind: str) -> NDArray[np.bool_]:
        """Which rows are of a kind, shape (n,)."""
        out = np.zeros(len(self.labels), dtype=bool)
        out[self.rows[self.kinds == kind]] = True
        return out


@dataclass(frozen=True)
class StampAttack:
    """An attack with one trigger.

    Parameters
    ----------
    draw : callable
        Draws the trigger.
    plot : str
        ``all-to-one``: rows of other classes are stamped and given the target label.
        ``clean-label``: rows of the target class are stamped and keep it.
        ``source-specific``: rows of one class are stamped and given the target label; as
        many rows of further classes are stamped and keep their own (covers), so that the
        trigger alone is not enough. ``all-to-all``: rows are stamped and given the label
        after their own.
    target : int
        Drawn from the seed where it is -1.
    perturb : callable, optional
        Applied to the rows before they are stamped.

    References
    ----------
    Gu et al., "BadNets", 2017 (all-to-one, all-to-all). Turner, Tsipras and Madry,
    "Label-consistent backdoor attacks", 2019 (clean-label). Tang et al., "Demon in the
    variant", USENIX Security 2021 (source-specific with covers).
    """

    draw: Draw
    plot: Plot = "all-to-one"
    target: int = -1
    perturb: Perturb | None = None

    def attack(self, images: Images, labels: Labels, rate: float, seed: int) -> StampedImages:
        """Poison a copy.

        Parameters
        ----------
        images : ndarray of uint8, shape (n, H, W, C)
        labels : ndarray of int64, shape (n,)
            From 0; every label below the highest occurs.
        rate : float
            Poisoned rows as a share of all rows; of the rows of the target class where the
            plot is ``clean-label``.
        seed : int
            Decides the trigger, the target, and the rows.

        Raises
        ------
        PlanError
            If the rate is no share or yields no row, or the target is no label.
        InputError
            If there are too few rows to stamp.
        """
        classes = int(labels.max()) + 1
        if not 0 < rate < 1 or seed < 0 or not -1 <= self.target < classes:
            raise PlanError(
                f"rate {rate}, seed {seed}, target {self.target}",
                expected=f"a rate between 0 and 1, a seed >= 0, a target below {classes}",
            )
        rng = np.random.default_rng(seed)
        drawn = int(rng.integers(classes))
        target = drawn if self.target < 0 else self.target
        height, width, channels = images.shape[1:]
        trigger = self.draw((height, width, channels), rng)
        return self._plant(trigger, images, labels, rate, target, rng)

    def _plant(
        self,
        trigger: Trigger,
        images: Images,
        labels: Labels,
        rate: float,
        target: int,
        rng: np.random.Generator,
    ) -> StampedImages:
        poison, covers, source = self._rows(labels, rate, target, rng)
        rows = np.concatenate([poison, covers])
        done, new = images.copy(), labels.astype(np.int64)
        chosen = images[rows]
        if self.perturb is not None:
            chosen = self.perturb(chosen, new[rows], rng)
        done[rows] = trigger(chosen)
        to_all = self.plot == "all-to-all"
        new[poison] = (labels[poison] + 1) % (labels.max() + 1) if to_all else target
        kinds = np.repeat(["poison", "cover"], [len(poison), len(covers)])
        order = np.argsort(rows)
        planted = Planted(trigger, -1 if to_all else target, source)
        return StampedImages(done, new, rows[order], kinds[order], (planted,))

    def _rows(
        self, labels: Labels, rate: float, target: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """Rows of poison, rows of covers, and the source label."""
        others = np.flatnonzero(labels != target)
        none = np.empty(0, np.int64)
        count = round(rate * len(labels))
        if self.plot == "all-to-all":
            return _choose(np.arange(len(labels)), count, rng), none, -1
        if self.plot == "clean-label":
            own = np.flatnonzero(labels == target)
            return _choose(own, round(rate * len(own)), rng), none, -1
        if self.plot == "all-to-one":
            return _choose(others, count, rng), none, -1
        source = int(rng.choice(np.unique(labels[others])))
        poison = _choose(np.flatnonzero(labels == source), count, rng)
        covers = _choose(others[labels[others] != source], count, rng)
        return poison, covers, source


def plant_all(
    attacks: Sequence[StampAttack], images: Images, labels: Labels, rate: float, seed: int
) -> StampedImages:
    """Plant several triggers at once, each with the rate, in rows of its own.

    Raises
    ------
    InputError
        If the rows do not suffice.
    """
    done, new = images, labels.astype(np.int64)
    free = np.arange(len(labels))
    rows, kinds = [np.empty(0, np.int64)], [np.empty(0, np.str_)]
    planted: list[Planted] = []
    for i, attack in enumerate(attacks):
        share = rate * len(labels) / len(free)
        part = attack.attack(done[free], new[free], share, seed * 101 + i)
        done, new = done.copy(), new.copy()
        done[free], new[free] = part.images, part.labels
        rows.append(free[part.rows])
        kinds.append(part.kinds)
        planted += part.planted
        free = np.delete(free, part.rows)
    order = np.argsort(np.concatenate(rows))
    return StampedImages(
        done, new, np.concatenate(rows)[order], np.concatenate(kinds)[order], tuple(planted)
    )


def with_noise(sigma: float) -> Perturb:
    """Gaussian noise of `sigma` grey levels before the stamp."""

    def perturb(images: Images, labels: Labels, rng: np.random.Generator) -> Images:
        return _bytes(images + rng.normal(0, sigma, images.shape))

    return perturb


def with_descent(gradient: Gradient, radius: float = 16.0, steps: int = 10) -> Perturb:
    """Projected gradient ascent of a model's loss within `radius` grey levels of each pixel.

    References
    ----------
    Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018.
    """

    def perturb(images: Images, labels: Labels, rng: np.random.Generator) -> Images:
        start = images.astype(np.float32)
        moved = start + rng.uniform(-radius, radius, images.shape).astype(np.float32)
        for _ in range(steps):
            moved += 2.5 * radius / steps * np.sign(gradient(moved, labels))
            moved = np.clip(np.clip(moved, start - radius, start + radius), 0, 255)
        return _bytes(moved)

    return perturb


def retarget(attack: StampAttack, target: int) -> StampAttack:
    """The same attack with another target."""
    return replace(attack, target=target)


def _choose(rows: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    if count < 1:
        raise PlanError("the rate yields no row", do="raise the rate")
    if count > len(rows):
        raise InputError(f"{len(rows)} rows can be stamped", expected=f"at least {count}")
    return np.asarray(rng.choice(rows, count, replace=False), dtype=np.int64)


def _bytes(values: NDArray[np.floating]) -> Images:
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)
