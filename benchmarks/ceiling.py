"""How many random flips the models of `labels` would find if they were told the truth."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from benchmarks.game import CLEAN, ROWS, Game, board
from benchmarks.judged import recall_at
from benchmarks.results import Cell, Grid, mean, publish, say
from benchmarks.tables import FIVE, Table, arguments, available, data_folder, load
from sanitizers.labels import Labels

GAMES = (Game("flip-random", 0.10), Game("flip-random", 0.20))
#: The share of the clean rows that may be lost, by the line to hold.
MAY_LOSE = 0.005
NOTES = (
    f"The games of the benchmark `quality` without trusted rows: at most {ROWS:,} rows of a table. "
    "The models are fitted on the labels as they were before any was flipped, each row is judged "
    "by those that did not see it, and the line is drawn by who knows the flips: where "
    f"{MAY_LOSE:.1%} of the clean rows are lost. A defence with these models, which has to learn "
    "from flipped labels and to guess the line, cannot be expected to find more: what is left are "
    "rows whose features do not tell their class.",
    "Lines to hold for the defence: 60 % of 10 % flips and 70 % of 20 %, at as many clean rows "
    "lost. What it does find stands in `quality.md`.",
)


@dataclass(frozen=True)
class Found:
    """The recall on one table."""

    rate: float
    table: str
    seed: int
    recall: float


def measure(table: Table, game: Game, seed: int) -> Found:
    """Fit on the true labels, and rank the flipped ones."""
    before, _ = board(table, Game(CLEAN, 0.0), 0, seed, target=False, rows=ROWS)
    after, truth = board(table, game, 0, seed, target=False, rows=ROWS)
    (batch,) = after.batches()
    scores = Labels().fit(before).score(batch)
    return Found(game.rate, table.name, seed, recall_at(scores, truth, MAY_LOSE))


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    data = data_folder(given.data)
    tables = [load(name, data) for name in available(FIVE[given.half], data)]
    found: list[Found] = []
    for game in GAMES:
        for table in tables:
            for seed in range(given.seeds):
                found.append(measure(table, game, seed))
                say(str(found[-1]))
    rows: list[list[Cell]] = []
    for game in GAMES:
        mine = [one for one in found if one.rate == game.rate]
        of = [mean([one.recall for one in mine if one.table == t.name]) for t in tables]
        rows.append([f"{game.rate:.0%}", mean(of), *of])
    columns = ["flips", "mean %", *(f"{table.name} %" for table in tables)]
    grid = Grid(f"found at {MAY_LOSE:.1%} of the clean rows lost, {given.half} half", columns, rows)
    name = "ceiling" if given.half == "report" else "ceiling_tuning"
    command = f"python -m benchmarks.ceiling --half {given.half} --seeds {given.seeds}"
    publish(name, command, [grid], NOTES, [asdict(one) for one in found])


if __name__ == "__main__":
    main()
