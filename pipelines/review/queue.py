"""The queue: held rows by what was ruled on them, page by page, straight from the index."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipelines.review.filters import OPEN, Filter
from pipelines.review.said import Said
from pipelines.rulings import Ruling, Rulings
from sanitizers.core.errors import PlanError
from sanitizers.core.verdicts import KEEP

#: Rows and groups of a page.
ROWS, GROUPS = 50, 20
#: Places behind the last row of a page in which the next ones are looked for first.
NEAR = 5_000
#: Values of a filter that are offered, the most frequent ones.
OFFERED = 50

# Requests run side by side; within one more threads cost more than they save.
_CONFIG: dict[str, str | bool | int | float | list[str]] = {"memory_limit": "1GB", "threads": 1}
_ROW = """h.place, h.row_id, h.part, h.shard, h.position, h.verdict, h.sanitizer, h.opinions,
h.score, h.line, h.p_value, h.message, h.shared, h.label, h.source, h.time,
s.verdict as ruled, s.who"""
# What three of four rows have is usual.
_MOST = """
select shared,
  case when 4 * max(by_label) filter (label is not null) >= 3 * count(*) then mode(label) end
  as label,
  case when 4 * max(by_verdict) >= 3 * count(*) then mode(verdict) end as verdict
from (
  select shared, label, verdict, count(*) over (partition by shared, label) as by_label,
    count(*) over (partition by shared, verdict) as by_verdict
  from told
) group by shared"""
_ODD = """coalesce(
  (m.label is not null and t.label is distinct from m.label)
  or (m.verdict is not null and t.verdict <> m.verdict), false)"""
_FIGURES = re.compile(r" \([^()]*\d[^()]*\)$")
_FROM = "held h left join memory.standing s on s.place = h.place"


@dataclass(frozen=True)
class HeldRow:
    """A held row, as the index knows it; `ruled` and `who` are None where nobody has ruled."""

    place: int
    row_id: str
    part: int
    shard: int
    position: int
    verdict: str
    sanitizer: str
    opinions: int
    score: float | None
    line: float | None
    p_value: float | None
    message: str | None
    shared: str | None
    label: str | None
    source: str | None
    time: float | None
    ruled: str | None
    who: str | None

    @property
    def is_unreadable(self) -> bool:
        """True where it could not be read, and can thus not be kept."""
        return self.shard < 0


@dataclass(frozen=True)
class HeldGroup:
    """Rows that share what holds them: one decision for all.

    Parameters
    ----------
    shared : str
        Its key.
    sanitizer : str
    rows, open, exceptions : int
        Rows in all that the filter takes, those without a ruling, and those that stand out:
        their label or verdict is not the usual one.
    message : str
        The reason of its first row.
    verdict : str
        The gravest.
    label, usual : str or None
        The label and the verdict that three of four rows have; None where there is no such.
    """

    shared: str
    sanitizer: str
    rows: int
    open: int
    exceptions: int
    message: str
    verdict: str
    label: str | None
    usual: str | None

    @property
    def reason(self) -> str:
        """What holds them all, without the figures of its first row."""
        return _FIGURES.sub("", self.message)

    def is_odd(self, row: HeldRow) -> bool:
        """Whether a row of it stands out."""
        usual = ((self.label, row.label), (self.usual, row.verdict))
        return any(most is not None and one != most for most, one in usual)


@dataclass(frozen=True)
class Facet:
    """A value that rows can be filtered by, and how many have it."""

    value: str
    rows: int


class Queue:
    """The held rows of one index, beside the log of rulings on its dataset.

    Parameters
    ----------
    index : Path
        As `Held.index` makes it.
    rulings : Rulings
    """

    def __init__(self, index: Path, rulings: Rulings) -> None:
        self._base = duckdb.connect(":memory:", config=_CONFIG)
        self._base.execute(f"attach '{str(index).replace(chr(39), chr(39) * 2)}' as i (read_only)")
        self._base.execute("use i")
        self._base.execute("set enable_progress_bar = false")
        # From here on it reads and writes no other file, whatever a query might ask.
        self._base.execute("set enable_external_access = false")
        self._base.execute("set lock_configuration = true")
        self._lock = threading.RLock()
        self.said = Said(self._base, rulings)

    def close(self) -> None:
        """Let go of the index."""
        self._base.close()

    def count(self, chosen: Filter) -> int:
        """How many rows a filter takes."""
        where, values = chosen.sql()
        (found,) = self._ask(f"select count(*) from {_FROM} where {where}", values)
        return int(found[0])

    def rows(self, chosen: Filter, after: int = 0, limit: int = ROWS) -> list[HeldRow]:
        """The rows of a filter, worst first, from behind a place on.

        Rows of a group are left out, unless the filter names it or looks back at what was
        ruled: they are decided on together.
        """
        where, values = chosen.sql()
        alone = chosen.group or chosen.state != OPEN
        where += "" if alone else " and h.shared is null"
        text = f"""select {_ROW} from {_FROM} where {where} and h.place > ? and h.place <= ?
        order by h.place limit ?"""
        found: list[tuple[Any, ...]] = []
        # Mostly they lie close by, and then no more of the index needs to be looked at.
        for last in (after + NEAR, sys.maxsize):
            found = self._ask(text, [*values, after, last, limit])
            if len(found) == limit:
                break
        return [HeldRow(*row) for row in found]

    def groups(self, chosen: Filter, skip: int = 0, limit: int = GROUPS) -> list[HeldGroup]:
        """The groups that have a row of the filter, the worst first."""
        where, values = chosen.sql()
        text = f"""
        with told as (
          select h.*, s.place as ruled_at from {_FROM} where {where} and h.shared is not null
        ), most as ({_MOST})
        select t.shared, any_value(g.sanitizer), count(*), count(*) filter (ruled_at is null),
          count(*) filter ({_ODD}), arg_min(t.message, t.place), min(t.verdict),
          any_value(m.label), any_value(m.verdict)
        from told t join groups g on g.shared = t.shared join most m on m.shared = t.shared
        group by t.shared, g.first order by g.first limit ? offset ?"""
        return [HeldGroup(*row) for row in self._ask(text, [*values, limit, skip])]

    def members(self, chosen: Filter, skip: int = 0, limit: int = ROWS) -> list[HeldRow]:
        """The rows of a group, those first that stand out: another label, another verdict."""
        where, values = chosen.sql()
        text = f"""
        with told as (select {_ROW} from {_FROM} where {where}), most as ({_MOST})
        select t.* from told t, most m order by {_ODD} desc, place
        limit ? offset ?"""
        return [HeldRow(*row) for row in self._ask(text, [*values, limit, skip])]

    def row(self, row_id: str) -> HeldRow | None:
        """A held row by its id."""
        found = self._ask(f"select {_ROW} from {_FROM} where h.row_id = ?", [row_id])
        return HeldRow(*found[0]) if found else None

    def next(self, chosen: Filter, after: int) -> HeldRow | None:
        """The first row of a filter behind a place."""
        return next(iter(self.rows(chosen, after, 1)), None)

    def before(self, chosen: Filter, place: int) -> HeldRow | None:
        """The last row of a filter before a place."""
        where, values = chosen.sql()
        where += "" if chosen.group or chosen.state != OPEN else " and h.shared is null"
        text = f"""select {_ROW} from {_FROM} where {where} and h.place < ?
        order by h.place desc limit 1"""
        found = self._ask(text, [*values, place])
        return HeldRow(*found[0]) if found else None

    def ids(self, chosen: Filter, limit: int) -> list[str]:
        """The ids of the rows of a filter, worst first."""
        where, values = chosen.sql()
        text = f"select h.row_id from {_FROM} where {where} order by h.place limit ?"
        return [row[0] for row in self._ask(text, [*values, limit])]

    def listed(self, chosen: Filter, limit: int) -> Iterator[HeldRow]:
        """All rows of a filter, worst first, page by page."""
        where, values = chosen.sql()
        text = f"use i; select {_ROW} from {_FROM} where {where} order by h.place limit ?"
        found = self._base.cursor().execute(text, [*values, limit])
        while some := found.fetchmany(1_000):
            yield from (HeldRow(*row) for row in some)

    def facets(self) -> dict[str, list[Facet]]:
        """What rows can be filtered by: the most frequent values."""
        found: dict[str, list[Facet]] = {"sanitizer": [], "label": [], "source": []}
        text = f"""select what, value, rows from facets
        qualify row_number() over (partition by what order by rows desc, value) <= {OFFERED}
        order by rows desc, value"""
        for what, value, rows in self._ask(text, []):
            found[what].append(Facet(value, rows))
        return found

    def times(self) -> tuple[float, float] | None:
        """The first and the last time of a held row; None where there is no such column."""
        ((low, high),) = self._ask("select min(time), max(time) from held", [])
        return None if low is None else (low, high)

    def rule(
        self,
        row_ids: Sequence[str],
        verdict: str,
        *,
        who: str,
        why: str,
        group: str,
        drawn: str | None = None,
    ) -> int:
        """Rule on rows.

        Returns
        -------
        int
            How many rows were ruled on.

        Raises
        ------
        PlanError
            If a row that could not be read is to be kept, or as `Rulings.add` does.
        """
        with self._lock:
            if verdict == KEEP and (bad := self._unreadable(row_ids)):
                raise PlanError(
                    f"{bad:,} of these rows could not be read, and cannot be kept",
                    do="mend their file and run again",
                )
            return self.said.add(row_ids, verdict, who=who, why=why, group=group, drawn=drawn)

    @contextmanager
    def fresh(self) -> Iterator[Queue]:
        """The queue as it is after whatever others have ruled meanwhile."""
        with self._lock:
            self.said.read_again()
        yield self

    def history(self, row_id: str) -> list[Ruling]:
        """The rulings on a row, the first one first, each with this row alone."""
        return self.said.history(self._base.cursor(), row_id)

    def _unreadable(self, row_ids: Sequence[str]) -> int:
        if len(row_ids) == 1:
            row = self.row(row_ids[0])
            return int(row is not None and row.is_unreadable)
        ids = pa.table({"row_id": pa.array(row_ids, pa.string())})
        cursor = self._base.cursor()
        cursor.register("asked", ids)
        text = "select count(*) from i.held semi join asked using (row_id) where shard < 0"
        (found,) = cursor.execute(text).fetchall()
        return int(found[0])

    def _ask(self, text: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        return self._base.cursor().execute(f"use i; {text}", values).fetchall()
