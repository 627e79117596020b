"""Rows that agree in every feature and have different labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sanitizers.core.contents import (
    MOST_CLASSES,
    MOST_CONTENTS,
    Hashes,
    content_columns,
    content_hashes,
)
from sanitizers.core.counts import Blotter, Codes, Counts, Tally
from sanitizers.core.data import Batch, Dataset, mix
from sanitizers.core.errors import PlanError

#: No score is higher unless a trusted row denies the label.
UNSURE = 0.99
#: So many repeats say nothing about the data.
FEW = 20


@dataclass(frozen=True)
class Conflicts:
    """How strongly rows with the same values in every feature deny a row's label.

    Threat: copies of rows with another label. The attacker adds rows that are, but for
    their label, rows that are there. Also mistaken labels where rows repeat by nature.

    Blind spots: copies that differ in a digit (`labels` sees some of them). Without trusted
    rows nothing tells which label is right, so that every row of a content in conflict is
    for review: 20 wrong copies and the one right row, or 20 right rows and the one mistake.
    Data of which so many rows repeat that equal features say little: the rule abstains, and
    who adds enough repeats makes it abstain (the risks `duplicates` and `conflicts` tell of
    them). Of more than six million rows it sees a share: half of the contents of ten million.

    Parameters
    ----------
    coarse : float
        Abstain where a larger share of the rows repeats an earlier one, but for its label. Cost
        of all: about 1 s per 1,000,000 rows of 20 columns, and 200 MB at most.

    Notes
    -----
    Rows that agree in every feature have one *content*; missing equals missing. Of a content
    with several labels, a row whose label `a` of its rows have, itself among them, and the
    most frequent other label `b`, scores ``b / (a + b)``, at most 0.99: 0.5 in a tie, of
    three labels too, more in a minority. Where a trusted row has the content, its label
    scores 0 and every other one 1. A row that no other denies scores 0.

    The default lines quarantine what a trusted row denies, and review all other conflicts.
    On clean real tables that reviews 0.05 % of the rows on the mean and 0.19 % on the worst
    (report half; tuning half 0.001 and 0.008 %), and quarantines none. Of 5 % of the rows
    copied once, twice or 20 times with another label all are found, for one clean row in
    review per row that was copied. Of labels flipped at random 1.5 % are found, those of rows
    with a twin; on spambase, of which 8 % of the rows repeat, 12 %, for 5 % of the clean rows
    in review. To quarantine minorities and keep majorities would be worse: two wrong copies
    outvote the right row. On the tuning half it finds 1 % of rows copied twice, and loses
    3.5 % of the clean rows. To believe only majorities as large as are common without
    conflict loses 19 % of the rows copied twice where 0.2 % of the rows are, and gains nothing
    but 0.5 % of random flips that go from review to quarantine. A plan can say so:
    ``quarantine = "score > 0.5"``, ``review = "score > 0.49"``.

    `coarse` comes from copies of the tuning tables with fewer columns and fewer values in
    each. Where 10 to 15 % of the rows repeat, 2 % are for review on the mean; at 15 to 20 %
    it is 5 %, at 20 to 30 % 10 %. Tables as they are have 10 % at most, but mammography
    (30 %). Repeats were counted label and all then; but where the label tells rows apart that
    are alike in all else (visits of a patient), none repeats, and up to 66 % were for review.

    References
    ----------
    Our own rule.
    """

    name: ClassVar[str] = "conflicts"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "label"})

    coarse: float = 0.15

    def __post_init__(self) -> None:
        if not 0 <= self.coarse <= 1:
            raise PlanError(f"conflicts: coarse={self.coarse}", expected="a share in [0, 1]")

    def fit(self, data: Dataset) -> ConflictScorer:
        reader = _Reader(data, content_columns(data.roles))
        trusted = reader.trusted()
        seen, found = reader.count(trusted)
        natural = seen.repeats - FEW > self.coarse * int(seen.rows.sum())
        if not reader.names or len(reader.classes) > MOST_CLASSES or natural:
            return ConflictScorer()
        classes = tuple(sorted(reader.classes))
        place = {name: i for i, name in enumerate(classes)}
        rank = np.array([place[name] for name in reader.classes], dtype=np.int64)
        found, trusted = (Counts.of(c.content, rank[c.label], c.rows) for c in (found, trusted))
        denials = _Denials.of(found).trusting(trusted)
        return ConflictScorer(reader.names, classes, *denials.told())

    def reason(self, score: float, hint: str | None) -> str:
        """Say how many rows with the same values have which other label."""
        if not hint:
            return "no row with the same values in every feature has another label"
        return hint if score == 1 else f"{hint}, and no trusted row says which label is right"


@dataclass(frozen=True)
class ConflictScorer:
    """The contents of which rows deny one another, and how strongly.

    Parameters
    ----------
    names : tuple of str
        The columns of a content.
    classes : tuple of str
        In their order; none where the rule abstains.
    keys : ndarray of uint64, shape (m,)
        Rising; one for each content and label that is denied.
    scores : ndarray of float64, shape (m,)
    against : ndarray of int64, shape (m, 3)
        The other label, by its place in `classes`; how many twins have it, 0 where a trusted
        row has it; and all twins.
    """

    names: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    keys: Hashes = field(repr=False, default_factory=lambda: np.empty(0, np.uint64))
    scores: NDArray[np.float64] = field(repr=False, default_factory=lambda: np.empty(0))
    against: NDArray[np.int64] = field(repr=False, default_factory=lambda: np.empty((0, 3), int))
    null: None = None

    def score(self, batch: Batch) -> NDArray[np.float64]:
        codes = self._codes(batch)
        rows, at = self._denied(batch, codes)
        scores = np.where(codes >= 0, 0.0, np.nan)
        scores[rows] = self.scores[at]
        return scores

    def hint(self, batch: Batch) -> Sequence[str | None]:
        hints: list[str | None] = [None] * len(batch)
        rows, at = self._denied(batch, self._codes(batch))
        for row, (label, holders, twins) in zip(rows, self.against[at].tolist(), strict=True):
            hints[row] = _told(self.classes[label], holders, twins)
        return hints

    def _codes(self, batch: Batch) -> Codes:
        return _codes(batch, {name: i for i, name in enumerate(self.classes)})

    def _denied(self, batch: Batch, codes: Codes) -> tuple[Codes, Codes]:
        """The rows of a batch that are denied, and their places in `keys`."""
        if not len(self.keys):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        keys = _keys(content_hashes(batch.table, self.names, batch.salt), codes)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        rows = np.flatnonzero((codes >= 0) & (self.keys[at] == keys))
        return rows, at[rows]


@dataclass(frozen=True)
class _Reader:
    """Reads contents and labels, and numbers the classes as they come."""

    data: Dataset
    names: tuple[str, ...]
    classes: dict[str, int] = field(default_factory=dict)

    def trusted(self) -> Counts:
        """What the rows that a person vouches for hold."""
        batch = self.data.trusted_rows
        return Counts.joined([] if batch is None else [Counts.of(*self._read(batch))])

    def count(self, trusted: Counts) -> tuple[Counts, Counts]:
        """Count all rows: a sample where there are many, and those that may be denied."""
        tally = Tally(MOST_CONTENTS)
        blotter = Blotter() if self.data.rows > MOST_CONTENTS else None
        if blotter:
            blotter.add(trusted.content, trusted.label)
        for content, label in self._rows():
            tally.add(content, label)
            if blotter:
                blotter.add(content, label)
        seen = tally.counts()
        if tally.complete or not blotter:
            return seen, seen
        rest = Tally(MOST_CONTENTS)
        for content, label in self._rows():
            some = blotter.blotted(content)
            rest.add(content[some], label[some])
        return seen, rest.counts()

    def _rows(self) -> Iterator[tuple[Hashes, Codes]]:
        for batch in self.data.batches():
            if len(self.classes) > MOST_CLASSES:
                return
            yield self._read(batch)

    def _read(self, batch: Batch) -> tuple[Hashes, Codes]:
        codes = _codes(batch, self.classes, learn=True)
        known = codes >= 0
        return content_hashes(batch.table, self.names, batch.salt)[known], codes[known]


@dataclass(frozen=True)
class _Denials:
    """For every content and label the rows that deny it, all of shape (m,)."""

    content: Hashes
    label: Codes
    score: NDArray[np.float64]
    rival: Codes
    holders: NDArray[np.int64]
    twins: NDArray[np.int64]

    @classmethod
    def of(cls, found: Counts) -> _Denials:
        """Let the labels of each content deny one another."""
        order = np.lexsort((found.label, -found.rows, found.content))
        label, rows, first = found.label[order], found.rows[order], found.first
        start = np.flatnonzero(first)
        size = np.diff(np.append(start, len(rows)))
        leader = np.repeat(start, size)
        # The rival of every label is the first of its content, and that of the first the second.
        rival = np.where(first, np.minimum(leader + 1, len(rows) - 1), leader)
        holders = np.where(np.repeat(size, size) > 1, rows[rival], 0)
        total = np.repeat(np.add.reduceat(rows, start), size) if len(rows) else rows
        return cls(
            found.content,
            label,
            np.minimum(holders / (holders + rows), UNSURE),
            label[rival],
            holders,
            total - 1,
        )

    def trusting(self, trusted: Counts) -> _Denials:
        """Let trusted rows decide wherever there are some with the same content."""
        if not len(trusted):
            return self
        at = np.minimum(np.searchsorted(trusted.content, self.content), len(trusted) - 1)
        told = trusted.content[at] == self.content
        vouched = np.isin(_keys(self.content, self.label), _keys(trusted.content, trusted.label))
        return replace(
            self,
            score=np.where(told, np.where(vouched, 0.0, 1.0), self.score),
            rival=np.where(told, trusted.label[at], self.rival),
            holders=np.where(told, 0, self.holders),
        )

    def told(self) -> tuple[Hashes, NDArray[np.float64], NDArray[np.int64]]:
        """Keys, scores and the rest of what a scorer keeps."""
        keys = _keys(self.content, self.label)
        kept = np.flatnonzero(self.score > 0)
        kept = kept[np.argsort(keys[kept], kind="stable")]
        against = np.column_stack([self.rival, self.holders, self.twins])
        return keys[kept], self.score[kept], against[kept]


def _codes(batch: Batch, classes: dict[str, int], *, learn: bool = False) -> Codes:
    """The number of every label, -1 where it is missing or not known, shape (n,)."""
    coded = pa.array(batch.labels, pa.string()).dictionary_encode()
    names = coded.dictionary.to_pylist()
    if learn:
        for name in names:
            classes.setdefault(name, len(classes))
    numbers = np.array([*(classes.get(name, -1) for name in names), -1], dtype=np.int64)
    return np.asarray(numbers[coded.indices.fill_null(len(names)).to_numpy()])


def _keys(content: Hashes, label: Codes) -> Hashes:
    """One number for a content and a label."""
    return mix(content ^ mix(label.astype(np.uint64), "conflicts/label"), "conflicts/key")


def _told(label: str, holders: int, twins: int) -> str:
    if not holders:
        return f"a trusted row with the same values is labelled {label!r}"
    if twins == 1:
        return f"its exact twin is labelled {label!r}"
    verb = "is" if holders == 1 else "are"
    return f"{holders:,} of its {twins:,} exact twins {verb} labelled {label!r}"
