"""Rows that carry a trigger, as a sanitizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sanitizers.backdoors.arrays import Images, Labels
from sanitizers.backdoors.auditing import ROWS_LEAST, Settings, audit, score
from sanitizers.backdoors.exhibits import Sampled, average, carriers, explains, suspicion
from sanitizers.backdoors.found import Suspicion, Trigger
from sanitizers.backdoors.shrinking import shrink
from sanitizers.backdoors.signature import Recalled, recall, signature
from sanitizers.backdoors.unstamped import DOUBTFUL, Unstamped
from sanitizers.core.calibration import Null
from sanitizers.core.data import Batch, Dataset
from sanitizers.core.errors import PlanError
from sanitizers.core.images import ImageShape
from sanitizers.core.keepsake import Keepsake

#: How the hint of a row begins whose trigger cannot be stamped.
UNSTAMPED = "one of"
#: Images scored at once.
_CHUNK = 8192


@dataclass(frozen=True)
class Backdoors:
    """How much of a confirmed trigger is in an image that has the trigger's label.

    Threat: a backdoor. The attacker puts a trigger into some training images (a patch, a
    faint picture, a wave) and gives them a target label, or takes images that have it; a
    model trained on them obeys the trigger wherever it is shown.

    Blind spots: triggers that are another change in every image (moving patches, warps,
    generated noise) are found in the sample only, where they fill a good part of a label and
    there are eight labels or more, and not all of their rows are; triggers that hardly work,
    which are reported as suspicions only; those in fewer than ten sampled images; triggers
    of few pixels in images that have to be shrunk. Where all images of a label carry the
    trigger, it is that label's nature.
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
    search : bool
        Whether new triggers are looked for. Without, only known ones are applied, which needs
        no torch.

    Notes
    -----
    Score: strength in units of the line between carriers and others; a row is a carrier from 1
    on, and nearly one from 0.95 on, where people are to look. Rows that carry a trigger with
    another label than its target (covers) score 0: their labels are consistent. Without a
    confirmed trigger all score 0.

    A confirmed trigger is left behind as a signature, plain arrays and facts. `fit_knowing`
    applies those of earlier fits first: their carriers score 1 or more in any batch, also of
    a single row, and are left out of the audit. Where rows are too few for an audit, or none
    is asked for, only these have a score. On 10,000 images of Fashion-MNIST that no fit had
    seen, the signatures of a patch and of a blend of 15 % found 100 % and 99.9 % of the
    stamped, and no other.

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
    search: bool = True

    def __post_init__(self) -> None:
        if self.sample < ROWS_LEAST or self.threads < 1 or min(self.seed, self.epochs) < 0:
            raise PlanError(
                f"backdoors: sample={self.sample}, threads={self.threads}, seed={self.seed}, "
                f"epochs={self.epochs}",
                expected=f"sample >= {ROWS_LEAST}, threads >= 1, seed >= 0, epochs >= 0",
            )

    @property
    def packages(self) -> Mapping[str, str]:
        """The modules that it imports, and what to install for each."""
        return {"torch": "dataset-sanitizer[images]"} if self.search else {}

    def fit(self, data: Dataset) -> BackdoorScorer:
        return self.fit_knowing(data, ())

    def fit_knowing(self, data: Dataset, known: Sequence[Keepsake]) -> BackdoorScorer:
        """Audit what carries no known trigger; the scorer looks for the known ones too."""
        recalled = tuple(recall(kept) for kept in known)
        rows = data.sample(self.sample, "backdoors")
        old = [np.flatnonzero(one.strength(rows) >= 1) for one in recalled]
        there = rows.has_image.copy()
        for carrying in old:
            there[carrying] = False
        nothing = BackdoorScorer((), ())
        scorer = fit_images(rows.images, there, rows.labels, self) if self.search else nothing
        ids = rows.row_ids.to_pylist()
        sampled = Sampled(rows.images, rows.labels, ids, _usable(rows.has_image, rows.labels))
        audited = np.flatnonzero(_usable(there, rows.labels))
        held = tuple(_held(scorer, group, rows.keys[audited]) for group in scorer.unstamped)
        return replace(scorer, recalled=recalled, held=held).shown(sampled, audited, old)

    def reason(self, score: float, hint: str | None) -> str:
        """Say which trigger, and what was shown of it."""
        if hint is not None and hint.startswith(UNSTAMPED):
            return (
                f"it is {hint}; a detector that has not seen it tells it from such rows, and a "
                f"model that has not seen its like denies its label (strength {score:.3g})"
            )
        what = hint or "a trigger"
        return (
            f"it carries {what}: stamped on other images it makes a model answer with this "
            f"label, and no longer once such rows are left out (strength {score:.3g})"
        )


