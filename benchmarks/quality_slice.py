"""A slice of the war game that every change must hold: small tables that need no download.

``python -m benchmarks.quality_slice`` measures it anew; the tests fail where recall at 1 % of
the clean rows falls by more than 0.05, or the default policy loses more clean rows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from benchmarks.game import CLEAN, Game, Result, play
from benchmarks.results import FOLDER, Cell, Grid, publish, say
from benchmarks.tables import Table

NAME = "quality_slice"
ROWS, TRUSTED, SEED = 700, 150, 0
BIKES = Path(__file__).resolve().parent.parent / "data_samples" / "bikes.csv"

#: Table, game, and the rows that are vouched for.
GAMES: tuple[tuple[str, Game, int], ...] = (
    ("digits", Game(CLEAN, 0.0, timed=True), 0),
    ("tumours", Game(CLEAN, 0.0, timed=True), 0),
    ("bikes", Game(CLEAN, 0.0), 0),
    ("digits", Game("flip-random", 0.10), 0),
    ("tumours", Game("flip-random", 0.10), 0),
    ("digits", Game("flip-far", 0.10), TRUSTED),
    ("tumours", Game("flip-cluster", 0.05), TRUSTED),
    ("tumours", Game("far-corner", 0.05), 0),
    ("digits", Game("dense-cluster", 0.05, timed=True), 0),
    ("tumours", Game("duplicate-flood", 0.05, timed=True), 0),
    ("digits", Game("skew-batch", 0.05, timed=True), 0),
    ("tumours", Game("feature-shift", 0.05, timed=True), TRUSTED),
    ("bikes", Game("statistical", 0.08), 0),
    ("bikes", Game("gradient", 0.08), TRUSTED),
)
NOTES = (
    f"At most {ROWS:,} rows of handwritten digits, of breast tumours (both of scikit-learn) and "
    "of rented bikes (`data_samples`; the felt temperature is predicted). One seed; recall and "
    "clean rows lost by the default policy, and under the name of a sanitizer the recall of its "
    "ranking at 1 % of the clean rows. Not a measurement to quote: a fence for changes.",
)


def table(name: str) -> Table:
    """One of the three tables."""
    if name == "bikes":
        return Table(name, pd.read_csv(BIKES).drop(columns=["id", "when"]), "atemp")
    from sklearn.datasets import load_breast_cancer, load_digits

    bunch = (load_digits if name == "digits" else load_breast_cancer)(as_frame=True)
    frame = bunch.data.assign(kind=bunch.target.astype(str))
    return Table(name, frame, "kind")


def measure(name: str, game: Game, trusted: int) -> Result:
    """Play one game of the slice."""
    return play(table(name), game, trusted, SEED, target=name == "bikes", rows=ROWS)


def key(name: str, game: Game, trusted: int) -> str:
    """What a game is called in the committed figures."""
    return f"{name}, {game.poison} {game.rate:g}, {trusted} trusted"


def baseline() -> dict[str, dict[str, float | None]]:
    """Read the committed figures."""
    found: dict[str, dict[str, float | None]] = json.loads(
        (FOLDER / f"{NAME}.json").read_text(encoding="utf-8")
    )
    return found


def main() -> None:
    """Measure the slice, and keep it as what changes are held against."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    raw: dict[str, dict[str, float | None]] = {}
    for name, game, trusted in GAMES:
        result = measure(name, game, trusted)
        raw[key(name, game, trusted)] = {
            "recall": result.recall,
            "lost": result.lost,
            **result.at_loss,
        }
        say(f"{key(name, game, trusted)}: {result.recall} at {result.lost:.4f}")
    names = list(dict.fromkeys(n for found in raw.values() for n in found))
    rows: list[list[Cell]] = [[game, *(found.get(n) for n in names)] for game, found in raw.items()]
    grid = Grid("the slice", ["game", *(f"{n} %" for n in names)], rows)
    publish(NAME, f"python -m benchmarks.{NAME}", [grid], NOTES, raw)


if __name__ == "__main__":
    main()
