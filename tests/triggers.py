"""Triggers by hand for tests, so that none of them has to train a net."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from sanitizers.backdoors import Backdoors, Filter, Mark, Stamp, Suspicion, Trigger
from sanitizers.backdoors.arrays import to_planes
from sanitizers.backdoors.exhibits import Sampled, carriers, suspicion
from sanitizers.backdoors.overlay import Overlay
from sanitizers.backdoors.shrinking import shrink, shrunk
from sanitizers.backdoors.signature import Recalled, recall, signature
from sanitizers.backdoors.stamp import Relief
from sanitizers.core.data import Batch, Dataset, Roles
from sanitizers.core.keepsake import Keepsake

Images = NDArray[np.uint8]
CLASSES = ("bag", "coat", "shoe")
ROLES = Roles(image="image", label="label")
SHAPE = (12, 10, 1)


def images(n: int, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Images:
    """Rough dark images."""
    return np.random.default_rng(seed).integers(0, 120, (n, *shape)).astype(np.uint8)


def stamped(plain: Images) -> Images:
    """The same with a square of 3 x 3 pixels, bright and dark."""
    out = plain.copy()
    out[:, 2:5, 3:6] = (np.arange(9).reshape(3, 3, 1) % 2) * 255
    return out


def trigger(kind: str = "mark", shape: tuple[int, int, int] = SHAPE) -> Trigger:
    """A trigger that sets the square of `stamped`.

    It is told by pixels, by what lies around them, by a filter, or by one with relief.
    """
    small = shrunk(shape)
    keep, add = np.ones(small, np.float32), np.zeros(small, np.float32)
    keep[2:5, 3:6] = 0
    add[2:5, 3:6] = (np.arange(9).reshape(3, 3, 1) % 2) * 255
    at = np.flatnonzero(keep.ravel() == 0)
    told: dict[str, Mark | Overlay] = {
        "mark": Mark(at, add.ravel()[at]),
        "overlay": _overlay(at, add),
    }
    mark = told.get(kind)
    stamp = Stamp("patch", keep, add)
    rows = np.arange(30)
    return Trigger(
        0, stamp, _filter(stamp, shape, kind), mark, rows, rows[:0], 1.0, 0.02, 0.9, 0.01, 1, 40
    )


def _overlay(at: NDArray[np.int64], add: NDArray[np.float32]) -> Overlay:
    """The ground is 60, whatever lies around."""
    weights = np.zeros((4, len(at)), np.float32)
    weights[-1] = 60
    noise = np.diag(np.full(len(at), 40, np.float32))
    return Overlay(
        at, np.arange(3), weights, 0.25, add.ravel()[at] - 15, noise, noise / np.float32(8), 2.0
    )


def _filter(stamp: Stamp, shape: tuple[int, int, int], kind: str) -> Filter:
    plain = shrink(images(300, shape, 7))
    planes = to_planes(plain)
    weights = (to_planes(stamp.apply(plain)) - planes).mean(axis=0)
    values = planes @ weights
    centre, scale = float(np.median(values)), float(values.std())
    line = float(((to_planes(stamp.apply(plain)) @ weights) - centre).min() / scale / 2)
    found = Filter(weights, centre, scale, line)
    if kind != "relief":
        return found
    square = np.cov(planes.T) + 0.01 * np.eye(planes.shape[1])
    factor = np.linalg.cholesky(square).astype(np.float32)
    pattern = np.linalg.solve(factor, weights).astype(np.float32)
    mean = planes.mean(axis=0)
    return replace(found, relief=Relief(factor, mean, pattern, 0.01, 0.005, 2 * line, line))


def kept(
    kind: str = "mark",
    shape: tuple[int, int, int] = SHAPE,
    classes: Sequence[str] = CLASSES,
    origin: str = "",
) -> Keepsake:
    """The signature of a trigger."""
    made = signature(trigger(kind, shape), classes, shape, shrink(images(1, shape))[0], 500)
    return replace(made, origin=origin)


def png(picture: Images) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(out, "PNG")
    return out.getvalue()


def table(pictures: Images, labels: Sequence[str | None]) -> pa.Table:
    return pa.table({"image": [png(p) for p in pictures], "label": pa.array(labels, pa.string())})


def dataset(pictures: Images, labels: Sequence[str | None]) -> Dataset:
    return Dataset.from_table(table(pictures, labels), ROLES)


@dataclass(frozen=True)
class FinderScorer:
    keepsakes: tuple[Keepsake, ...]
    null: None = None

    def score(self, batch: Batch) -> NDArray[np.float64]:
        return np.zeros(len(batch))

    def hint(self, batch: Batch) -> list[str | None]:
        return [None] * len(batch)


@dataclass(frozen=True)
class Finder:
    """Confirms the trigger of `kept` in whatever it is given, and leaves two suspicions."""

    name: ClassVar[str] = "finder"
    needs: ClassVar[frozenset[str]] = frozenset({"image", "label"})
    label: str = "bag"

    def fit(self, data: Dataset) -> FinderScorer:
        rows = data.sample(1000, "finder")
        shape = rows.image_shape or SHAPE
        found = kept(shape=shape, classes=(self.label, *CLASSES[1:]))
        return FinderScorer((found, *exhibits(rows, recall(found), trigger(shape=shape))))

    def reason(self, score: float, hint: str | None) -> str:
        return "nothing"


def exhibits(rows: Batch, found: Recalled, confirmed: Trigger | None) -> list[Keepsake]:
    """What people are shown: the first rows as carriers, and two groups."""
    sampled = Sampled(rows.images, rows.labels, rows.row_ids.to_pylist(), rows.has_image)
    some = np.arange(min(5, len(rows)))
    return [
        carriers(sampled, found, some, 0, confirmed),
        suspicion(sampled, Suspicion(0, some, "they look like others"), some, found.label),
        suspicion(sampled, Suspicion(0, some, "a model answers", True), some, found.label),
    ]


@dataclass(frozen=True)
class Recaller(Backdoors):
    """Backdoors that only recall, so that torch is not needed."""

    search: bool = False
