"""Images by what encoders make of them: clean rows lost, flipped labels and strangers found."""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from benchmarks.backdoors import load
from benchmarks.judged import any_of, judge, recall_at
from benchmarks.results import Cell, Grid, publish, say
from benchmarks.tables import DATA_VARIABLE, data_folder
from sanitizers.core.data import EMBEDDING, Dataset, MemoryShard, Roles
from sanitizers.core.images import resized
from sanitizers.encoders import ENCODERS, find_device, image_encoder
from sanitizers.poisons.flips import draw_flips

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Flags = NDArray[np.bool_]

#: The sanitizers of tables that see features, and not those that look at images.
FOR_FEATURES = ("outliers", "micro-votes", "labels", "conflicts")
#: Poison per row.
RATE, STRANGERS = 0.05, 0.02

NOTES = (
    "Sanitizers of tables see the images through an encoder, by the default policy. *Lost* is the "
    "share of the clean rows that they quarantine, *found* the share of the poison; *at 1 %* is "
    "what the ranking of the sanitizer that is made for it finds until it has lost 1 % of the "
    "clean rows. Rows and poison are drawn by the seed.",
    f"`flips`: {RATE:.0%} of the labels become another class, drawn evenly. `pairs`: {RATE:.0%} "
    "of the labels become the next class, each class always the same one. `strangers`: "
    f"{STRANGERS:.0%} images of another dataset with labels of this one, made as large and as "
    "grey; only outliers and votes run.",
)


@dataclass(frozen=True)
class Measured:
    """What one run gave; `found` and `ranked` are None where nothing was planted."""

    data: str
    attack: str
    encoder: str
    seed: int
    lost: float
    found: float | None
    ranked: float | None
    by: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Poisoned:
    """Images with labels, and which of them are poison."""

    images: Images
    labels: Labels
    bad: Flags
    sanitizers: tuple[str, ...] = FOR_FEATURES
    ranking: str = "labels"


def _clean(images: Images, labels: Labels, other: Images, seed: int) -> Poisoned:
    return Poisoned(images, labels, np.zeros(len(labels), dtype=bool))


def _flips(images: Images, labels: Labels, other: Images, seed: int) -> Poisoned:
    rng = np.random.default_rng(seed)
    rows, codes = draw_flips(labels, int(labels.max()) + 1, round(RATE * len(labels)), rng)
    return _relabelled(images, labels, rows, codes)


def _pairs(images: Images, labels: Labels, other: Images, seed: int) -> Poisoned:
    rows = np.random.default_rng(seed).permutation(len(labels))[: round(RATE * len(labels))]
    return _relabelled(images, labels, rows, (labels[rows] + 1) % (labels.max() + 1))


def _relabelled(images: Images, labels: Labels, rows: Labels, codes: Labels) -> Poisoned:
    given = labels.copy()
    given[rows] = codes
    return Poisoned(images, given, given != labels)


def _strangers(images: Images, labels: Labels, other: Images, seed: int) -> Poisoned:
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(labels))[: round(STRANGERS * len(labels))]
    drawn = other[rng.permutation(len(other))[: len(rows)]]
    mixed = images.copy()
    height, width, channels = images.shape[1:]
    mixed[rows] = resized(drawn, (height, width, channels))
    bad = np.zeros(len(labels), dtype=bool)
    bad[rows] = True
    return Poisoned(mixed, labels, bad, ("outliers", "micro-votes"), "outliers")


Attack = Callable[[Images, Labels, Images, int], Poisoned]
ATTACKS: dict[str, Attack] = {
    "clean": _clean,
    "flips": _flips,
    "pairs": _pairs,
    "strangers": _strangers,
}
#: Where strangers come from.
OTHERS = {"fashion": "cifar", "cifar": "fashion", "signs": "fashion"}


