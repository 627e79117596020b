"""How many rows of clean tables that nobody has looked at are set aside by default.

Any folder of CSV files will do; what is a label, a target or a source is drawn of the columns.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.lines import LINES
from benchmarks.results import Cell, Grid, bound, mean, publish, say
from benchmarks.unorchestrated import run
from pipelines.job import Job
from pipelines.plan import Plan
from pipelines.store import Store
from sanitizers.core.errors import SanitizeError
from sanitizers.core.policy import CLEAN_ABOVE

#: Tables of so many rows and columns.
ROWS, COLUMNS = (800, 20_000), (4, 120)
#: Values of a label and of a source, at most, and rows with each of them, at least.
VALUES, SOURCES, EACH = 12, 50, 20
#: Values of a target, at least.
NUMBERS = 100
#: What columns are given as: a label; a target; a label and a source.
KINDS = ("label", "target", "source")
HALVES = ("tuning", "report")
NOTES = (
    "Tables as they come in packages of the statistical language R, as CSV files: surveys, "
    "registers, clinical records, repeated measurements, with missing values, codes and "
    "repeated rows. Nobody chose the columns for this: a label has few values, a target many "
    "numbers, a source few values and is not the label; which column it is, is drawn by the name "
    "of the table, and so is the half that the table is in. Lines are chosen on the tuning half. "
    "`sanitize run` with its defaults, no trusted rows, the budget off.",
    "*Bound* is the mean and two standard errors of it: other tables differ from these.",
)


@dataclass(frozen=True)
class Strange:
    """What became of a clean table.

    Parameters
    ----------
    table : str
    roles : dict of str to str
        Which column was given as what.
    rows : int
    lost, review : float
        Shares of its rows.
    lost_by : dict of str to float
        For each sanitizer the share that it holds.
    above : dict of str to tuple of float
        For each sanitizer whose line is measured, the share of the rows above each of `LINES`.
    """

    table: str
    roles: dict[str, str]
    rows: int
    lost: float
    review: float
    lost_by: dict[str, float]
    above: dict[str, tuple[float, ...]]


def number_of(name: str) -> int:
    """A number by which the half of a table and its columns are drawn."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def tables(
    folder: Path, half: str, kind: str
) -> Iterator[tuple[str, pd.DataFrame, dict[str, str]]]:
    """The tables of a folder that are in a half and have the columns: name, rows, roles."""
    for path in sorted(folder.rglob("*.csv")):
        name = path.stem
        if HALVES[number_of(name) % 2] != half:
            continue
        frame = pd.read_csv(path, low_memory=False)
        fits = ROWS[0] <= len(frame) <= ROWS[1] and COLUMNS[0] <= frame.shape[1] <= COLUMNS[1]
        if fits and (roles := _roles(name, frame, kind)):
            answered = frame[frame[next(iter(roles.values()))].notna()]
            yield name, answered.reset_index(drop=True), roles


def _roles(name: str, frame: pd.DataFrame, kind: str) -> dict[str, str]:
    """The drawn columns, the label or target first; none if the table lacks one."""
    drawn = number_of(name) // 2
    columns = [str(column) for column in frame.columns]
    if kind == "target":
        targets = [c for c in columns if _is_target(frame[c])]
        return {kind: targets[drawn % len(targets)]} if targets else {}
    if not (labels := [c for c in columns if _of_few(frame[c], VALUES)]):
        return {}
    roles = {"label": labels[drawn % len(labels)]}
    if kind == "source":
        others = [c for c in columns if c != roles["label"] and _of_few(frame[c], SOURCES)]
        return roles | {kind: others[drawn % len(others)]} if others else {}
    return roles


def _of_few(column: pd.Series, most: int) -> bool:
    counts = column.value_counts()
    return bool(2 <= len(counts) <= most and counts.min() >= EACH and column.notna().mean() > 0.9)


def _is_target(column: pd.Series) -> bool:
    """Whether it holds many numbers, and they do not number the rows."""
    if not pd.api.types.is_numeric_dtype(column) or not np.isfinite(column.dropna()).all():
        return False
    different = column.nunique()
    counted = different == len(column) and pd.api.types.is_integer_dtype(column)
    return bool(different >= NUMBERS and not counted and column.notna().mean() > 0.9)


