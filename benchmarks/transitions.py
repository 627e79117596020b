"""Where transitions between labels are believed: the lines of `sanitizers.core.transitions`.

Clean tables with three classes and more, most of them made hard, and the same with flips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.backdoors import load as load_images
from benchmarks.game import CLEAN, ROWS, Game, board
from benchmarks.judged import Flags, judge_by
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
)
from sanitizers.core.classes import codes_of
from sanitizers.core.data import Dataset
from sanitizers.core.label_noise import fit_mixture, label_null, sharpen
from sanitizers.core.transitions import EVIDENCE, SURE, UNMIXED, Gates, Transitions, fit_transitions
from sanitizers.labels import Labels, LabelScorer

GAMES = (
    Game(CLEAN, 0.0),
    Game("flip-pair", 0.10),
    Game("flip-target", 0.03),
    Game("flip-random", 0.10),
)
#: So many columns are left of a table with classes, drawn; None: all.
COLUMNS = (3, 6, None)
#: Numbers to predict are cut into so many classes of one size.
CUTS = (3, 6)
#: Images by so many principal components of their pixels.
IMAGES = {"tuning": ("fashion", "cifar"), "report": ("signs",)}
COMPONENTS = 30
EVIDENCES = (5.0, 10.0, 25.0, 50.0, 100.0, 200.0)
SURES = (0.0, 0.7, 0.75, 0.8, 0.83, 0.86, 0.9)
#: What is made of transitions: nothing, their pattern alone, or the noise also taken out.
USES = ("none", "pattern", "unmixed")
NOTES = (
    f"At most {ROWS:,} rows of each table, drawn by the seed; `labels` alone, no trusted rows. "
    f"Tables with three classes and more are taken whole and with {COLUMNS[0]} and {COLUMNS[1]} "
    f"of their columns, which leaves classes that overlap; numbers to predict are cut into "
    f"{CUTS[0]} and {CUTS[1]} classes of one size, which overlap where they meet; images are told "
    f"by {COMPONENTS} principal components of their pixels. Those are the samples that could be "
    "taken for noise: a line is one that loses few of their clean rows, in the mean and at worst.",
    "*None*: no transitions, the mixture of flips to all classes alike. *Pattern*: they are told, "
    "and not taken out of the probabilities. *Unmixed*: taken out where the likelihood gains "
    f"{UNMIXED:g}, as the product does. *Clean believed*: how many clean samples pass both lines.",
)


@dataclass(frozen=True)
class Seen:
    """What transitions tell of one sample, and what comes of each use of them.

    Parameters
    ----------
    game : Game
    sample : str
    seed : int
    evidence, sure : float or None
        None where no transitions are likelier than flips to all classes alike.
    found, lost : dict of str to float
        For each of `USES` the share of the flips that is found, and of the clean rows lost.
    """

    game: Game
    sample: str
    seed: int
    evidence: float | None
    sure: float | None
    found: dict[str, float]
    lost: dict[str, float]

    def used(self, evidence: float, sure: float, use: str = "unmixed") -> str:
        """What is made of the transitions where these are the lines."""
        if self.evidence is None or self.sure is None:
            return "none"
        return use if self.evidence >= evidence and self.sure >= sure else "none"


def hard(half: str, data: Path) -> Iterator[tuple[str, Callable[[int], Table]]]:
    """The samples by name, each drawn by a seed."""
    for name in available(HALVES[half], data):
        table = load(name, data)
        if table.frame[table.label].nunique() >= 3:
            for columns in COLUMNS:
                yield f"{name}/{columns or 'all'}", _narrowed(table, columns)
    for name in REGRESSION[half]:
        table = load_regression(name, data)
        for classes in CUTS:
            yield f"{name}/{classes}", _cut(table, classes)
    for name in IMAGES[half]:
        yield f"{name}/pixels", _pixels(name, data)


def _narrowed(table: Table, columns: int | None) -> Callable[[int], Table]:
    def draw(seed: int) -> Table:
        features = [c for c in table.frame.columns if c != table.label]
        some = np.random.default_rng(seed).permutation(features)[:columns]
        return Table(table.name, table.frame[[*some, table.label]], table.label)

    return draw


def _cut(table: Table, classes: int) -> Callable[[int], Table]:
    rank = table.frame[table.label].rank(method="first")
    codes = pd.qcut(rank, classes, labels=False).astype(str)
    frame = table.frame.assign(**{table.label: codes})
    return lambda seed: Table(table.name, frame, table.label)


def _pixels(name: str, data: Path) -> Callable[[int], Table]:
    from sklearn.decomposition import PCA

    images, labels = load_images(name, data)

    def draw(seed: int) -> Table:
        some = np.random.default_rng(seed).choice(len(labels), 2 * ROWS, replace=False)
        flat = images[some].reshape(len(some), -1) / 255.0
        parts = PCA(COMPONENTS, random_state=seed).fit_transform(flat)
        frame = pd.DataFrame(parts, columns=[f"x{i}" for i in range(COMPONENTS)])
        return Table(name, frame.assign(label=labels[some].astype(str)), "label")

    return draw


def measure(name: str, table: Table, game: Game, seed: int) -> Seen:
    """Fit `labels`, and judge the rows by each use of the transitions."""
    data, truth = board(table, game, 0, seed, target=False, rows=ROWS)
    fitted = replace(Labels().fit(data), transitions=None)
    (batch,) = data.batches()
    P, y = fitted.probabilities(batch), codes_of(batch.labels, fitted.classes)
    known = np.isfinite(P).all(axis=1) & (y >= 0)
    P, y = P[known], y[known]
    ways = [
        fit_transitions(P, y, Gates(evidence=-np.inf, unmixed=unmixed, sure=-np.inf))
        for unmixed in (np.inf, UNMIXED)
    ]
    flags = {
        use: _judged(fitted, told, P, y, data)
        for use, told in zip(USES, (None, *ways), strict=True)
    }
    told = ways[-1]
    return Seen(
        game,
        name,
        seed,
        told.evidence if told else None,
        told.sure if told else None,
        {use: float(found[truth].mean()) if truth.any() else 0.0 for use, found in flags.items()},
        {use: float(found[~truth].mean()) for use, found in flags.items()},
    )


def _judged(
    fitted: LabelScorer,
    told: Transitions | None,
    P: NDArray[np.float64],
    y: NDArray[np.int64],
    data: Dataset,
) -> Flags:
    """The rows over the default line."""
    Q = told.unmix(P) if told else P
    temperature, rate = fit_mixture(Q, y, pattern=told.pattern if told else None, alone=True)
    null = label_null(sharpen(Q, temperature))
    scorer = replace(fitted, transitions=told, temperature=temperature, flip_rate=rate, null=null)
    return judge_by("labels", scorer, data).quarantined


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__))
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    data = data_folder(given.data)
    seen: list[Seen] = []
    for name, draw in hard(given.half, data):
        for seed in range(given.seeds):
            table = draw(seed)
            for game in GAMES:
                seen.append(measure(name, table, game, seed))
                say(str(seen[-1]))
    grids = [
        _lines("evidence", seen, [(line, SURE, "unmixed") for line in EVIDENCES]),
        _lines("sure", seen, [(EVIDENCE, line, "unmixed") for line in SURES]),
        _lines("use", seen, [(EVIDENCE, SURE, use) for use in USES]),
        _samples(seen),
    ]
    kept = "transitions" if given.half == "report" else "transitions_tuning"
    command = f"python -m benchmarks.transitions --half {given.half} --seeds {given.seeds}"
    publish(kept, command, grids, NOTES, [asdict(one) for one in seen])


def _lines(title: str, seen: Sequence[Seen], lines: Sequence[tuple[float, float, str]]) -> Grid:
    """Clean rows lost and flips found by each choice."""
    rows: list[list[Cell]] = []
    for evidence, sure, use in lines:
        cells: list[Cell] = [f"{evidence:g}", f"{sure:g}", use]
        for game in GAMES:
            mine = [one for one in seen if one.game == game]
            uses = [one.used(evidence, sure, use) for one in mine]
            lost = [one.lost[u] for one, u in zip(mine, uses, strict=True)]
            if game.poison != CLEAN:
                cells.append(mean([one.found[u] for one, u in zip(mine, uses, strict=True)]))
            cells.append(mean(lost))
            if game.poison == CLEAN:
                believed = sum(one.used(evidence, sure) != "none" for one in mine)
                cells += [max(lost), believed]
        rows.append(cells)
    flips = [c for g in GAMES[1:] for c in (f"{_short(g)} found %", "lost %")]
    columns = ["evidence", "sure", "use", "clean lost %", "worst %", "clean believed", *flips]
    return Grid(f"lines by {title}", columns, rows)


def _short(game: Game) -> str:
    return f"{game.poison.removeprefix('flip-')} {game.rate:.0%}"


def _samples(seen: Sequence[Seen]) -> Grid:
    """One line per sample: what its clean rows look like, and what is found of pair flips."""
    rows: list[list[Cell]] = []
    for name in dict.fromkeys(one.sample for one in seen):
        cells: list[Cell] = [name]
        for game in GAMES[:2]:
            mine = [one for one in seen if one.sample == name and one.game == game]
            believed = [one.evidence or 0.0 for one in mine]
            cells += [max(believed), mean([one.sure or 0.0 for one in mine])]
            for use in USES[::2]:
                of = [one.lost if game.poison == CLEAN else one.found for one in mine]
                cells.append(mean([share[use] for share in of]))
        rows.append(cells)
    columns = ["sample"]
    for game, what in zip(GAMES[:2], ("lost", "found"), strict=True):
        short = _short(game) if game.poison != CLEAN else "clean"
        columns += [f"{short}: evidence", "sure %", f"{what}, none %", "unmixed %"]
    return Grid("by sample, whatever the lines", columns, rows)


if __name__ == "__main__":
    main()
