"""Labels as numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Classes with fewer rows in a sample cannot be judged.
CLASS_LEAST = 10


def classes_of(labels: NDArray[np.object_]) -> tuple[str, ...]:
    """The labels that at least `CLASS_LEAST` of the rows have, in their order.

    Parameters
    ----------
    labels : ndarray of object, shape (n,)
        None where missing.
    """
    known = labels[np.array([v is not None for v in labels], dtype=bool)].astype(str)
    values, counts = np.unique(known, return_counts=True)
    return tuple(str(v) for v in values[counts >= CLASS_LEAST])


def codes_of(labels: NDArray[np.object_], classes: Sequence[str]) -> NDArray[np.int64]:
    """The position of every label in `classes`, -1 for others and for none, shape (n,)."""
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index.get(v, -1) for v in labels], dtype=np.int64)


def apart(some: NDArray[np.int64], codes: NDArray[np.int64], classes: int) -> float:
    """How far the classes of some rows are from those of the data, beyond chance.

    Parameters
    ----------
    some, codes : ndarray of int64, shape (m,) and (n,)
        Of a few rows, and of the data; -1 is passed over.
    classes : int

    Returns
    -------
    float
        Total variation, less twice what a random sample as large as `some` has in the mean.
    """
    counts, own = (np.bincount(c[c >= 0], minlength=classes) for c in (some, codes))
    share = own / own.sum()
    chance = np.sqrt(share * (1 - share) / (2 * np.pi * counts.sum())).sum()
    return float(0.5 * np.abs(counts / counts.sum() - share).sum() - 2 * chance)
