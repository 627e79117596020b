"""What a run with no plan quarantines of real tables that nobody poisoned."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.product import Outcome, run
from benchmarks.results import Cell, Grid, mean, publish, say
from benchmarks.tables import FIVE, HALVES, arguments, available, data_folder, load

NOTES = (
    "`sanitize run TABLE.csv --label COLUMN`, no plan, no trusted rows, every row of the table. "
    "Real tables have real mistakes in them: not every row that is quarantined is a clean row.",
    "Line to hold, on five tables: at most 1 % on the mean, at most 1.6 % on the worst.",
)


def main() -> None:
    """Run the benchmark."""
    given = arguments(str(__doc__)).parse_args()
    data = data_folder(given.data)
    outcomes: dict[str, Outcome] = {}
    for name in available(HALVES[given.half], data):
        table = load(name, data)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{name}.csv"
            table.frame.to_csv(file, index=False)
            outcomes[name] = run(file, "--label", table.label)
        say(f"{name}: {outcomes[name].result}")
    five = [name for name in FIVE[given.half] if name in outcomes]
    grids = [_summary(outcomes, five, given.half), _detail(outcomes)]
    name = "clean" if given.half == "report" else "clean_tuning"
    raw = {table: outcome.record() for table, outcome in outcomes.items()}
    publish(name, f"python -m benchmarks.clean --half {given.half}", grids, NOTES, raw)


def _summary(outcomes: dict[str, Outcome], five: list[str], half: str) -> Grid:
    rows: list[list[Cell]] = []
    for title, names in ((f"the five: {', '.join(five)}", five), ("all", list(outcomes))):
        shares = {name: _share(outcomes[name]) for name in names}
        worst = max(shares, key=lambda name: shares[name])
        reviewed = mean([o.result["review"] / o.result["rows"] for o in outcomes.values()])
        rows.append([title, mean(list(shares.values())), shares[worst], worst, reviewed])
    columns = ["tables", "quarantined %", "worst %", "worst table", "review %"]
    return Grid(f"clean tables, {half} half", columns, rows)


def _detail(outcomes: dict[str, Outcome]) -> Grid:
    checks = {
        name: {check["sanitizer"]: check["quarantine"] for check in o.release.get("checks", ())}
        for name, o in outcomes.items()
    }
    sanitizers = list(dict.fromkeys(s for found in checks.values() for s in found))
    rows: list[list[Cell]] = [
        [
            name,
            o.result["rows"],
            _share(o),
            o.result["review"] / o.result["rows"],
            *(checks[name].get(s, 0) / o.result["rows"] for s in sanitizers),
            "held" if o.result["held"] else "",
            o.seconds,
        ]
        for name, o in outcomes.items()
    ]
    columns = ["table", "rows", "quarantined %", "review %"]
    return Grid(
        "by table and sanitizer",
        [*columns, *(f"{s} %" for s in sanitizers), "held", "seconds"],
        rows,
    )


def _share(outcome: Outcome) -> float:
    return float(outcome.result["quarantine"] / outcome.result["rows"])


if __name__ == "__main__":
    main()
