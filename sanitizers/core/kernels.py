"""The few heavy routines, behind one signature each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def nearest(
    queries: NDArray[np.floating], reference: NDArray[np.floating], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Every query's `k` nearest reference rows: how far they are, and which.

    Distances are computed pair by pair, not through a matrix product: the product is
    about twice as fast, but its rounding depends on how many queries come at once, and
    a score must not depend on the sharding.

    Parameters
    ----------
    queries : ndarray of float, shape (n, d)
    reference : ndarray of float, shape (m, d)
    k : int
        At most m.

    Returns
    -------
    ndarray of float32, shape (n, k)
        Euclidean distances, rising along each row.
    ndarray of int64, shape (n, k)
        The places of these rows in `reference`.
    """
    import faiss

    faiss.cvar.distance_compute_blas_threshold = 2**31 - 1
    squared, places = faiss.knn(
        np.ascontiguousarray(queries, np.float32), np.ascontiguousarray(reference, np.float32), k
    )
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)), dtype=np.float32), np.asarray(places)


def nearest_distances(
    queries: NDArray[np.float32], reference: NDArray[np.float32], k: int
) -> NDArray[np.float32]:
    """As `nearest`, how far they are, shape (n, k)."""
    return nearest(queries, reference, k)[0]


def robust_scale(values: NDArray[np.float64]) -> tuple[float, float]:
    """Median, and the median absolute deviation as a standard deviation (times 1.4826).

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
        NaN is passed over.

    Returns
    -------
    (float, float)
        ``(0.0, 1.0)`` without values. A deviation of zero (more than half of the values
        agree) falls back on the standard deviation, then on 1.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    middle = float(np.median(known))
    spread = 1.4826 * float(np.median(np.abs(known - middle)))
    if spread <= 0:
        spread = float(known.std())
    return middle, spread if spread > 0 else 1.0
