"""Known triggers: what it takes to look for them in a million images, beside a matrix product."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.backdoors import Images, Labels, load
from benchmarks.results import Cell, Grid, publish, say
from benchmarks.tables import DATA_VARIABLE, data_folder
from benchmarks.usage import peak_mb
from pipelines.known import given_triggers, write_triggers
from pipelines.shards import SHARD_ROWS
from sanitizers.backdoors import Backdoors, BackdoorScorer
from sanitizers.backdoors.arrays import to_planes
from sanitizers.backdoors.exhibits import Sampled
from sanitizers.backdoors.sanitizer import fit_images
from sanitizers.backdoors.signature import Recalled, recall
from sanitizers.core.data import ROW_ID, Batch, Roles
from sanitizers.core.encoder import fit_encoder
from sanitizers.core.evidence import examine_batch
from sanitizers.core.image_columns import PIXELS
from sanitizers.core.keepsake import TRIGGER, Keepsake
from sanitizers.poisons import stamps
from sanitizers.poisons.stamping import Planted, StampAttack, plant_all

SEED = 0
#: Images that are audited; the others are what is looked at afterwards.
AUDITED = 20_000
#: The share of images that each trigger is planted in, for the audit and afterwards.
RATE, RATE_AFTER = 0.02, 0.001
#: Images at once, of the product as of the signatures.
CHUNK = 8192
SALT = b"known"
ROLES = Roles(image="image", label="label")
ATTACKS = (
    StampAttack(stamps.patch, target=3),
    StampAttack(stamps.blend(0.2), target=5),
    StampAttack(stamps.gap, target=8),
    StampAttack(stamps.sinusoid(25), target=1),
)
PRODUCT, RUN = "one matrix product", "a run: all triggers, evidence and hints"
NOTES = (
    f"Four triggers are planted in {AUDITED:,} images of Fashion-MNIST and confirmed by an audit; "
    "their signatures are written and read as a release has them, and looked for in shards of "
    f"{SHARD_ROWS:,} images, drawn again and again from the {70_000 - AUDITED:,} others; one in "
    "1,000 is stamped with each trigger and given its label.",
    "*One matrix product*: the same pixels, made float32 in the same chunks, by as many columns "
    "as there are triggers. *A run* looks for all of them as `sanitize run` does: scores, p-values "
    "and hints of every row. Each of the others is one detector on every image, whatever its "
    "label. CPU seconds, one thread. Images lie decoded in arrays; making the shards is not "
    "counted.",
    "Line to hold: the speed of one matrix product.",
)


@dataclass
class Found:
    """How many carriers a run found, of how many, and how many other rows it flagged."""

    carriers: int = 0
    found: int = 0
    others: int = 0


def confirmed(images: Images, labels: Labels) -> tuple[tuple[Keepsake, ...], tuple[Planted, ...]]:
    """The signatures that an audit of planted triggers saves, read again, and the triggers."""
    done = plant_all(ATTACKS, images, labels, RATE, SEED)
    names = [str(v) for v in done.labels]
    there, known = np.ones(len(names), dtype=bool), np.array(names, dtype=object)
    sampled = Sampled(done.images, known, [str(i) for i in range(len(names))], there)
    scorer = fit_images(done.images, there, known, Backdoors())
    scorer = scorer.shown(sampled, np.arange(len(names)), ())
    made = [kept for kept in scorer.keepsakes if kept.kind == TRIGGER]
    with tempfile.TemporaryDirectory() as folder:
        write_triggers(Path(folder), made, "release 1.0.0 of known")
        return given_triggers(folder), done.planted


def shards(
    images: Images, labels: Labels, planted: Sequence[Planted], count: int
) -> Iterator[tuple[pa.Table, NDArray[np.bool_]]]:
    """Rows in shards, and which of them carry a trigger."""
    rng = np.random.default_rng(SEED)
    for start in range(0, count, SHARD_ROWS):
        rows = rng.integers(0, len(images), min(SHARD_ROWS, count - start))
        seen, given = images[rows], labels[rows]
        carriers = np.zeros(len(rows), dtype=bool)
        for one in planted:
            free = np.flatnonzero(~carriers & (given != one.target))
            chosen = rng.choice(free, round(RATE_AFTER * len(rows)), replace=False)
            seen[chosen], given[chosen] = one.trigger(seen[chosen]), one.target
            carriers[chosen] = True
        yield _table(seen, [str(v) for v in given], start), carriers


def _table(images: Images, labels: Sequence[str], first: int = 0) -> pa.Table:
    width = int(np.prod(images.shape[1:]))
    buffers = [None, pa.py_buffer(np.ascontiguousarray(images))]
    ids = [f"row-{i:08d}" for i in range(first, first + len(labels))]
    pixels = pa.Array.from_buffers(pa.binary(width), len(labels), buffers)
    return pa.table({PIXELS: pixels, "label": labels, ROW_ID: ids})


def look(
    recalled: Sequence[Recalled], made: Iterator[tuple[pa.Table, NDArray[np.bool_]]]
) -> tuple[dict[str, float], Found]:
    """Look at every shard in every way.

    Returns
    -------
    dict of float
        CPU seconds of each way.
    Found
    """
    scorer = BackdoorScorer((), (), recalled=tuple(recalled))
    seconds: dict[str, float] = {}
    found = Found()
    for table, carriers in made:
        batch = Batch(table, ROLES, SALT, fit_encoder(table, ()), recalled[0].shape)
        images = batch.images.copy()
        columns = np.random.default_rng(SEED).normal(
            size=(to_planes(images[:1]).size, len(recalled))
        )
        ways = {PRODUCT: _product(columns.astype(np.float32))}
        ways |= {_name(one): one.detector.strength for one in recalled}
        for name, way in ways.items():
            began = time.process_time()
            for start in range(0, len(images), CHUNK):
                way(images[start : start + CHUNK])
            seconds[name] = seconds.get(name, 0.0) + time.process_time() - began
        # A batch of its own: what one has decoded it keeps.
        batch = Batch(table, ROLES, SALT, batch.encoder, batch.image_shape)
        began = time.process_time()
        scores = examine_batch("backdoors", scorer, batch).column("score").to_numpy()
        seconds[RUN] = seconds.get(RUN, 0.0) + time.process_time() - began
        flagged = scores >= 1
        found.carriers += int(carriers.sum())
        found.found += int((flagged & carriers).sum())
        found.others += int((flagged & ~carriers).sum())
    return seconds, found


def _product(columns: NDArray[np.float32]) -> Callable[[Images], object]:
    return lambda images: to_planes(images) @ columns


def _name(one: Recalled) -> str:
    return f"{type(one.detector).__name__.lower()} of {one.label!r}"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get(DATA_VARIABLE))
    parser.add_argument("--images", type=int, default=1_000_000)
    given = parser.parse_args()
    images, labels = load("fashion", data_folder(given.data))
    order = np.random.default_rng(SEED).permutation(len(labels))
    audited, rest = order[:AUDITED], order[AUDITED:]
    with threadpool_limits(1):
        known, planted = confirmed(images[audited], labels[audited])
        say(f"{len(known)} triggers confirmed")
        made = shards(images[rest], labels[rest], planted, given.images)
        seconds, found = look([recall(kept) for kept in known], made)
    rows: list[list[Cell]] = [
        [what, taken, 1e6 * taken / given.images, f"{taken / seconds[PRODUCT]:.2f}"]
        for what, taken in seconds.items()
    ]
    grids = [
        Grid(f"{given.images:,} images", ["what", "CPU s", "µs an image", "x product"], rows),
        Grid(
            "what a run found",
            ["carriers", "found", "others flagged"],
            [[found.carriers, found.found, found.others]],
        ),
    ]
    notes = [*NOTES, f"Peak memory, the audit among it: {peak_mb():,.0f} MiB."]
    figures = {"cpu_seconds": seconds, "found": asdict(found), "images": given.images}
    command = f"python -m benchmarks.known_triggers --images {given.images}"
    publish("known_triggers", command, grids, notes, figures)


if __name__ == "__main__":
    main()
