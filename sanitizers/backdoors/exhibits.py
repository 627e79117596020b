"""What people are shown of an audit: carriers beside innocent images, and a map of a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sanitizers.backdoors.arrays import Floats, Images, Mask, Rows, spread, to_planes
from sanitizers.backdoors.found import Suspicion, Trigger
from sanitizers.backdoors.shrinking import shrink
from sanitizers.backdoors.signature import Recalled
from sanitizers.core.keepsake import CARRIERS, SUSPICION, Keepsake

#: Images of a strip, and points of a map, of carriers and of others each.
STRIP, POINTS = 8, 300
#: Fewer images than this are no map.
MAP_LEAST = 20
# Of a row id or a label that is shown.
_CHARACTERS = 500


@dataclass(frozen=True, eq=False)
class Sampled:
    """The images that were audited, or held back before.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, H, W, C)
        As they were looked at, not shrunk.
    labels : ndarray of str or None, shape (n,)
    row_ids : sequence of str, length n
    usable : ndarray of bool, shape (n,)
        Those with an image and a label.
    """

    images: Images
    labels: NDArray[np.object_]
    row_ids: Sequence[str]
    usable: Mask

    def others(self, label: str | None, rows: Rows) -> Rows:
        """Rows of a label but these; of every label where it is None."""
        out = self.usable.copy()
        if label is not None:
            out &= self.labels == label
        out[rows] = False
        return np.flatnonzero(out)

    def shown(self, rows: Rows) -> Images:
        """Some images of rows, made small."""
        return shrink(self.images[spread(rows, STRIP)])

    def ids(self, rows: Rows) -> list[str]:
        """The ids of the rows that are shown."""
        return [str(self.row_ids[i])[:_CHARACTERS] for i in spread(rows, STRIP).tolist()]


def average(sampled: Sampled, label: str | None, carriers: Rows) -> Images:
    """The mean of the images of a label without the carriers, shrunk; of all without any."""
    rows = sampled.others(label, carriers)
    rows = spread(rows if len(rows) else sampled.others(None, carriers), 400)
    small = shrink(sampled.images[rows]) if len(rows) else shrink(sampled.images[carriers])
    return np.asarray(np.rint(small.mean(axis=0)), dtype=np.uint8)


def carriers(
    sampled: Sampled, found: Recalled, rows: Rows, covers: int, trigger: Trigger | None
) -> Keepsake:
    """Show who carries a trigger.

    Parameters
    ----------
    sampled : Sampled
    found : Recalled
    rows : ndarray of int64
        Carriers with its label, as places in the sample.
    covers : int
        How many carriers have other labels, where that is known.
    trigger : Trigger or None
        Where it was confirmed just now: its filter tells carriers from others more finely
        than exact pixels do.
    """
    others = sampled.others(found.label, rows)
    facts = {
        "trigger": found.keepsake.digest,
        "label": _cut(found.label),
        "carriers": len(rows),
        "covers": covers,
        "others": len(others),
        "sampled": int(sampled.usable.sum()),
        "row_ids": sampled.ids(rows),
    }
    arrays = {"carriers": sampled.shown(rows), "innocents": sampled.shown(others)}
    some = np.concatenate([spread(rows, POINTS), spread(others, POINTS)])
    if len(some) < MAP_LEAST:
        return Keepsake(CARRIERS, facts, arrays)
    marked = np.arange(len(some)) < min(len(rows), POINTS)
    small = shrink(sampled.images[some])
    detector = trigger.filter if trigger is not None else found.detector
    across = detector.strength(small) if trigger is None else _deviations(trigger, small)
    points = np.column_stack([across, _leading(to_planes(small))])
    return Keepsake(CARRIERS, facts, {**arrays, "points": points.astype("<f4"), "marked": marked})


def suspicion(sampled: Sampled, found: Suspicion, rows: Rows, label: str | None) -> Keepsake:
    """Show a group that looks planted.

    Parameters
    ----------
    sampled : Sampled
    found : Suspicion
    rows : ndarray of int64
        Its rows, as places in the sample.
    label : str or None
    """
    others = sampled.others(label, rows)
    facts = {
        "label": _cut(label),
        "rows": len(rows),
        "others": len(others),
        "sampled": int(sampled.usable.sum()),
        "why": found.why,
        "refuted": bool(found.refuted),
        "proven": bool(found.proven),
        "row_ids": sampled.ids(rows),
    }
    arrays = {"carriers": sampled.shown(rows), "innocents": sampled.shown(others)}
    return Keepsake(SUSPICION, facts, arrays)


def _cut(label: str | None) -> str | None:
    return None if label is None else label[:_CHARACTERS]


def explains(trigger: Trigger, doubt: Suspicion, sampled: Sampled, audited: Rows) -> bool:
    """Whether a group is what a confirmed trigger made of a label: the carriers, or the rest.

    Beside many carriers the rest of their label looks like rows that do not belong to it.

    Parameters
    ----------
    trigger : Trigger
    doubt : Suspicion
    sampled : Sampled
    audited : ndarray of int64
        The places in the sample of the images that were audited.
    """
    own = np.concatenate([trigger.rows, trigger.covers])
    if np.isin(doubt.rows, own).mean() > 0.5:
        return True
    if doubt.label != trigger.target:
        return False
    label = sampled.labels[audited[doubt.rows[0]]]
    rest = sampled.others(str(label), audited[own])
    return bool(np.isin(rest, audited[doubt.rows]).mean() > 0.5)


def _deviations(trigger: Trigger, images: Images) -> NDArray[np.float64]:
    """How much of the pattern is in images, in units of the filter's line."""
    return trigger.filter.deviations(to_planes(images)) / trigger.filter.line


def _leading(planes: Floats) -> Floats:
    """The first principal component, of a sign that does not change; in its deviations."""
    centred = planes - planes.mean(axis=0)
    left, values, right = np.linalg.svd(centred, full_matrices=False)
    sign = 1.0 if right[0][np.abs(right[0]).argmax()] >= 0 else -1.0
    scores = sign * left[:, 0] * values[0]
    return np.asarray(scores / (scores.std() + 1e-9), dtype=np.float32)
