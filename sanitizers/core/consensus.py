"""Consensus: the p-values of several sanitizers, joined into one by trusted rows.

A row that is a little odd to three sanitizers crosses none of their lines, and yet hardly any
clean row is odd to all three. So the surprises ``-log p`` of a row are summed (Fisher). Their
sum has no known distribution, for sanitizers look at the same row and agree; but trusted rows
have sums too, and a row is judged by the share of these that are at least as large.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sanitizers.core.calibration import TAIL_SHARE, ConformalNull
from sanitizers.core.data import ROW_ID
from sanitizers.core.errors import PlanError
from sanitizers.core.evidence import SCHEMA

#: The name under which the sum stands beside the sanitizers.
CONSENSUS = "consensus"
#: Fewer trusted rows that all summed sanitizers have judged do not calibrate their sum.
TRUSTED_LEAST = 100
#: Rows with a larger p-value are not told who contributed; nobody asks.
TOLD = 0.05
#: A sanitizer contributes where its p-value is below this: a clean row's surprise is 1.
CONTRIBUTES = float(np.exp(-1.0))
#: Rarer than this is not told apart: no sample of clean rows would show it.
RAREST = 1_000_000


@dataclass(frozen=True)
class Consensus:
    """How surprising the p-values of all sanitizers are together, as a power of ten.

    Threat: rows that are a little odd in several ways and very odd in none, each of which
    stays below the lines of the single sanitizers.

    Blind spots: poison that one sanitizer alone sees, and is not quite sure of: the others'
    indifference waters it down. Trusted rows that are unlike the other clean rows. Sanitizers
    without p-values from trusted rows are not summed; they keep their own lines.

    Score: ``-log10 p``, where `p` is the share of clean rows whose surprises have at least
    this sum: 4 is one clean row in 10,000.
    """

    name: ClassVar[str] = CONSENSUS
    needs: ClassVar[frozenset[str]] = frozenset()

    def reason(self, score: float, hint: str | None) -> str:
        """Say who contributed how much, and how rare that is among clean rows."""
        who = f"{hint} together are" if hint else "all sanitizers together find it"
        if hint and " and " not in hint:
            who = f"{hint} is"
        one_in = 10 ** min(score, 18.0)
        if one_in > RAREST:
            return f"{who} this surprising for fewer than 1 in {RAREST:,} clean rows"
        return f"{who} this surprising for 1 in {float(f'{one_in:.2g}'):,.0f} clean rows"


@dataclass(frozen=True)
class CalibratedSum:
    """The sum of the surprises of several sanitizers, calibrated on trusted rows.

    Parameters
    ----------
    names : tuple of str
        The sanitizers whose p-values are summed.
    trusted : ndarray of float64, shape (m, sanitizers)
        The surprises ``-log p`` of the trusted rows, NaN where one abstained.

    Notes
    -----
    A trusted row's own score is among those that its p-value would count, so it is judged by
    the others alone (`leave_one_out`): as a fresh row is, which is not among them either.

    Where sanitizers abstain, a row is held against the sums of trusted rows over *the same*
    sanitizers, those that the row has p-values of. To fill in the mean surprise of a clean
    row, 1, would be simpler and wrong: a filled sum varies less, so that trusted rows without
    a target, say, would make rows with one look too surprising (a third more of them are found
    where half of the trusted rows lack it).

    Views of one kind of oddness count each for itself: `outliers` and `micro-votes` agree (a
    correlation of 0.9). Weights by that correlation, or the mean of such views, were measured
    on the tuning tables and bought nothing.

    References
    ----------
    Fisher, "Statistical methods for research workers", 1925, for the sum. We differ in its
    null: conformal on the sums of trusted rows, with a fitted tail (see `ConformalNull`), for
    the p-values of one row are not independent. Bates et al., "Testing for outliers with
    conformal p-values", Ann. Statist. 2023, show what goes wrong where that is overlooked.
    """

    names: tuple[str, ...]
    trusted: NDArray[np.float64] = field(repr=False)

    @classmethod
    def fit(cls, scores: Mapping[str, NDArray[np.float64]]) -> CalibratedSum:
        """Calibrate on the scores that each sanitizer gave the trusted rows.

        Parameters
        ----------
        scores : mapping of str to ndarray of float64, shape (m,)
            The same trusted rows in the same order for all; NaN where one abstained. By
            models that did not see the row.

        Raises
        ------
        PlanError
            If no sanitizer is there, or fewer than `TRUSTED_LEAST` rows have all scores.
        """
        names = tuple(scores)
        columns = [-np.log(leave_one_out(scores[name])) for name in names]
        trusted = np.column_stack(columns) if columns else np.empty((0, 0))
        judged = int((~np.isnan(trusted)).all(axis=1).sum())
        check_trusted(judged, f"have p-values by {', '.join(names) or 'any sanitizer'}")
        return cls(names, trusted)

    def p_value(self, p_values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The share of clean rows with at least this sum.

        Parameters
        ----------
        p_values : ndarray of float64, shape (n, sanitizers)
            In the order of `names`, NaN where one abstained.

        Returns
        -------
        ndarray of float64, shape (n,)
            NaN where all abstained.
        """
        surprises = -np.log(np.maximum(p_values, 1e-300))
        known = ~np.isnan(surprises)
        pattern = known @ (1 << np.arange(len(self.names)))
        found = np.full(len(surprises), np.nan)
        for code in np.unique(pattern[pattern > 0]):
            rows = np.flatnonzero(pattern == code)
            given = known[rows[0]]
            null = ConformalNull.fit(_sums(self.trusted[:, given]))
            found[rows] = null.p_value(_sums(surprises[np.ix_(rows, given)]))
        return found

    def evidence(self, tables: Mapping[str, pa.Table]) -> pa.Table:
        """Evidence of the sum on a shard, from that of its sanitizers.

        Parameters
        ----------
        tables : mapping of str to pyarrow.Table
            For each of `names` its evidence on the shard, all in the same order.

        Returns
        -------
        pyarrow.Table
            Of `SCHEMA`; the hint of a row names who contributed how much.
        """
        columns = [tables[name].column("p_value").to_numpy() for name in self.names]
        p_values = np.column_stack([np.asarray(c, dtype=np.float64) for c in columns])
        p = self.p_value(p_values)
        # Rounded, so that the last bits of a logarithm never reach a verdict.
        scores = np.round(-np.log10(p), 6) + 0.0
        hints: list[str | None] = [None] * len(p)
        for row in np.flatnonzero(p <= TOLD):
            hints[row] = self._contributors(p_values[row])
        gone = np.isnan(p)
        name = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(p), np.int8)), [CONSENSUS])
        return pa.table(
            [
                tables[self.names[0]].column(ROW_ID),
                name,
                pa.array(scores, mask=gone),
                pa.array(p, mask=gone),
                pa.array(hints, type=pa.string()).dictionary_encode(),
            ],
            schema=SCHEMA,
        )

    def _contributors(self, p_values: NDArray[np.float64]) -> str:
        """Who found a row more surprising than the typical clean one, the most surprised first."""
        order = np.argsort(p_values, kind="stable")  # NaN comes last
        who = [i for i in order if p_values[i] < CONTRIBUTES] or [order[0]]
        told = [f"{self.names[i]} (p {p_values[i]:.2g})" for i in who]
        return " and ".join(part for part in (", ".join(told[:-1]), told[-1]) if part)


