"""The causal test: the effect of a trigger vanishes with the rows that carry it."""

from __future__ import annotations

from sanitizers.backdoors.arrays import View
from sanitizers.backdoors.candidates import Candidate
from sanitizers.backdoors.found import Trigger
from sanitizers.backdoors.screen import Flips, Probe, flips
from sanitizers.encoders.net import Net

#: The share of its flips that a stamp may keep.
FLIPS_KEPT = 0.4
#: The share of the rise of the target's margin that it may keep.
MARGIN_KEPT = 0.5


def confirm(seen: View, again: Net, probe: Probe, candidate: Candidate) -> Trigger | None:
    """Stamp the probe under a net that has not seen the carriers.

    The first share of flips that passed its bar (in the mean, in one label, to any answer)
    must fall to 40 % of what it was, and the rise of the target's margin to half. What nature
    puts into pictures keeps its effect: other rows show it, too.

    Parameters
    ----------
    seen : View
    again : Net
        Trained without the carriers of all candidates.
    probe : Probe
    candidate : Candidate

    Returns
    -------
    Trigger or None
    """
    before = candidate.flips
    target = max(candidate.label, 0)
    after = flips(again, probe, candidate.stamp, target, seen.classes)
    if not collapsed(before, after, candidate.bar, onward=candidate.label < 0):
        return None
    one = candidate.label < 0
    return Trigger(
        candidate.label,
        candidate.stamp,
        candidate.filter,
        candidate.mark,
        candidate.rows,
        candidate.others,
        flips_before=before.onward if one else before.most,
        flips_after=after.onward if one else after.most,
        mean_before=before.onward if one else before.mean,
        mean_after=after.onward if one else after.mean,
        source=-1 if one else before.source,
        tried=int((probe.labels != candidate.label).sum()),
    )


def collapsed(
    before: Flips, after: Flips, bar: tuple[float, float, float], *, onward: bool
) -> bool:
    """Whether the effect is gone: the rule of `confirm`."""
    if onward:
        return after.onward <= FLIPS_KEPT * before.onward
    if before.mean >= bar[0]:
        fell = after.mean <= FLIPS_KEPT * before.mean
    elif before.most >= bar[1]:
        fell = after.most <= FLIPS_KEPT * before.most
    else:
        fell = after.any <= FLIPS_KEPT * before.any
    return fell and after.margin <= MARGIN_KEPT * before.margin
