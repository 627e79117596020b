"""Backdoors in images: our audit beside ART's detectors, on the same images and the same net."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.answers import Answer, Cost
from benchmarks.backdoor_tools import TOLD, TOOLS, TRUE_RATE, Given
from benchmarks.backdoors import ATTACKS, HELD_OUT, Case, Images, Labels, load
from benchmarks.measure import in_own_process
from benchmarks.results import Cell, Grid, mean, publish, say
from benchmarks.tables import DATA_VARIABLE, data_folder
from sanitizers.encoders.net import epochs, train
from sanitizers.poisons.stamping import StampedImages

CASES = (
    Case("fashion", "patch", 0.01),
    Case("fashion", "blend.2", 0.05),
    Case("fashion", "clean-label-wave40", 0.3),
    Case("fashion", "clean", 0.0),
)

NOTES = (
    "Images, triggers and rates are those of the benchmark `backdoors`; no tool has a trusted "
    "row. *Recall* is the share of poisoned rows that a tool calls poison, *lost* the rows that "
    "it calls so and that are clean. *Told* is the share of poisoned rows in groups that our "
    "audit reports as looking planted, without proof: nothing of them is removed. Each tool runs "
    "in a fresh process, on one thread; importing is not timed, but is in the peak of memory.",
    "ART's detectors (adversarial-robustness-toolbox) get a net that was trained on all rows, and "
    "of it the penultimate layer, as their papers have it; by default ART takes the last one. All "
    'else is as it comes, but for *silhouette*, which is `cluster_analysis="silhouette-scores"`, '
    "and *true rate*, which is told the poisoned share of the target's rows. But for "
    "*silhouette*, its rules call a part of every class poison, whether anything is poisoned or "
    "not. Our audit is told nothing and is given no net: its two trainings are in its seconds.",
    "For scale, from the literature and not measured here: AGPD (Yuan et al., ICLR 2025) reports "
    "for CIFAR-10 a mean recall of 96.7 % with 0.17 % of the clean rows lost, at 10 % of poison, "
    "or 5 % with clean labels. It is given ten images per class that are known to be clean; here "
    "no tool is given any.",
)


@dataclass(frozen=True)
class Measured:
    """What one tool said in one run of a cell; None where there is nothing to measure."""

    cell: str
    seed: int
    tool: str
    poison: int
    recall: float | None
    told: float | None
    lost: int
    lost_share: float
    cost: Cost


def attacked(case: Case, seed: int, rows: int, images: Images, labels: Labels) -> StampedImages:
    """The rows that `benchmarks.backdoors` draws for a seed, attacked as there."""
    order = np.random.default_rng(seed + 1_000_000).permutation(len(labels))
    used = order[HELD_OUT : HELD_OUT + rows]
    return ATTACKS[case.attack](images[used], labels[used], case.rate, seed)


def rate_of(done: StampedImages) -> float:
    """The poisoned share of the rows that have the target's label; 0 where nothing is."""
    if not done.planted:
        return 0.0
    return float(done.mask("poison")[done.labels == done.planted[0].target].mean())


def judged(case: Case, seed: int, tool: str, done: StampedImages, file: Path) -> Measured:
    """Run a tool in a process of its own, and hold what it says against the truth."""
    told = in_own_process("backdoor_tools", tool, str(file))
    if told is None:
        raise TimeoutError(tool)
    answer = Answer.load(file.with_suffix(".answer.npz"))
    poison = done.mask("poison")
    clean = ~(poison | done.mask("cover"))
    lost = int((answer.flags & clean).sum())
    group = answer.parts.get(TOLD)
    return Measured(
        case.name,
        seed,
        tool,
        int(poison.sum()),
        answer.recall(poison) if poison.any() else None,
        float(group[poison].mean()) if group is not None and poison.any() else None,
        lost,
        lost / int(clean.sum()),
        Cost(**told),
    )


def measure(
    case: Case, seed: int, rows: int, images: Images, labels: Labels
) -> tuple[list[Measured], float]:
    """Let every tool look at one run of a cell; also the seconds that its net took."""
    done = attacked(case, seed, rows, images, labels)
    classes = int(done.labels.max()) + 1
    began = time.perf_counter()
    net = train(done.images, done.labels, classes, epochs(len(done.labels), classes), seed + 1)
    seconds = time.perf_counter() - began
    given = Given.of(done.images, done.labels, net, rate_of(done))
    results = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "given.npz"
        given.save(file)
        # With nothing poisoned the true rate is none, and it would call nothing poison.
        for tool in (name for name in TOOLS if given.rate or name != TRUE_RATE):
            results.append(judged(case, seed, tool, done, file))
            say(str(results[-1]))
    return results, seconds


def grid(results: Sequence[Measured]) -> Grid:
    """The table: a row for each cell and tool, means over the seeds."""
    rows: list[list[Cell]] = []
    for cell, tool in dict.fromkeys((r.cell, r.tool) for r in results):
        mine = [r for r in results if (r.cell, r.tool) == (cell, tool)]
        rows.append(
            [
                cell,
                tool,
                _mean([r.recall for r in mine]),
                _mean([r.told for r in mine]),
                mean([r.lost_share for r in mine]),
                round(mean([r.lost for r in mine])),
                mean([r.cost.seconds for r in mine]),
                mean([r.cost.cpu_seconds for r in mine]),
                round(mean([r.cost.peak_mb for r in mine])),
            ]
        )
    columns = ["cell", "tool", "recall %", "told %", "lost %", "lost", "s", "CPU s", "peak MiB"]
    seeds = len({r.seed for r in results})
    return Grid(f"mean over {seeds} seeds" if seeds > 1 else "one seed", columns, rows)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get(DATA_VARIABLE))
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=2000)
    asked = parser.parse_args()
    images, labels = load("fashion", data_folder(asked.data))
    results: list[Measured] = []
    nets: list[float] = []
    for number in range(asked.seeds):
        for case in CASES:
            found, seconds = measure(case, asked.first_seed + number, asked.rows, images, labels)
            results += found
            nets.append(seconds)
        # What is measured is kept, should the next seed not come to an end.
        command = (
            f"python -m benchmarks.backdoor_contenders --rows {asked.rows} --seeds {number + 1} "
            f"--first-seed {asked.first_seed}"
        )
        net = f"Training the net that ART is given took {mean(nets):.1f} s, which are not counted."
        notes = [*NOTES, net, *([shared] if (shared := _shared()) else [])]
        raw = [asdict(r) for r in results]
        publish("backdoor_contenders", command, [grid(results)], notes, raw)


def _shared() -> str:
    """Say that others computed on the machine, where they did."""
    load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    if load <= 1.5:
        return ""
    return (
        f"The machine was shared ({load:.1f} processes for {cpus} CPUs at the end): seconds are "
        "too long for all tools, CPU seconds less so."
    )


if __name__ == "__main__":
    main()
