"""Verdicts counted by slices of time and by sources, shard by shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.decide import verdicts_file
from pipelines.ingest import Ingested
from pipelines.progress import Stage
from pipelines.shards import ParquetShard
from sanitizers.core.consensus import CONSENSUS
from sanitizers.core.data import ROW_ID, Roles
from sanitizers.core.errors import IntegrityError
from sanitizers.core.numbers import strings
from sanitizers.core.slices import TimeSlices
from sanitizers.core.verdicts import QUARANTINE, REVIEW
from sanitizers.risks.crowd_findings import Slice

#: Slices of time, of equal size.
SLICES = 20
#: Rows that their edges are chosen from, at most.
SAMPLE = 20_000
#: Sources that are counted at once; beyond it those with the least found go.
MOST_SOURCES = 50_000
#: What looks for rows that are at home in one slice only; its finds crowd by nature.
BY_SLICE = ("micro-concentration", CONSENSUS)
#: What is counted in every slice, as `Slice` has it.
COUNTS = ("rows", "review", "quarantine", "review_by_row", "quarantine_by_row")

# Characters of a source that tell it from others.
_NAME = 1_000


def count_slices(
    ingested: Ingested, roles: Roles, salt: bytes, folder: Path, stage: Stage
) -> dict[str, tuple[Slice, ...]]:
    """Count verdicts by slices of time and by sources, where there are any.

    Parameters
    ----------
    ingested : Ingested
    roles : Roles
    salt : bytes
    folder : Path
        Where the verdicts lie.
    stage : Stage

    Returns
    -------
    dict of str to tuple of Slice
        For ``time`` and ``source``, as far as there are such columns; slices without rows
        are left out, and rows without a time or a source come last.
    """
    counters: dict[str, _Times | _Sources] = {}
    if roles.time:
        counters["time"] = _Times(ingested, roles.time, salt)
    if roles.source:
        counters["source"] = _Sources(roles.source)
    columns = [counter.column for counter in counters.values()]
    for number, shard in enumerate(ingested.shard_files()):
        verdicts = ParquetShard(verdicts_file(folder, number)).read([ROW_ID, "verdict", "reasons"])
        table = shard.read([ROW_ID, *columns])
        if not verdicts.column(ROW_ID).equals(table.column(ROW_ID)):
            raise IntegrityError(f"{folder} has verdicts about other rows than the input")
        flags = _flags(verdicts)
        for counter in counters.values():
            counter.add(table, flags)
        stage.advance(shard.rows)
    return {role: tuple(counter.slices()) for role, counter in counters.items()}


def _flags(verdicts: pa.Table) -> NDArray[np.int64]:
    """What is counted of every row, 0 or 1, shape (n, counts)."""
    words = verdicts.column("verdict").cast(pa.string())
    review, quarantine = (np.asarray(pc.equal(words, word)) for word in (REVIEW, QUARANTINE))
    reasons = verdicts.column("reasons").combine_chunks()
    named = pc.struct_field(pc.list_flatten(reasons), "sanitizer")
    plain = ~np.asarray(pc.is_in(named, value_set=pa.array(BY_SLICE)), dtype=bool)
    by_row = np.zeros(len(words), dtype=bool)
    by_row[np.asarray(pc.list_parent_indices(reasons))[plain]] = True
    every = np.ones(len(words), dtype=bool)
    flags = (every, review, quarantine, review & by_row, quarantine & by_row)
    return np.column_stack([np.asarray(f, dtype=np.int64) for f in flags])


class _Times:
    """Counts by slices of time; the edges come from a sample by salted ids."""

    def __init__(self, ingested: Ingested, column: str, salt: bytes) -> None:
        self.column = column
        self._sample = ingested.dataset(Roles(time=column), salt).sample(SAMPLE, "alarms")
        self._slicing = TimeSlices.fit(self._sample, SLICES)
        slices = len(self._slicing.names)
        # Rows without a time are counted last.
        self._counts = np.zeros((slices + 1, len(COUNTS)), dtype=np.int64)
        self._ends = np.tile([np.inf, -np.inf], (slices, 1))
        self._values: list[list[Any]] = [[None, None] for _ in range(slices)]

    def add(self, table: pa.Table, flags: NDArray[np.int64]) -> None:
        batch = replace(self._sample, table=table)
        values, times = table.column(self.column), batch.times
        slices = self._slicing.assign(batch)
        np.add.at(self._counts, slices, flags)
        order = np.lexsort((times, slices))
        order = order[slices[order] >= 0]
        starts = np.flatnonzero(np.diff(slices[order], prepend=-1))
        ends = np.append(starts[1:], len(order))[: len(starts)] - 1
        for end, at in ((0, order[starts]), (1, order[ends])):
            self._extend(
                end, slices[at], times[at], values_of(values.take(pa.array(at)), times[at])
            )

    def _extend(
        self, end: int, slices: NDArray[np.int64], times: NDArray[np.float64], values: list[Any]
    ) -> None:
        """Keep the least (0) or the greatest (1) time of each slice, as the column has it."""
        for s, time, value in zip(slices, times, values, strict=True):
            if time < self._ends[s, 0] if end == 0 else time > self._ends[s, 1]:
                self._ends[s, end], self._values[s][end] = time, value

    def slices(self) -> Iterator[Slice]:
        for (first, last), counts in zip([*self._values, [None, None]], self._counts, strict=True):
            if counts[0]:
                yield Slice(first, last, *(int(c) for c in counts))


class _Sources:
    """Counts by source, exact up to `MOST_SOURCES` of them."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._counts: pa.Table | None = None

    def add(self, table: pa.Table, flags: NDArray[np.int64]) -> None:
        names = pc.utf8_slice_codeunits(strings(table.column(self.column)), 0, _NAME)
        arrays = {name: flags[:, i] for i, name in enumerate(COUNTS)}
        part = _summed([pa.table({"value": names, **arrays})])
        self._counts = part if self._counts is None else _summed([self._counts, part])
        if self._counts.num_rows > MOST_SOURCES:
            keys = [("quarantine", "descending"), ("review", "descending"), ("rows", "descending")]
            kept = self._counts.sort_by([*keys, ("value", "ascending")])
            self._counts = kept.slice(0, MOST_SOURCES // 2).combine_chunks()

    def slices(self) -> Iterator[Slice]:
        if self._counts is None:
            return
        rows = self._counts.sort_by("value").to_pylist()
        for row in sorted(rows, key=lambda row: row["value"] is None):
            yield Slice(row["value"], row["value"], *(row[name] for name in COUNTS))


def _summed(parts: Sequence[pa.Table]) -> pa.Table:
    whole = pa.concat_tables(parts).group_by("value", use_threads=False)
    summed = whole.aggregate([(name, "sum") for name in COUNTS])
    return summed.select(["value", *(f"{n}_sum" for n in COUNTS)]).rename_columns(
        ["value", *COUNTS]
    )


def values_of(values: pa.ChunkedArray, times: NDArray[np.float64]) -> list[Any]:
    """Values of a column of times as Python has them; as numbers where no calendar has them."""
    kind = values.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        # Python's clock counts in microseconds.
        values = values.cast(pa.timestamp("us", kind.tz), safe=False)
    try:
        return list(values.to_pylist())
    except (OverflowError, ValueError):
        return [float(time) for time in times]
