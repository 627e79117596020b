"""Are releases whole, and what they would have been, where runs are killed and run again."""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.killing import (
    AFTER,
    ROWS,
    SHARDS,
    STAGES,
    START,
    Bench,
    Moment,
    Undisturbed,
    left_behind,
    partial,
    reached,
)
from benchmarks.results import Cell, Grid, mean, publish, say

#: Kills of one store, one after the other, before its run may end.
CHAIN = 2
#: A moment that no run has reached comes so much earlier the next time.
EARLIER = 0.9
NOTES = (
    f"`sanitize run` on {SHARDS} files of {ROWS:,} rows, a shard each, with a label and a time, "
    "all sanitizers by default, and Prefect's own server for every run. The run is killed with "
    "`kill -9`, then run again, killed again, and run to its end.",
    "Half of the moments are drawn at random, one in each of as many equal parts of the time that "
    "an undisturbed run takes, start-up included. The others are aimed at a stage, each in turn: a "
    "random moment within the time that the stage takes, for publishing is soon over. Both are "
    "counted from the first change that the stage makes, so that they hit it on a machine that "
    "has become slower. Every second kill takes the process alone, the others its whole group.",
    "*Partial*: folders under `releases/` that do not verify, looked at after every kill. *Left "
    "behind*: processes of the run that live on ten seconds after it. *Other*: runs that came to "
    "another digest than the undisturbed run, over the digests and rows of all files of clean, "
    "review and quarantine, and the counts.",
)


@dataclass
class Count:
    """What was counted of the kills that hit one stage."""

    kills: int = 0
    partial: int = 0
    left: int = 0
    seconds: list[float] = field(default_factory=list)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where data and stores lie meanwhile")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        bench = Bench(Path(folder))
        bench.prepare()
        usual = Undisturbed.measure(bench, bench.store(0))
        say(f"undisturbed: {usual.seconds:.1f} s; {usual.stages}")
        moments = usual.moments(given.kills, random.Random(given.seed))
        counts, ends = _kill_all(bench, usual, moments)
    _publish(given, usual, counts, ends)


def _kill_all(
    bench: Bench, usual: Undisturbed, moments: list[Moment]
) -> tuple[dict[str, Count], Counter[bool]]:
    counts = {name: Count() for name in (START, *STAGES, AFTER)}
    ends: Counter[bool] = Counter()
    store, killed = 0, 0
    while moments:
        store += 1
        root = bench.store(store)
        for link in range(CHAIN):
            if not moments:
                break
            moment = moments.pop(0)
            if not _kill(bench, root, moment, counts, group=killed % 2 == 0):
                earlier = EARLIER if link == 0 else 1.0
                moments.append(replace(moment, seconds=moment.seconds * earlier))
                break
            killed += 1
        same = bench.finish(root) == usual.digest
        ends[same] += 1
        say(f"{killed} kills, {len(moments)} left; the digest is {'the same' if same else 'OTHER'}")
    return counts, ends


def _kill(
    bench: Bench, root: Path, moment: Moment, counts: dict[str, Count], *, group: bool
) -> bool:
    began = time.monotonic()
    process = bench.start(root)
    if not moment.kill(process, root, group=group):
        return False
    seconds = time.monotonic() - began
    # While what it started still writes, if it does.
    broken = len(partial(root))
    count = counts[reached(root)]
    count.kills += 1
    count.left += left_behind(root)
    count.partial += broken + len(partial(root))
    count.seconds.append(seconds)
    return True


def _publish(
    given: argparse.Namespace,
    usual: Undisturbed,
    counts: dict[str, Count],
    ends: Counter[bool],
) -> None:
    rows: list[list[Cell]] = [
        [name, c.kills, c.partial, c.left, mean(c.seconds) if c.seconds else None]
        for name, c in counts.items()
    ]
    whole = counts.values()
    rows.append(["all", sum(c.kills for c in whole), sum(c.partial for c in whole)])
    rows[-1] += [sum(c.left for c in whole), mean([s for c in whole for s in c.seconds])]
    names = ["killed in", "kills", "partial", "left behind", "seconds after start"]
    end: list[list[Cell]] = [[ends.total(), ends[True], ends[False]]]
    raw: dict[str, Any] = {
        "undisturbed": {"seconds": usual.seconds, "stages": dict(usual.stages)},
        "kills": {name: vars(count) for name, count in counts.items()},
        "resumed": {"same": ends[True], "other": ends[False]},
    }
    command = f"python -m benchmarks.kills --kills {given.kills} --seed {given.seed}"
    grids = [
        Grid(f"kills; undisturbed, a run takes {usual.seconds:.1f} s", names, rows),
        Grid("runs that were resumed to their end", ["runs", "same", "other"], end),
    ]
    publish("kills", command, grids, NOTES, raw)


if __name__ == "__main__":
    main()
