"""Values that many rows of a class share, and hardly any trusted row has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sanitizers.core.classes import apart, classes_of, codes_of
from sanitizers.core.contents import value_hashes
from sanitizers.core.data import Batch, Dataset
from sanitizers.core.encoder import as_numbers, is_number
from sanitizers.core.errors import PlanError
from sanitizers.core.vectors import is_vector

#: Fewer trusted rows say nothing about values; more than the most are not looked at.
TRUSTED_LEAST, TRUSTED_MOST = 100, 5_000
#: Columns that are looked at, at most, the first ones.
COLUMNS_MOST = 100
#: Values of a column that are told apart, at most, the most frequent; and ranges of numbers,
#: which hold about as many rows each.
VALUES_MOST, RANGES = 30, 10
#: The share of the rows that share values, at least; and of all that are found, at most: more
#: than that are no plant, but trusted rows that are no random sample.
SHARE_LEAST, SHARE_MOST = 0.01, 0.1
#: A range is taken for the trigger only where the logarithm of its chance is larger by so much
#: than that of values: it has a few rows more by nature.
RANGED = 1 / 0.9
#: Of the rows with a trigger at least this share has the class that it calls for.
PURE = 0.8
#: Finds, at most: where there are more, trusted rows are no random sample.
FINDS_MOST = 3
#: Trusted rows have what the data have, but for this much: total variation of the classes beyond
#: chance, and the probability of the least likely column.
APART, UNLIKE = 0.1, 0.01
#: Where columns are compared, values that fewer trusted rows would have are counted together.
COUNTED_LEAST = 5.0
#: Characters of a value that a reason shows.
SHOWN = 40

_Codes = NDArray[np.int64]
_Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SharedValues:
    """The estimated chance that a row was planted, by values that trusted rows lack.

    Threat: a backdoor. The attacker adds rows of one class, or changes some, that share a
    trigger: a value or a range of values of one column or of two. A model learns to give the
    class to whatever has the trigger.

    Blind spots: needs at least 100 trusted rows, drawn at random from data without the
    trigger, and finds what several of them would have: with 300, 87 % of triggers in 5 % of
    the rows (``benchmarks/results/quality.md``), and none in 2 %, for which 1,000 are
    needed. Triggers of more values are found where two of them are rare together; a number
    that differs from row to row is found where all lie in a tenth of its column, and
    another column takes part. The rule abstains where the classes or the columns of trusted
    rows differ from those of the data otherwise, and where more than three triggers or a
    tenth of the rows would be found.

    Parameters
    ----------
    rows : int
        Rows that are looked at when fitted, at most, chosen by salted ids. Cost: 2 s for 20
        columns, 30 s for 100; 1 s per 1,000,000 rows besides.
    chance : float
        With which anything at all is found in data that are clean, at most. Combinations
        overlap, so it is far less: of 160 draws of ten clean tables none, at the default.

    Notes
    -----
    A *view* of a column tells its frequent values apart, or, of numbers, ten ranges. Counted is
    every combination of a class with a value of one view, or with those of two columns, that 1
    to 10 % of the rows have, if nearly all rows with these values have that class. If trusted
    rows were drawn from the data, how many would have it? Too few by chance (hypergeometric;
    Bonferroni over those combinations that could be found at all, half for those with ranges)
    make a find. The least likely one is taken, its rows leave the data, and so on until nothing
    is found.

    The score of a row is one less the share of trusted rows with the combination, half a row
    added, by that of the rows. Rows without one score 0.

    References
    ----------
    Gu, Dolan-Gavitt and Garg, "BadNets", 2017, for the threat. Tarone, "A modified Bonferroni
    method for discrete data", Biometrics 1990, for the number of tests. The rule is our own.
    """

    name: ClassVar[str] = "shared-values"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "label"})
    needs_trusted: ClassVar[bool] = True

    rows: int = 16_000
    chance: float = 0.05

    def __post_init__(self) -> None:
        if self.rows < 1 or not 0 < self.chance < 1:
            raise PlanError(
                f"shared-values: rows={self.rows}, chance={self.chance}",
                expected="rows >= 1, chance in (0, 1)",
            )

    def fit(self, data: Dataset) -> SharedScorer:
        trusted = data.trusted_rows
        if trusted is None:
            return SharedScorer()
        sample = data.sample(self.rows, "shared-values")
        sample = sample.take(~np.isin(sample.keys, trusted.keys))
        classes = classes_of(sample.labels)
        rows, vouched = (_known(batch, classes) for batch in (sample, trusted))
        vouched = vouched.take(np.arange(min(len(vouched), TRUSTED_MOST)))
        if len(vouched) < TRUSTED_LEAST or not len(rows) or len(classes) < 2:
            return SharedScorer()
        counted = _Counted.of(rows, vouched, classes)
        if not counted.views:
            return SharedScorer()
        finds = counted.finds(self.chance)
        if finds and counted.unlike(finds):
            return SharedScorer()
        return SharedScorer(classes, tuple(find for find, _ in finds))

    def reason(self, score: float, hint: str | None) -> str:
        """Say which values the row shares, and how many rows and trusted rows have them."""
        if score <= 0 or not hint:
            return "it shares no value that trusted rows lack"
        return f"{hint}: planted with a chance of {score:.0%}"


@dataclass(frozen=True)
class Value:
    """A value of a column, or a range of values.

    Parameters
    ----------
    column : str
    code : int
        The hash of the value, or the place of the range.
    shown : str
    edges : tuple of float
        Where ranges end; empty for a value.
    """

    column: str
    code: int
    shown: str
    edges: tuple[float, ...] = ()

    def of(self, batch: Batch) -> _Mask:
        """The rows that have it, shape (n,)."""
        column = batch.table.column(self.column)
        if self.edges:
            return np.asarray(_ranges(column, np.array(self.edges)) == self.code)
        return np.asarray(value_hashes(column, batch.salt) == np.uint64(self.code))

    def __str__(self) -> str:
        return f"{self.column!r} {self.shown}"


@dataclass(frozen=True)
class Find:
    """A combination of values and a class that trusted rows lack.

    Parameters
    ----------
    values : tuple of Value
        One or two.
    label : int
    chance : float
        That so few trusted rows would have it.
    rows, having : int
        Rows of the data that were looked at, and those of them that have it.
    trusted, vouched : int
        The same of trusted rows.
    """

    values: tuple[Value, ...]
    label: int
    chance: float
    rows: int
    having: int
    trusted: int
    vouched: int

    @property
    def score(self) -> float:
        """The share of the rows with it that trusted rows do not account for."""
        usual = (self.vouched + 0.5) / (self.trusted + 1)
        return round(max(1 - usual / (self.having / self.rows), 0.0), 3)

    def told(self, label: str) -> str:
        """The find in words."""
        return (
            f"{' and '.join(map(str, self.values))} with the label {label!r} have "
            f"{self.having:,} of {self.rows:,} rows and {self.vouched:,} of {self.trusted:,} "
            "trusted ones"
        )


@dataclass(frozen=True)
class SharedScorer:
    """What was found; without classes it abstains."""

    classes: tuple[str, ...] = ()
    finds: tuple[Find, ...] = ()
    null: None = None

    def score(self, batch: Batch) -> NDArray[np.float64]:
        codes = codes_of(batch.labels, self.classes)
        scores = np.where(codes >= 0, 0.0, np.nan)
        found = self._find_of(batch, codes)
        shared = found >= 0
        scores[shared] = np.array([find.score for find in self.finds])[found[shared]]
        return scores

    def hint(self, batch: Batch) -> Sequence[str | None]:
        told = [*(find.told(self.classes[find.label]) for find in self.finds), None]
        return [told[k] for k in self._find_of(batch, codes_of(batch.labels, self.classes))]

    def _find_of(self, batch: Batch, codes: _Codes) -> _Codes:
        """The least likely find that each row has, -1 for none, shape (n,)."""
        found = np.full(len(batch), -1)
        for k, find in reversed(list(enumerate(self.finds))):
            masks = [value.of(batch) for value in find.values]
            found[np.all(masks, axis=0) & (codes == find.label)] = k
        return found


@dataclass(frozen=True)
class _View:
    """How a column is seen: codes of rows and of trusted rows, -1 for none of the values."""

    rows: _Codes
    vouched: _Codes
    values: tuple[Value, ...]


@dataclass(frozen=True)
class _Cell:
    """A class with one value of each of some views, and how many rows have it."""

    views: tuple[_View, ...]
    place: int
    label: int
    chance: float
    having: int
    vouched: int

    @property
    def values(self) -> tuple[Value, ...]:
        """One value for each view."""
        places = np.unravel_index(self.place, [len(view.values) for view in self.views])
        return tuple(v.values[int(k)] for v, k in zip(self.views, places, strict=True))


@dataclass(frozen=True)
class _Counted:
    """Rows and trusted rows by their classes and views.

    Parameters
    ----------
    y, vouched : ndarray of int64, shape (n,) and (t,)
    classes : int
    views : tuple of _View
    """

    y: _Codes
    vouched: _Codes
    classes: int
    views: tuple[_View, ...] = field(repr=False)

    @classmethod
    def of(cls, rows: Batch, vouched: Batch, classes: Sequence[str]) -> _Counted:
        names = [n for n in rows.roles.features if not is_vector(rows.table.column(n).type)]
        views = (view for name in names[:COLUMNS_MOST] for view in _views(name, rows, vouched))
        y, told = (codes_of(batch.labels, classes) for batch in (rows, vouched))
        return cls(y, told, len(classes), tuple(views))

    def finds(self, chance: float) -> list[tuple[Find, _Mask]]:
        """What trusted rows lack, the least likely first, and its rows; at most one too many."""
        found: list[tuple[Find, _Mask]] = []
        left = np.ones(len(self.y), dtype=bool)
        while len(found) <= FINDS_MOST and (cell := self._least_likely(left, chance)):
            having = left & (self.y == cell.label)
            having &= _places([v.rows for v in cell.views], cell.views) == cell.place
            left &= ~having
            counts = (len(self.y), cell.having, len(self.vouched), cell.vouched)
            found.append((Find(cell.values, cell.label, cell.chance, *counts), having))
        return found

    def _least_likely(self, left: _Mask, chance: float) -> _Cell | None:
        """What trusted rows lack most surprisingly, unless chance explains that."""
        # Half a second: only for those who look for shared values.
        from scipy.stats import hypergeom

        n, t = len(self.y), len(self.vouched)
        best: dict[bool, _Cell] = {}
        margins: dict[bool, list[_Codes]] = {False: [], True: []}
        for views in self._combinations():
            places = _places([v.rows for v in views], views)
            having = self._counts(views, np.where(left, places, -1), self.y)
            told = _places([v.vouched for v in views], views)
            vouched = self._counts(views, told, self.vouched)
            cells = self._triggers(having + vouched)
            if not len(cells):
                continue
            vouched = vouched[cells]
            ranged = any(view.values[0].edges for view in views)
            margins[ranged].append(having[cells] + vouched)
            p = hypergeom.cdf(vouched, n + t, margins[ranged][-1], t)
            k = int(p.argmin())
            if ranged not in best or p[k] < best[ranged].chance:
                place, label = divmod(int(cells[k]), self.classes)
                counts = int(having[cells[k]]), int(vouched[k])
                best[ranged] = _Cell(views, place, label, float(p[k]), *counts)
        # Ranges make many more combinations than values do: each kind has half of the chance.
        found = {}
        for ranged, cell in best.items():
            least = hypergeom.cdf(0, n + t, np.concatenate(margins[ranged]), t)
            if cell.chance * _tests(least, chance / 2) <= chance / 2:
                found[ranged] = cell
        if len(found) == 2 and found[True].chance > found[False].chance ** RANGED:
            return found[False]
        return min(found.values(), key=lambda c: c.chance, default=None)

    def _combinations(self) -> Iterator[tuple[_View, ...]]:
        """Views of one column and of two: a single range is too wide for a trigger."""
        yield from ((view,) for view in self.views if not view.values[0].edges)
        for one, other in combinations(self.views, 2):
            if one.values[0].column != other.values[0].column:
                yield one, other

    def _triggers(self, both: _Codes) -> _Codes:
        """The combinations of values and class that could be triggers.

        Chosen by the rows of both kinds that have them, so that the choice favours neither: what
        is just frequent enough among the rows alone is rarer among trusted ones by chance.
        """
        share = both / (len(self.y) + len(self.vouched))
        of_values = np.repeat(both.reshape(-1, self.classes).sum(axis=1), self.classes)
        able = (share >= SHARE_LEAST) & (share <= SHARE_MOST) & (both >= PURE * of_values)
        return np.flatnonzero(able)

    def _counts(self, views: Sequence[_View], places: _Codes, labels: _Codes) -> _Codes:
        """How many rows have each combination of values and class."""
        size = int(np.prod([len(view.values) for view in views])) * self.classes
        known = places >= 0
        return np.bincount((places * self.classes + labels)[known], minlength=size)

    def unlike(self, finds: Sequence[tuple[Find, _Mask]]) -> bool:
        """Whether trusted rows differ from the data beyond what was found."""
        left = ~np.any([having for _, having in finds], axis=0)
        if len(finds) > FINDS_MOST or (~left).mean() > SHARE_MOST or not left.any():
            return True
        if apart(self.vouched, self.y[left], self.classes) > APART:
            return True
        chances = [_alike(view.rows[left], view.vouched, len(view.values)) for view in self.views]
        return min(chances) * len(chances) < UNLIKE


def _known(batch: Batch, classes: Sequence[str]) -> Batch:
    """The rows that have one of the classes."""
    return batch.take(codes_of(batch.labels, classes) >= 0)


def _views(name: str, rows: Batch, vouched: Batch) -> Iterator[_View]:
    """The frequent values of a column, and its ranges where it has many."""
    column, told = rows.table.column(name), vouched.table.column(name)
    hashes, vouched_hashes = value_hashes(column, rows.salt), value_hashes(told, vouched.salt)
    # Of both kinds of rows together: see `_triggers`.
    all_hashes = np.concatenate([hashes, vouched_hashes])
    values, first, counts = np.unique(all_hashes, return_index=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:VALUES_MOST]
    frequent = np.sort(order[counts[order] >= SHARE_LEAST * len(all_hashes)])
    if len(frequent):
        # Each kind has types of its own: neither need fit into the other's.
        at = [int(first[k]) for k in frequent]
        values_at = [column[k] if k < len(rows) else told[k - len(rows)] for k in at]
        shown = [f"= {_shown(value)}" for value in values_at]
        found = values[frequent]
        yield _View(
            _codes_in(found, hashes),
            _codes_in(found, vouched_hashes),
            tuple(Value(name, int(v), text) for v, text in zip(found, shown, strict=True)),
        )
    if is_number(column.type) and is_number(told.type) and len(values) > 2 * RANGES:
        numbers = np.concatenate([as_numbers(column), as_numbers(told)])
        known = numbers[np.isfinite(numbers)]
        edges = (
            np.unique(np.quantile(known, np.arange(1, RANGES) / RANGES)) if len(known) else known
        )
        if len(edges):
            ends = ["-∞", *(f"{edge:.6g}" for edge in edges), "∞"]
            shown = [f"from {a} to {b}" for a, b in pairwise(ends)]
            limits = tuple(edges.tolist())
            yield _View(
                _ranges(column, edges),
                _ranges(told, edges),
                tuple(Value(name, k, text, limits) for k, text in enumerate(shown)),
            )


def _codes_in(values: NDArray[np.uint64], hashes: NDArray[np.uint64]) -> _Codes:
    """The place of every hash in `values`, which rise; -1 where it is none of them."""
    at = np.minimum(np.searchsorted(values, hashes), len(values) - 1)
    return np.where(values[at] == hashes, at, -1)


def _ranges(column: pa.ChunkedArray, edges: NDArray[np.float64]) -> _Codes:
    """The range of every number, from its lower edge on; -1 where it is missing, shape (n,)."""
    numbers = as_numbers(column)
    return np.where(np.isfinite(numbers), np.searchsorted(edges, numbers, side="right"), -1)


def _places(codes: Sequence[_Codes], views: Sequence[_View]) -> _Codes:
    """Where every row's combination of values lies among all; -1 for none, shape (n,)."""
    place = codes[0]
    for more, view in zip(codes[1:], views[1:], strict=True):
        place = place * len(view.values) + more
    return np.where(np.min(codes, axis=0) < 0, -1, place)


def _tests(least: NDArray[np.float64], chance: float) -> int:
    """How many tests are to be reckoned with, of those whose p-values are at least so small.

    The smallest number, so that no more than it could be found at all (Tarone).
    """
    number = np.arange(1, len(least) + 1)
    able = np.searchsorted(np.sort(least), chance / number, side="right")
    enough = np.flatnonzero(able <= number)
    return int(number[enough[0]]) if len(enough) else 1


def _alike(rows: _Codes, vouched: _Codes, values: int) -> float:
    """The p-value of a view: that both kinds of rows are drawn from the same (chi-square)."""
    from scipy.stats import chi2_contingency

    table = np.array([np.bincount(codes + 1, minlength=values + 1) for codes in (rows, vouched)])
    rare = table.sum(axis=0) * len(vouched) / (len(rows) + len(vouched)) < COUNTED_LEAST
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    return float(chi2_contingency(table, correction=False).pvalue) if table.shape[1] > 1 else 1.0


def _shown(value: pa.Scalar) -> str:
    text = repr(value.as_py())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
