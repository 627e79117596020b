"""A confirmed trigger as plain arrays and facts, by which it is found again anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanitizers.backdoors.arrays import Floats, Images
from sanitizers.backdoors.found import Trigger
from sanitizers.backdoors.overlay import Overlay
from sanitizers.backdoors.shrinking import SIDE, shrink, shrunk
from sanitizers.backdoors.stamp import Filter, Mark, Relief
from sanitizers.core.data import Batch
from sanitizers.core.errors import IntegrityError
from sanitizers.core.images import VIEW_SIDE, ImageShape
from sanitizers.core.keepsake import TRIGGER, Keepsake

#: Counts up when a signature changes its meaning.
FORMAT = "backdoors/2"
#: Images that are looked at at once.
_CHUNK = 8192
_OVERLAY_ARRAYS = {
    "core": "<i8",
    "around": "<i8",
    "weights": "<f4",
    "add": "<f4",
    "plain": "<f4",
    "covered": "<f4",
}

Arrays = Mapping[str, NDArray[Any]]
#: What decides who is a carrier.
Detector = Mark | Overlay | Filter


def signature(
    trigger: Trigger, classes: Sequence[str], shape: ImageShape, ground: Images, rows: int
) -> Keepsake:
    """Keep what is needed to find a trigger again, and to show it; exactly, in float32.

    Where exact pixels or an overlay decide, the filter is left out. Else the largest array is
    the lower triangle of a covariance's factor: 1.2 MB for images of 28 x 28, at most 11.5 MB.

    Parameters
    ----------
    trigger : Trigger
    classes : sequence of str
        The labels, in the order of the trigger's numbers.
    shape : (int, int, int)
        The size at which images were looked at, before `shrink`.
    ground : ndarray of uint8, shape (h, w, C)
        An average innocent image, to show the trigger on.
    rows : int
        Images that were audited.
    """
    facts = {
        "format": FORMAT,
        "label": classes[trigger.target] if trigger.target >= 0 else None,
        "source": classes[trigger.source] if trigger.source >= 0 else None,
        "shape": [int(n) for n in shape],
        "stamp": trigger.stamp.kind,
        "flips": {
            "before": float(trigger.flips_before),
            "after": float(trigger.flips_after),
            "mean_before": float(trigger.mean_before),
            "mean_after": float(trigger.mean_after),
            "tried": int(trigger.tried),
        },
        "carriers": len(trigger.rows),
        "covers": len(trigger.covers),
        "rows": int(rows),
    }
    numbers, arrays = _detector(trigger.mark or trigger.filter)
    shown = {"keep": trigger.stamp.keep, "add": trigger.stamp.add}
    plain = {name: np.ascontiguousarray(a, dtype="<f4") for name, a in shown.items()}
    return Keepsake(TRIGGER, facts | numbers, {**plain, "ground": ground, **arrays})


@dataclass(frozen=True, eq=False)
class Recalled:
    """A trigger by its signature.

    Parameters
    ----------
    keepsake : Keepsake
    label : str or None
        The label that it calls for; None where it moves every label to another.
    shape : (int, int, int)
        The size at which images are looked at, before `shrink`.
    detector : Mark, Overlay or Filter
    """

    keepsake: Keepsake
    label: str | None
    shape: ImageShape
    detector: Detector

    @property
    def name(self) -> str:
        """How reasons and reports call it: the beginning of its digest."""
        return self.keepsake.digest[:8]

    @property
    def words(self) -> str:
        """Which trigger it is, and who has confirmed it."""
        said = f"trigger {self.name}, which "
        if self.keepsake.origin:
            said += f"{self.keepsake.origin} confirmed and which "
        if self.label is None:
            return said + "moves every label to another"
        return said + f"calls for {self.label!r}"

    def strength(self, batch: Batch) -> NDArray[np.float64]:
        """How much of it is in images that have its label, shape (n,); 0 in all others.

        Looks at each row by itself: a carrier from 1 on.
        """
        labels = batch.labels
        named = [v is not None for v in labels] if self.label is None else labels == self.label
        meant = np.asarray(named, dtype=bool) & batch.has_image
        out = np.zeros(len(batch))
        if meant.any():
            images = shrink(batch.images_at(self.shape)[meant])
            parts = [
                self.detector.strength(images[start : start + _CHUNK])
                for start in range(0, len(images), _CHUNK)
            ]
            # Rounded as in `auditing.score`, and for the same reason.
            out[meant] = np.maximum(np.round(np.concatenate(parts), 4), 0.0)
        return out


def recall(kept: Keepsake) -> Recalled:
    """Make a signature work again.

    Raises
    ------
    IntegrityError
        If it is none, or its numbers do not fit together.
    """
    try:
        facts = kept.facts
        _expect(kept.kind == TRIGGER and facts["format"] == FORMAT, "its format is not known")
        label = facts["label"]
        _expect(label is None or isinstance(label, str), "its label is no text")
        shape = _shape(facts["shape"])
        small = shrunk(shape)
        _told(facts)
        _pictures(kept.arrays, small)
        return Recalled(kept, label, shape, _read_detector(kept, small))
    except (KeyError, TypeError, ValueError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise IntegrityError(
            f"trigger {kept.digest} cannot be applied: {why}",
            expected="a signature that a release of this tool has saved",
            do="leave it out, or take it from its release again",
        ) from None


def _detector(found: Detector) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The facts of a detector, under its name, and its arrays."""
    if isinstance(found, Mark):
        return _mark(found)
    return _overlay(found) if isinstance(found, Overlay) else _filter(found)


