"""Backdoors in images: what is found and lost, and what a model does before and after."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import FOLDER, Cell, Grid, publish, say
from benchmarks.tables import DATA_VARIABLE, data_folder
from sanitizers.backdoors import Settings, audit
from sanitizers.encoders.net import Net, epochs, train
from sanitizers.poisons import stamps
from sanitizers.poisons.flips import draw_flips
from sanitizers.poisons.own_net import own_gradient
from sanitizers.poisons.stamping import (
    StampAttack,
    StampedImages,
    plant_all,
    with_descent,
    with_noise,
)

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Attack = Callable[[Images, Labels, float, int], StampedImages]

#: Images that no attack touches, on which attacks and models are measured.
HELD_OUT = 2_000
#: From which success on a backdoor has taken.
TAKES = 0.5
#: Success after cleaning, at most; and how far it may lie above that by nature.
AFTER, ABOVE_NATURE = 0.05, 0.02

NOTES = (
    "Trigger (shape, place, values, frequency, phase), target, rows, and the subset of the "
    "data come from the seed; clean-label rates are shares of the target class. The audit is "
    "told nothing and has no trusted row. *Success* is the share of held-out images of other "
    "classes that the trigger turns to its target, in a fresh model trained on all rows and "
    "on the rows that are not flagged; *by nature*, in one that is trained on the same rows "
    "before they were poisoned, as far as that was measured. Of two triggers the weaker one "
    "before, the stronger one after and by nature. *Lost* counts clean rows among the flagged. "
    "*Review* counts clean rows that are nearly carriers and wait for people (a dash: not "
    "counted); no row that waits trains the model after. *s* are seconds of the audit by the "
    "clock, on a machine that did other things too; *CPU s* those of its processors (a dash: not "
    "counted).",
    "A backdoor has taken where success without defence is at least 0.5; the summary counts "
    "those. Line to hold, fixed stamps: recall at least 99 %, at most .02 % of clean rows lost, "
    "success afterwards at most .05, or at most .02 above the success by nature, for no cleaning "
    "can make a model better than one that never saw poison. Moving patches and warps: 95 % and "
    ".2 %.",
)


@dataclass(frozen=True)
class Case:
    """A cell of the benchmark: a dataset, an attack and a rate."""

    data: str
    attack: str
    rate: float

    @property
    def name(self) -> str:
        """How the cell is named on the command line."""
        return f"{self.data}-{self.attack}-{self.rate:g}" if self.rate else f"{self.data}-clean"


@dataclass(frozen=True)
class Measured:
    """What one run of a cell gave; None where there is nothing to measure."""

    cell: str
    seed: int
    target: str
    poison: int
    recall: float | None
    lost: int
    lost_share: float
    confirmed: int
    suspicions: int
    success_before: float | None
    success_after: float | None
    accuracy_before: float
    accuracy_after: float
    seconds: float
    doubtful: int | None = None
    success_natural: float | None = None
    cpu_seconds: float | None = None


def _one(attack: StampAttack) -> Attack:
    return attack.attack


def _two(images: Images, labels: Labels, rate: float, seed: int) -> StampedImages:
    attacks = [StampAttack(stamps.patch), StampAttack(stamps.blend(0.15))]
    return plant_all(attacks, images, labels, rate, seed)


def _flips(images: Images, labels: Labels, rate: float, seed: int) -> StampedImages:
    rng = np.random.default_rng(seed)
    count = round(rate * len(labels))
    rows, codes = draw_flips(labels, int(labels.max()) + 1, count, rng)
    given = labels.copy()
    given[rows] = codes
    return _unstamped(images, given)


def _nothing(images: Images, labels: Labels, rate: float, seed: int) -> StampedImages:
    return _unstamped(images, labels)


def _descent(images: Images, labels: Labels, rate: float, seed: int) -> StampedImages:
    """Clean-label, after an ascent of the loss of the attacker's own net."""
    gradient = own_gradient(images, labels, seed + 77)
    attack = StampAttack(stamps.patch, "clean-label", perturb=with_descent(gradient))
    return attack.attack(images, labels, rate, seed)


