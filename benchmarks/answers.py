"""What a contender says of the rows of a table, and how that compares with the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

#: What would be removed from the data, or what is poison, shape (n,).
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Answer:
    """What a contender says of every row.

    Parameters
    ----------
    flags : ndarray of bool, shape (n,)
        What it would remove.
    scores : ndarray of float64, shape (n,)
        The order in which it would remove rows if it had to remove more, or fewer: the
        highest first. NaN goes last.
    parts : mapping of str to ndarray of bool
        What each sanitizer would remove, for ours.
    """

    flags: Flags
    scores: NDArray[np.float64]
    parts: Mapping[str, Flags] = field(default_factory=dict)

    def save(self, file: Path) -> None:
        """Write it as ``.npz``."""
        with file.open("wb") as out:
            np.savez(out, allow_pickle=False, flags=self.flags, scores=self.scores, **self.parts)

    @classmethod
    def load(cls, file: Path) -> Answer:
        """Read what `save` wrote."""
        with np.load(file, allow_pickle=False) as arrays:
            found = dict(arrays)
        return cls(found.pop("flags"), found.pop("scores"), found)

    def recall(self, truth: Flags) -> float:
        """The share of the poisoned rows that it would remove."""
        return float(self.flags[truth].mean())

    def lost(self, truth: Flags) -> int:
        """How many clean rows it would remove."""
        return int(self.flags[~truth].sum())


@dataclass(frozen=True)
class Cost:
    """What an answer took, importing left out.

    Parameters
    ----------
    seconds : float
    cpu_seconds : float
        Of all processors, with the processes that it started.
    peak_mb : float
        Peak resident memory of its process.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Outcome:
    """What a contender did on one poisoned table.

    Parameters
    ----------
    recall : float
        The share of the poisoned rows that it would remove.
    lost : float
        The share of the clean rows that it would remove.
    at_our_loss : float or None
        Its recall if it removed rows in the order of its scores, until it had lost as many
        clean rows as our default did. None where our default did not run.
    ours_at_its_loss : float or None
        The recall of our default in the order of its scores, at as many clean rows lost as
        the contender lost.
    parts : dict of str to tuple
        Recall and clean rows lost of each sanitizer, for ours.
    cost : Cost
    """

    recall: float
    lost: float
    at_our_loss: float | None
    ours_at_its_loss: float | None
    parts: dict[str, tuple[float, float]]
    cost: Cost


def compare(answer: Answer, truth: Flags, default: Answer | None, cost: Cost) -> Outcome:
    """Compare what a contender says with the truth, and with what our default says.

    Parameters
    ----------
    answer : Answer
    truth : ndarray of bool, shape (n,)
    default : Answer or None
        Of our default, on the same rows. Its own recall is what it removes, no ranking.
    cost : Cost
    """
    at_our_loss = ours_at_its_loss = None
    if default is answer:
        at_our_loss = ours_at_its_loss = answer.recall(truth)
    elif default is not None:
        at_our_loss = recall_at(answer.scores, truth, default.lost(truth))
        ours_at_its_loss = recall_at(default.scores, truth, answer.lost(truth))
    parts = {
        name: (float(flags[truth].mean()), float(flags[~truth].mean()))
        for name, flags in answer.parts.items()
    }
    return Outcome(
        recall=answer.recall(truth),
        lost=float(answer.flags[~truth].mean()),
        at_our_loss=at_our_loss,
        ours_at_its_loss=ours_at_its_loss,
        parts=parts,
        cost=cost,
    )


def recall_at(scores: NDArray[np.float64], truth: Flags, lost: int) -> float:
    """The share of the poisoned rows above the clean row that may not be lost any more.

    Rows are removed from the highest score down, until one more would be one clean row too
    many. Rows of equal score come in any order: the value is the mean over all orders,
    which favours nobody.

    Parameters
    ----------
    scores : ndarray of float64, shape (n,)
        NaN goes last.
    truth : ndarray of bool, shape (n,)
    lost : int
        Clean rows that may be lost.
    """
    ranked = np.where(np.isnan(scores), -np.inf, scores)
    poison, clean = ranked[truth], np.sort(ranked[~truth])[::-1]
    if lost >= len(clean):
        return 1.0
    edge = clean[lost]
    left, tied = lost - int((clean > edge).sum()), int((clean == edge).sum())
    # Clean rows that are alike cut the poisoned ones among them into `tied + 1` parts, of
    # the same size on the mean; those before clean row `left + 1` are removed.
    of_the_tie = int((poison == edge).sum()) * (left + 1) / (tied + 1)
    return (int((poison > edge).sum()) + of_the_tie) / len(poison)
