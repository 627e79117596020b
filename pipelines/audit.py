"""Audits: what people say of rows that were drawn at random, whose ``keep`` makes rows trusted.

Rows that people choose to keep are the oddest of the clean ones, for nobody looks at others; lines
that are drawn on them find next to nothing. A draw is a fair sample of the right rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import pyarrow as pa

from pipelines.identity import content_digests, hex_ids
from pipelines.rows import FILE, ROW
from pipelines.rulings import NONE, Ruling
from sanitizers.core.data import ROW_ID, ROW_KEY
from sanitizers.core.verdicts import KEEP

#: Rows of an audit, by default; more buy little.
ENOUGH = 300
#: What the keys of the rows are mixed with, so that the order of a draw is like no other.
PURPOSE = "audit"


@dataclass
class Audit:
    """What stands in a log of the rows that audits have drawn.

    Parameters
    ----------
    ruled : dict of str to str
        What was ruled in an audit on each row; rows on which that was taken back are not there.
    kept : dict of str to str
        The rows that were kept and not overruled since, with the digests of their values.
    """

    ruled: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, rulings: Iterable[Ruling]) -> Self:
        """What stands after some rulings, the first one first."""
        audit = cls()
        for ruling in rulings:
            audit.add(ruling)
        return audit

    def add(self, ruling: Ruling) -> None:
        """Take in the ruling that follows."""
        if ruling.drawn is not None:
            (row_id,) = ruling.row_ids
            self.ruled[row_id] = ruling.verdict
            self.kept.pop(row_id, None)
            if ruling.verdict == KEEP:
                self.kept[row_id] = ruling.drawn
        elif ruling.verdict != KEEP:
            for row_id in ruling.row_ids:
                self.kept.pop(row_id, None)
                if ruling.verdict == NONE:
                    self.ruled.pop(row_id, None)


def seen(rows: pa.Table) -> list[str]:
    """The digests of the values of rows of an input, by which a row is known to be as it was.

    Whoever supplies rows with ids of their own could else give a row that people have kept
    other values later, and have it trusted.
    """
    ours = {ROW_ID, ROW_KEY, FILE, ROW}
    values = rows.select([name for name in rows.column_names if name not in ours])
    digests: list[str] = hex_ids(content_digests(values)).to_pylist()
    return digests
