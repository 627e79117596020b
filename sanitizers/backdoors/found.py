"""What an audit says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sanitizers.backdoors.arrays import Images, Rows
from sanitizers.backdoors.overlay import Overlay
from sanitizers.backdoors.stamp import Filter, Mark, Stamp
from sanitizers.backdoors.unstamped import DOUBTFUL, Unstamped


@dataclass(frozen=True, eq=False)
class Trigger:
    """A stamp that was confirmed.

    Parameters
    ----------
    target : int
        The label that it calls for; -1 where it calls for the label after a row's own.
    stamp : Stamp
        What it does to a picture.
    filter : Filter
    mark : Mark, Overlay or None
        Exact pixels, or a patch that shows its ground; where there is such, it decides who is
        a carrier, else the filter.
    rows : ndarray of int64
        Carriers with the target label: the poison.
    covers : ndarray of int64
        Carriers with other labels: their labels are consistent, they do no harm.
    flips_before, flips_after : float
        Share of innocent pictures that the stamp turns to the target, in the label where it
        turns most: under the audit net, and under one that has not seen the carriers.
    mean_before, mean_after : float
        The mean over the labels.
    source : int
        The label where it turns most.
    tried : int
        How many innocent pictures of other labels were stamped.
    """

    target: int
    stamp: Stamp
    filter: Filter
    mark: Mark | Overlay | None
    rows: Rows
    covers: Rows
    flips_before: float
    flips_after: float
    mean_before: float
    mean_after: float
    source: int
    tried: int = 0

    def strength(self, images: Images) -> NDArray[np.float64]:
        """How much of the trigger is in pictures, shape (n,): a carrier from 1 on.

        Looks at the pictures alone, each by itself.
        """
        if self.mark is not None:
            return self.mark.strength(images)
        return self.filter.strength(images)


@dataclass(frozen=True, eq=False)
class Suspicion:
    """Rows that look planted.

    Parameters
    ----------
    label : int
    rows : ndarray of int64
    why : str
        One sentence.
    refuted : bool
        Whether a stamp was tried, and its effect had other causes: it is natural, most likely.
    proven : bool
        Whether it is proven, and its rows carry a trigger that cannot be stamped.
    """

    label: int
    rows: Rows
    why: str
    refuted: bool = False
    proven: bool = False


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found.

    Parameters
    ----------
    triggers : tuple of Trigger
        Confirmed.
    suspicions : tuple of Suspicion
        Groups that were not confirmed; no row leaves for them.
    scores : ndarray of float64, shape (n,)
        The strength of the strongest confirmed trigger whose target the row has; 0 without.
        Poison from 1 on.
    unstamped : tuple of Unstamped
        Confirmed triggers that are another change in each picture.
    """

    triggers: tuple[Trigger, ...]
    suspicions: tuple[Suspicion, ...]
    scores: NDArray[np.float64]
    unstamped: tuple[Unstamped, ...] = ()

    @property
    def poison(self) -> Rows:
        """The rows that carry a confirmed trigger with its target label."""
        return np.flatnonzero(self.scores >= 1)

    @property
    def doubtful(self) -> Rows:
        """The rows that are nearly carriers: for people to look at."""
        return np.flatnonzero((self.scores >= DOUBTFUL) & (self.scores < 1))
