"""What the examinations share: settings, one sample, and what the whole of the rows says."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sanitizers.core.data import Batch, Dataset
from sanitizers.core.errors import PlanError, did_you_mean
from sanitizers.risks.columns import Column, classes, columns
from sanitizers.risks.comparisons import Comparison, comparisons
from sanitizers.risks.contents import Contents, count_contents

#: Groups of rows that look planted, without proof.
PLANTED = "planted"
#: Every risk that is looked for. Of these ``crowding`` is about verdicts, and is looked for
#: when they are known; `PLANTED` is told by sanitizers that meet groups of rows which look
#: planted, without proof.
RISKS = (
    "leakage",
    "suppliers",
    "crowding",
    PLANTED,
    "skewing",
    "shift",
    "conflicts",
    "duplicates",
    "near-duplicates",
    "imbalance",
    "bias",
)


@dataclass(frozen=True)
class RiskSettings:
    """What is looked for, and on how many rows.

    Parameters
    ----------
    use : tuple of str
        Of `RISKS`; none switches the examination off.
    sample : int
        Rows that are looked at, at most, chosen by their salted ids. Repeated rows and
        classes are counted over all rows.
    """

    use: tuple[str, ...] = RISKS
    sample: int = 20_000

    def __post_init__(self) -> None:
        for name in self.use:
            if name not in RISKS:
                raise PlanError(f"no risk is named {name!r}", do=did_you_mean(name, RISKS))
        if self.sample < 1:
            raise PlanError(f"a sample of {self.sample} rows", expected="at least 1")


@dataclass(frozen=True)
class Look:
    """A dataset, and what was read of it so far; everything is read once, when first needed.

    Parameters
    ----------
    data : Dataset
    settings : RiskSettings
    reference : Dataset or None
        Rows to compare with, such as the clean rows of the last release.
    """

    data: Dataset
    settings: RiskSettings
    reference: Dataset | None = None

    @cached_property
    def sample(self) -> Batch:
        """Some rows, chosen and ordered by their salted ids."""
        return self.data.sample(self.settings.sample, "risks")

    @cached_property
    def features(self) -> list[Column]:
        """The features of the sample."""
        return columns(self.sample.table, self.data.roles.features)

    @cached_property
    def contents(self) -> Contents:
        """What all rows hold: how often each content comes, and each class."""
        return count_contents(self.data)

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Times, sources and new rows, each held against the others."""
        return comparisons(self.data, self.sample, self.reference)

    def first(self, rows: int) -> Batch:
        """The first rows of the sample, which are a sample too."""
        return self.sample.take(np.arange(min(rows, len(self.sample))))

    def classes(self, batch: Batch, least: int) -> Column | None:
        """The labels of a batch; None without a label or with less than two classes."""
        return classes(batch, least) if self.data.roles.label else None