def _read_detector(kept: Keepsake, small: ImageShape) -> Detector:
    facts = kept.facts
    if facts["mark"]:
        return _read_mark(kept, small)
    return _read_overlay(kept, small) if facts["overlay"] else _read_filter(kept, small)


def _mark(mark: Mark) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    numbers = {"tolerance": float(mark.tolerance), "share": float(mark.share)}
    arrays: dict[str, NDArray[Any]] = {
        "mark_at": np.asarray(mark.at, "<i8"),
        "mark_values": np.asarray(mark.values, "<f4"),
    }
    return {"mark": numbers, "overlay": None, "filter": None}, arrays


def _overlay(found: Overlay) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    arrays: dict[str, NDArray[Any]] = {
        f"overlay_{name}": np.asarray(getattr(found, name), kind)
        for name, kind in _OVERLAY_ARRAYS.items()
    }
    numbers = {"shows": float(found.shows), "line": float(found.line)}
    return {"mark": None, "overlay": numbers, "filter": None}, arrays


def _filter(found: Filter) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    numbers: dict[str, Any] = {
        name: float(getattr(found, name)) for name in ("centre", "scale", "line")
    }
    arrays: dict[str, NDArray[Any]] = {"weights": np.asarray(found.weights, "<f4")}
    relief = found.relief
    numbers["relief"] = None
    if relief is not None:
        names = ("line", "near_line", "middle", "width")
        numbers["relief"] = {name: float(getattr(relief, name)) for name in names}
        lower = np.tril_indices(len(relief.mean))
        arrays["relief_factor"] = np.asarray(relief.factor[lower], "<f4")
        arrays["relief_mean"] = np.asarray(relief.mean, "<f4")
        arrays["relief_pattern"] = np.asarray(relief.pattern, "<f4")
    return {"mark": None, "overlay": None, "filter": numbers}, arrays


def _read_mark(kept: Keepsake, small: ImageShape) -> Mark:
    numbers = _numbers(kept.facts["mark"], ("tolerance", "share"))
    at = kept.arrays["mark_at"]
    _expect(at.dtype == np.int64 and at.ndim == 1 and len(at) > 0, "its mark has no places")
    _expect(at.min() >= 0 and at.max() < np.prod(small), "its mark lies outside of the image")
    values = _floats(kept.arrays, "mark_values", (len(at),))
    _expect(0 <= numbers["tolerance"] <= 255, "its tolerance is no grey level")
    _expect(0 < numbers["share"] <= 1, "its share is none")
    return Mark(at, values, **numbers)


