"""What people have ruled, as tables beside the index of held rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from pipelines.audit import Audit
from pipelines.rulings import MOST_ROWS, NONE, Ruling, Rulings

#: Rows of a ruling that are looked up one by one, at most.
FEW = 50

_TABLES = """
create table memory.said (number integer, row_id varchar, who varchar, verdict varchar);
create table memory.standing (place integer, verdict varchar, who varchar);
"""
# The last ruling on a row stands, unless it takes back.
_STAND = """
insert into memory.standing
select h.place, t.verdict, t.who from i.held h join (
  select row_id, arg_max(verdict, number) as verdict, arg_max(who, number) as who
  from memory.said group by row_id
) t using (row_id) where t.verdict <> 'none'
"""
_FORGET = """
delete from memory.standing
where place in (select place from i.held semi join told using (row_id))
"""
_STAND_NOW = """
insert into memory.standing
select h.place, t.verdict, t.who from i.held h join told t using (row_id)
"""
_PLACE = "select place from i.held where row_id = ?"
_CONFLICTS = """
select row_id from (
  select row_id, who, arg_max(verdict, number) as verdict from memory.said group by all
) where verdict <> 'none' group by row_id having count(distinct verdict) > 1
"""


class Said:
    """The log of rulings in memory, kept up with what is appended to it.

    Parameters
    ----------
    base : duckdb.DuckDBPyConnection
        With the index attached as ``i``.
    log : Rulings
    """

    def __init__(self, base: duckdb.DuckDBPyConnection, log: Rulings) -> None:
        self._base = base
        self.log = log
        self._rulings: list[Ruling] = []
        self._rows: list[int] = []
        self._size = -1
        #: What audits have ruled.
        self.audit = Audit()
        base.execute(_TABLES)
        self.read_again()

    @property
    def rulings(self) -> Sequence[tuple[Ruling, int]]:
        """All rulings without their rows, and how many rows each has; the first one first."""
        return list(zip(self._rulings, self._rows, strict=True))

    def read_again(self) -> None:
        """Read the log where it has changed since.

        Raises
        ------
        IntegrityError
            If it was tampered with.
        """
        self.log.renew()
        size = self._now()
        if size == self._size:
            return
        found = list(self.log.read())
        self._base.execute("delete from memory.said; delete from memory.standing")
        self._rulings, self._rows = [], []
        if found:
            self._base.register("told", _told(found))
            self._base.execute("insert into memory.said select * from told")
            self._base.unregister("told")
            self._base.execute(_STAND)
        for ruling in found:
            self._remember(ruling)
        self.audit = Audit.of(found)
        self._size = size

    def add(
        self,
        row_ids: Sequence[str],
        verdict: str,
        *,
        who: str,
        why: str,
        group: str = "",
        drawn: str | None = None,
    ) -> int:
        """Append rulings, and take them in without reading the log again."""
        done = 0
        for start in range(0, max(len(row_ids), 1), MOST_ROWS):
            size, last = self._now(), self._rulings[-1] if self._rulings else None
            some = row_ids[start : start + MOST_ROWS]
            ruling = self.log.add(some, verdict, who=who, why=why, group=group, drawn=drawn)
            done += len(ruling.row_ids)
            follows = ruling.number == (last.number if last else 0) + 1
            if size == self._size and follows:
                self._apply(ruling)
                self._size = self._now()
            else:
                self.read_again()
        return done

    def history(self, cursor: duckdb.DuckDBPyConnection, row_id: str) -> list[Ruling]:
        """The rulings on a row, the first one first."""
        text = "select number from memory.said where row_id = ? order by number"
        numbers = [n for (n,) in cursor.execute(text, [row_id]).fetchall()]
        return [replace(self._rulings[n - 1], row_ids=(row_id,)) for n in numbers]

    def conflicts(self) -> list[str]:
        """The rows on which two people rule differently."""
        return [row_id for (row_id,) in self._base.cursor().execute(_CONFLICTS).fetchall()]

    def rows_of(self, number: int, limit: int = MOST_ROWS) -> list[str]:
        """The rows of a ruling, or some of them."""
        text = "select row_id from memory.said where number = ? limit ?"
        found = self._base.cursor().execute(text, [number, limit]).fetchall()
        return [row_id for (row_id,) in found]

    def _now(self) -> int:
        path = self.log.path
        return path.stat().st_size if path.is_file() else 0

    def _remember(self, ruling: Ruling) -> None:
        self._rulings.append(replace(ruling, row_ids=()))
        self._rows.append(len(ruling.row_ids))

    def _apply(self, ruling: Ruling) -> None:
        """Take in a ruling that follows all others."""
        if len(ruling.row_ids) > FEW:
            self._apply_many(ruling)
        else:
            self._apply_few(ruling)
        self._remember(ruling)
        self.audit.add(ruling)

    def _apply_few(self, ruling: Ruling) -> None:
        """By the index of ids, which takes no time at all."""
        cursor, told = self._base.cursor(), (ruling.who, ruling.verdict)
        for row_id in ruling.row_ids:
            values = [ruling.number, row_id, *told]
            cursor.execute("insert into memory.said values (?, ?, ?, ?)", values)
            places = cursor.execute(_PLACE, [row_id]).fetchall()
            for (place,) in places:
                cursor.execute("delete from memory.standing where place = ?", [place])
                if ruling.verdict != NONE:
                    values = [place, ruling.verdict, ruling.who]
                    cursor.execute("insert into memory.standing values (?, ?, ?)", values)

    def _apply_many(self, ruling: Ruling) -> None:
        self._base.register("told", _told([ruling]))
        self._base.execute("insert into memory.said select * from told")
        self._base.execute(_FORGET)
        if ruling.verdict != NONE:
            self._base.execute(_STAND_NOW)
        self._base.unregister("told")


def _told(rulings: Sequence[Ruling]) -> pa.Table:
    """Rulings row by row."""
    counts = [len(ruling.row_ids) for ruling in rulings]

    def spread(values: list[Any], kind: pa.DataType) -> pa.Array:
        codes = np.repeat(np.arange(len(values)), counts)
        return pa.array(values, kind).take(pa.array(codes, pa.int64()))

    ids = [row_id for ruling in rulings for row_id in ruling.row_ids]
    return pa.table(
        {
            "number": spread([ruling.number for ruling in rulings], pa.int32()),
            "row_id": pa.array(ids, pa.string()),
            "who": spread([ruling.who for ruling in rulings], pa.string()),
            "verdict": spread([ruling.verdict for ruling in rulings], pa.string()),
        }
    )
