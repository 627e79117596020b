"""The same trial for many tables, seeds and contenders, and the means of what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from benchmarks.contenders import Outcome, measure
from benchmarks.poison import Truth
from benchmarks.results import Cell, Grid, mean, say
from benchmarks.tables import Table

#: Poison a table with a seed: the poisoned table and the truth.
Attack = Callable[[Table, int], tuple[Table, Truth]]


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
    """
    trials = []
    for table in tables:
        for seed in range(seeds):
            poisoned, truth = poison(table, seed)
            for contender in contenders:
                outcome = measure(contender, poisoned.frame, truth, poisoned.label, when)
                trials.append(Trial(attack, table.name, seed, contender, outcome))
                say(
                    f"{attack} {table.name} {seed} {contender}: recall {outcome.recall:.3f}, "
                    f"lost {outcome.lost:.4f}, {outcome.seconds:.1f} s"
                )
    return trials


def summary(title: str, trials: Sequence[Trial], contenders: Sequence[str]) -> Grid:
    """One line per contender: means over all trials, and the worst table."""
    rows: list[list[Cell]] = []
    for contender in contenders:
        mine = [t for t in trials if t.contender == contender]
        recall, lost = per_table(mine)
        rows.append(
            [
                contender,
                mean(list(recall.values())),
                min(recall.values()),
                mean(list(lost.values())),
                max(lost.values()),
                mean([t.outcome.seconds for t in mine]),
                round(max(t.outcome.peak_mb for t in mine)),
            ]
        )
    columns = ["contender", "recall %", "worst %", "clean lost %", "worst %", "seconds", "peak MB"]
    return Grid(title, columns, rows)


def detail(title: str, trials: Sequence[Trial], contenders: Sequence[str]) -> Grid:
    """One line per table: recall and clean rows lost of every contender."""
    tables = list(dict.fromkeys(t.table for t in trials))
    measured = {c: per_table([t for t in trials if t.contender == c]) for c in contenders}
    rows: list[list[Cell]] = [
        [
            table,
            *(
                f"{100 * measured[c][0][table]:.1f} / {100 * measured[c][1][table]:.2f}"
                for c in contenders
            ),
        ]
        for table in tables
    ]
    return Grid(f"{title}: recall % / clean lost %", ["table", *contenders], rows)


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
