"""Finds that crowd in some slices of time, or in some sources: a statistic of counts alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

#: The chance that any slice at all is beyond its lines, where finds are spread by chance.
CHANCE = 0.001
#: Times the median slice's rate that is natural: seasons and suppliers differ.
NATURAL = 2.0
#: Rows beyond what chance explains, so that a handful of equal rows is no crowd.
MARGIN = 2
#: Finds of a sanitizer that looks for slices come in clumps of so many rows in a slice whose
#: model holds every row, of at most this share of a small slice.
CLUMP, CLUMP_SHARE = 12, 0.05
#: Rows of a slice's model; each stands for several where the slice has more.
MODEL_ROWS = 500
#: Fewer slices than this say nothing about one another.
LEAST_SLICES = 3


@dataclass(frozen=True)
class Usual:
    """What the other slices let one expect of a slice.

    Parameters
    ----------
    rate : float
        The share of the rows that is found in the median slice.
    slices : int
        Among how many the most crowded is sought.
    """

    rate: float
    slices: int

    @classmethod
    def of(cls, rows: Counts, found: Counts) -> Usual:
        """The rate at which the counts of the slices are as often too large as too small.

        The median of ``found / rows`` is 0 as soon as half of the slices have no find, and a
        slice of ten rows weighs in it like one of a million. So the rate is sought at which
        the mid-p values of the counts under Poisson's law have the mean 1/2, as they have at
        the true rate whatever the sizes. Like the median it stands until half of the slices
        are bad, since no slice counts for more than 1.

        Parameters
        ----------
        rows, found : ndarray of int64, shape (slices,)
            Slices without rows say nothing.

        References
        ----------
        Lancaster, "Significance tests in discrete distributions", JASA 1961, for mid-p values.
        """
        from scipy.special import pdtr

        rows, found = rows[rows > 0], found[rows > 0]
        if not found.any():
            return cls(0.0, len(rows))
        low, high = 0.0, 1.0
        # Many small sources share their counts, so each pair of counts is looked at once.
        (n, k), times = np.unique(np.stack([rows, found]), axis=1, return_counts=True)
        for _ in range(40):
            rate = (low + high) / 2
            below = np.where(k > 0, pdtr(np.maximum(k - 1, 0), rate * n), 0.0)
            too_low = float(np.average(below + pdtr(k, rate * n), weights=times)) > 1.0
            low, high = (rate, high) if too_low else (low, rate)
        return cls(high, len(rows))

    def most(self, rows: Counts, clump: NDArray[np.float64] | float = 1.0) -> Counts:
        """The most finds in slices of so many rows that chance and nature explain.

        Parameters
        ----------
        rows : ndarray of int64, shape (slices,)
        clump : float, or ndarray of float64 of shape (slices,)
            Rows that are found together: clumps come by Poisson's law, not rows.
        """
        from scipy.stats import poisson

        # Two counts are held against lines, with clumps and without.
        chance = CHANCE / (2 * max(self.slices, 1))
        clumps = poisson.isf(chance, NATURAL * self.rate * rows / clump)
        return np.asarray(np.ceil(clump * clumps), dtype=np.int64) + MARGIN


@dataclass(frozen=True)
class Crowds:
    """Which slices are crowded, and by which line.

    Parameters
    ----------
    most : ndarray of int64, shape (slices,)
        The line that a crowded slice is beyond; elsewhere the further one.
    crowded : ndarray of bool, shape (slices,)
    usual : float
        The share of the rows that is found in the median slice.
    """

    most: Counts
    crowded: NDArray[np.bool_]
    usual: float


def crowds(rows: Counts, found: Counts, by_row: Counts) -> Crowds:
    """Find the slices that hold more finds than the median slice lets expect.

    Rows that were found for what they are themselves fall into slices by chance, one by one.
    Those that were found only for the slice that they are in do not: a sanitizer that looks for
    what is at home in one slice finds clumps there, in clean data too. So each kind has a line
    of its own, and a slice that is beyond either is crowded.

    Measured on ten clean real tables of 1,000 to 25,000 rows in orders drawn at random, 20
    slices each: clumps are 11 to 13 rows, at most 24 of 215 and 44 of 1,250 in one slice, and
    with these lines no slice of 65 tables is crowded. Neither is a source of 51 tables with
    15 sources of unequal size. See ``python -m benchmarks.alarms``.

    Parameters
    ----------
    rows, found, by_row : ndarray of int64, shape (slices,)
        All rows; those found; those of them that were found for what they are themselves.
    """
    usual = Usual.of(rows, found)
    if (rows > 0).sum() < LEAST_SLICES:
        return Crowds(rows, np.zeros(len(rows), dtype=bool), usual.rate)
    by_slice = found - by_row
    near = Usual.of(rows, by_row).most(rows)
    far = Usual.of(rows, by_slice).most(rows, clumps(rows))
    plain = by_row > near
    return Crowds(np.where(plain, near, far), plain | (by_slice > far), usual.rate)


def clumps(rows: Counts) -> NDArray[np.float64]:
    """How many rows are found together in a slice of so many rows, where slices are looked at."""
    scale = np.maximum(1.0, rows / MODEL_ROWS)
    most = np.minimum(CLUMP_SHARE * rows, CLUMP * scale)
    return np.asarray(np.maximum(1.0, most), dtype=np.float64)
