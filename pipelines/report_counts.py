"""Verdicts counted by class, source and time for the report, shard by shard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.charts import TimeBins
from pipelines.report_scan import read
from sanitizers.core.encoder import as_numbers
from sanitizers.core.verdicts import KEEP, QUARANTINE, REVIEW

#: Bars of a chart over time, at most.
TIME_BARS = 48
#: Values of one column that are counted at once; beyond it those with the least found go.
MOST_VALUES = 50_000
# Times that the bins are chosen from, about.
_SAMPLE = 100_000
_LARGEST = 1e150
_DAY = 86400.0
_SECONDS = (1.0, 60.0, 300.0, 900.0, 3600.0, 6 * 3600.0, _DAY, 7 * _DAY)
_MONTHS = (1, 3, 12, 24, 60, 120, 600, 1200, 12_000)
# Seconds up to which NumPy knows a calendar, and more.
_CALENDAR = 1e13


class ValueCounts:
    """Verdicts counted by the values of one column, worst first.

    Exact up to `MOST_VALUES` different values; beyond it the values of which least was
    found are let go, and `partial` says so.
    """

    def __init__(self) -> None:
        self.partial = False
        self._counts: pa.Table | None = None

    def add(self, values: pa.ChunkedArray, verdicts: pa.ChunkedArray) -> None:
        """Count the rows of a shard."""
        texts = pc.utf8_slice_codeunits(values.cast(pa.string()), 0, 1000)
        flags = {v: pc.equal(verdicts, v).cast(pa.int64()) for v in (KEEP, REVIEW, QUARANTINE)}
        part = pa.table({"value": texts, **flags})
        self._counts = _summed([t for t in (self._counts, _summed([part])) if t is not None])
        if self._counts.num_rows > MOST_VALUES:
            self.partial = True
            order = [(QUARANTINE, "descending"), (REVIEW, "descending"), (KEEP, "descending")]
            self._counts = self._counts.sort_by([*order, ("value", "ascending")])
            self._counts = self._counts.slice(0, MOST_VALUES // 2).combine_chunks()

    @property
    def values(self) -> int:
        """How many different values were counted."""
        return self._counts.num_rows if self._counts is not None else 0

    def worst(self, most: int) -> list[tuple[str | None, int, int, int]]:
        """Values with their rows kept, for review and in quarantine, worst first.

        The order is by the share in quarantine, or rather by the least share that the
        counts make likely (Wilson, 95 %), so that a class of one row does not come first.
        """
        if self._counts is None:
            return []
        keep, review, bad = (
            np.asarray(self._counts.column(v).to_numpy(), dtype=np.float64)
            for v in (KEEP, REVIEW, QUARANTINE)
        )
        rows = keep + review + bad
        table = self._counts.append_column("bad", pa.array(_least_share(bad, rows)))
        table = table.append_column("doubtful", pa.array(_least_share(review, rows)))
        table = table.append_column("rows", pa.array(rows))
        names = ("bad", "doubtful", "rows")
        ordered = table.sort_by([(n, "descending") for n in names] + [("value", "ascending")])
        top = ordered.slice(0, most).to_pylist()
        return [(r["value"], r[KEEP], r[REVIEW], r[QUARANTINE]) for r in top]


def _summed(parts: Sequence[pa.Table]) -> pa.Table:
    names = ["value", KEEP, REVIEW, QUARANTINE]
    whole = pa.concat_tables(parts)
    summed = whole.group_by("value", use_threads=False).aggregate([(n, "sum") for n in names[1:]])
    return summed.select(["value", *[f"{n}_sum" for n in names[1:]]]).rename_columns(names)


def _least_share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    z = 1.96
    share = part / whole
    spread = z * np.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    least = (share + z * z / (2 * whole) - spread) / (1 + z * z / whole)
    return np.asarray(np.where(part > 0, np.maximum(least, 0), 0.0))


class TimeCounts:
    """Verdicts counted over time, in bins of an even and readable width."""

    def __init__(self, samples: NDArray[np.float64], kind: pa.DataType) -> None:
        self.dates = bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))
        self.missing = 0
        self.outside = 0
        low, high = _time_range(samples)
        self.edges = _time_edges(low, high, self.dates, bool(pa.types.is_integer(kind)))
        self._counts = {
            v: np.zeros(len(self.edges) - 1, np.int64) for v in (KEEP, REVIEW, QUARANTINE)
        }

    def add(self, times: NDArray[np.float64], verdicts: pa.ChunkedArray) -> None:
        """Count the rows of a shard."""
        known = np.isfinite(times)
        self.missing += int((~known).sum())
        self.outside += int(((times < self.edges[0]) | (times >= self.edges[-1])).sum())
        bins = np.searchsorted(self.edges[1:-1], times[known], side="right")
        for verdict in self._counts:
            chosen = np.asarray(pc.equal(verdicts, verdict).to_numpy(), dtype=bool)[known]
            self._counts[verdict] += np.bincount(bins[chosen], minlength=len(self.edges) - 1)

    @property
    def bins(self) -> TimeBins:
        """What was counted."""
        keep, review, bad = (tuple(map(int, self._counts[v])) for v in (KEEP, REVIEW, QUARANTINE))
        return TimeBins(tuple(map(float, self.edges)), keep, review, bad, self.dates)


def time_counts(files: Sequence[Path], rows: Sequence[int], column: str) -> TimeCounts | None:
    """First pass over a time column: choose the bins; None where there is nothing to bin."""
    step = max(1, sum(rows) // _SAMPLE)
    samples, kind = [], pa.null()
    for path, count in zip(files, rows, strict=True):
        values = read(path, [column], count).column(column)
        kind = values.type
        try:
            times = as_numbers(values)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return None
        samples.append(times[np.isfinite(times)][::step])
    known = np.concatenate(samples) if samples else np.empty(0)
    return TimeCounts(np.clip(known, -_LARGEST, _LARGEST), kind) if len(known) else None


def _time_range(samples: NDArray[np.float64]) -> tuple[float, float]:
    """The range of the times, without a few that lie absurdly far out."""
    low, high = float(samples.min()), float(samples.max())
    near_low, near_high = map(float, np.quantile(samples, [0.002, 0.998]))
    width = near_high - near_low
    if width > 0 and high - low > 4 * width:
        return max(low, near_low - width / 10), min(high, near_high + width / 10)
    return low, high


def _time_edges(low: float, high: float, dates: bool, whole: bool) -> NDArray[np.float64]:
    span = high - low
    if span <= 0:
        return np.array([low, low + max(1.0, abs(low) * 1e-9)])
    width = span / TIME_BARS
    if dates and width > _SECONDS[-1] and max(abs(low), abs(high)) < _CALENDAR:
        return _month_edges(low, high)
    if dates:
        width = next((w for w in _SECONDS if w >= width), width)
    elif whole:
        width = float(np.ceil(width))
    first = np.floor(low / width) * width
    return np.asarray(first + width * np.arange(int(np.floor((high - first) / width)) + 2))


def _month_edges(low: float, high: float) -> NDArray[np.float64]:
    """Begin bins with months, quarters or years, and end after the last time."""
    ends = np.array([low, high]).astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)
    first, last = map(int, ends)
    months = next((m for m in _MONTHS if (last - first) / m < TIME_BARS), _MONTHS[-1])
    starts = np.arange(first // months, last // months + 2) * months
    return starts.astype("datetime64[M]").astype("datetime64[s]").astype(np.float64)
