"""Scores of a run for its report, pass by pass, in memory set by a shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.charts import Histogram
from pipelines.shards import ParquetShard
from sanitizers.core.errors import IntegrityError

#: Rows of each sanitizer that the report shows.
WORST = 50
#: Bars of a histogram, about.
BARS = 60
# Scores that the axis is chosen from, about.
_SAMPLE = 100_000
# Beyond this no difference of two scores overflows.
_LARGEST = 1e150


@dataclass(frozen=True)
class Candidate:
    """A row that scores high: where its evidence lies."""

    score: float
    shard: int
    position: int


@dataclass(frozen=True)
class ScoreScan:
    """What a first pass over the scores of a sanitizer tells."""

    low: float
    high: float
    scored: int
    sample: NDArray[np.float64]
    worst: tuple[Candidate, ...]


def read(path: Path, columns: Sequence[str], rows: int) -> pa.Table:
    """Read columns of one Parquet file, and hold it to its number of rows.

    Raises
    ------
    IntegrityError
        If the file has another number of rows, or cannot be read.
    """
    shard = ParquetShard(path)
    if shard.rows != rows:
        raise IntegrityError(
            f"{path} holds {shard.rows:,} rows",
            expected=f"{rows:,}, as in its shard of the input",
            do="remove its folder and run again",
        )
    return shard.read(list(dict.fromkeys(columns)))


def take(path: Path, columns: Sequence[str], positions: NDArray[np.int64]) -> pa.Table:
    """Read some rows of one Parquet file, in the order of `positions` (sorted, shape (n,))."""
    found, start = [], 0
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        for batch in file.iter_batches(batch_size=4096, columns=list(columns)):
            low, high = np.searchsorted(positions, [start, start + len(batch)])
            if high > low:
                found.append(batch.take(pa.array(positions[low:high] - start)))
            start += len(batch)
    fields = [schema.field(c) for c in columns]
    return pa.Table.from_batches(found, pa.schema(fields)) if found else pa.table({})


def scan_scores(files: Sequence[Path], rows: Sequence[int]) -> ScoreScan:
    """First pass: the range of the scores, a sample of them, and the worst rows.

    Parameters
    ----------
    files : sequence of Path
        Evidence, one file per shard.
    rows : sequence of int
        How many rows each must hold.
    """
    step = max(1, sum(rows) // _SAMPLE)
    low, high, scored, start = np.inf, -np.inf, 0, 0
    sample, worst = [], list[Candidate]()
    for shard, scores in enumerate(_scores(files, rows)):
        known = scores[~np.isnan(scores)]
        sample.append(scores[(-start) % step :: step])
        start += len(scores)
        scored += len(known)
        if len(known):
            low, high = min(low, known.min()), max(high, known.max())
            worst = _worst(worst, shard, scores, known)
    drawn = np.concatenate(sample) if sample else np.empty(0)
    return ScoreScan(float(low), float(high), scored, drawn[~np.isnan(drawn)], tuple(worst))


def _scores(files: Sequence[Path], rows: Sequence[int]) -> Iterator[NDArray[np.float64]]:
    for path, count in zip(files, rows, strict=True):
        column = read(path, ["score"], count).column("score")
        yield np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _worst(
    worst: list[Candidate], shard: int, scores: NDArray[np.float64], known: NDArray[np.float64]
) -> list[Candidate]:
    line = np.partition(known, -WORST)[-WORST] if len(known) > WORST else known.min()
    near = np.flatnonzero(scores >= line)
    # Many rows may share the score of the line; the first of them stand for all.
    near = near[np.argsort(-scores[near], kind="stable")[:WORST]]
    worst = worst + [Candidate(float(scores[i]), shard, int(i)) for i in near]
    return sorted(worst, key=lambda c: (-c.score, c.shard, c.position))[:WORST]


def histogram(
    files: Sequence[Path], rows: Sequence[int], scan: ScoreScan, lines: Sequence[float]
) -> Histogram | None:
    """Second pass: count all scores in bars, none of which crosses a line.

    Parameters
    ----------
    files, rows : sequence
        As in `scan_scores`.
    scan : ScoreScan
    lines : sequence of float
        Where the lines are drawn.
    """
    if not scan.scored:
        return None
    chart = _axis(scan, lines)
    edges = _edges(chart, lines)
    counts = np.zeros(len(edges) - 1, dtype=np.int64)
    for scores in _scores(files, rows):
        known = np.clip(scores[~np.isnan(scores)], -_LARGEST, _LARGEST)
        counts += np.bincount(np.searchsorted(edges[1:-1], known), minlength=len(counts))
    return Histogram(tuple(map(float, edges)), tuple(map(int, counts)), chart.centre, chart.unit)


def _axis(scan: ScoreScan, lines: Sequence[float]) -> Histogram:
    """Choose an axis for the scores, long enough for the lines that are not too far away."""
    axis = _axis_of_scores(scan)
    low, high = map(axis.place, axis.edges)
    if axis.edges[0] in lines:
        # Rows whose score is the line itself are not over it: they have a bar of their own.
        axis = replace(axis, edges=(axis.value(low - (high - low) / BARS), axis.edges[1]))
    near = [line for line in lines if high < axis.place(line) <= high + 2 * (high - low)]
    if not near:
        return axis
    end = axis.place(max(near)) + (high - low) / BARS
    return replace(axis, edges=(axis.edges[0], axis.value(end)))


def _axis_of_scores(scan: ScoreScan) -> Histogram:
    """Choose the axis: even, or, for a far tail, even near the middle and logarithmic beyond."""
    low, high = np.clip([scan.low, scan.high], -_LARGEST, _LARGEST)
    if high <= low:
        pad = max(abs(low) * 0.01, 0.5)
        return Histogram((float(low - pad), float(high + pad)), ())
    left, middle, right = np.clip(
        np.quantile(scan.sample, [0.01, 0.5, 0.99]) if len(scan.sample) else [low, low, high],
        -_LARGEST,
        _LARGEST,
    )
    width = right - left
    if width <= 0 or high - low <= 6 * width:
        return Histogram((float(low), float(high)), ())
    return Histogram((float(low), float(high)), (), float(middle), float(width / 2))


def _edges(axis: Histogram, lines: Sequence[float]) -> NDArray[np.float64]:
    low, high = axis.edges
    even = np.linspace(axis.place(low), axis.place(high), BARS + 1)
    inner = [line for line in lines if low < line < high]
    half = (even[1] - even[0]) / 2
    for line in inner:
        even = even[(np.abs(even - axis.place(line)) > half) | (even == even[0])]
    edges = [axis.value(at) for at in even if axis.place(low) < at < axis.place(high)]
    return np.unique(np.array([low, *edges, *inner, high]))