def check_trusted(rows: int, what: str = "are there") -> None:
    """Refuse to calibrate a sum on too few trusted rows.

    Parameters
    ----------
    rows : int
    what : str
        Which rows they are, after "so many trusted rows ...".

    Raises
    ------
    PlanError
    """
    if rows < TRUSTED_LEAST:
        raise PlanError(
            f"{rows:,} trusted rows {what}, too few to calibrate a sum on",
            expected=f"at least {TRUSTED_LEAST}",
            do="vouch for more rows, or set consensus = 'worst' in [policy]",
        )


def leave_one_out(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The p-value of every score by a `ConformalNull` of all the others.

    Parameters
    ----------
    scores : ndarray of float64, shape (m,)
        NaN stays NaN.

    Returns
    -------
    ndarray of float64, shape (m,)
    """
    known = np.sort(scores[~np.isnan(scores)])
    m = len(known)
    if m < 2:
        return np.where(np.isnan(scores), np.nan, 1.0)
    distinct, first = np.unique(known, return_index=True)
    p = (m - first) / m
    # Without one score of the tail, the tail of the others starts at this one; without a lower
    # score it starts there or above, and the score lies below. So only these need a fit.
    start = known[int(np.ceil((1 - TAIL_SHARE) * (m - 1))) - 1]
    for i in np.flatnonzero(distinct > start):
        others = ConformalNull.fit(np.delete(known, first[i]))
        p[i] = others.p_value(distinct[i : i + 1])[0]
    at = np.minimum(np.searchsorted(distinct, scores), len(distinct) - 1)
    return np.where(np.isnan(scores), np.nan, p[at])


def _sums(surprises: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over sanitizers, NaN where one abstained, shape (n,)."""
    # Rounded, so that ties stay ties whatever the order of the sum.
    return np.asarray(np.round(surprises.sum(axis=1), 9))
