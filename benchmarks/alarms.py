"""Whether alarms stay silent on clean tables, and name the span or the source that is bad."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.judged import Flags, judge
from benchmarks.poison import flip_labels, slip_cluster
from benchmarks.results import Cell, Grid, mean, publish, say
from benchmarks.tables import HALVES, Table, arguments, available, data_folder, load, sample
from sanitizers.core.data import Dataset, Roles
from sanitizers.risks import ALARM, Finding
from sanitizers.risks.crowd_findings import Judged, Slice, told

ROWS, SLICES, SOURCES = 4_300, 20, 15
WHEN, WHO = "arrival", "supplier"
#: Finds of this sanitizer are where their slice is, by what it looks for.
BY_SLICE = "micro-concentration"
#: The share of the labels that a bad source flips.
FLIPPED = 0.3
NOTES = (
    f"At most {ROWS:,} rows of a table in an order drawn by the seed, which stands for the time "
    f"({SLICES} slices), or from {SOURCES} sources, of which the k-th has 1/k of the rows of the "
    "first. Quarantined by the default policy, without trusted rows.",
    "*Cluster*: 3 neighbouring slices in which 30 % of the rows are a tight cluster. *Source*: the "
    f"third largest source flips {FLIPPED:.0%} of its labels. *Named*: one alarm, and it covers "
    "mostly the bad span or is about the bad source. *Others*: alarms about something else.",
    "Line to hold: no alarm on clean tables.",
)


@dataclass(frozen=True)
class Case:
    """Rows with a time or a source, and which of them are bad, shape (n,)."""

    frame: pd.DataFrame
    column: str
    truth: Flags


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__))
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    data = data_folder(given.data)
    raw: list[dict[str, object]] = []
    for name in available(HALVES[given.half], data):
        table = load(name, data)
        for seed in range(given.seeds):
            for title, make in CASES.items():
                raw.append({"table": name, "seed": seed, "case": title, **_one(table, make, seed)})
                say(str(raw[-1]))
    name = "alarms" if given.half == "report" else "alarms_tuning"
    command = f"python -m benchmarks.alarms --half {given.half} --seeds {given.seeds}"
    publish(name, command, [_grid(raw, given.half)], NOTES, raw)


def timed(table: Table, seed: int) -> Case:
    """A clean table in an order that says nothing."""
    frame = sample(table, ROWS, seed).frame
    frame = frame.assign(**{WHEN: np.arange(len(frame), dtype=float)})
    return Case(frame, WHEN, np.zeros(len(frame), dtype=bool))


def supplied(table: Table, seed: int) -> Case:
    """A clean table from sources that say nothing."""
    frame, rng = sample(table, ROWS, seed).frame, np.random.default_rng(seed)
    size = 1 / np.arange(1, SOURCES + 1)
    who = rng.choice(SOURCES, len(frame), p=size / size.sum())
    frame = frame.assign(**{WHO: [f"source {i + 1:02d}" for i in who]})
    return Case(frame, WHO, np.zeros(len(frame), dtype=bool))


def clustered(table: Table, seed: int) -> Case:
    """A cluster in 3 of 20 slices of time."""
    clean = timed(table, seed)
    frame, truth = slip_cluster(clean.frame, np.random.default_rng(seed), keep=(WHEN,))
    return Case(frame, WHEN, truth)


def flipped(table: Table, seed: int) -> Case:
    """One source that flips labels."""
    clean, rng = supplied(table, seed), np.random.default_rng(seed)
    mine = np.flatnonzero(clean.frame[WHO] == "source 03")
    part, hit = flip_labels(clean.frame.iloc[mine], table.label, FLIPPED, rng)
    labels, truth = clean.frame[table.label].to_numpy(dtype=object).copy(), clean.truth.copy()
    labels[mine], truth[mine] = part[table.label].to_numpy(), hit
    return Case(clean.frame.assign(**{table.label: labels}), WHO, truth)


CASES: dict[str, Callable[[Table, int], Case]] = {
    "clean, by time": timed,
    "clean, by source": supplied,
    "cluster": clustered,
    "source": flipped,
}


def _one(table: Table, make: Callable[[Table, int], Case], seed: int) -> dict[str, object]:
    case = make(table, seed)
    role = "time" if case.column == WHEN else "source"
    parts = {n: j.quarantined for n, j in judge(_dataset(case, table.label, role)).items()}
    flags = np.any(list(parts.values()), axis=0)
    by_row = np.any([part for name, part in parts.items() if name != BY_SLICE], axis=0)
    slices = list(_slices(case, flags, by_row))
    found = [f for f in told(role, case.column, Judged.of(slices)) if f.severity == ALARM]
    named = [f for f in found if _is_bad(case, f)]
    return {
        "alarms": len(found),
        "named": bool(len(named) == 1 and case.truth.any()),
        "others": len(found) - len(named),
        "quarantined": int(flags.sum()),
        "messages": [f.message for f in found],
    }


def _dataset(case: Case, label: str, role: str) -> Dataset:
    features = tuple(str(c) for c in case.frame.columns if c not in (label, case.column))
    roles = Roles(label=label, features=features, **{role: case.column})
    table = pa.Table.from_pandas(case.frame, preserve_index=False)
    return Dataset.from_table(table, roles, salt=b"bench")


def _slices(case: Case, flags: Flags, by_row: Flags) -> Iterator[Slice]:
    """The rows by source, or by time in slices of equal size."""
    values = case.frame[case.column].to_numpy()
    groups: NDArray[np.int64]
    if case.column == WHEN:
        groups = np.arange(len(values)) * SLICES // len(values)
    else:
        groups = np.unique(values.astype(str), return_inverse=True)[1]
    for group in np.unique(groups):
        mine = groups == group
        counts = int(flags[mine].sum()), int((flags & by_row)[mine].sum())
        first, last = values[mine][0], values[mine][-1]
        yield Slice(first, last, int(mine.sum()), 0, counts[0], 0, counts[1])


def _is_bad(case: Case, finding: Finding) -> bool:
    """Whether an alarm is about the rows that are bad: it covers most of them."""
    if not case.truth.any():
        return False
    values = case.frame.loc[case.truth, case.column]
    if case.column == WHO:
        return bool((values == finding.subject).all())
    inside = (values >= finding.detail["first"]) & (values <= finding.detail["last"])
    return bool(inside.mean() > 0.5)


def _grid(raw: list[dict[str, object]], half: str) -> Grid:
    rows: list[list[Cell]] = []
    for title in CASES:
        mine = [r for r in raw if r["case"] == title]
        planted = title in ("cluster", "source")
        rows.append(
            [
                title,
                len(mine),
                mean([float(bool(r["named"])) for r in mine]) if planted else "",
                sum(int(str(r["others"])) for r in mine),
                ", ".join(sorted({str(r["table"]) for r in mine if planted and not r["named"]})),
            ]
        )
    columns = ["case", "runs", "named %", "other alarms", "not named on"]
    return Grid(f"alarms, {half} half", columns, rows)


if __name__ == "__main__":
    main()
