"""The promise of a policy, ``clean_loss``, and what was measured of it on clean real tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor

from sanitizers.core.consensus import CONSENSUS
from sanitizers.core.lines import Threshold
from sanitizers.core.policy import EXACT, SHARES, WORST, Policy


@dataclass(frozen=True)
class Measured:
    """What the default policy quarantines of clean real tables.

    Parameters
    ----------
    mean, worst : float
        The share of the rows: the mean over the tables, and the worst table.
    tables : int
    sanitizers : tuple of str
        Those that took part.
    trusted : bool
        Whether some rows were vouched for.
    command : str
        What measures it.
    """

    mean: float
    worst: float
    tables: int
    sanitizers: tuple[str, ...]
    trusted: bool
    command: str


#: On the report half of the tables, of which no default was chosen. `tests/test_promise.py`
#: holds these figures against ``benchmarks/results``, and says what to write here.
MEASURED = (
    Measured(
        mean=0.0008,
        worst=0.0047,
        tables=8,
        sanitizers=("outliers", "labels"),
        trusted=False,
        command="python -m benchmarks.clean",
    ),
    Measured(
        mean=0.0022,
        worst=0.0138,
        tables=8,
        sanitizers=("outliers", "labels"),
        trusted=True,
        command="python -m benchmarks.trusted",
    ),
)


@dataclass(frozen=True)
class Promise:
    """What was promised of the clean rows of a run, and what stands beside it.

    Parameters
    ----------
    clean_loss : float
        The share of clean rows that may be lost, over all sanitizers together.
    most : int
        As many rows of this dataset, if all of them are clean.
    shares : mapping of str to float
        The share of clean rows that each sanitizer may take; those with lines set in the
        plan, and those that count instead of measuring, are left out.
    measured : tuple of Measured
        What was measured, the one with the same trust as this run first. Empty where no
        measurement is of a policy like this one.
    expected : int or None
        As many rows of this dataset, by the first of them.
    note : str
        Why there is no measurement, or what it leaves out; empty where it fits.
    """

    clean_loss: float
    most: int
    shares: Mapping[str, float]
    measured: tuple[Measured, ...]
    expected: int | None
    note: str


def promise(
    policy: Policy,
    thresholds: Sequence[Threshold],
    *,
    rows: int,
    trusted: bool,
    settings: Collection[str] = (),
    vectors: bool = False,
) -> Promise:
    """Say what a policy promises, and what was measured of a policy like it.

    Parameters
    ----------
    policy : Policy
    thresholds : sequence of Threshold
        The lines of the sanitizers that ran.
    rows : int
        Of the dataset.
    trusted : bool
        Whether any rows are vouched for.
    settings : collection of str
        Sanitizers with settings that differ from the default.
    vectors : bool
        Whether there is an embedding among the features.
    """
    names = [t.sanitizer for t in thresholds]
    shares = dict(_shares(policy, thresholds))
    most = floor(policy.clean_loss * rows + 1e-9)
    note = next(_differences(policy, names, settings, vectors), "")
    if note:
        return Promise(policy.clean_loss, most, shares, (), None, note)
    measured = tuple(sorted(MEASURED, key=lambda m: m.trusted != trusted))
    first = measured[0]
    lined = [n for n in names if n not in EXACT]
    if not lined:
        note = f"no line of {_listed(names)} comes from a measurement of clean rows"
        return Promise(policy.clean_loss, most, shares, (), None, note)
    beyond = [n for n in lined if n not in first.sanitizers]
    if len(beyond) == len(lined):
        note = f"no clean tables were measured with {_listed(beyond)}"
        return Promise(policy.clean_loss, most, shares, (), None, note)
    note = f"measured without {_listed(beyond)}, which ran here too" if beyond else ""
    return Promise(policy.clean_loss, most, shares, measured, round(first.mean * rows), note)


def _shares(policy: Policy, thresholds: Sequence[Threshold]) -> Iterator[tuple[str, float]]:
    """What each sanitizer may take; the sum, where it judges, what those may that it sums."""
    summed = 0.0
    for line in thresholds:
        name = line.sanitizer
        if name in policy.rules or name in EXACT or name == CONSENSUS:
            continue
        share = round(SHARES.get(name, 0.1) * policy.clean_loss, 12)
        if line.quarantine_line:
            yield name, share
        elif not line.review_line:
            summed += share
    if CONSENSUS in {t.sanitizer for t in thresholds} - set(policy.rules):
        yield CONSENSUS, round(summed, 12)


def _differences(
    policy: Policy, names: Sequence[str], settings: Collection[str], vectors: bool
) -> Iterator[str]:
    """In what a policy or the data are others than those that were measured."""
    usual = Policy()
    if policy.clean_loss != usual.clean_loss:
        yield (
            f"the measurement is of a clean_loss of {100 * usual.clean_loss:g} %, "
            f"and this one is {100 * policy.clean_loss:g} %"
        )
    lines = [name for name in names if name in policy.rules]
    if lines:
        yield f"the plan sets lines of {_listed(lines)}"
    if policy.consensus != WORST:
        yield "sanitizers are judged by their sum, and the measurement is of each by itself"
    changed = [name for name in names if name in settings]
    if changed:
        yield f"the plan has settings of {_listed(changed)}"
    if vectors:
        yield "the measurement is of tables, and here sanitizers judge by an embedding"
    if not names:
        yield "no sanitizer ran"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
