"""Which labels the models would change, and into which: wrong ones often go one way."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.examined import evidence_file
from pipelines.report_facts import RunFacts
from pipelines.report_scan import read
from pipelines.report_text import Text, cut

#: The sanitizer whose hint is the label that it would give.
LABELS = "labels"
#: Pairs of labels in the table.
PAIRS = 12
#: Pairs that are counted at once; beyond it those with the fewest rows go.
_MOST = 20_000
_COUNTS = ("quarantine", "review")
_SCHEMA = pa.schema(
    [("given", pa.string()), ("instead", pa.string()), *((c, pa.int64()) for c in _COUNTS)]
)


@dataclass(frozen=True)
class Swap:
    """Rows over a line with one label, of which the models say another."""

    given: Text
    instead: Text
    quarantine: int
    review: int

    @property
    def rows(self) -> int:
        """How many they are."""
        return self.quarantine + self.review


@dataclass(frozen=True)
class Swaps:
    """The pairs with the most rows over a line of `labels`.

    Parameters
    ----------
    most : tuple of Swap
    pairs, rows : int
        How many there are in all.
    partial : bool
        True where there were too many pairs to count every one.
    """

    most: tuple[Swap, ...]
    pairs: int
    rows: int
    partial: bool


def swaps(facts: RunFacts) -> Swaps | None:
    """Count the rows over a line of `labels` by their label and the one that models would give.

    One pass, in memory set by a shard; None where there are none, or labels are no plain values.

    Raises
    ------
    IntegrityError
        If evidence is missing, or is about other rows than the input.
    """
    line = next((t for t in facts.decision.thresholds if t.sanitizer == LABELS), None)
    label, folder = facts.roles.label, facts.evidence.get(LABELS)
    if line is None or label is None or folder is None:
        return None
    lines = [c for c in (line.quarantine, line.review) if c is not None]
    source, counts, partial = facts.ingested, _SCHEMA.empty_table(), False
    for number, shard in enumerate(source.shards if lines else ()):
        said = read(evidence_file(folder, number), ["score", "hint"], shard.rows)
        over = pc.greater(said.column("score"), min(lines))
        if not pc.any(over).as_py():
            continue
        given = read(source.folder / shard.name, [label], shard.rows).column(label)
        try:
            texts = pc.utf8_slice_codeunits(given.filter(over).cast(pa.string()), 0, 1000)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return None
        counts = _summed([counts, _pairs(texts, said.filter(over), line.quarantine)])
        if counts.num_rows > _MOST:
            partial, counts = True, counts.slice(0, _MOST // 2)
    if not counts.num_rows:
        return None
    most = tuple(
        Swap(cut(row["given"], 60), cut(row["instead"], 60), *(row[c] for c in _COUNTS))
        for row in counts.slice(0, PAIRS).to_pylist()
    )
    rows = sum(pc.sum(counts.column(c)).as_py() for c in _COUNTS)
    return Swaps(most, counts.num_rows, rows, partial)


def _pairs(given: pa.ChunkedArray, over: pa.Table, quarantine: float | None) -> pa.Table:
    """A row per row over a line; those without a label or an answer have no part in it."""
    bad = pc.greater(over.column("score"), float("inf") if quarantine is None else quarantine)
    columns = [given, over.column("hint").cast(pa.string()), bad, pc.invert(bad)]
    cast = [c.cast(t) for c, t in zip(columns, _SCHEMA.types, strict=True)]
    table = pa.table(cast, schema=_SCHEMA)
    return table.filter(pc.not_equal(table.column("given"), table.column("instead")))


def _summed(parts: list[pa.Table]) -> pa.Table:
    """The counts of each pair, the largest first."""
    grouped = pa.concat_tables(parts).group_by(["given", "instead"])
    summed = grouped.aggregate([(c, "sum") for c in _COUNTS])
    table = summed.rename_columns(["given", "instead", *_COUNTS])
    falling = [(c, "descending") for c in _COUNTS]
    return table.sort_by([*falling, ("given", "ascending"), ("instead", "ascending")])
