"""Findings about columns, classes, batches and sources, not about rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from sanitizers.core.data import Dataset
from sanitizers.risks.balance import bias, imbalance
from sanitizers.risks.crowd_findings import CROWDING
from sanitizers.risks.duplicates import conflicts, duplicates, near_duplicates
from sanitizers.risks.finding import ALARM, NOTE, SEVERITIES, WARNING, Finding, in_order
from sanitizers.risks.leakage import leaks
from sanitizers.risks.look import PLANTED, RISKS, Look, RiskSettings
from sanitizers.risks.shift import shifts
from sanitizers.risks.skewing import crowds
from sanitizers.risks.suppliers import bad_sources

__all__ = [
    "ALARM",
    "CROWDING",
    "NOTE",
    "PLANTED",
    "RISKS",
    "SEVERITIES",
    "WARNING",
    "Finding",
    "RiskSettings",
    "examine_risks",
    "in_order",
]

_EXAMINATIONS: Mapping[str, Callable[[Look], Iterator[Finding]]] = {
    "leakage": leaks,
    "suppliers": bad_sources,
    "skewing": crowds,
    "shift": shifts,
    "conflicts": conflicts,
    "duplicates": duplicates,
    "near-duplicates": near_duplicates,
    "imbalance": imbalance,
    "bias": bias,
}


def examine_risks(
    data: Dataset, settings: RiskSettings | None = None, reference: Dataset | None = None
) -> tuple[Finding, ...]:
    """Look for risks of columns and batches.

    The result depends on the set of rows and the salt only: not on the order of the rows,
    not on the sharding. Memory is set by the sample, but for 24 bytes a row up to four
    million rows in the search for equal rows.

    Parameters
    ----------
    data : Dataset
    settings : RiskSettings, optional
    reference : Dataset, optional
        Rows to compare the new ones with, such as the clean rows of the last release.

    Returns
    -------
    tuple of Finding
        The gravest first.
    """
    settings = settings or RiskSettings()
    if not data.rows:
        return ()
    look = Look(data, settings, reference)
    use = [name for name in _EXAMINATIONS if name in settings.use]
    found = [f for name in use for f in _EXAMINATIONS[name](look)]
    return in_order(found, RISKS)
