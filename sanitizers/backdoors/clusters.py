"""Clusters among the features of the audit net."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sanitizers.backdoors.arrays import Floats, Mask, Proposal, View
from sanitizers.backdoors.directions import LABEL_LEAST, split


def propose_clusters(seen: View, features: Floats, seed: int) -> Iterator[Proposal]:
    """Two means on ten principal components of the features of each label.

    References
    ----------
    Chen et al., "Detecting backdoor attacks on deep neural networks by activation
    clustering", 2018. We differ in proposing both clusters, and in leaving the verdict to
    others.
    """
    for label in range(seen.classes):
        rows = seen.of(label)
        if len(rows) < LABEL_LEAST:
            continue
        one = two_means(_principal(features[rows], 10), seed)
        parts = sorted((rows[one], rows[~one]), key=len)
        for part in parts:
            if len(part) >= 15 and (len(part) < 0.5 * len(rows) or len(parts[0]) > 0.3 * len(rows)):
                yield Proposal(part, label, "cluster")


def propose_features(seen: View, features: Floats) -> Iterator[Proposal]:
    """Splits along the leading two directions of robustly whitened features of each label.

    References
    ----------
    Hayase et al., "SPECTRE: defending against backdoor attacks using robust statistics",
    ICML 2021. We differ in whitening by the half of the rows that lie nearest to the median.
    """
    for label in range(seen.classes):
        rows = seen.of(label)
        if len(rows) < LABEL_LEAST:
            continue
        whitened = _robust(features[rows])
        _, vectors = np.linalg.eigh(whitened.T @ whitened)
        for k in (1, 2):
            found = split(whitened @ vectors[:, -k])
            part = found.upper if 2 * found.upper.sum() <= len(rows) else ~found.upper
            if part.sum() >= 10:
                yield Proposal(rows[part], label, "feature")


def two_means(points: Floats, seed: int, rounds: int = 20) -> Mask:
    """Lloyd's algorithm with two centres, started at a far pair; the mask of one cluster."""
    rng = np.random.default_rng(seed)
    first = points[int(rng.integers(len(points)))]
    a = points[int(((points - first) ** 2).sum(axis=1).argmax())]
    b = points[int(((points - a) ** 2).sum(axis=1).argmax())]
    one = np.zeros(len(points), dtype=bool)
    for _ in range(rounds):
        one = ((points - a) ** 2).sum(axis=1) < ((points - b) ** 2).sum(axis=1)
        if one.all() or not one.any():
            break
        a, b = points[one].mean(axis=0), points[~one].mean(axis=0)
    return one


def _principal(x: Floats, count: int) -> Floats:
    centred = x - x.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return np.asarray(centred @ vectors[:, ::-1][:, :count], dtype=np.float32)


def _robust(x: Floats) -> NDArray[np.float32]:
    centre = np.median(x, axis=0)
    spread = x.std(axis=0) + 1e-6
    far = (((x - centre) / spread) ** 2).sum(axis=1)
    core = x[far <= np.median(far)]
    mean = core.mean(axis=0)
    covariance = np.cov(core.T) + 1e-3 * np.eye(x.shape[1]) * float(core.var(axis=0).mean() + 1e-9)
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((x - mean) @ (vectors / np.sqrt(values)), dtype=np.float32)
