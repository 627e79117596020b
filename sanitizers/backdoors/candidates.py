"""From proposals to a few stamps that are worth a second training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sanitizers.backdoors.arrays import Mask, Proposal, Rows, View
from sanitizers.backdoors.extract import extract_stamps, find_mark
from sanitizers.backdoors.grow import Grown, grow
from sanitizers.backdoors.neighbours import diversity
from sanitizers.backdoors.overlay import Overlay, find_overlay
from sanitizers.backdoors.screen import Flips, Probe, flips
from sanitizers.backdoors.stamp import Filter, Mark, Stamp
from sanitizers.core.kernels import robust_scale
from sanitizers.core.threads import in_threads
from sanitizers.encoders.net import Net

#: Least shares of the probe that a stamp must flip: in the mean over the labels, in one
#: label, and to any answer. Compact patches; clear splits; stamps made twice as strong; others.
PATCH, CLEAR, TWICE, OTHER = (
    (0.08, 0.40, 0.20),
    (0.12, 0.60, 0.30),
    (0.50, 1.01, 1.01),
    (0.25, 0.75, 0.50),
)
#: A patch that covers at most this share of the picture is compact.
COMPACT = 0.05
#: Separation from which on a split is clear.
CLEAR_SPLIT = 6.0
#: Candidates that are grown, at most.
TRIES = 12
#: Rows between carriers and others, per carrier, up to which a filter parts the two.
VOID = 0.12
#: The least diversity of a proposal, and of grown carriers without a mark.
DIVERSITY = 0.6
#: Rows of other labels, per number of their planes, from which on a filter alone tells carriers:
#: of fewer rows the covariance is not known, and any trait of nature stands out of it.
ROWS_PER_PLANE = 2
#: The deviation of the carriers' projections, as a share of their median, at most. A stamp adds
#: the same to every picture (.004 to .06 was measured), a trait of nature differs (.17 to .4).
TIGHT = 0.15
#: The fewest carriers.
CARRIERS_LEAST = 10


@dataclass(frozen=True, eq=False)
class Screened:
    """A proposal, its strongest stamp, and what that does.

    Parameters
    ----------
    proposal : Proposal
    stamp : Stamp
    flips : Flips
    bar : tuple of float
        What the flips had to reach: mean, most, any.
    """

    proposal: Proposal
    stamp: Stamp
    flips: Flips
    bar: tuple[float, float, float]

    @property
    def passed(self) -> bool:
        """Whether the stamp flips enough."""
        f, bar = self.flips, self.bar
        return f.mean >= bar[0] or f.most >= bar[1] or f.any >= bar[2]

    @property
    def rank(self) -> float:
        """The order in which candidates are grown."""
        compact = self.stamp.kind == "patch" and self.stamp.covered <= COMPACT
        clear = self.proposal.separation >= CLEAR_SPLIT
        strength = max(min(self.flips.mean, 1.0), self.flips.any, 0.9 * self.flips.most)
        return strength + 0.15 * compact + 0.15 * clear


@dataclass(frozen=True, eq=False)
class Candidate:
    """A stamp, and all rows that carry it.

    Parameters
    ----------
    label : int
        The target; -1 where the stamp calls for the label after a row's own.
    stamp : Stamp
    flips : Flips
        Before any row was left out.
    bar : tuple of float
    filter : Filter
    mark : Mark, Overlay or None
        The exact pixels, or a patch that shows its ground, where there is such.
    rows : ndarray of int64
        Carriers with the target label (any label, where it is -1).
    others : ndarray of int64
        Carriers with other labels.
    generous : ndarray of int64
        Rows to leave out of the second training.
    void : float
        Rows between carriers and others, per carrier.
    """

    label: int
    stamp: Stamp
    flips: Flips
    bar: tuple[float, float, float]
    filter: Filter
    mark: Mark | Overlay | None
    rows: Rows
    others: Rows
    generous: Rows
    void: float


def screen(
    seen: View, net: Net, probe: Probe, proposals: Sequence[Proposal], looks: Rows, seed: int
) -> list[Screened]:
    """Extract the stamp of every proposal, and try it on innocent pictures; the best first.

    Proposals that are less varied than random rows are passed over: their mean is a picture,
    not a trigger.
    """

    def best(proposal: Proposal) -> Screened | None:
        if len(proposal.rows) < CARRIERS_LEAST:
            return None
        exact = proposal.origin == "window" and proposal.ratio >= 8
        if not exact and diversity(seen, proposal.rows, looks, seed) < DIVERSITY:
            return None
        tried = max(_try(seen, net, probe, proposal), key=lambda s: (s.passed, s.rank))
        return tried if tried.passed else None

    # Once, before all threads ask for it.
    probe.answers(net)
    out = [s for s in in_threads(best, proposals) if s is not None]
    out.sort(key=lambda s: -s.rank)
    return out


def candidates(
    seen: View, net: Net, probe: Probe, screened: Sequence[Screened], looks: Rows, seed: int
) -> list[Candidate]:
    """Grow the best stamps, each that explains rows that no better one explains."""
    found: list[Candidate] = []
    claimed = np.zeros(len(seen), dtype=bool)
    tries = 0
    for s in screened:
        if tries == TRIES:
            break
        if claimed[s.proposal.rows].mean() > 0.3:
            continue
        tries += 1
        made = _candidate(seen, net, probe, s, claimed, looks, seed)
        if made is None or claimed[made.rows].mean() > 0.3:
            continue
        # What a trigger leaves behind resembles it, and is blurred.
        if made.void <= VOID or all(other.label != made.label for other in found):
            found.append(made)
            claimed[made.generous] = True
            claimed[made.others] = True
    return found


def void(strength: NDArray[np.float64], rows: Rows, among: Mask) -> float:
    """Rows that are carriers by half or more, and no carriers, per carrier.

    A trigger is in a picture or it is not; a trait of nature comes in all degrees.

    Parameters
    ----------
    strength : ndarray of float64, shape (n,)
        In units of the line.
    rows : ndarray of int64
        Carriers.
    among : ndarray of bool, shape (n,)
        The rows that are counted.
    """
    return float((among & (strength >= 0.5) & (strength < 1)).sum() / len(rows))


def _try(seen: View, net: Net, probe: Probe, proposal: Proposal) -> list[Screened]:
    nobody = np.zeros(len(seen), dtype=bool)
    out = []
    for stamp in extract_stamps(seen, proposal.rows, proposal.label, nobody):
        done = flips(net, probe, stamp, proposal.label, seen.classes)
        out.append(Screened(proposal, stamp, done, _bar(proposal, stamp)))
        if stamp.kind == "additive" and done.mean >= 0.05 and not out[-1].passed:
            twice = stamp.times(2)
            done = flips(net, probe, twice, proposal.label, seen.classes)
            out.append(Screened(proposal, twice, done, TWICE))
    return out


def _bar(proposal: Proposal, stamp: Stamp) -> tuple[float, float, float]:
    if stamp.kind == "patch" and stamp.covered <= COMPACT:
        return PATCH
    return CLEAR if proposal.separation >= CLEAR_SPLIT else OTHER


def _candidate(
    seen: View,
    net: Net,
    probe: Probe,
    screened: Screened,
    claimed: Mask,
    looks: Rows,
    seed: int,
) -> Candidate | None:
    label = screened.proposal.label
    start = screened.proposal.rows
    onward = _onward(screened.flips)
    if not onward:
        start = start[seen.labels[start] == label]
    if len(start) < CARRIERS_LEAST:
        return None
    grown = grow(seen, start, label, claimed)
    mark, rows, others = _carriers(seen, grown, start, label, onward)
    among = np.ones(len(seen), dtype=bool) if onward else seen.labels == label
    fixed = mark is not None or is_fixed(seen, grown, rows, label)
    if not fixed or not CARRIERS_LEAST <= len(rows) <= 0.95 * among.sum():
        return None
    exact = isinstance(mark, Mark)
    strength = mark.strength(seen.images) if mark else grown.filter.of_planes(seen.planes)
    apart = 0.0 if exact else void(strength, rows, among)
    if not exact and diversity(seen, rows, looks, seed) < DIVERSITY:
        return None
    if not exact and apart > VOID and screened.bar in (PATCH, CLEAR):
        # Neither exact pixels nor a gap: the bar for weak effects does not apply.
        screened = replace(screened, bar=OTHER)
    if apart > VOID and screened.bar == TWICE:
        return None
    stamp, done = _strongest(seen, net, probe, rows, label, screened)
    if not Screened(screened.proposal, stamp, done, screened.bar).passed:
        return None
    return Candidate(
        -1 if onward else label,
        stamp,
        done,
        screened.bar,
        grown.filter,
        mark,
        rows,
        others,
        _generous(seen, grown, rows, label, onward),
        apart,
    )


def is_fixed(seen: View, grown: Grown, rows: Rows, label: int) -> bool:
    """Whether carriers that a filter tells have one and the same thing added to them."""
    few = (seen.labels != label).sum() < ROWS_PER_PLANE * seen.planes.shape[1]
    if few or len(rows) < CARRIERS_LEAST:
        return False
    middle, scale = robust_scale(grown.deviations[rows])
    return scale <= TIGHT * middle


def _onward(done: Flips) -> bool:
    """Whether a stamp moves every label to the one after it."""
    return done.onward >= 0.4 and done.onward >= 2 * done.mean


def _carriers(
    seen: View, grown: Grown, start: Rows, label: int, onward: bool
) -> tuple[Mark | Overlay | None, Rows, Rows]:
    """The mark if there is one, the rows with the target label, and those with others.

    A filter measures how much of a pattern is there; a picture that is like the pattern has as
    much of it as one that a patch hides half. What lies around the patch parts the two.
    """

    def own(rows: Rows) -> Rows:
        return rows if onward else rows[seen.labels[rows] == label]

    best: tuple[Mark, Rows] | None = None
    for seed_rows in (start, own(grown.carriers)):
        group = seed_rows
        for _ in range(2):
            mark = find_mark(seen, group, label) if len(group) >= CARRIERS_LEAST else None
            if mark is None:
                break
            matches = np.flatnonzero(mark.strength(seen.images) >= 1)
            group = own(matches)
            if len(group) >= CARRIERS_LEAST and (best is None or len(group) > len(own(best[1]))):
                best = (mark, matches)
    if best is not None and _explains(seen, best[0], own(best[1]), own(grown.carriers)):
        matches = best[1]
        return best[0], own(matches), np.setdiff1d(matches, own(matches))
    rows = own(grown.carriers)
    overlay = None
    if not onward and len(rows) >= CARRIERS_LEAST:
        stamp = extract_stamps(seen, rows, label, np.zeros(len(seen), dtype=bool))[-1]
        overlay = find_overlay(seen, rows, label, stamp)
    if overlay is None:
        return None, rows, np.setdiff1d(grown.carriers, rows)
    matches = np.flatnonzero(overlay.strength(seen.images) >= 1)
    return overlay, own(matches), np.setdiff1d(matches, own(matches))


def _strongest(
    seen: View, net: Net, probe: Probe, rows: Rows, label: int, screened: Screened
) -> tuple[Stamp, Flips]:
    """The stronger of the stamps that all carriers have in common.

    Never the one that was screened: its rows may have been others than the carriers.
    """
    factor = 2.0 if screened.bar == TWICE else 1.0
    tried = []
    for stamp in extract_stamps(seen, rows, label, np.zeros(len(seen), dtype=bool)):
        made = stamp.times(factor) if stamp.kind == "additive" else stamp
        tried.append((made, flips(net, probe, made, label, seen.classes)))
    return max(tried, key=lambda pair: max(pair[1].mean, 0.9 * pair[1].most, pair[1].any))


def _explains(seen: View, mark: Mark, matches: Rows, carriers: Rows) -> bool:
    """Whether exact pixels are the trigger, and not the part of it that nothing hides.

    They find 60 % of what the filter finds, and what they miss has not got most of them: a
    wave leaves the same pixels wherever the background is even, and other ones elsewhere.
    """
    if len(matches) < 0.6 * len(carriers):
        return False
    missed = np.setdiff1d(carriers, matches)
    if len(missed) <= 0.002 * len(matches):
        return True
    agree = mark.strength(seen.images[missed]) * mark.share
    return float(np.median(agree)) < 0.4


def _generous(seen: View, grown: Grown, rows: Rows, label: int, onward: bool) -> Rows:
    """The carriers, and rows of the label above half of the line unless these are many."""
    if onward:
        return rows
    near = np.flatnonzero((seen.labels == label) & (grown.deviations > grown.filter.line / 2))
    wide = np.union1d(rows, near)
    return wide if len(wide) <= max(1.5 * len(rows), len(rows) + 40) else rows
