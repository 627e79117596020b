"""10 and 20 % of the labels flipped at random, on five real tables with three seeds."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.answers import Flags
from benchmarks.poison import flip_labels
from benchmarks.results import Grid, publish
from benchmarks.tables import FIVE, Table, arguments, available, data_folder, load, sample
from benchmarks.trials import AT_LOSS, Trial, by_sanitizer, detail, raw, run, summary

RATES = (0.10, 0.20)
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
    "Line to hold, on the mean of the five tables: recall at least 60 %, clean lost at most 0.5 %.",
    "cleanlab gets out-of-fold probabilities of scikit-learn's ExtraTreesClassifier as it comes "
    "(five folds, all CPUs), whose seconds count. Importing is not timed. PyOD sees no labels, and "
    "is here for the rows that it costs.",
)


def poison(table: Table, seed: int, *, rate: float) -> tuple[Table, Flags]:
    """Draw rows of a table, and flip the labels of some."""
    drawn = sample(table, ROWS, seed)
    frame, truth = flip_labels(drawn.frame, drawn.label, rate, np.random.default_rng(seed))
    return Table(drawn.name, frame, drawn.label), truth


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
    name = "flips" if given.half == "report" else "flips_tuning"
    rates = " ".join(f"{rate:g}" for rate in given.rates)
    command = (
        f"python -m benchmarks.flips --half {given.half} --seeds {given.seeds} --rates {rates}"
    )
    publish(name, command, grids, NOTES, raw(trials))


if __name__ == "__main__":
    main()
