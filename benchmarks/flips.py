"""10 % of the labels flipped at random, on five real tables with three seeds."""

from __future__ import annotations

import numpy as np

from benchmarks.poison import Truth, flip_labels
from benchmarks.results import publish
from benchmarks.tables import FIVE, Table, arguments, available, data_folder, load, sample
from benchmarks.trials import detail, raw, run, summary

RATE = 0.10
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
    f"{RATE:.0%} of the labels become another class, drawn evenly. At most {ROWS:,} rows of a "
    "table, drawn and shuffled by the seed; means over the seeds. *Recall* is the share of "
    "flipped rows that would be removed, *clean lost* the share of the other rows. Ours is what "
    "the default policy quarantines, without trusted rows; rows sent to review count as kept.",
    "Line to hold, on the mean of the five tables: recall at least 60 %, clean lost at most 0.5 %.",
    "cleanlab gets out-of-fold probabilities of scikit-learn's ExtraTreesClassifier as it comes "
    "(five folds, all CPUs), whose seconds count. Importing is not timed. PyOD sees no labels, and "
    "is here for the rows that it costs.",
)


def poison(table: Table, seed: int) -> tuple[Table, Truth]:
    """Draw rows of a table, and flip the labels of some."""
    drawn = sample(table, ROWS, seed)
    frame, truth = flip_labels(drawn.frame, drawn.label, RATE, np.random.default_rng(seed))
    return Table(drawn.name, frame, drawn.label), truth


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    data = data_folder(given.data)
    tables = [load(name, data) for name in available(FIVE[given.half], data)]
    trials = run("flips", poison, tables, given.seeds, CONTENDERS)
    title = f"{RATE:.0%} random flips, {given.half} half"
    grids = [summary(title, trials, CONTENDERS), detail(title, trials, CONTENDERS)]
    name = "flips" if given.half == "report" else "flips_tuning"
    command = f"python -m benchmarks.flips --half {given.half} --seeds {given.seeds}"
    publish(name, command, grids, NOTES, raw(trials))


if __name__ == "__main__":
    main()
