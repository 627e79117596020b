"""Poisoned regression: recall and clean rows lost, and what clean tables cost at each line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.results import Cell, Grid, bound, publish, say
from benchmarks.tables import (
    REGRESSION,
    Table,
    arguments,
    data_folder,
    load,
    load_regression,
    sample,
)
from sanitizers.core.data import Dataset, MemoryShard, Roles
from sanitizers.core.lines import ScoreSummary, draw
from sanitizers.core.policy import Policy
from sanitizers.poisons import poison
from sanitizers.regression import Regression, RegressionScorer

ROWS, TRUSTED = 1_500, 250
LINES = (3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0, 10.0, 15.0)
#: Poison and its rate; the last is what nobody finds.
POISONS = (
    ("statistical", 0.04),
    ("statistical", 0.08),
    ("statistical", 0.2),
    ("gradient", 0.04),
    ("gradient", 0.08),
    ("gradient", 0.2),
    ("stealthy", 0.08),
)
#: Columns of other tables, taken as targets, of which a line through the other columns
#: explains between 20 and 40 % of the variance.
LOW = {
    "tuning": (("german", "x13"), ("campaign", "x1"), ("phoneme", "x1"), ("phoneme", "x2")),
    "report": (
        ("credit", "Seniority"),
        ("credit", "Expenses"),
        ("credit", "Income"),
        ("credit", "Assets"),
    ),
}
#: A row of these came from the clean table, or was made by an attacker.
Flags = NDArray[np.bool_]
NOTES = (
    f"At most {ROWS:,} rows of a table and {TRUSTED} more that are vouched for, drawn by the seed. "
    "*Alone*: the others without the rows that are vouched for. The number of poisoned rows is "
    "not told. *Influence* is how far predictions move when the rows that are not believed are "
    "let in; below 1 the default policy sends finds to review only, so that nothing is lost or "
    "found. *Low* tables are those of whose target a line explains 20 to 40 %. The *stealthy* "
    "poison keeps its targets within two standard deviations of the prediction.",
    "Lines to hold, on the mean over the tables at 4 to 20 % poison: recall at least 94 % alone, "
    "95 % with trusted rows and 78 % of those in low tables, at most 2 % of clean rows lost.",
)


@dataclass(frozen=True)
class Case:
    """Clean rows of a table, and others that are vouched for.

    Parameters
    ----------
    rows, trusted : pyarrow.Table
    roles : Roles
    """

    rows: pa.Table
    trusted: pa.Table
    roles: Roles

    @classmethod
    def drawn(cls, table: Table, seed: int) -> Case:
        """Draw rows of a table."""
        frame = sample(table, ROWS + TRUSTED, seed).frame
        features = tuple(str(c) for c in frame.columns if c != table.label)
        whole = pa.Table.from_pandas(frame, preserve_index=False)
        ids = pa.array([f"vouched-{i}" for i in range(TRUSTED)])
        trusted = whole.slice(0, TRUSTED).append_column("row_id", ids)
        return cls(whole.slice(TRUSTED), trusted, Roles(target=table.label, features=features))

    def poisoned(self, kind: str, rate: float, seed: int) -> tuple[pa.Table, Flags]:
        """The rows with poison among them, and which it is."""
        made = poison(kind).poison(self.rows, self.roles, rate, seed)
        return made.table, made.mask

    def data(self, rows: pa.Table, *, vouched: bool) -> Dataset:
        """The rows to judge, with or without those that are vouched for."""
        ids = pa.array([f"row-{i}" for i in range(len(rows))])
        shards = (MemoryShard(rows.append_column("row_id", ids)),)
        trusted = (MemoryShard(self.trusted),) if vouched else ()
        return Dataset(shards, self.roles, b"bench", trusted)


@dataclass(frozen=True)
class Judged:
    """What the sanitizer and the default policy make of the rows of a dataset.

    Parameters
    ----------
    scores : ndarray of float64, shape (n,)
    quarantine, review : ndarray of bool, shape (n,)
    scorer : RegressionScorer
    """

    scores: NDArray[np.float64]
    quarantine: Flags
    review: Flags
    scorer: RegressionScorer

    @classmethod
    def of(cls, data: Dataset) -> Judged:
        """Fit, score, and draw the default lines."""
        scorer = Regression().fit(data)
        batches = list(data.batches())
        scores = np.concatenate([scorer.score(batch) for batch in batches])
        null = scorer.null
        p = np.full(len(scores), np.nan) if null is None else null.p_value(scores)
        summary = ScoreSummary(data.rows)
        summary.add(scores, p, np.concatenate([batch.keys for batch in batches]))
        trusted, influence = null is not None, scorer.influence
        rule = Policy().rule(Regression.name, trusted=trusted, influence=influence)
        lines = draw(Regression.name, rule, summary)
        cuts = (np.inf if cut is None else cut for cut in (lines.quarantine, lines.review))
        quarantine, review = (scores > cut for cut in cuts)
        return cls(scores, quarantine, review & ~quarantine, scorer)


def tables(half: str, data: Path, *, low: bool) -> Iterator[Table]:
    """The tables of a half, or those of its columns that are hard to explain."""
    if not low:
        yield from (load_regression(name, data) for name in REGRESSION[half])
        return
    for name, target in LOW[half]:
        frame = load(name, data).frame.dropna(subset=[target])
        yield Table(f"{name} {target}", frame, target)


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--trusted", type=int, choices=(0, TRUSTED), help="without or with trusted rows; both"
    )
    given = parser.parse_args()
    modes = (False, True) if given.trusted is None else (bool(given.trusted),)
    data = data_folder(given.data)
    clean: list[list[Cell]] = []
    poisoned: list[list[Cell]] = []
    for low in (False, True):
        for table in tables(given.half, data, low=low):
            kind = "low" if low else "usual"
            clean += [[kind, *row] for row in _clean(table, modes, given.seeds)]
            poisoned += [[kind, *row] for row in _poisoned(table, modes, given.seeds)]
            say(f"{table.name} done")
    columns = ["tables", "table", "trusted", *(f">{line:g} %" for line in LINES)]
    alone = [row[: len(columns)] for row in clean if row[2] == 0]
    grids = [
        Grid(
            f"clean tables, {given.half} half: rows above a score", columns, alone + _bounds(alone)
        ),
        Grid(
            f"clean tables, {given.half} half: what the default policy does",
            ["tables", "table", "trusted", "influence", "lost %", "review %"],
            [row[:3] + row[len(columns) :] for row in clean],
        ),
        _means(poisoned),
        Grid(
            f"poisoned tables, {given.half} half",
            ["tables", "table", "poison", "rate", "trusted", "recall %", "lost %", "influence"],
            poisoned,
        ),
    ]
    name = "regression" if given.half == "report" else "regression_tuning"
    command = f"python -m benchmarks.regression --half {given.half} --seeds {given.seeds}"
    publish(name, command, grids, NOTES, {"clean": clean, "poisoned": poisoned})


def _clean(table: Table, modes: Sequence[bool], seeds: int) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for vouched in modes:
        found = []
        for seed in range(seeds):
            case = Case.drawn(table, seed)
            judged = Judged.of(case.data(case.rows, vouched=vouched))
            shares = [float((judged.scores > line).mean()) for line in LINES]
            harm = judged.scorer.influence.moved
            found.append([*shares, harm, judged.quarantine.mean(), judged.review.mean()])
        rows.append([table.name, TRUSTED * vouched, *map(float, np.mean(found, axis=0))])
    return rows


def _poisoned(table: Table, modes: Sequence[bool], seeds: int) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for kind, rate in POISONS:
        for vouched in modes:
            found = []
            for seed in range(seeds):
                case = Case.drawn(table, seed)
                mixed, bad = case.poisoned(kind, rate, seed)
                judged = Judged.of(case.data(mixed, vouched=vouched))
                hit = judged.quarantine
                found.append([hit[bad].mean(), hit[~bad].mean(), judged.scorer.influence.moved])
            means = map(float, np.mean(found, axis=0))
            rows.append([table.name, kind, f"{rate:.0%}", TRUSTED * vouched, *means])
    return rows


def _bounds(rows: list[list[Cell]]) -> list[list[Cell]]:
    """Mean, and mean and two standard errors, over the usual tables."""
    usual = np.array([row[3:] for row in rows if row[0] == "usual"], dtype=float)
    if len(usual) < 2:
        return []
    return [
        ["usual", "mean", "", *map(float, usual.mean(axis=0))],
        ["usual", "bound", "", *map(float, bound(usual))],
    ]


def _means(rows: list[list[Cell]]) -> Grid:
    found: list[list[Cell]] = []
    for key in dict.fromkeys((row[0], row[2], row[3], row[4]) for row in rows):
        mine = [row[5:7] for row in rows if (row[0], row[2], row[3], row[4]) == key]
        found.append([*key, *map(float, np.array(mine, dtype=float).mean(axis=0))])
    columns = ["tables", "poison", "rate", "trusted", "recall %", "lost %"]
    return Grid("means over the tables", columns, found)


if __name__ == "__main__":
    main()
