"""What a sanitizer is: a frozen recipe whose ``fit`` returns a scorer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sanitizers.core.calibration import Null
from sanitizers.core.data import Batch, Dataset
from sanitizers.core.keepsake import Keepsake


@runtime_checkable
class Scorer(Protocol):
    """What fitting gives. Scores rows by looking at the batch in hand only."""

    @property
    def null(self) -> Null | None:
        """The scores to expect of clean rows, or None where that is unknown."""
        ...

    def score(self, batch: Batch) -> NDArray[np.float64]:
        """Score every row: higher is worse, NaN abstains; shape (n,), never infinite."""
        ...

    def hint(self, batch: Batch) -> Sequence[str | None]:
        """For every row a few characters that make its reason concrete, from a small set.

        For instance the class that models would have given. Length n.
        """
        ...


@runtime_checkable
class Telling(Protocol):
    """A scorer to which scores and hints are one piece of work."""

    def score_and_hint(self, batch: Batch) -> tuple[NDArray[np.float64], Sequence[str | None]]:
        """What `Scorer.score` and `Scorer.hint` give, for the cost of one of them."""
        ...


@dataclass(frozen=True)
class Influence:
    """What the finds of a sanitizer do to what is learned.

    Parameters
    ----------
    moved : float
        How far predictions move when the finds are let in, in robust deviations.
    tail : float
        The score up to which finds look like the data's own tail; infinite where all do.
    """

    moved: float
    tail: float = 0.0


@runtime_checkable
class Influential(Protocol):
    """A scorer that knows how much harm its finds would do."""

    @property
    def influence(self) -> Influence: ...


@runtime_checkable
class Keeping(Protocol):
    """A scorer that leaves something behind: for later fits to apply, or for people to see."""

    @property
    def keepsakes(self) -> Sequence[Keepsake]:
        """What it leaves, decided by the rows that it was fitted on."""
        ...


@runtime_checkable
class Witness(Protocol):
    """What stands behind evidence: it has a name, and can say what a score means."""

    #: The name in plans, evidence and reports.
    name: ClassVar[str]
    #: The roles without which it cannot run.
    needs: ClassVar[frozenset[str]]

    def reason(self, score: float, hint: str | None) -> str:
        """Say in one sentence what a score means for a row."""
        ...


@runtime_checkable
class Sanitizer(Witness, Protocol):
    """A frozen recipe: its settings, and ``fit``. It never thresholds and never deletes."""

    def fit(self, data: Dataset) -> Scorer:
        """Learn from the whole dataset what is needed to score its rows one batch at a time."""
        ...


@runtime_checkable
class Recalling(Sanitizer, Protocol):
    """A sanitizer that applies what earlier fits have left, before it looks for more.

    A frozen dataclass; `search` is one of its settings.
    """

    @property
    def search(self) -> bool:
        """Whether it looks for more. Without, it may need fewer packages."""
        ...

    def fit_knowing(self, data: Dataset, known: Sequence[Keepsake]) -> Scorer:
        """Fit as `fit` does; its scorer finds again what is known, also in a single row.

        Raises
        ------
        IntegrityError
            If a keepsake is not what this sanitizer would leave.
        """
        ...