ATTACKS: dict[str, Attack] = {
    "clean": _nothing,
    "flips": _flips,
    "patch": _one(StampAttack(stamps.patch)),
    "sparse": _one(StampAttack(stamps.sparse)),
    "translucent": _one(StampAttack(stamps.gap)),
    "blend.1": _one(StampAttack(stamps.blend(0.1))),
    "blend.2": _one(StampAttack(stamps.blend(0.2))),
    "smooth.2": _one(StampAttack(stamps.smooth_blend(0.2))),
    "wave25": _one(StampAttack(stamps.sinusoid(25))),
    "clean-label-noise": _one(StampAttack(stamps.patch, "clean-label", perturb=with_noise(30))),
    "clean-label-descent": _descent,
    "clean-label-wave40": _one(StampAttack(stamps.sinusoid(40), "clean-label")),
    "source-specific": _one(StampAttack(stamps.patch, "source-specific")),
    "all-to-all": _one(StampAttack(stamps.patch, "all-to-all")),
    "two": _two,
    "moving": _one(StampAttack(stamps.moving_patch)),
    "warp": _one(StampAttack(stamps.warp)),
}

CASES = (
    *(Case("fashion", "patch", r) for r in (0.002, 0.005, 0.01, 0.05, 0.1)),
    *(Case("fashion", "blend.1", r) for r in (0.01, 0.05)),
    *(Case("fashion", "blend.2", r) for r in (0.01, 0.05)),
    Case("fashion", "wave25", 0.02),
    Case("fashion", "wave25", 0.05),
    Case("fashion", "smooth.2", 0.02),
    Case("fashion", "sparse", 0.005),
    Case("fashion", "translucent", 0.01),
    Case("fashion", "clean-label-noise", 0.5),
    Case("fashion", "clean-label-descent", 0.3),
    Case("fashion", "clean-label-wave40", 0.3),
    Case("fashion", "source-specific", 0.02),
    Case("fashion", "all-to-all", 0.1),
    Case("fashion", "two", 0.01),
    Case("fashion", "moving", 0.1),
    Case("fashion", "warp", 0.1),
    Case("fashion", "clean", 0.0),
    Case("fashion", "flips", 0.05),
    Case("cifar", "patch", 0.01),
    Case("cifar", "blend.2", 0.05),
    Case("cifar", "clean-label-wave40", 0.5),
    Case("cifar", "clean", 0.0),
    Case("signs", "patch", 0.01),
    Case("signs", "blend.2", 0.05),
    Case("signs", "clean-label-wave40", 0.5),
    Case("signs", "clean", 0.0),
)


def earlier(name: str) -> list[Measured]:
    """The runs that a file of results holds; none where there is no file."""
    file = FOLDER / f"{name}.json"
    return [Measured(**run) for run in json.loads(file.read_text())] if file.is_file() else []


def load(name: str, folder: Path) -> tuple[Images, Labels]:
    """All images of a dataset, and their labels."""
    images = folder / "images"
    if name == "fashion":
        parts = [_mnist(images / "fashion_mnist", part) for part in ("train", "t10k")]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    if name == "signs":
        signs = np.load(images / "gtsrb_even_tracks_32x32.npz")
        return signs["images"], signs["labels"].astype(np.int64)
    from PIL import Image

    packed = np.load(images / "cifar10_first25k_jpeg.npz")
    blob, at = packed["blob"], packed["offsets"]
    pictures = [
        np.asarray(Image.open(io.BytesIO(blob[a:b].tobytes())).convert("RGB"))
        for a, b in pairwise(at)
    ]
    return np.stack(pictures), packed["labels"].astype(np.int64)


