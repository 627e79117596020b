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
#: Own rows of a label that are to be left, and how many times as many may have been left out.
LEFT_LEAST, MOST_NATURAL = 30, 2.0
#: Else so many of the carriers must be denied. Measured on traffic signs: of the rows of a rare
#: sign of which 84 in 98 are alike 15 to 18 %, of natural rows of others up to 42 %, of rows
#: with a picture mixed in and a label that is not theirs 70 %.
DENIED_LEAST = 0.5


def can_tell(left: int, believed: int, denied: float) -> bool:
    """Whether what vanishes with the carriers can be told from what their label looks like.

    A net that has hardly seen a label answers with it to nothing, so that the effect of any
    stamp vanishes, that of what the label looks like by nature as well. Then there must be
    another witness against the rows: neighbours that deny their label.

    Parameters
    ----------
    left : int
        Rows of the label that the net has seen.
    believed : int
        Rows of the label that it has not seen, and to which it gives the label all the same:
        the label's own.
    denied : float
        The share of the carriers whose neighbours deny their label.
    """
    own = left >= LEFT_LEAST and believed <= MOST_NATURAL * left
    return own or denied >= DENIED_LEAST


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