def _read_overlay(kept: Keepsake, small: ImageShape) -> Overlay:
    numbers = _numbers(kept.facts["overlay"], ("shows", "line"))
    _expect(0 <= numbers["shows"] <= 1 and numbers["line"] > 0, "its overlay has no line")
    places = {}
    for name in ("core", "around"):
        at = kept.arrays[f"overlay_{name}"]
        whole = bool(at.dtype == np.int64 and at.ndim == 1 and 0 < len(at) <= np.prod(small))
        _expect(whole, "its overlay has no places")
        _expect(
            at.min() >= 0 and at.max() < np.prod(small), "its overlay lies outside of the image"
        )
        places[name] = at
    c, r = len(places["core"]), len(places["around"])
    weights = _floats(kept.arrays, "overlay_weights", (r + 1, c))
    add = _floats(kept.arrays, "overlay_add", (c,))
    plain, covered = (_floats(kept.arrays, f"overlay_{n}", (c, c)) for n in ("plain", "covered"))
    _expect(min(plain.diagonal().min(), covered.diagonal().min()) > 0, "its noise has no factor")
    return Overlay(
        places["core"], places["around"], weights, numbers["shows"], add, plain, covered,
        numbers["line"],
    )  # fmt: skip


def _read_filter(kept: Keepsake, small: ImageShape) -> Filter:
    facts, arrays = kept.facts["filter"], kept.arrays
    numbers = _numbers(facts, ("centre", "scale", "line"))
    size = _planes(small)
    _expect(numbers["scale"] > 0 and numbers["line"] > 0, "its filter has no scale")
    weights = _floats(arrays, "weights", (size,))
    found = Filter(weights, numbers["centre"], numbers["scale"], numbers["line"])
    if facts["relief"] is None:
        return found
    lines = _numbers(facts["relief"], ("line", "near_line", "middle", "width"))
    _expect(min(lines["line"], lines["near_line"]) > 0, "its relief has no line")
    factor = np.zeros((size, size), np.float32)
    factor[np.tril_indices(size)] = _floats(arrays, "relief_factor", (size * (size + 1) // 2,))
    _expect((factor.diagonal() > 0).all(), "its covariance has no factor")
    mean, pattern = (_floats(arrays, f"relief_{part}", (size,)) for part in ("mean", "pattern"))
    return replace(found, relief=Relief(factor, mean, pattern, **lines))


def _told(facts: Mapping[str, Any]) -> None:
    """What reports say of a trigger is there, and of the right types."""
    _numbers(facts["flips"], ("before", "after", "mean_before", "mean_after", "tried"))
    counts = [facts[name] for name in ("carriers", "covers", "rows")]
    _expect(all(type(n) is int and n >= 0 for n in counts), "its counts are none")
    _expect(facts["stamp"] in ("patch", "additive"), "its stamp is of no known kind")
    source = facts["source"]
    _expect(source is None or isinstance(source, str), "its source is no text")


def _pictures(arrays: Arrays, small: ImageShape) -> None:
    for name in ("keep", "add"):
        _floats(arrays, name, small)
    ground = arrays["ground"]
    _expect(ground.dtype == np.uint8 and ground.shape == small, "its ground is no image")


def _shape(value: object) -> ImageShape:
    whole = isinstance(value, list) and all(type(n) is int for n in value)
    _expect(whole and isinstance(value, list) and len(value) == 3, "its shape is none")
    height, width, channels = value if isinstance(value, list) else (0, 0, 0)
    fits = min(height, width) >= 1 and max(height, width) <= VIEW_SIDE and channels in (1, 3)
    _expect(fits, f"its shape is {height} x {width} x {channels}")
    return height, width, channels


def _planes(small: ImageShape) -> int:
    """The length of `to_planes` for images of a shape."""
    height, width, channels = small
    _expect(max(height, width) <= SIDE, "its images are too large")
    return height * width + (2 * (height // 2) * (width // 2) if channels == 3 else 0)


def _numbers(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    made = {name: values[name] for name in names}
    for name, value in made.items():
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        _expect(plain and bool(np.isfinite(value)), f"its {name} is no number")
    return {name: float(value) for name, value in made.items()}


def _floats(arrays: Arrays, name: str, shape: tuple[int, ...]) -> Floats:
    found = arrays[name]
    wrong = f"array {name!r} has the shape {found.shape} and the type {found.dtype}"
    _expect(found.dtype == np.float32 and found.shape == shape, wrong)
    return np.asarray(found, dtype=np.float32)


def _expect(holds: bool | np.bool_, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
