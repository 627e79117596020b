"""How seconds and memory of one sanitizer grow with the rows.

``python -m benchmarks.growth NAME FOLDER`` fits and scores on shards that `make_shards` wrote,
in a process of its own, so that seconds and memory are its own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import in_own_process
from benchmarks.scale import COLUMNS, make
from benchmarks.usage import cpu_seconds, peak_mb
from pipelines.shards import SHARD_ROWS, ParquetShard, shard_name, write_shard
from sanitizers.catalog import missing_roles, sanitizer
from sanitizers.core.data import ROW_ID, ROW_KEY, Dataset, Roles, row_keys
from sanitizers.core.evidence import examine_batch

SALT = b"growth"
SEED = 0
FEATURES = tuple(f"x{i}" for i in range(COLUMNS))
#: Every role that a sanitizer of tables may need.
ROLES = Roles(label="label", target="target", time="time", features=FEATURES)


@dataclass(frozen=True)
class Growth:
    """What one sanitizer took for some rows.

    Parameters
    ----------
    fit, score : float
        Seconds; reading the shards counts.
    cpu : float
        Seconds of all processors, for both.
    peak_mb : float
        Peak resident memory of its process.
    """

    fit: float
    score: float
    cpu: float
    peak_mb: float

    @property
    def seconds(self) -> float:
        """Fitting and scoring."""
        return self.fit + self.score


def costs(
    names: tuple[str, ...], rows: int, folder: Path | None, limit: float
) -> dict[str, Growth]:
    """Measure sanitizers on the same made rows, one after the other.

    Parameters
    ----------
    names : tuple of str
    rows : int
    folder : Path, optional
        Where the rows lie meanwhile.
    limit : float
        Seconds that each may take; those that take longer are left out.
    """
    found = {}
    with tempfile.TemporaryDirectory(dir=folder) as place:
        make_shards(Path(place), rows)
        for name in names:
            told = in_own_process("growth", name, place, limit=limit)
            if told is not None:
                found[name] = Growth(**told)
    return found


def make_shards(folder: Path, rows: int, shard_rows: int = SHARD_ROWS) -> None:
    """Write the rows of `benchmarks.scale` as shards, with a time and a target besides.

    The target is the sum of five features and noise; the time is the order of the rows.
    """
    rng = np.random.default_rng(SEED)
    whole = folder / "whole.parquet"
    make(whole, rows)
    first = 0
    for batch in pq.ParquetFile(whole).iter_batches(shard_rows):
        table = pa.Table.from_batches([batch])
        place = np.arange(first, first + len(table))
        ids = [f"row-{i:08d}" for i in place]
        target = sum(table.column(name).to_numpy() for name in FEATURES[:5])
        more = {
            "target": target + rng.normal(size=len(table)),
            "time": place.astype(float),
            ROW_ID: ids,
            ROW_KEY: row_keys(ids, SALT),
        }
        for name, values in more.items():
            table = table.append_column(name, pa.array(values))
        write_shard(folder / shard_name(first), table)
        first += len(table)
    whole.unlink()


def can_run(name: str) -> bool:
    """Whether a sanitizer has what it needs in the rows that are made."""
    return not missing_roles(sanitizer(name), ROLES)


def main() -> None:
    """Run one sanitizer on shards that `make_shards` wrote."""
    parser = argparse.ArgumentParser(description="run one sanitizer on shards")
    parser.add_argument("sanitizer")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    shards = tuple(ParquetShard(file) for file in sorted(given.folder.glob("rows-*.parquet")))
    data, recipe = Dataset(shards, ROLES, SALT), sanitizer(given.sanitizer)
    started, cpu = time.perf_counter(), cpu_seconds()
    scorer = recipe.fit(data)
    fitted = time.perf_counter()
    for batch in data.batches():
        examine_batch(given.sanitizer, scorer, batch)
    ended = time.perf_counter()
    cost = {"fit": fitted - started, "score": ended - fitted, "cpu": cpu_seconds() - cpu}
    print(json.dumps({**cost, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