def embedded(
    done: Poisoned, encoder: str, device: str, vouched: tuple[Images, Labels] | None = None
) -> Dataset:
    """The rows, and those that are vouched for, with the vectors that an encoder makes."""
    images, labels = done.images, done.labels
    if vouched is not None:
        images = np.concatenate([images, vouched[0]])
        labels = np.concatenate([labels, vouched[1]])
    label = pa.array([str(v) for v in labels])
    pictures = pa.array([_png(image) for image in images], pa.binary())
    whole = Dataset.from_table(
        pa.table({"image": pictures, "label": label}), Roles(image="image", label="label")
    )
    embedder = image_encoder(encoder).fit(whole, device)
    images = next(whole.batches()).images_at(embedder.shape)
    vectors = embedder.embed(images)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), embedder.width)
    table = pa.table({EMBEDDING: column, "label": label})
    roles = Roles(embedding=EMBEDDING, label="label")
    whole = Dataset.from_table(table, roles)
    if vouched is None:
        return whole
    table, rows = whole.shards[0].read(), len(done.labels)
    parts = (MemoryShard(table.slice(0, rows)),), (MemoryShard(table.slice(rows)),)
    return replace(whole, shards=parts[0], trusted=parts[1])


def measure(
    done: Poisoned,
    data: str,
    attack: str,
    encoder: str,
    seed: int,
    vouched: tuple[Images, Labels] | None = None,
) -> Measured:
    """Embed, and judge by the default policy."""
    began = time.perf_counter()
    found = judge(embedded(done, encoder, find_device("auto"), vouched), done.sanitizers)
    seconds = time.perf_counter() - began
    flagged = any_of(found, len(done.bad))
    there = bool(done.bad.any())
    return Measured(
        data,
        attack,
        encoder,
        seed,
        float(flagged[~done.bad].mean()),
        float(flagged[done.bad].mean()) if there else None,
        recall_at(found[done.ranking].scores, done.bad, 0.01) if there else None,
        {name: float(one.quarantined[~done.bad].mean()) for name, one in found.items()},
        seconds,
    )


def summary(results: Sequence[Measured]) -> list[list[Cell]]:
    """Means over the seeds."""
    rows: list[list[Cell]] = []
    for (data, attack, encoder), group in groupby(
        sorted(results, key=_cell), key=lambda r: (r.data, r.attack, r.encoder)
    ):
        runs = list(group)
        rows.append(
            [
                data,
                attack,
                encoder,
                len(runs),
                _mean([r.found for r in runs]),
                _mean([r.lost for r in runs]),
                max(r.lost for r in runs),
                _mean([r.ranked for r in runs]),
                float(np.mean([r.seconds for r in runs])),
            ]
        )
    return rows


def _cell(result: Measured) -> tuple[str, int, str, int]:
    return result.data, list(ATTACKS).index(result.attack), result.encoder, result.seed


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def _png(image: Images) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(
        out, "PNG", compress_level=1
    )
    return out.getvalue()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get(DATA_VARIABLE))
    parser.add_argument("--sets", nargs="+", default=["fashion", "cifar"])
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS))
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS), choices=ATTACKS)
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trusted", type=int, default=0, help="rows that are vouched for")
    parser.add_argument("--name", default="embeddings", help="of the files of results")
    given = parser.parse_args()
    folder = data_folder(given.data)
    results: list[Measured] = []
    for name in given.sets:
        images, labels = load(name, folder)
        other = load(OTHERS[name], folder)[0] if "strangers" in given.attacks else images
        for seed in range(1000, 1000 + given.seeds):
            order = np.random.default_rng(seed).permutation(len(labels))
            used, told = order[: given.rows], order[given.rows :][: given.trusted]
            vouched = (images[told], labels[told]) if given.trusted else None
            for attack in given.attacks:
                done = ATTACKS[attack](images[used], labels[used], other, seed)
                for encoder in given.encoders:
                    results.append(measure(done, name, attack, encoder, seed, vouched))
                    say(str(results[-1]))
    columns = ["images", "attack", "encoder", "seeds", "found %", "lost %", "worst lost %"]
    grid = Grid("means over the seeds", [*columns, "at 1 % lost %", "s"], summary(results))
    command = f"python -m benchmarks.embeddings --rows {given.rows} --seeds {given.seeds}"
    command += f" --trusted {given.trusted}" if given.trusted else ""
    publish(given.name, command, [grid], NOTES, [asdict(r) for r in results])


if __name__ == "__main__":
    main()
