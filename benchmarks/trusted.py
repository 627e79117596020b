"""What rows that are vouched for buy: clean rows lost, and a mix of poison found, by consensus.

The default joins sanitizers by the worst verdict, each by lines of its own; ``consensus =
"sum"`` by the sum of their surprises, calibrated on the trusted rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.results import Cell, Grid, mean, publish, say
from benchmarks.tables import (
    HALVES,
    REGRESSION,
    Table,
    arguments,
    available,
    data_folder,
    load,
    load_regression,
    sample,
)
from sanitizers.catalog import SANITIZERS, missing_roles, sanitizer
from sanitizers.core.calibration import ConformalNull
from sanitizers.core.consensus import CONSENSUS, CalibratedSum
from sanitizers.core.data import Dataset, MemoryShard, Roles
from sanitizers.core.evidence import examine_batch
from sanitizers.core.lines import ScoreSummary, draw
from sanitizers.core.policy import SUM, WORST, Policy
from sanitizers.core.sanitizer import Influence, Influential
from sanitizers.poisons import POISONS

ROWS, TRUSTED, SMALL = 4_300, 300, 1_200
#: Each of these poisons adds or changes so large a share of the rows.
RATE = 0.03
MIX = ("feature-shift", "trigger", "duplicate-flood")
MIX_OF_TARGETS = ("feature-shift", "statistical", "duplicate-flood")
WHEN = "when"
#: Draws of the poison per table.
SEEDS = 2

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """Rows with trusted rows, and what was done to them.

    Parameters
    ----------
    data : Dataset
    truth : mapping of str to ndarray of bool, shape (n,)
        For each poison the rows that it added or changed.
    """

    data: Dataset
    truth: Mapping[str, Flags]


@dataclass(frozen=True)
class Found:
    """The rows over their lines, shape (n,): by one sanitizer or the sum, or by all together."""

    quarantined: Flags
    held: Flags


def clean(table: Table, seed: int) -> Case:
    """Draw rows, and vouch for the first of them."""
    rows, roles, trusted = _drawn(table, seed)
    return Case(_dataset(rows.slice(trusted), rows.slice(0, trusted), roles), {})


def mixed(table: Table, seed: int, mix: Sequence[str]) -> Case:
    """Draw rows in some order of time, vouch for some of them, and poison the others.

    One poison follows the other; a row that two of them changed is in the truth of both.
    """
    rows, roles, trusted = _drawn(table, seed)
    rows = rows.append_column(WHEN, pa.array(np.arange(len(rows))))
    roles = replace(roles, time=WHEN)
    vouched = np.arange(len(rows)) % (len(rows) // trusted) == 0
    bad, truth = rows.filter(pa.array(~vouched)), dict[str, Flags]()
    rate = RATE * len(bad)
    for name in mix:
        done = POISONS[name]().poison(bad, roles, rate / len(bad), seed)
        came = np.zeros(len(done.table), dtype=bool)
        came[done.truth.filter(done.truth.column("added")).column("row").to_numpy()] = True
        for before, mask in truth.items():
            truth[before] = np.zeros(len(done.table), dtype=bool)
            truth[before][~came] = mask
        bad, truth[name] = done.table, done.mask
    return Case(_dataset(bad, rows.filter(pa.array(vouched)), roles), truth)


def judged(data: Dataset) -> dict[str, dict[str, Found]]:
    """For each consensus what every sanitizer, and the sum, finds by the default policy."""
    batch, trusted = next(data.batches()), data.trusted_rows
    tables, scores, influences = {}, {}, {}
    for name in SANITIZERS:
        recipe = sanitizer(name)
        if missing_roles(recipe, data.roles, named=False, trusted=True):
            continue
        scorer = recipe.fit(data)
        tables[name] = examine_batch(name, scorer, batch)
        influences[name] = scorer.influence if isinstance(scorer, Influential) else None
        if trusted is not None and isinstance(scorer.null, ConformalNull):
            scores[name] = scorer.score(trusted)
    joint = CalibratedSum.fit(scores).evidence(tables)
    policies = {WORST: Policy(), SUM: Policy().summing(tuple(scores))}
    found = {}
    for word, policy in policies.items():
        given = tables if word == WORST else {**tables, CONSENSUS: joint}
        found[word] = {
            name: _over(name, table, policy, influences.get(name), batch.keys)
            for name, table in given.items()
        }
    return found


def together(found: Mapping[str, Found]) -> Found:
    """The rows over any line."""
    return Found(
        np.any([f.quarantined for f in found.values()], axis=0),
        np.any([f.held for f in found.values()], axis=0),
    )


def _over(
    name: str,
    table: pa.Table,
    policy: Policy,
    influence: Influence | None,
    keys: NDArray[np.uint64],
) -> Found:
    columns = (table.column(c).to_numpy() for c in ("score", "p_value"))
    scores, p_values = (np.asarray(c, dtype=np.float64) for c in columns)
    summary = ScoreSummary(len(scores))
    summary.add(scores, p_values, keys)
    vouched = not np.isnan(p_values).all()
    lines = draw(name, policy.rule(name, trusted=vouched, influence=influence), summary)
    cuts = [np.inf if cut is None else cut for cut in (lines.quarantine, lines.review)]
    return Found(scores > cuts[0], scores > min(cuts))


def _drawn(table: Table, seed: int) -> tuple[pa.Table, Roles, int]:
    frame = sample(table, ROWS, seed).frame
    features = tuple(str(c) for c in frame.columns if c != table.label)
    rows = pa.Table.from_pandas(frame, preserve_index=False)
    trusted = TRUSTED if len(frame) >= SMALL else TRUSTED // 2
    is_target = pd.api.types.is_numeric_dtype(frame[table.label])
    answer = {"target" if is_target else "label": table.label}
    return rows, Roles(features=features, **answer), trusted


def _dataset(rows: pa.Table, vouched: pa.Table, roles: Roles) -> Dataset:
    shards = []
    for stem, table in (("row", rows), ("vouched", vouched)):
        ids = pa.array([f"{stem}-{i}" for i in range(len(table))])
        shards.append(MemoryShard(table.append_column("row_id", ids)))
    return Dataset(tuple(shards[:1]), roles, b"bench", tuple(shards[1:]))


def on_clean(tables: Sequence[Table]) -> tuple[Grid, list[list[Cell]]]:
    """Clean rows quarantined: by the worst verdict, by the sum, and by each sanitizer."""
    rows: list[list[Cell]] = []
    names: list[str] = []
    for table in tables:
        found = judged(clean(table, 0).data)
        names = list(found[WORST])
        each = [float(f.quarantined.mean()) for f in found[WORST].values()]
        both = [float(together(found[word]).quarantined.mean()) for word in (WORST, SUM)]
        held = [float(together(found[word]).held.mean()) for word in (WORST, SUM)]
        rows.append([table.name, *both, *held, *each])
        say(f"clean {table.name}: worst {both[0]:.4f}, sum {both[1]:.4f}")
    for word, of in (("mean", mean), ("worst", max)):
        rows.append([word, *(of([float(str(r[i])) for r in rows[: len(tables)]])
                             for i in range(1, 5)), *("" for _ in names)])  # fmt: skip
    columns = ["table", "worst %", "sum %", "worst, held %", "sum, held %"]
    return Grid("nothing poisoned", [*columns, *(f"{name} %" for name in names)], rows), rows


def on_mix(
    tables: Sequence[Table], mix: Sequence[str]
) -> tuple[list[Grid], list[dict[str, object]]]:
    """Poison found and clean rows lost, by both ways to join sanitizers."""
    raw: list[dict[str, object]] = []
    for table in tables:
        for seed in range(SEEDS):
            case = mixed(table, seed, mix)
            found = judged(case.data)
            poison = np.any(list(case.truth.values()), axis=0)
            for word in (WORST, SUM):
                all_of = together(found[word])
                figures: dict[str, object] = {
                    "lost": float(all_of.quarantined[~poison].mean()),
                    "lost or held": float(all_of.held[~poison].mean()),
                    "recall": float(all_of.quarantined[poison].mean()),
                    "recall or held": float(all_of.held[poison].mean()),
                }
                for name, mask in case.truth.items():
                    figures[name] = float(all_of.quarantined[mask].mean())
                raw.append({"table": table.name, "seed": seed, "consensus": word, **figures})
                say(f"mix {table.name} {seed} {word}: {figures}")
    return [_means(raw, mix), _per_table(raw, mix)], raw


def _means(raw: Sequence[Mapping[str, object]], mix: Sequence[str]) -> Grid:
    names = ("recall", "recall or held", *mix, "lost", "lost or held")
    rows: list[list[Cell]] = []
    for word in (WORST, SUM):
        mine = [r for r in raw if r["consensus"] == word]
        figures = [mean([float(str(r[name])) for r in mine]) for name in names]
        most = max(_of_table(mine, name, "lost") for name in _names(mine))
        rows.append([word, *figures, most])
    columns = ["consensus", *(f"{name} %" for name in names), "lost, worst table %"]
    return Grid(f"{', '.join(mix)}: means over the tables", columns, rows)


def _per_table(raw: Sequence[Mapping[str, object]], mix: Sequence[str]) -> Grid:
    rows: list[list[Cell]] = []
    for name in _names(raw):
        cells: list[Cell] = [name]
        for word in (WORST, SUM):
            mine = [r for r in raw if r["consensus"] == word]
            cells += [_of_table(mine, name, figure) for figure in ("recall", "lost")]
        rows.append(cells)
    columns = ["table", "recall, worst %", "lost, worst %", "recall, sum %", "lost, sum %"]
    return Grid(f"{', '.join(mix)}: table by table", columns, rows)


def _names(raw: Sequence[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(str(r["table"]) for r in raw))


def _of_table(raw: Sequence[Mapping[str, object]], table: str, figure: str) -> float:
    return mean([float(str(r[figure])) for r in raw if r["table"] == table])


NOTES = (
    f"At most {ROWS:,} rows of a table, of which {TRUSTED} are vouched for and not judged (half "
    f"as many where the table has fewer than {SMALL:,}). *Held*: quarantined or for review.",
    "*worst*: the default, the worst verdict over all sanitizers, each by lines of its own. *sum*: "
    "those with p-values from trusted rows are judged by the sum of their surprises, calibrated "
    "on the trusted rows; the others keep their lines.",
)
NOTE_OF_MIX = (
    f"Mixes: {RATE:.0%} of the rows each of three poisons of `sanitizers.poisons` as they are by "
    f"default; the rows have a time, the order in which they were drawn. {SEEDS} draws a table. "
    "*Lost* is of the clean rows, in poisoned tables. Tables with a target have one sanitizer more "
    "with such p-values, `regression`."
)


def main() -> None:
    """Run the benchmark."""
    given = arguments(str(__doc__)).parse_args()
    data = data_folder(given.data)
    tables = [load(name, data) for name in available(HALVES[given.half], data)]
    suffix = "" if given.half == "report" else "_tuning"
    command = f"python -m benchmarks.trusted --half {given.half}"
    grid, rows = on_clean(tables)
    publish(f"trusted{suffix}", command, [grid], NOTES, rows)
    grids, raw = on_mix(tables, MIX)
    targets = [load_regression(name, data) for name in REGRESSION[given.half]]
    more, raw_more = on_mix(targets, MIX_OF_TARGETS)
    notes = (*NOTES, NOTE_OF_MIX)
    publish(f"trusted_mix{suffix}", command, [*grids, *more], notes, [*raw, *raw_more])


if __name__ == "__main__":
    main()
