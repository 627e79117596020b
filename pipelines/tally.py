"""Tally: verdicts and finds, counted shard by shard."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sanitizers.core.lines import ScoreSummary, Threshold
from sanitizers.core.verdicts import QUARANTINE, REVIEW, VERDICTS


class Tally:
    """Counts verdicts, and for each sanitizer the rows over its lines.

    Parameters
    ----------
    summaries : mapping of str to ScoreSummary
        For each sanitizer; they know how many rows it scored.

    Attributes
    ----------
    verdicts : dict of str to int
    found : dict of str to dict
        As in `Decision.found`.
    """

    def __init__(self, summaries: Mapping[str, ScoreSummary]) -> None:
        self.verdicts = dict.fromkeys(VERDICTS, 0)
        self.found = {
            name: {
                "scored": summary.scored,
                "abstained": summary.abstained,
                REVIEW: 0,
                QUARANTINE: 0,
            }
            for name, summary in summaries.items()
        }

    def add(
        self,
        evidence: Mapping[str, pa.Table],
        thresholds: Mapping[str, Threshold],
        given: NDArray[np.bool_],
        verdicts: pa.Table,
    ) -> None:
        """Count a shard; rows that a person vouches for (`given`) are no finds."""
        for count in pc.value_counts(verdicts.column("verdict")).to_pylist():
            self.verdicts[count["values"]] += count["counts"]
        for name, table in evidence.items():
            scores = floats(table.column("score"))[~given]
            high = _over(scores, thresholds[name].quarantine)
            self.found[name][QUARANTINE] += int(high.sum())
            self.found[name][REVIEW] += int((_over(scores, thresholds[name].review) & ~high).sum())


def floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """The numbers of a column, NaN where null."""
    return np.asarray(column.to_numpy(), dtype=np.float64)


def _over(scores: NDArray[np.float64], line: float | None) -> NDArray[np.bool_]:
    return np.zeros(len(scores), dtype=bool) if line is None else scores > line
