"""What a stamp does to the answers of the net on innocent pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np

from sanitizers.backdoors.arrays import Floats, Images, Labels, Rows, View
from sanitizers.backdoors.stamp import Stamp
from sanitizers.encoders.net import Net


@dataclass(frozen=True, eq=False)
class Probe:
    """Innocent pictures to stamp.

    Parameters
    ----------
    images : ndarray of uint8, shape (m, H, W, C)
    labels : ndarray of int64, shape (m,)
    """

    images: Images
    labels: Labels
    _said: WeakKeyDictionary[Net, Floats] = field(default_factory=WeakKeyDictionary, repr=False)

    def answers(self, net: Net) -> Floats:
        """The logits of a net before anything is stamped, shape (m, k); it is asked once."""
        if net not in self._said:
            self._said[net] = net.look(self.images)[0]
        return self._said[net]


@dataclass(frozen=True)
class Flips:
    """What a stamp does to the probe.

    Parameters
    ----------
    mean : float
        Share flipped to the target: the mean over the other labels.
    most : float
        Share flipped to the target in the label where it is highest.
    source : int
        That label.
    any : float
        Share whose answer changed at all.
    onward : float
        Share flipped to the label after its own.
    margin : float
        Mean rise of the target's logit over all others together.
    """

    mean: float
    most: float
    source: int
    any: float
    onward: float
    margin: float


def choose_probe(seen: View, logits: Floats, apart: Floats, least: int = 40) -> Probe:
    """Correctly classified rows of each label, those first whose neighbours agree.

    Parameters
    ----------
    seen : View
    logits : ndarray of float32, shape (n, k)
    apart : ndarray of float32, shape (n,)
        The disagreement of the neighbours.
    least : int
        Rows per label; 15 where there are more than 20 labels.
    """
    count = least if seen.classes <= 20 else 15
    right = logits.argmax(axis=1) == seen.labels
    rows: list[Rows] = []
    for label in range(seen.classes):
        own = np.flatnonzero(right & (seen.labels == label))
        calm, torn = own[apart[own] < 0.5], own[apart[own] >= 0.5]
        rows.append(np.concatenate([calm, torn])[:count])
    chosen = np.concatenate(rows)
    return Probe(seen.images[chosen], seen.labels[chosen])


def flips(net: Net, probe: Probe, stamp: Stamp, target: int, classes: int) -> Flips:
    """Stamp the probe, and compare the answers of the net with and without.

    All are 0 where no innocent picture has another label than the target: a net that knows
    one label only can be led nowhere.
    """
    others = probe.labels != target
    if not others.any():
        return Flips(0.0, 0.0, -1, 0.0, 0.0, 0.0)
    before = probe.answers(net)
    after = net.look(stamp.apply(probe.images))[0]
    was, now = before.argmax(axis=1), after.argmax(axis=1)
    sources = [s for s in range(classes) if s != target and (probe.labels == s).any()]
    turned = (now == target) & (was != target)
    shares = [float(turned[probe.labels == s].mean()) for s in sources]
    changed = now != was
    rise = _margin(after, target) - _margin(before, target)
    return Flips(
        mean=float(np.mean(shares)),
        most=max(shares),
        source=sources[int(np.argmax(shares))],
        any=float(changed.mean()),
        onward=float((changed & (now == (probe.labels + 1) % classes)).mean()),
        margin=float(rise[others].mean()),
    )


def _margin(logits: Floats, target: int) -> Floats:
    """The target's logit less the logarithm of the sum of the others' exponentials."""
    others = np.delete(logits, target, axis=1)
    top = others.max(axis=1)
    return np.asarray(logits[:, target] - top - np.log(np.exp(others - top[:, None]).sum(axis=1)))
