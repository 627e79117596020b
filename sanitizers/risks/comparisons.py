"""Which rows are compared with which: times, sources, and the data with a reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sanitizers.core.data import ROW_ID, Batch, Dataset, Roles
from sanitizers.core.encoder import as_numbers
from sanitizers.risks.columns import kind

#: Fewer rows than this on either side are not compared.
LEAST = 100
#: Sources that are compared with the others, the largest.
MOST_SOURCES = 20
#: Rows of the reference that are read, at most.
REFERENCE_ROWS = 20_000
QUARTERS = ("oldest", "second", "third", "newest")


@dataclass(frozen=True)
class Comparison:
    """Some rows, and which of them are held against the others.

    Parameters
    ----------
    name : str
        What the rows are, such as ``the newest half``.
    against : str
        What the others are.
    rows : Batch
    mine : ndarray of bool, shape (n,)
    role : str
        ``time``, ``source`` or ``reference``.
    newest : bool
        Whether they arrived after all others.
    """

    name: str
    against: str
    rows: Batch
    mine: NDArray[np.bool_]
    role: str
    newest: bool = False

    @property
    def large(self) -> bool:
        """Whether both sides have rows enough to be compared."""
        return min(int(self.mine.sum()), int((~self.mine).sum())) >= LEAST


def comparisons(data: Dataset, sample: Batch, reference: Dataset | None) -> tuple[Comparison, ...]:
    """All comparisons of which both sides have enough rows.

    Parameters
    ----------
    data : Dataset
    sample : Batch
        Rows of `data` in the order of their salted ids.
    reference : Dataset or None
    """
    held = [*_times(sample), *_sources(sample)]
    if reference is not None and reference.rows:
        held += _reference(data, sample, reference)
    return tuple(c for c in held if c.large)


def _times(sample: Batch) -> Iterator[Comparison]:
    """The newest half against the oldest, and each quarter against the rest."""
    if not sample.roles.time:
        return
    times = sample.times
    known = np.isfinite(times)
    if known.sum() < 2 * LEAST:
        return
    rows, times = sample.take(known), times[known]
    quarter = np.searchsorted(np.quantile(times, [0.25, 0.5, 0.75]), times, side="left")
    yield Comparison("the newest half", "the oldest half", rows, quarter >= 2, "time")
    for i, name in enumerate(QUARTERS):
        newest = i == len(QUARTERS) - 1
        yield Comparison(
            f"the {name} quarter", "the other rows", rows, quarter == i, "time", newest
        )


def _sources(sample: Batch) -> Iterator[Comparison]:
    if not sample.roles.source:
        return
    sources = sample.sources
    known = np.array([s is not None for s in sources], dtype=bool)
    names, sizes = np.unique(sources[known].astype(str), return_counts=True)
    rows = sample.take(known)
    for i in np.lexsort((names, -sizes))[:MOST_SOURCES]:
        mine = np.asarray(sources[known] == names[i], dtype=bool)
        yield Comparison(f"source {str(names[i])!r}", "the other sources", rows, mine, "source")


def _reference(data: Dataset, sample: Batch, reference: Dataset) -> Iterator[Comparison]:
    """The rows that the reference does not have, against the reference."""
    roles = common_roles(data, reference)
    if not roles.features:
        return
    other = replace(reference, roles=roles, trusted=()).sample(REFERENCE_ROWS, "risks")
    fresh = sample.take(~_among(sample, reference))
    tables = [_plain(fresh.table, roles), _plain(other.table, roles)]
    rows = Batch(pa.concat_tables(tables), roles, data.salt, other.encoder)
    mine = np.arange(len(rows)) < len(fresh)
    yield Comparison("the new rows", "the reference", rows, mine, "reference", newest=True)


def _among(rows: Batch, reference: Dataset) -> NDArray[np.bool_]:
    """Which rows the reference has too, by their ids."""
    found = np.zeros(len(rows), dtype=bool)
    ids = rows.row_ids.cast(pa.string())
    for shard in reference.shards:
        theirs = shard.read([ROW_ID]).column(ROW_ID).cast(pa.string()).combine_chunks()
        found |= pc.is_in(ids, value_set=theirs).to_numpy()
    return found


def common_roles(data: Dataset, reference: Dataset) -> Roles:
    """The roles whose columns are of one kind in both."""
    schemas = [d.shards[0].schema for d in (data, reference)]

    def common(name: str | None) -> bool:
        if not name or any(s.get_field_index(name) < 0 for s in schemas):
            return False
        first, second = (kind(s.field(name).type) for s in schemas)
        return first == second != ""

    roles = data.roles
    return Roles(
        label=roles.label if common(roles.label) else None,
        target=roles.target if common(roles.target) else None,
        features=tuple(n for n in roles.features if common(n)),
    )


def _plain(table: pa.Table, roles: Roles) -> pa.Table:
    """Rows as texts and float64, so that two datasets can stand in one table."""
    columns = {ROW_ID: table.column(ROW_ID).cast(pa.string())}
    for name in roles.columns:
        column = table.column(name)
        number = kind(column.type) == "number" and name != roles.label
        columns[name] = pa.array(as_numbers(column)) if number else column.cast(pa.string())
    return pa.table(columns)
