"""The trigger that a group of rows has in common."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sanitizers.backdoors.arrays import Floats, Mask, Rows, View, spread
from sanitizers.backdoors.neighbours import nearest
from sanitizers.backdoors.stamp import Mark, Stamp

#: Rows of a group that are looked at.
_MOST = 400


def extract_stamps(seen: View, rows: Rows, label: int, apart: Mask) -> list[Stamp]:
    """Extract what a group has in common, as a patch and as something added.

    Parameters
    ----------
    seen : View
    rows : ndarray of int64, shape (m,)
    label : int
    apart : ndarray of bool, shape (n,)
        Rows that no background may be taken from.

    Returns
    -------
    list of Stamp
        One or two.
    """
    some = spread(rows, _MOST)
    around = nearest(seen, some, ~(apart | seen.mask(rows)))
    added = clipped_mean(seen.images[some] - seen.images[around].mean(axis=1, dtype=np.float32))
    stamps = [Stamp("additive", np.ones_like(added), added)]
    patch = _patch(seen, rows, label)
    return [patch, *stamps] if patch is not None else stamps


def clipped_mean(values: Floats, share: float = 0.1) -> Floats:
    """The mean over the first axis of what lies between the 10 % and the 90 % quantile."""
    low, high = np.quantile(values, [share, 1 - share], axis=0)
    return np.asarray(np.clip(values, low, high).mean(axis=0), dtype=np.float32)


def find_mark(seen: View, rows: Rows, label: int, most: float = 0.06) -> Mark | None:
    """The pixels on which a group agrees and others do not, if they are few and not too few.

    At least 90 % of the group lie within 12 grey levels of its median; at most 30 % of the
    other rows of the label do, at most 30 % of the rest, and at most half of the neighbours:
    rows of one source class have more in common than a trigger.

    Parameters
    ----------
    seen : View
    rows : ndarray of int64, shape (m,)
    label : int
    most : float
        Pixels, as a share of the picture; the least is three.
    """
    middle, share, usual = _agreement(seen, rows, label, 12)
    around = nearest(seen, spread(rows, _MOST), ~seen.mask(rows)).ravel()
    alike = _near(seen.images[around], middle, 12)
    chosen = (share >= 0.9) & (usual <= 0.3) & (alike <= 0.5)
    chosen |= _exact(seen, rows, label)
    pixels = chosen.any(axis=2)
    if not 3 <= pixels.sum() <= most * pixels.size:
        return None
    at = np.flatnonzero(chosen.ravel())
    return Mark(at, middle.ravel()[at])


def _patch(seen: View, rows: Rows, label: int) -> Stamp | None:
    """Pixels where most of the group agree, and less than half as many of the others."""
    middle, share, usual = _agreement(seen, rows, label, 10)
    alike = ((share >= 0.6) & (usual <= 0.4 * share)) | _exact(seen, rows, label)
    chosen = np.asarray(alike.any(axis=2, keepdims=True))
    if chosen.sum() < 2:
        return None
    keep = np.broadcast_to(~chosen, middle.shape).astype(np.float32)
    return Stamp("patch", keep, np.where(chosen, middle, 0).astype(np.float32))


def _exact(seen: View, rows: Rows, label: int) -> NDArray[np.bool_]:
    """Pixels that are the same in the group, and seldom so in others, shape (H, W, C).

    A dark pixel of a patch lies near to what a dark ground has; but it does not vary.
    """
    _, share, usual = _agreement(seen, rows, label, 2)
    return np.asarray((share >= 0.95) & (usual <= 0.3))


def _agreement(
    seen: View, rows: Rows, label: int, tolerance: int
) -> tuple[Floats, NDArray[np.float64], NDArray[np.float64]]:
    """The median of a group, and which share of it, and of others at most, lie near it."""
    inside = seen.mask(rows)
    own = spread(np.flatnonzero(~inside & (seen.labels == label)), 2 * _MOST)
    rest = spread(np.flatnonzero(~inside & (seen.labels != label)), 2 * _MOST)
    group = seen.images[spread(rows, _MOST)].astype(np.float32)
    middle = np.median(group, axis=0).astype(np.float32)

    others = np.maximum(
        _near(seen.images[own], middle, tolerance), _near(seen.images[rest], middle, tolerance)
    )
    return middle, _near(group, middle, tolerance), others


def _near(
    images: NDArray[np.uint8] | Floats, middle: Floats, tolerance: int
) -> NDArray[np.float64]:
    """The share of images that lie near a picture, per pixel; 0 without images."""
    if not len(images):
        return np.zeros(middle.shape)
    return np.asarray((np.abs(images - middle) <= tolerance).mean(axis=0))