@dataclass(frozen=True, eq=False)
class Draw:
    """What a seed draws for a cell.

    Parameters
    ----------
    images, labels : ndarray
        The rows before they are attacked.
    done : StampedImages
        The same, attacked.
    test_images, test_labels : ndarray
        Held out.
    """

    images: Images
    labels: Labels
    done: StampedImages
    test_images: Images
    test_labels: Labels

    @classmethod
    def of(cls, case: Case, seed: int, rows: int, images: Images, labels: Labels) -> Draw:
        """Draw rows, and attack them."""
        order = np.random.default_rng(seed + 1_000_000).permutation(len(labels))
        test = order[:HELD_OUT]
        used = order[HELD_OUT : HELD_OUT + rows]
        done = ATTACKS[case.attack](images[used], labels[used], case.rate, seed)
        return cls(images[used], labels[used], done, images[test], labels[test])

    def judge(self, net: Net) -> tuple[list[float], float]:
        """The success of each trigger, and accuracy, on held-out images."""
        return _judge(net, self.done, self.test_images, self.test_labels)

    def by_nature(self, seed: int) -> float | None:
        """The success of the stronger trigger on a net that never saw poison; None without."""
        if not self.done.planted:
            return None
        return max(self.judge(_trained(self.images, self.labels, seed + 1))[0])


def measure(case: Case, seed: int, rows: int, images: Images, labels: Labels) -> Measured:
    """Attack, audit, and train models before and after."""
    draw = Draw.of(case, seed, rows, images, labels)
    done = draw.done
    began, cpu = time.perf_counter(), time.process_time()
    found = audit(done.images, done.labels, Settings())
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    poison, carriers = done.mask("poison"), done.mask("poison") | done.mask("cover")
    flagged = np.zeros(len(poison), dtype=bool)
    flagged[found.poison] = True
    lost = int((flagged & ~carriers).sum())
    held = flagged.copy()
    held[found.doubtful] = True
    before = draw.judge(_trained(done.images, done.labels, seed + 1))
    after = before
    if held.any():
        after = draw.judge(_trained(done.images[~held], done.labels[~held], seed + 1))
    return Measured(
        case.name,
        seed,
        _target(done),
        int(poison.sum()),
        float(flagged[poison].mean()) if poison.any() else None,
        lost,
        lost / max(int((~carriers).sum()), 1),
        len(found.triggers) + len(found.unstamped),
        len(found.suspicions),
        min(before[0], default=None),
        max(after[0], default=None),
        before[1],
        after[1],
        seconds,
        int((held & ~flagged & ~carriers).sum()),
        draw.by_nature(seed),
        cpu,
    )


def with_nature(run: Measured, case: Case, rows: int, images: Images, labels: Labels) -> Measured:
    """The same run with the success by nature, which hangs on no audit.

    Raises
    ------
    ValueError
        If the seed does not draw the attack that the run was of.
    """
    draw = Draw.of(case, run.seed, rows, images, labels)
    drawn = (_target(draw.done), int(draw.done.mask("poison").sum()))
    if drawn != (run.target, run.poison):
        raise ValueError(f"{case.name}, seed {run.seed}: now draws {drawn}")
    return replace(run, success_natural=draw.by_nature(run.seed))


def _target(done: StampedImages) -> str:
    return ", ".join("all" if p.target < 0 else str(p.target) for p in done.planted)


def _judge(
    net: Net, done: StampedImages, images: Images, labels: Labels
) -> tuple[list[float], float]:
    """The success of each trigger, and accuracy, on held-out images."""
    accuracy = float((net.look(images)[0].argmax(axis=1) == labels).mean())
    shares = []
    for planted in done.planted:
        said = net.look(planted.trigger(images))[0].argmax(axis=1)
        if planted.target < 0:
            shares.append(float((said == (labels + 1) % (labels.max() + 1)).mean()))
            continue
        hit = labels != planted.target if planted.source < 0 else labels == planted.source
        shares.append(float((said[hit] == planted.target).mean()))
    return shares, accuracy


def _trained(images: Images, labels: Labels, seed: int) -> Net:
    classes = int(labels.max()) + 1
    return train(images, labels, classes, epochs(len(labels), classes), seed)


def _unstamped(images: Images, labels: Labels) -> StampedImages:
    none = np.empty(0, np.int64)
    return StampedImages(images, labels, none, np.empty(0, np.str_), ())


