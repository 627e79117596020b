"""Rows that carry a trigger, as a sanitizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sanitizers.backdoors.arrays import Images, Labels
from sanitizers.backdoors.auditing import ROWS_LEAST, Settings, audit, score
from sanitizers.backdoors.found import Suspicion, Trigger
from sanitizers.core.calibration import Null
from sanitizers.core.data import Batch, Dataset
from sanitizers.core.errors import PlanError

#: The longer side of an image that is audited, at most; larger ones are averaged in blocks.
SIDE = 40
#: Images scored at once.
_CHUNK = 8192


@dataclass(frozen=True)
class Backdoors:
    """How much of a confirmed trigger is in an image that has the trigger's label.

    Threat: a backdoor. The attacker puts a trigger into some training images (a patch, a
    faint picture, a wave) and gives them a target label, or takes images that have it; a
    model trained on them obeys the trigger wherever it is shown.

    Blind spots: triggers that are another change in every image (moving patches, warps,
    generated noise); triggers that hardly work, which are reported as suspicions only; those
    in fewer than ten sampled images; triggers of few pixels in images that have to be
    shrunk. Where all images of a label carry the trigger, it is that label's nature.
    Mislabelled images are for label checks.

    Parameters
    ----------
    sample : int
        Images that are audited, at most; all are scored. Cost: about 20 s for 20,000 images
        of 28 x 28, two trainings of a small net among it, and one matrix product to score.
    seed : int
        Of nets and samples.
    threads : int
        Of torch.
    epochs : int
        Of both trainings; 0 chooses by the number of rows and labels.

    Notes
    -----
    Score: strength in units of the line between carriers and others; a row is a carrier
    from 1 on. Rows that carry a trigger with another label than its target (covers) score
    0: their labels are consistent. Without a confirmed trigger all score 0.

    References
    ----------
    See the proposers and `sanitizers.backdoors.confirm`. We differ from the published
    detectors in what decides: no statistic, but whether the extracted trigger moves innocent
    images, and whether that ends when its carriers are left out.
    """

    name: ClassVar[str] = "backdoors"
    needs: ClassVar[frozenset[str]] = frozenset({"image", "label"})

    sample: int = 20_000
    seed: int = 0
    threads: int = 1
    epochs: int = 0

    def __post_init__(self) -> None:
        if self.sample < ROWS_LEAST or self.threads < 1 or min(self.seed, self.epochs) < 0:
            raise PlanError(
                f"backdoors: sample={self.sample}, threads={self.threads}, seed={self.seed}, "
                f"epochs={self.epochs}",
                expected=f"sample >= {ROWS_LEAST}, threads >= 1, seed >= 0, epochs >= 0",
            )

    def fit(self, data: Dataset) -> BackdoorScorer:
        rows = data.sample(self.sample, "backdoors")
        return fit_images(rows.images, rows.has_image, rows.labels, self)

    def reason(self, score: float, hint: str | None) -> str:
        """Say which trigger, and what was shown of it."""
        what = hint or "a trigger"
        return (
            f"it carries {what}: stamped on other images it makes a model answer with this "
            f"label, and no longer once such rows are left out (strength {score:.3g})"
        )


@dataclass(frozen=True, eq=False)
class BackdoorScorer:
    """Confirmed triggers, as plain arrays.

    Parameters
    ----------
    classes : tuple of str
        The labels, in the order of the triggers' targets.
    triggers : tuple of Trigger
    suspicions : tuple of Suspicion
        What was not confirmed; rows are positions in the sample.
    null : None
        The share of clean rows that score 1 or more is not modelled.
    """

    classes: tuple[str, ...]
    triggers: tuple[Trigger, ...] = field(repr=False)
    suspicions: tuple[Suspicion, ...] = field(default=(), repr=False)
    null: Null | None = None

    def score(self, batch: Batch) -> NDArray[np.float64]:
        return self.score_images(batch.images, batch.has_image, batch.labels)

    def hint(self, batch: Batch) -> Sequence[str | None]:
        images, codes = shrink(batch.images), _codes(batch.labels, self.classes)
        out: list[str | None] = [None] * len(batch)
        for number, trigger in enumerate(self.triggers, 1):
            found = _in_chunks((trigger,), images, codes) >= 1
            for row in np.flatnonzero(found):
                out[row] = out[row] or f"trigger {number}, {self.calls_for(trigger)}"
        return out

    def calls_for(self, trigger: Trigger) -> str:
        """Say for which label a trigger calls."""
        if trigger.target < 0:
            return "which moves every label to another"
        return f"which calls for {self.classes[trigger.target]!r}"

    def score_images(
        self, images: Images, present: NDArray[np.bool_], labels: NDArray[np.object_]
    ) -> NDArray[np.float64]:
        """Score images, shape (n,); NaN where an image or a label is missing.

        Parameters
        ----------
        images : ndarray of uint8, shape (n, H, W, C)
        present : ndarray of bool, shape (n,)
        labels : ndarray of str or None, shape (n,)
        """
        known = present & np.array([v is not None for v in labels], dtype=bool)
        if not self.classes:
            return np.full(len(labels), np.nan)
        scores = _in_chunks(self.triggers, shrink(images), _codes(labels, self.classes))
        return np.where(known, scores, np.nan)


def fit_images(
    images: Images, present: NDArray[np.bool_], labels: NDArray[np.object_], recipe: Backdoors
) -> BackdoorScorer:
    """Audit images, and keep what was confirmed.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, H, W, C)
    present : ndarray of bool, shape (n,)
    labels : ndarray of str or None, shape (n,)
    recipe : Backdoors

    Returns
    -------
    BackdoorScorer
        Abstains from all rows where there are fewer than 200, or but one label.
    """
    known = present & np.array([v is not None for v in labels], dtype=bool)
    classes = tuple(sorted({str(v) for v in labels[known]}))
    if known.sum() < ROWS_LEAST or len(classes) < 2:
        return BackdoorScorer((), ())
    settings = Settings(recipe.seed, recipe.epochs, recipe.threads)
    found = audit(shrink(images[known]), _codes(labels[known], classes), settings)
    return BackdoorScorer(classes, found.triggers, found.suspicions)


def shrink(images: Images) -> Images:
    """Means of blocks of pixels, as small as needed for the longer side to be at most 40."""
    n, height, width, channels = images.shape
    factor = -(-max(height, width) // SIDE)
    if factor == 1:
        return images
    out = np.empty((n, height // factor, width // factor, channels), np.uint8)
    down, across = out.shape[1] * factor, out.shape[2] * factor
    for start in range(0, n, _CHUNK):
        part = images[start : start + _CHUNK, :down, :across]
        blocks = part.reshape(-1, out.shape[1], factor, out.shape[2], factor, channels)
        out[start : start + _CHUNK] = np.rint(blocks.mean(axis=(2, 4), dtype=np.float32))
    return out


def _in_chunks(triggers: Sequence[Trigger], images: Images, codes: Labels) -> NDArray[np.float64]:
    parts = [
        score(triggers, images[start : start + _CHUNK], codes[start : start + _CHUNK])
        for start in range(0, len(images), _CHUNK)
    ]
    return np.concatenate([np.empty(0), *parts])


def _codes(labels: NDArray[np.object_], classes: Sequence[str]) -> Labels:
    """The position of every label in `classes`; others get numbers that no trigger has."""
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index.get(str(v), len(classes)) for v in labels], dtype=np.int64)
