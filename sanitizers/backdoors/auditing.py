"""The audit: propose, extract, grow, confirm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sanitizers.backdoors.arrays import Floats, Images, Labels, Proposal, View, view
from sanitizers.backdoors.candidates import Candidate, candidates, screen
from sanitizers.backdoors.clusters import propose_clusters, propose_features
from sanitizers.backdoors.confirm import can_tell, confirm
from sanitizers.backdoors.directions import propose_directions
from sanitizers.backdoors.evidence import Evidence
from sanitizers.backdoors.found import Audit, Suspicion, Trigger
from sanitizers.backdoors.groups import candidate_groups
from sanitizers.backdoors.neighbours import disagreement, neighbour_labels, propose_neighbours
from sanitizers.backdoors.scan import scan_windows
from sanitizers.backdoors.screen import Probe, choose_probe
from sanitizers.backdoors.unstamped import DENIED, Unstamped, find_unstamped
from sanitizers.core.errors import PlanError
from sanitizers.encoders.net import Net, epochs, softmax, train

#: Fewer rows than this teach a net nothing.
ROWS_LEAST = 200
#: The rest of a label is unusual where so many times as many of its rows are denied as of other
#: labels. Measured: of planted rows of Fashion-MNIST 3.5 to 7 times, of the plain frogs of
#: CIFAR-10, where the others carry a wave, 1.1 times.
UNUSUAL = 2.0


@dataclass(frozen=True)
class Settings:
    """How an audit is made.

    Parameters
    ----------
    seed : int
        Decides the nets, samples and directions.
    epochs : int
        Of both trainings; 0 chooses by the number of rows and labels.
    threads : int
        Of torch. The same number gives the same result.
    """

    seed: int = 0
    epochs: int = 0
    threads: int = 1


def audit(images: Images, labels: Labels, settings: Settings | None = None) -> Audit:
    """Look for backdoor triggers in labelled images, without any trusted row.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, H, W, C)
        C is 1 or 3.
    labels : ndarray of int, shape (n,)
        From 0.
    settings : Settings, optional

    Returns
    -------
    Audit

    Raises
    ------
    PlanError
        If the arrays do not fit together, are too few, or torch is not installed.
    """
    settings = settings or Settings()
    labels = checked(images, labels)
    seen = view(images, labels, settings.seed)
    with ThreadPoolExecutor(1, "proposals") as beside:
        # A net is trained on one thread, and these need none.
        ahead = beside.submit(lambda: list(propose_unseen(seen, settings.seed)))
        evidence = look(seen, settings)
        proposals = [*ahead.result(), *propose(seen, evidence, settings.seed)]
    probe = choose_probe(seen, evidence.logits, evidence.apart)
    screened = screen(seen, evidence.net, probe, proposals, evidence.looks, settings.seed)
    found = candidates(seen, evidence.net, probe, screened, evidence.looks, settings.seed)
    found = [c for c in found if not inside_out(seen, evidence.apart, c)]
    verdicts, void = _confirmed(seen, settings, probe, evidence.apart, found)
    triggers = tuple(t for t in verdicts if t is not None)
    pairs = list(zip(found, verdicts, strict=True))
    claimed = np.zeros(len(seen), dtype=bool)
    for candidate in (c for c, verdict in pairs if verdict is not None):
        claimed[candidate.generous] = True
        claimed[candidate.others] = True
    unstamped = _unstamped(seen, evidence, settings, claimed)
    for candidate in found:
        claimed[candidate.generous] = True
    for group in unstamped:
        claimed[group.rows] = True
    unproven = zip(found, verdicts, void, strict=True)
    doubts = [_doubt(c, no) for c, verdict, no in unproven if verdict is None]
    doubts += _groups(seen, evidence, proposals, claimed, settings.seed)
    scores = score(triggers, images, labels)
    for group in unstamped:
        scores[group.rows] = np.maximum(scores[group.rows], np.round(group.strength, 4))
    return Audit(triggers, tuple(doubts), scores, unstamped)


def score(triggers: Sequence[Trigger], images: Images, labels: Labels) -> NDArray[np.float64]:
    """The strength of the strongest trigger whose target a row has, shape (n,).

    Rounded, so that the last bits of a matrix product, which depend on how many rows come
    at once, never decide.
    """
    out = np.zeros(len(labels))
    for trigger in triggers:
        meant = np.flatnonzero((labels == trigger.target) | (trigger.target < 0))
        if not len(meant):
            continue
        strength = np.round(trigger.strength(images[meant]), 4)
        out[meant] = np.maximum(out[meant], strength)
    return out


def checked(images: Images, labels: Labels) -> Labels:
    """The labels as int64.

    Raises
    ------
    PlanError
        If the arrays do not fit together, or are too few.
    """
    fits = images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] in (1, 3)
    if not fits or min(images.shape[1:3]) < 8:
        raise PlanError(
            f"images of shape {images.shape} and type {images.dtype}",
            expected="bytes of shape (n, H, W, 1 or 3), at least 8 x 8 pixels",
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu" or (labels < 0).any():
        raise PlanError(
            f"labels of shape {labels.shape} and type {labels.dtype} for {len(images)} images",
            expected="one whole number per image, from 0",
        )
    if len(images) < ROWS_LEAST or len(np.unique(labels)) < 2:
        raise PlanError(
            f"{len(images)} images with {len(np.unique(labels))} label(s)",
            expected=f"at least {ROWS_LEAST} images and two labels",
        )
    return labels.astype(np.int64)


def look(seen: View, settings: Settings) -> Evidence:
    """Train the audit net, and ask it and the neighbours about every row."""
    net = _train(seen, settings, np.ones(len(seen), dtype=bool))
    logits, features = net.look(seen.images)
    belief = softmax(logits)[np.arange(len(seen)), seen.labels]
    votes = neighbour_labels(seen, settings.seed)
    counts = np.zeros((len(seen), seen.classes), np.int16)
    np.add.at(counts, (np.arange(len(seen))[:, None], votes), 1)
    return Evidence(net, logits, features, belief, disagreement(seen, votes), counts.argmax(axis=1))


def propose_unseen(seen: View, seed: int) -> Iterator[Proposal]:
    """The proposals of those that look at pictures alone."""
    yield from scan_windows(seen, 3, 6, seed=seed)
    yield from scan_windows(seen, 2, 3, seed=seed)
    # Few bits cut: what is added to an even background is the same in each picture.
    yield from scan_windows(seen, 3, 4, shift=2, seed=seed)
    yield from propose_directions(seen, seed)


def propose(seen: View, evidence: Evidence, seed: int) -> Iterator[Proposal]:
    """The proposals of those that look at what the net and the neighbours say."""
    yield from propose_clusters(seen, evidence.features, seed)
    yield from propose_features(seen, evidence.features)
    yield from propose_neighbours(seen, evidence.apart, evidence.belief)


def _train(seen: View, settings: Settings, keep: NDArray[np.bool_]) -> Net:
    passes = settings.epochs or epochs(len(seen), seen.classes)
    return train(
        seen.images[keep],
        seen.labels[keep],
        seen.classes,
        passes,
        settings.seed,
        settings.threads,
    )


def inside_out(seen: View, apart: Floats, candidate: Candidate) -> bool:
    """Whether a group is what a label shows by nature, and the rest of the label is planted.

    Where half of a label are rows of others, what its own rows have in common moves other
    pictures to the label, and no longer once they are left out: as a trigger does. But their
    neighbours agree with them, and deny most of the rest, and more of it than they deny of other
    labels. (Of photographs they deny most rows by nature; there carriers of a wave agree with one
    another, and the rest is as it always is.)

    Parameters
    ----------
    seen : View
    apart : ndarray of float32, shape (n,)
        The disagreement of the neighbours.
    candidate : Candidate
    """
    if candidate.label < 0:
        return False
    rest = np.setdiff1d(seen.of(candidate.label), candidate.rows)
    if not len(rest):
        return False
    far = apart >= DENIED
    labels = [label for label in range(seen.classes) if label != candidate.label]
    usual = float(np.median([far[rows].mean() for rows in map(seen.of, labels) if len(rows)]))
    denied = float(far[rest].mean())
    return denied > max(0.5, UNUSUAL * usual) and float(far[candidate.rows].mean()) < denied / 2


def _confirmed(
    seen: View, settings: Settings, probe: Probe, apart: Floats, found: Sequence[Candidate]
) -> tuple[list[Trigger | None], list[bool]]:
    """Train once without the carriers of all candidates, and try each stamp again.

    Returns
    -------
    list of Trigger or None
    list of bool
        Where the effect is gone, and too few rows of the label were left to say why.
    """
    if not found:
        return [], []
    keep = np.ones(len(seen), dtype=bool)
    for candidate in found:
        keep[candidate.generous] = False
    again = _train(seen, settings, keep)
    verdicts = [confirm(seen, again, probe, candidate) for candidate in found]
    void = [
        verdict is not None and _is_void(seen, again, keep, apart, candidate)
        for candidate, verdict in zip(found, verdicts, strict=True)
    ]
    return [None if no else yes for yes, no in zip(verdicts, void, strict=True)], void


def _is_void(
    seen: View, again: Net, keep: NDArray[np.bool_], apart: Floats, candidate: Candidate
) -> bool:
    """Whether too few rows of a label were kept for the second net to say anything of it."""
    if candidate.label < 0:
        return False
    rows = seen.of(candidate.label)
    gone = rows[~keep[rows]]
    believed = int((again.look(seen.images[gone])[0].argmax(axis=1) == candidate.label).sum())
    denied = float((apart[candidate.rows] >= DENIED).mean())
    return not can_tell(len(rows) - len(gone), believed, denied)


def _unstamped(
    seen: View, evidence: Evidence, settings: Settings, claimed: NDArray[np.bool_]
) -> tuple[Unstamped, ...]:
    """Triggers that cannot be stamped, among rows that no confirmed stamp explains."""
    usual = settings.epochs or epochs(len(seen), seen.classes)

    def teach(images: Images, labels: Labels, classes: int, passes: int, seed: int) -> Net:
        again = settings.seed + 1 + seed
        return train(images, labels, classes, passes or usual, again, settings.threads)

    return tuple(find_unstamped(seen, evidence, claimed, teach, settings.seed))


def _doubt(candidate: Candidate, void: bool) -> Suspicion:
    why = "the rows share a pattern, but a model that has not seen them answers to it as well"
    if void:
        why = (
            "the rows share a pattern, and are most of what the label has: nothing is left to tell "
            "a trigger from what the label looks like"
        )
    return Suspicion(candidate.label, candidate.rows, why, refuted=not void)


def _groups(
    seen: View,
    evidence: Evidence,
    proposals: Sequence[Proposal],
    claimed: NDArray[np.bool_],
    seed: int,
) -> list[Suspicion]:
    """Groups that nothing explains, and that look like rows of many other labels."""
    groups = candidate_groups(
        seen, proposals, evidence.features, evidence.belief, claimed, evidence.looks, seed
    )
    why = "they look like rows of {:.1f} other labels, and {:.0%} of their neighbours deny theirs"
    return [Suspicion(g.label, g.rows, why.format(g.looks, g.denied)) for g in groups]
