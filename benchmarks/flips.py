"""10 and 20 % of the labels flipped at random, on five real tables with three seeds."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa

from benchmarks.answers import Flags, recall_at
from benchmarks.poison import flip_labels
from benchmarks.results import Cell, Grid, mean, publish, say
from benchmarks.tables import FIVE, Table, arguments, available, data_folder, load, sample
from benchmarks.trials import AT_LOSS, Trial, by_sanitizer, detail, raw, run, summary
from sanitizers.core.data import Dataset, Roles
from sanitizers.labels import Labels

RATES = (0.10, 0.20)
#: The share of the clean rows that may be lost, by the line to hold.
MAY_LOSE = 0.005
ROWS = 5_000
CONTENDERS = (
    "labels alone",
    "all sanitizers",
    "cleanlab find_label_issues",
    "cleanlab Datalab, labels",
    "cleanlab Datalab, labels and outliers",
    "PyOD IForest, contamination=0.1",
    "PyOD KNN, contamination=0.1",
)
NOTES = (
    f"A share of the labels become another class, drawn evenly. At most {ROWS:,} rows of a "
    "table, drawn and shuffled by the seed; means over the seeds. *Recall* is the share of "
    "flipped rows that would be removed, *clean lost* the share of the other rows. Ours is what "
    "the default policy quarantines, without trusted rows; rows sent to review count as kept.",
    AT_LOSS,
    "Lines to hold, on the mean of the five tables: recall at least 60 % of 10 % flips and 70 % of "
    f"20 %, clean lost at most {MAY_LOSE:.1%}.",
    "*Told the truth*: the models of `labels` fitted on the labels as they were before any was "
    f"flipped, each row judged by those that did not see it, and the line drawn by who knows the "
    f"flips, where {MAY_LOSE:.1%} of the clean rows are lost. No method with these models and no "
    "other knowledge can be expected to find more: what is left are rows whose features do not "
    "tell their class.",
    "cleanlab gets out-of-fold probabilities of scikit-learn's ExtraTreesClassifier as it comes "
    "(five folds, all CPUs), whose seconds count. Importing is not timed. PyOD sees no labels, and "
    "is here for the rows that it costs.",
)


def poison(table: Table, seed: int, *, rate: float) -> tuple[Table, Flags]:
    """Draw rows of a table, and flip the labels of some."""
    drawn = sample(table, ROWS, seed)
    frame, truth = flip_labels(drawn.frame, drawn.label, rate, np.random.default_rng(seed))
    return Table(drawn.name, frame, drawn.label), truth


def told_the_truth(table: Table, seed: int, rate: float) -> float:
    """The recall of our models where nothing stands in their way but the rows themselves.

    They are fitted on the true labels of other rows, and the line is drawn by the truth.
    """
    poisoned, truth = poison(table, seed, rate=rate)
    features = tuple(name for name in poisoned.frame.columns if name != table.label)
    roles = Roles(label=table.label, features=features)
    before, after = (
        Dataset.from_table(pa.Table.from_pandas(frame, preserve_index=False), roles)
        for frame in (sample(table, ROWS, seed).frame, poisoned.frame)
    )
    (batch,) = after.batches()
    scores = Labels().fit(before).score(batch)
    found = recall_at(scores, truth, int(MAY_LOSE * (~truth).sum()))
    say(f"{rate:.0%} flips {table.name} {seed} told the truth: {found:.3f}")
    return found


def _ceiling(tables: list[Table], seeds: int, rates: list[float]) -> Grid:
    found = {
        rate: {t.name: [told_the_truth(t, seed, rate) for seed in range(seeds)] for t in tables}
        for rate in rates
    }
    rows: list[list[Cell]] = [
        [f"{rate:.0%}", mean([mean(v) for v in by.values()]), *(mean(v) for v in by.values())]
        for rate, by in found.items()
    ]
    columns = ["flips", "mean %", *(f"{t.name} %" for t in tables)]
    return Grid(f"told the truth: recall at {MAY_LOSE:.1%} of the clean rows lost", columns, rows)


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    given = parser.parse_args()
    data = data_folder(given.data)
    tables = [load(name, data) for name in available(FIVE[given.half], data)]
    grids: list[Grid] = []
    trials: list[Trial] = []
    for rate in given.rates:
        attack = partial(poison, rate=rate)
        found = run(f"{rate:.0%} flips", attack, tables, given.seeds, CONTENDERS)
        title = f"{rate:.0%} random flips, {given.half} half"
        grids += [summary(title, found, CONTENDERS), detail(title, found, CONTENDERS)]
        trials += found
    grids.append(by_sanitizer(f"random flips, {given.half} half", trials))
    grids.append(_ceiling(tables, given.seeds, list(given.rates)))
    name = "flips" if given.half == "report" else "flips_tuning"
    rates = " ".join(f"{rate:g}" for rate in given.rates)
    command = (
        f"python -m benchmarks.flips --half {given.half} --seeds {given.seeds} --rates {rates}"
    )
    publish(name, command, grids, NOTES, raw(trials))


if __name__ == "__main__":
    main()