@dataclass(frozen=True, eq=False)
class Held:
    """Rows that were found once, by their salted keys.

    Parameters
    ----------
    keys : ndarray of uint64, shape (m,)
        Rising.
    strengths : ndarray of float64, shape (m,)
    words : str
        What is said of them.
    """

    keys: NDArray[np.uint64]
    strengths: NDArray[np.float64]
    words: str

    def strength(self, batch: Batch) -> NDArray[np.float64]:
        """The strength of rows, shape (n,); 0 for those that are not among them."""
        at = np.minimum(np.searchsorted(self.keys, batch.keys), len(self.keys) - 1)
        return np.where(self.keys[at] == batch.keys, self.strengths[at], 0.0)


@dataclass(frozen=True, eq=False)
class BackdoorScorer:
    """Confirmed triggers, as plain arrays.

    Parameters
    ----------
    classes : tuple of str
        The labels, in the order of the triggers' targets.
    triggers : tuple of Trigger
    suspicions : tuple of Suspicion
        What was not confirmed; rows are positions among the images that were audited.
    null : None
        The share of clean rows that score 1 or more is not modelled.
    recalled : tuple of Recalled
        Triggers that earlier fits have confirmed, which are applied first.
    confirmed : tuple of Recalled
        The triggers of this fit by their signatures.
    keepsakes : tuple of Keepsake
        All signatures, and what people are shown.
    unstamped : tuple of Unstamped
        Groups with a trigger that cannot be stamped; rows as those of suspicions.
    held : tuple of Held
        The same by the keys of their rows, by which they are known again.
    """

    classes: tuple[str, ...]
    triggers: tuple[Trigger, ...] = field(repr=False)
    suspicions: tuple[Suspicion, ...] = field(default=(), repr=False)
    null: Null | None = None
    recalled: tuple[Recalled, ...] = field(default=(), repr=False)
    confirmed: tuple[Recalled, ...] = field(default=(), repr=False)
    keepsakes: tuple[Keepsake, ...] = field(default=(), repr=False)
    unstamped: tuple[Unstamped, ...] = field(default=(), repr=False)
    held: tuple[Held, ...] = field(default=(), repr=False)

    def score(self, batch: Batch) -> NDArray[np.float64]:
        """Score rows; without an audit, only those that carry a known trigger."""
        return self._scores(batch, [one.strength(batch) for one in self.recalled])

    def hint(self, batch: Batch) -> Sequence[str | None]:
        return self._hints(batch, [one.strength(batch) for one in self.recalled])

    def score_and_hint(self, batch: Batch) -> tuple[NDArray[np.float64], Sequence[str | None]]:
        strengths = [one.strength(batch) for one in self.recalled]
        return self._scores(batch, strengths), self._hints(batch, strengths)

    def _scores(self, batch: Batch, recalled: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        out = np.full(len(batch), np.nan)
        if self.classes:
            out = self.score_images(batch.images, batch.has_image, batch.labels)
        for group in self.held:
            strength = group.strength(batch)
            out = np.where(strength >= DOUBTFUL, np.fmax(out, strength), out)
        for strength in recalled:
            out = np.where(strength >= 1, np.fmax(out, strength), out)
        return out

    def _hints(self, batch: Batch, recalled: Sequence[NDArray[np.float64]]) -> Sequence[str | None]:
        out: list[str | None] = [None] * len(batch)
        found = [one.strength(batch) for one in self.confirmed]
        named = (*self.recalled, *self.confirmed)
        for one, strength in zip(named, (*recalled, *found), strict=True):
            for row in np.flatnonzero(strength >= 1):
                out[row] = out[row] or one.words
        for group in self.held:
            for row in np.flatnonzero(group.strength(batch) >= DOUBTFUL):
                out[row] = out[row] or group.words
        return out

    def shown(
        self, sampled: Sampled, audited: NDArray[np.int64], old: Sequence[NDArray[np.int64]]
    ) -> BackdoorScorer:
        """The same scorer with the signatures of its triggers, and what people are shown.

        Parameters
        ----------
        sampled : Sampled
        audited : ndarray of int64
            The places in the sample of the images that were audited.
        old : sequence of ndarray of int64
            For each trigger that was known the places of its carriers.
        """
        shape: ImageShape = sampled.images.shape[1:]
        confirmed, kept = [], [one.keepsake for one in self.recalled]
        for one, rows in zip(self.recalled, old, strict=True):
            if len(rows):
                kept.append(carriers(sampled, one, rows, 0, None))
        for trigger in self.triggers:
            rows, covers = audited[trigger.rows], audited[trigger.covers]
            source = self.classes[trigger.source] if trigger.source >= 0 else None
            ground = average(sampled, source, np.concatenate([rows, covers]))
            one = recall(signature(trigger, self.classes, shape, ground, len(audited)))
            confirmed.append(one)
            kept += [one.keepsake, carriers(sampled, one, rows, len(covers), trigger)]
        for group in self.unstamped:
            told = Suspicion(group.label, group.rows, _why(group), proven=True)
            kept.append(suspicion(sampled, told, audited[group.rows], self.classes[group.label]))
        for doubt in self.suspicions:
            # Told with the trigger that explains it.
            if any(explains(trigger, doubt, sampled, audited) for trigger in self.triggers):
                continue
            label = self.classes[doubt.label] if doubt.label >= 0 else None
            kept.append(suspicion(sampled, doubt, audited[doubt.rows], label))
        return replace(self, confirmed=tuple(confirmed), keepsakes=tuple(kept))

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
        known = _usable(present, labels)
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
    known = _usable(present, labels)
    classes = tuple(sorted({str(v) for v in labels[known]}))
    if known.sum() < ROWS_LEAST or len(classes) < 2:
        return BackdoorScorer((), ())
    settings = Settings(recipe.seed, recipe.epochs, recipe.threads)
    found = audit(shrink(images[known]), _codes(labels[known], classes), settings)
    return BackdoorScorer(classes, found.triggers, found.suspicions, unstamped=found.unstamped)


def _held(scorer: BackdoorScorer, group: Unstamped, keys: NDArray[np.uint64]) -> Held:
    """The rows of a group by their keys."""
    own = keys[group.rows]
    order = np.argsort(own)
    words = (
        f"{UNSTAMPED} {len(own):,} rows labelled {scorer.classes[group.label]!r} that look like "
        f"rows of {group.looks:.1f} other labels"
    )
    return Held(own[order], np.round(group.strength[order], 4), words)


def _why(group: Unstamped) -> str:
    return (
        f"they look like rows of {group.looks:.1f} other labels; a detector tells them from such "
        f"rows (area under the ROC curve {group.told:.3f}); a model that has not seen them denies "
        f"the label of {group.denied:.0%}"
    )


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


def _usable(present: NDArray[np.bool_], labels: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Rows with an image and a label, shape (n,)."""
    return np.asarray(present & np.array([v is not None for v in labels], dtype=bool))