def measure(name: str, frame: pd.DataFrame, roles: dict[str, str]) -> Strange:
    """Sanitize a table by default.

    Raises
    ------
    SanitizeError
        If it is refused, for instance for want of a column to learn from.
    """
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "table.csv"
        frame.to_csv(source, index=False)
        plan = Plan.make(
            {
                "dataset": {"name": "table", "source": str(source)},
                "roles": roles,
                "policy": {"budget": 1.0},
            }
        )
        store = Store.open(Path(place) / "store", bytes(32))
        said = run(Job(plan, store))
        checks = json.loads((Path(str(said.release)) / "manifest.json").read_bytes())["checks"]
        above = _above(store.root)
    count = len(frame)
    held = {check["sanitizer"]: check["quarantine"] / count for check in checks}
    shares = {sanitizer: share for sanitizer, share in held.items() if share}
    return Strange(name, roles, count, said.quarantine / count, said.review / count, shares, above)


def _above(root: Path) -> dict[str, tuple[float, ...]]:
    scores: dict[str, list[NDArray[np.float64]]] = {}
    for file in root.glob("*/evidence/*/evidence-*.parquet"):
        read = pq.read_table(file, columns=["sanitizer", "score"])
        name = read.column("sanitizer")[0].as_py()
        if name in CLEAN_ABOVE:
            scores.setdefault(name, []).append(read.column("score").to_numpy())
    joined = {name: np.concatenate(parts) for name, parts in sorted(scores.items())}
    return {
        name: tuple(float((found > line).mean()) for line in LINES)
        for name, found in joined.items()
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="of CSV files")
    parser.add_argument("--half", choices=HALVES, default="report")
    parser.add_argument("--given", choices=KINDS, default=KINDS[0], help="what is drawn")
    parser.add_argument("--most", type=int, default=60, help="tables, at most")
    given = parser.parse_args()
    found: list[Strange] = []
    for name, frame, roles in tables(given.folder, given.half, given.given):
        if len(found) == given.most:
            break
        try:
            found.append(measure(name, frame, roles))
        except SanitizeError as error:
            say(f"{name} is refused: {error}")
            continue
        say(str(found[-1]))
    command = f"python -m benchmarks.strangers --folder FOLDER --half {given.half}"
    kept = "strangers" if given.given == KINDS[0] else f"strangers_{given.given}"
    if given.half == "tuning":
        kept += "_tuning"
    publish(
        kept,
        f"{command} --given {given.given}",
        grids(found),
        NOTES,
        [asdict(one) for one in found],
    )


def grids(found: Sequence[Strange]) -> list[Grid]:
    """All tables together, those that lose most, and the scores above each line."""
    lost = [one.lost for one in found]
    names = sorted({name for one in found for name in one.lost_by})
    whole: list[list[Cell]] = [["all", mean(lost), max(lost), _over(lost)]]
    for name in names:
        mine = [one.lost_by.get(name, 0.0) for one in found]
        whole.append([name, mean(mine), max(mine), _over(mine)])
    columns = ["held by", "lost %", "worst %", "tables over 1 in 100"]
    worst = sorted(found, key=lambda one: -one.lost)[:12]
    rows: list[list[Cell]] = [
        [
            one.table,
            ", ".join(f"{role}: {column}" for role, column in one.roles.items()),
            one.rows,
            one.lost,
            one.review,
            ", ".join(sorted(one.lost_by)),
        ]
        for one in worst
    ]
    return [
        Grid(f"clean rows lost, {len(found)} tables", columns, whole),
        Grid(
            "the tables that lose most",
            ["table", "given", "rows", "lost %", "review %", "by"],
            rows,
        ),
        *(_scored(name, found) for name in sorted({name for one in found for name in one.above})),
    ]


def _scored(name: str, found: Sequence[Strange]) -> Grid:
    above = np.array([one.above[name] for one in found if name in one.above])
    lines: list[list[Cell]] = [
        [f"{line:g}", f"{column.mean():.5f}", f"{most:.5f}", float(column.max())]
        for line, column, most in zip(LINES, above.T, bound(above), strict=True)
    ]
    return Grid(
        f"{name}: clean rows above the line", ["line", "mean share", "bound", "worst %"], lines
    )


def _over(shares: Sequence[float]) -> int:
    return sum(share > 0.01 for share in shares)


if __name__ == "__main__":
    main()
