"""A trigger for people: enlarged, on an average image, and where it sits in one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.pictures import painted

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
#: The colour that says where a trigger sits.
MARK = np.array([214, 28, 120], dtype=np.float32)
#: The least change of a pixel that is part of a trigger which adds, in grey levels.
FAINT = 1.0


@dataclass(frozen=True)
class TriggerPictures:
    """Pictures as ``data:`` addresses.

    Parameters
    ----------
    stamp : str
        The trigger alone: the pixels that it sets, on nothing; or what it adds, around grey.
    place : str
        An average innocent image, with the pixels of the trigger marked.
    stamped : str
        The same image as the trigger changes it.
    gain : float
        How much stronger what is added is shown than it is; 0 where pixels are set.
    lowest, highest : float
        Grey levels that are added, or set.
    covered : float
        The share of the pixels that it changes.
    """

    stamp: str
    place: str
    stamped: str
    gain: float
    lowest: float
    highest: float
    covered: float


def trigger_pictures(kind: str, arrays: Mapping[str, NDArray[Any]]) -> TriggerPictures:
    """Paint a trigger from its signature.

    Parameters
    ----------
    kind : str
        ``patch`` or ``additive``.
    arrays : mapping of str to ndarray
        ``keep`` and ``add``, float32, and ``ground``, uint8, all of shape (H, W, C).
    """
    keep, add, ground = arrays["keep"], arrays["add"], arrays["ground"]
    changed = np.clip(np.rint(ground * keep + add), 0, 255).astype(np.uint8)
    if kind == "patch":
        there = np.asarray((keep < 0.5).any(axis=2))
        strength = there.astype(np.float32)
        stamp, gain = _cropped(add, there), 0.0
    else:
        size = np.asarray(np.abs(add).max(axis=2), dtype=np.float32)
        most = max(float(size.max()), 1e-6)
        there, strength, gain = np.asarray(size >= FAINT), size / np.float32(most), 127.0 / most
        stamp = np.clip(np.rint(128 + gain * add), 0, 255).astype(np.uint8)
    levels = add[there] if there.any() else np.zeros(1)
    return TriggerPictures(
        painted(stamp),
        painted(_marked(ground, strength)),
        painted(changed),
        gain,
        float(levels.min()),
        float(levels.max()),
        float(there.mean()),
    )


def strip(images: Pixels, characters: int) -> tuple[str, ...]:
    """Paint a row of images, as many as the characters allow."""
    return tuple(_within((painted(image) for image in images), characters))


def _within(addresses: Iterable[str], characters: int) -> Iterable[str]:
    for address in addresses:
        characters -= len(address)
        if characters < 0:
            return
        yield address


def _cropped(add: Floats, there: NDArray[np.bool_]) -> Pixels:
    """The pixels that are set, with one of nothing around them, the others transparent."""
    colours = np.clip(np.rint(np.broadcast_to(add, (*add.shape[:2], 3))), 0, 255)
    opacity = np.where(there, 255, 0)[:, :, None]
    whole = np.concatenate([colours, opacity], axis=2).astype(np.uint8)
    if not there.any():
        return whole
    rows, columns = (np.flatnonzero(there.any(axis=axis)) for axis in (1, 0))
    top, left = max(rows[0] - 1, 0), max(columns[0] - 1, 0)
    return whole[top : rows[-1] + 2, left : columns[-1] + 2]


def _marked(ground: Pixels, strength: Floats) -> Pixels:
    """An image in pale grey, with colour where a trigger is."""
    grey = ground.astype(np.float32).mean(axis=2, keepdims=True)
    pale = np.broadcast_to(60 + 0.55 * grey, (*ground.shape[:2], 3))
    weight = 0.9 * strength[:, :, None]
    return np.asarray(np.rint((1 - weight) * pale + weight * MARK), dtype=np.uint8)
