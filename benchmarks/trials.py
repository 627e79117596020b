"""The same trial for many tables, seeds and contenders, and the means of what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from benchmarks.answers import Flags, Outcome, compare
from benchmarks.contenders import DEFAULT
from benchmarks.measure import Measured, measure
from benchmarks.results import Cell, Grid, mean, say
from benchmarks.tables import Table

#: Poison a table with a seed: the poisoned table and the truth.
Attack = Callable[[Table, int], tuple[Table, Flags]]
#: How to read the columns of `summary`, for the notes of a benchmark.
AT_LOSS = (
    f"*At our loss*: the contender's recall if it removed rows in the order of its scores until "
    f"it had lost as many clean rows as *{DEFAULT}* did on the same trial. *Ours at its loss*: the "
    f"recall of *{DEFAULT}*, in the order of the clean rows that its policy expects to score as "
    "high, at as many clean rows as the contender lost. Rows of equal score count as the mean "
    "over all their orders. Datalab's scores of two kinds of issue: the better place of a row."
)


@dataclass(frozen=True)
class Trial:
    """One contender on one poisoned table.

    Parameters
    ----------
    attack, table : str
    seed : int
    contender : str
    outcome : Outcome
    """

    attack: str
    table: str
    seed: int
    contender: str
    outcome: Outcome


def run(
    attack: str,
    poison: Attack,
    tables: Sequence[Table],
    seeds: int,
    contenders: Sequence[str],
    when: str | None = None,
    limit: float | None = None,
) -> list[Trial]:
    """Run every contender on every table with every seed, one after the other.

    Parameters
    ----------
    attack : str
        What the trials are called.
    poison : Attack
    tables : sequence of Table
    seeds : int
        How many.
    contenders : sequence of str
    when : str, optional
        The column of the time.
    limit : float, optional
        Seconds that a contender may take; there is no trial where it takes longer.
    """
    trials = []
    for table in tables:
        for seed in range(seeds):
            poisoned, truth = poison(table, seed)
            ended: dict[str, Measured] = {}
            for contender in contenders:
                found = measure(contender, poisoned.frame, poisoned.label, when, limit)
                if found is not None:
                    ended[contender] = found
                say(f"{attack} {table.name} {seed} {contender}: {_words(found, truth)}")
            default = ended[DEFAULT].answer if DEFAULT in ended else None
            for contender, it in ended.items():
                outcome = compare(it.answer, truth, default, it.cost)
                trials.append(Trial(attack, table.name, seed, contender, outcome))
    return trials


def summary(title: str, trials: Sequence[Trial], contenders: Sequence[str]) -> Grid:
    """One line per contender: means over all trials, and the worst table."""
    rows: list[list[Cell]] = []
    for contender in contenders:
        mine = [t for t in trials if t.contender == contender]
        rows.append(
            [
                contender,
                *shares(mine),
                _mean([t.outcome.at_our_loss for t in mine]),
                _mean([t.outcome.ours_at_its_loss for t in mine]),
                mean([t.outcome.cost.seconds for t in mine]),
                round(max(t.outcome.cost.peak_mb for t in mine)),
            ]
        )
    columns = ["contender", "recall %", "worst %", "clean lost %", "worst %"]
    at_loss = ["at our loss %", "ours at its loss %"]
    return Grid(title, [*columns, *at_loss, "seconds", "peak MB"], rows)


def shares(trials: Sequence[Trial]) -> list[Cell]:
    """Recall and clean rows lost of one contender, each the mean and the worst table's."""
    recall, lost = per_table(trials)
    return [
        mean(list(recall.values())),
        min(recall.values()),
        mean(list(lost.values())),
        max(lost.values()),
    ]


def detail(title: str, trials: Sequence[Trial], contenders: Sequence[str]) -> Grid:
    """One line per table: recall and clean rows lost of every contender."""
    tables = list(dict.fromkeys(t.table for t in trials))
    measured = {c: per_table([t for t in trials if t.contender == c]) for c in contenders}
    rows: list[list[Cell]] = [
        [table, *(_pair(measured[c][0][table], measured[c][1][table]) for c in contenders)]
        for table in tables
    ]
    return Grid(f"{title}: recall % / clean lost %", ["table", *contenders], rows)


def by_sanitizer(title: str, trials: Sequence[Trial]) -> Grid:
    """One line per attack: recall and clean rows lost of each sanitizer of our default."""
    ours = [t for t in trials if t.contender == DEFAULT]
    names = list(dict.fromkeys(name for t in ours for name in t.outcome.parts))
    rows: list[list[Cell]] = []
    for attack in dict.fromkeys(t.attack for t in ours):
        parts = [t.outcome.parts for t in ours if t.attack == attack]
        cells = [
            _pair(mean([p[name][0] for p in parts]), mean([p[name][1] for p in parts]))
            for name in names
        ]
        rows.append([attack, *cells])
    return Grid(f"{title}: recall % / clean lost % of each sanitizer", ["attack", *names], rows)


def per_table(trials: Sequence[Trial]) -> tuple[dict[str, float], dict[str, float]]:
    """Recall and clean rows lost of one contender, the mean over the seeds of each table."""
    tables = dict.fromkeys(t.table for t in trials)
    outcomes = {name: [t.outcome for t in trials if t.table == name] for name in tables}
    recall = {name: mean([o.recall for o in given]) for name, given in outcomes.items()}
    lost = {name: mean([o.lost for o in given]) for name, given in outcomes.items()}
    return recall, lost


def raw(trials: Sequence[Trial]) -> list[dict[str, object]]:
    """Turn the trials into plain values, for JSON."""
    return [asdict(trial) for trial in trials]


def _words(found: Measured | None, truth: Flags) -> str:
    if found is None:
        return "ended, for it took too long"
    recall, lost = found.answer.recall(truth), float(found.answer.flags[~truth].mean())
    return f"recall {recall:.3f}, lost {lost:.4f}, {found.cost.seconds:.1f} s"


def _pair(recall: float, lost: float) -> str:
    return f"{100 * recall:.1f} / {100 * lost:.2f}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None
