"""Columns of vectors, such as embeddings: some principal components of them, as features."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sanitizers.core.errors import InputError, PlanError

#: Components that models learn from, at most.
COMPONENTS = 64
#: Components by which rows are near or far, at most: what is strange about a row lies where
#: the others hardly vary.
WIDE = 256
#: Rows that components are found on, at most.
FIT_ROWS = 10_000
#: Numbers of a vector, at most.
MAX_LENGTH = 4_096
#: Rows that are projected at once. Always so many: the last bits of a matrix product depend
#: on how many rows come at once, and features must not depend on the sharding.
_BLOCK = 256
#: Numbers end here, so that no square of a hostile one overflows.
_LARGEST = 1e15


@dataclass(frozen=True, eq=False)
class VectorColumn:
    """A column of vectors: centred, projected on principal components, scaled by one number.

    Parameters
    ----------
    name : str
    centre : ndarray of float64, shape (D,)
    basis : ndarray of float64, shape (D, d)
        Orthonormal, the widest component first; d is at most `WIDE`.
    scale : float
        What the projections are divided by: the same for all, so that distances stay what
        they are to the encoder that made the vectors.
    indicator : bool
        Whether a dimension says which vectors are missing.
    """

    name: str
    centre: NDArray[np.float64] = field(repr=False)
    basis: NDArray[np.float64] = field(repr=False)
    scale: float
    indicator: bool

    def width(self, most: int = COMPONENTS) -> int:
        """How many dimensions it is encoded in, with so many components at most."""
        return min(int(self.basis.shape[1]), most) + int(self.indicator)

    def encode(self, column: pa.ChunkedArray, most: int = COMPONENTS) -> NDArray[np.float64]:
        """The components of every vector, zeros where it is missing, shape (n, width).

        Parameters
        ----------
        column : pyarrow.ChunkedArray
        most : int
            Components, at most.

        Raises
        ------
        InputError
            If a vector has another length than those that were fitted.
        """
        vectors = as_vectors(self.name, column, len(self.centre))
        out = np.zeros((len(vectors), self.width(most)))
        missing = np.isnan(vectors).any(axis=1)
        basis = np.ascontiguousarray(self.basis[:, :most])
        components = basis.shape[1]
        block = np.zeros((_BLOCK, len(self.centre)))
        for start in range(0, len(vectors), _BLOCK):
            part = vectors[start : start + _BLOCK]
            block[: len(part)] = part - self.centre
            out[start : start + _BLOCK, :components] = (block @ basis)[: len(part)]
        out[missing] = 0.0
        out[:, :components] /= self.scale
        if self.indicator:
            out[:, -1] = missing
        return out


def fit_vectors(name: str, column: pa.ChunkedArray) -> VectorColumn | str:
    """Find the principal components of a column of vectors, or say why there are none.

    Every number is first held within the 0.1 % tails of its place, so that a few absurd
    vectors turn no component.

    Parameters
    ----------
    name : str
    column : pyarrow.ChunkedArray
        Lists of numbers.
    """
    length = _usual_length(column)
    if not length:
        return "every value is missing"
    if len(_others(column, length)):
        return "its vectors differ in length"
    if length > MAX_LENGTH:
        return f"its vectors have {length:,} numbers, more than {MAX_LENGTH:,}"
    vectors = as_vectors(name, column.slice(0, FIT_ROWS), length)
    missing = np.isnan(vectors).any(axis=1)
    known = vectors[~missing].astype(np.float64)
    if not len(known):
        return "every value is missing"
    # In place, for long vectors are large.
    np.clip(known, *np.quantile(known, [0.001, 0.999], axis=0), out=known)
    centre = known.mean(axis=0)
    known -= centre
    variance, basis = np.linalg.eigh(known.T @ known / len(known))
    variance, basis = variance[::-1], basis[:, ::-1]
    kept = int((variance > 1e-9 * variance[0]).sum()) if variance[0] > 0 else 0
    if not kept:
        return "every value is the same"
    return VectorColumn(
        name,
        centre,
        np.ascontiguousarray(basis[:, : min(kept, WIDE)]),
        float(np.sqrt(variance[0])),
        bool(missing.any() or column.null_count),
    )


def is_vector(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are lists of numbers."""
    types = pa.types
    listed = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(
        listed and (types.is_floating(kind.value_type) or types.is_integer(kind.value_type))
    )


def check_vectors(name: str, column: pa.ChunkedArray) -> None:
    """Refuse an embedding that is no column of vectors.

    Raises
    ------
    PlanError
        If its values are no lists of numbers.
    InputError
        If they differ in length.
    """
    if not is_vector(column.type):
        raise PlanError(
            f"column {name!r} has the role 'embedding' and values of type {column.type}",
            expected="lists of numbers, all of one length",
        )
    _check_lengths(name, column, _usual_length(column))


def as_vectors(name: str, column: pa.ChunkedArray, length: int) -> NDArray[np.float32]:
    """The vectors of a column, NaN throughout where one is missing, shape (n, length).

    A vector is missing where it is null, or where one of its numbers is null or not finite.

    Raises
    ------
    InputError
        If a vector has another length.
    """
    _check_lengths(name, column, length)
    out = np.full((len(column), length), np.nan, dtype=np.float32)
    known = column.is_valid().to_numpy()
    numbers = np.asarray(pc.list_flatten(column).to_numpy(), copy=False).reshape(-1, length)
    if numbers.dtype == np.float64:
        # Beyond the range of shorter floats, and yet no infinity.
        numbers = np.where(np.isinf(numbers), np.nan, np.clip(numbers, -_LARGEST, _LARGEST))
    out[known] = numbers
    out[~np.isfinite(out).all(axis=1)] = np.nan
    return np.clip(out, -_LARGEST, _LARGEST, out=out)


def _check_lengths(name: str, column: pa.ChunkedArray, length: int) -> None:
    others = _others(column, length)
    if len(others):
        raise InputError(
            f"column {name!r} holds vectors of {length:,} numbers, and {len(others):,} of another "
            f"length, the first of them of {others[0]:,}",
            expected="vectors of one length",
        )


def _others(column: pa.ChunkedArray, length: int) -> NDArray[np.int64]:
    """The lengths that differ."""
    lengths = pc.list_value_length(column).drop_null().to_numpy()
    return np.asarray(lengths[lengths != length], dtype=np.int64)


def _usual_length(column: pa.ChunkedArray) -> int:
    """The length that most vectors have; of two that are as common the longer one."""
    lengths = pc.list_value_length(column).drop_null().to_numpy()
    values, counts = np.unique(lengths, return_counts=True)
    return int(values[len(counts) - 1 - counts[::-1].argmax()]) if len(values) else 0