def _mnist(folder: Path, part: str) -> tuple[Images, Labels]:
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 28, 28, 1)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read()[8:], np.uint8).astype(np.int64)
    return images, labels


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get(DATA_VARIABLE))
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--cells", nargs="*", default=["*"], help="names of cells, with * and ?")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--name", default="backdoors", help="of the files of results")
    parser.add_argument("--add", action="store_true", help="to the runs that those files hold")
    parser.add_argument(
        "--natural",
        action="store_true",
        help="only measure success by nature, for the runs that those files hold",
    )
    given = parser.parse_args()
    folder = data_folder(given.data)
    chosen = [c for c in CASES if any(fnmatch(c.name, part) for part in given.cells)]
    results = earlier(given.name) if given.add or given.natural else []
    for name in dict.fromkeys(case.data for case in chosen):
        images, labels = load(name, folder)
        for case in (c for c in chosen if c.data == name):
            for seed in range(given.first_seed, given.first_seed + given.seeds):
                held = [r for r in results if (r.cell, r.seed) == (case.name, seed)]
                if not given.natural:
                    again = measure(case, seed, given.rows, images, labels)
                elif held:
                    again = with_nature(held[0], case, given.rows, images, labels)
                else:
                    continue
                results = [r for r in results if r not in held] + [again]
                say(str(again))
                # Hours of work are written down as they come.
                _write(given, results)


def _write(given: argparse.Namespace, results: Sequence[Measured]) -> None:
    names = [case.name for case in CASES]
    results = sorted(results, key=lambda r: (names.index(r.cell), r.seed))
    command = f"python -m benchmarks.backdoors --rows {given.rows} --seeds {given.seeds}"
    command += f" --first-seed {given.first_seed}{' --natural' if given.natural else ''}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    notes = [*NOTES, f"Peak memory of this command: {peak:,.0f} MiB."]
    publish(given.name, command, grids(results), notes, [asdict(r) for r in results])


def grids(results: Sequence[Measured]) -> list[Grid]:
    """The table of all runs, and the summary."""
    columns = ["cell", "seed", "target", "poison", "recall %", "lost", "review"]
    columns += ["confirmed", "suspicions"]
    columns += ["success", "after", "by nature", "accuracy", "after ", "s", "CPU s"]
    runs: list[list[Cell]] = [
        [
            r.cell,
            str(r.seed),
            r.target or None,
            r.poison,
            r.recall,
            r.lost,
            r.doubtful,
            r.confirmed,
            r.suspicions,
            _share(r.success_before),
            _share(r.success_after),
            _share(r.success_natural),
            _share(r.accuracy_before),
            _share(r.accuracy_after),
            r.seconds,
            r.cpu_seconds,
        ]
        for r in results
    ]
    return [Grid("runs", columns, runs), Grid("summary", ["what", "held", "of"], summary(results))]


def summary(results: Sequence[Measured]) -> list[list[Cell]]:
    """How many runs hold their line."""
    taken = [r for r in results if (r.success_before or 0.0) >= TAKES]
    loose = [r for r in taken if "moving" in r.cell or "warp" in r.cell]
    fixed = [r for r in taken if r not in loose]
    clean = [r for r in results if r.recall is None]
    return [
        ["fixed stamps: recall and lost", sum(_holds(r, 0.99, 0.0002) for r in fixed), len(fixed)],
        [
            "fixed stamps: success after at most .05",
            sum((r.success_after or 0.0) <= AFTER for r in fixed),
            len(fixed),
        ],
        [
            "fixed stamps: the same, or .02 above that by nature",
            sum(_works_no_more(r) for r in fixed),
            len(fixed),
        ],
        [
            "moving and warp: recall and lost",
            sum(_holds(r, 0.95, 0.002) for r in loose),
            len(loose),
        ],
        ["clean and flipped: nothing confirmed", sum(not r.confirmed for r in clean), len(clean)],
    ]


def _holds(r: Measured, recall: float, lost: float) -> bool:
    return (r.recall or 0.0) >= recall and r.lost_share <= lost


def _works_no_more(r: Measured) -> bool:
    """Whether a trigger does hardly more after cleaning than it does by nature."""
    natural = 0.0 if r.success_natural is None else r.success_natural + ABOVE_NATURE
    return (r.success_after or 0.0) <= max(AFTER, natural)


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
