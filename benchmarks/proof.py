"""Rulings over a million rows, and a thousand random changes of a release."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.product import COMMAND
from benchmarks.results import Cell, Grid, publish, say
from benchmarks.scale import make
from pipelines.rulings import Rulings
from pipelines.shards import ParquetShard
from pipelines.store import Store
from pipelines.verify import verify

ROWS, RULED, CHANGES, SMALL = 1_000_000, 1_000, 1_000, 2_000
NOTES = (
    "Made rows, those of `benchmarks.scale`. *Ruling* is one call that appends a ruling on one "
    f"row to a log of {RULED:,}; *publish* is `sanitize publish` as a user runs it, its start "
    f"among it, after {RULED:,} rows all over the release were ruled to quarantine, then 100 of "
    "them taken back.",
    f"A signed release of {SMALL:,} rows that obeys rulings is copied, and one file of it is "
    "changed in one random bit of one byte, removed, or joined by another one; *found* counts "
    "those of which `verify`, given the public key, says that something is wrong.",
    "Lines to hold: a ruling in at most 100 ms, publishing in at most 10 s, every change found.",
)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--changes", type=int, default=CHANGES)
    parser.add_argument("--folder", type=Path, help="where the rows and the store lie meanwhile")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = changed(Path(folder), given.changes)
        say(str(found))
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        times = rule(Path(folder), given.rows)
        say(str(times))
    rows: list[list[Cell]] = [[name, seconds] for name, seconds in times.items()]
    tampered: list[list[Cell]] = [[kind, tried, hit] for kind, (tried, hit) in found.items()]
    grids = [
        Grid(f"rulings over {given.rows:,} rows, seconds", ["what", "seconds"], rows),
        Grid("random changes of a signed release", ["change", "tried", "found"], tampered),
    ]
    command = f"python -m benchmarks.proof --rows {given.rows} --changes {given.changes}"
    publish("proof", command, grids, NOTES, {"rulings": times, "changes": found})


def rule(folder: Path, rows: int) -> dict[str, float]:
    """Seconds of a ruling, and of publishing after many."""
    store, release = _released(folder, rows)
    log, ids = Rulings.of(store, "rows"), list[str]()
    for part in sorted((release / "clean").iterdir()):
        ids += ParquetShard(part).read(["row_id"]).column(0).to_pylist()
    some = random.Random(0).sample(ids, RULED)
    log.add(some, "quarantine", who="a", why="b")
    times = {"publish, rows to quarantine": _timed("publish", "rows", "--store", str(store.root))}
    log.add(some[:100], "none", who="a", why="b")
    times["publish, 100 taken back"] = _timed("publish", "rows", "--store", str(store.root))
    started = time.perf_counter()
    log.add(some[:1], "keep", who="a", why="b")
    return times | {"ruling": time.perf_counter() - started}


def changed(folder: Path, changes: int) -> dict[str, tuple[int, int]]:
    """How many changes of a release were tried, and found."""
    store = Store.open(folder / "store")
    _timed("keygen", "--store", str(store.root))
    _, release = _released(folder, SMALL)
    row = str(ParquetShard(release / "clean" / "part-00000.parquet").read().column("row_id")[0])
    Rulings.of(store, "rows").add([row], "quarantine", who="a", why="b")
    _timed("publish", "rows", "--store", str(store.root))
    release = store.releases("rows")[-1]
    key, copy = store.root / ".keys" / "public.pem", folder / "copy"
    rng = random.Random(0)
    files = sorted(p for p in release.rglob("*") if p.is_file())
    found = {"a bit": (0, 0), "a file gone": (0, 0), "a file more": (0, 0)}
    for number in range(changes):
        kind = list(found)[number % 3]
        shutil.copytree(release, copy)
        path = copy / rng.choice(files).relative_to(release)
        if kind == "a bit":
            data = bytearray(path.read_bytes())
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(bytes(data))
        elif kind == "a file gone":
            path.unlink()
        else:
            (path.parent / f"more-{number}").write_bytes(rng.randbytes(10))
        tried, hit = found[kind]
        found[kind] = (tried + 1, hit + (not verify(copy, key).ok))
        shutil.rmtree(copy)
    return found


def _released(folder: Path, rows: int) -> tuple[Store, Path]:
    data = folder / "rows.parquet"
    make(data, rows)
    root = folder / "store"
    _timed("run", str(data), "--label", "label", "--store", str(root), "--quiet")
    store = Store.open(root)
    return store, store.releases("rows")[-1]


def _timed(*words: str) -> float:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"sanitize {json.dumps(words)} ended with {done.returncode}:\n{done.stderr}")
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
