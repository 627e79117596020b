"""Make the sample tables: a clean one from its origin, and a poisoned copy with its truth.

``python data_samples/make.py`` makes the poisoned copy from the clean table beside it;
``--origin Bikeshare.csv`` makes the clean table first, from the file of the package ISLP.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent))  # run as a script, from anywhere

from benchmarks.poison import flip_labels, slip_cluster  # noqa: E402 - needs the line above

CLEAN = FOLDER / "bikes.csv"
POISONED = FOLDER / "bikes_poisoned.csv"
TRUTH = FOLDER / "bikes_poisoned.truth.csv"
#: SHA-256 of ``ISLP/data/Bikeshare.csv`` in the wheel of ISLP 0.6.0.
ORIGIN_SHA256 = "ac6950ae6f11efcc69c29d6bb13e8881c001e27d36434660d59444a1414f712c"
SEED = 20110101
#: Digits after the point that the publisher gives.
DIGITS = {"temp": 2, "atemp": 4, "hum": 2, "windspeed": 4}
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def clean(origin: pd.DataFrame) -> pd.DataFrame:
    """Turn the hourly counts of ISLP into a table with a time and a class.

    Parameters
    ----------
    origin : pandas.DataFrame
        ``Bikeshare.csv`` as it ships with ISLP.
    """
    day = pd.Timestamp("2011-01-01") + pd.to_timedelta(origin["day"] - 1, unit="D")
    demand = pd.cut(origin["bikers"], [-1, 50, 200, 10_000], labels=["low", "normal", "high"])
    table = pd.DataFrame(
        {
            "when": day + pd.to_timedelta(origin["hr"], unit="h"),
            "hour": origin["hr"],
            "weekday": origin["weekday"].map(dict(enumerate(WEEKDAYS))),
            "workingday": origin["workingday"].map({0: "no", 1: "yes"}),
            "holiday": origin["holiday"].map({0: "no", 1: "yes"}),
            "weather": origin["weathersit"],
            "temp": origin["temp"],
            "atemp": origin["atemp"],
            "hum": origin["hum"],
            "windspeed": origin["windspeed"],
            "demand": demand.astype(str),
        }
    )
    return numbered(table)


def poison(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Slip a cluster into 3 of 20 slices of time, and flip 10 % of the other labels.

    Parameters
    ----------
    table : pandas.DataFrame
        The clean table.

    Returns
    -------
    pandas.DataFrame
        The poisoned table, numbered anew.
    pandas.DataFrame
        For every poisoned row its position, its id, the kind of poison, and the label
        that it had before (empty for an added row).
    """
    rng = np.random.default_rng(SEED)
    rows, added = slip_cluster(table.drop(columns=["id"]), rng, keep=("when",))
    # The attacker's rows look like the others: as many digits, and the hour is that of the time.
    rows = rows.round(DIGITS)
    hour = rows.loc[added, "hour"].clip(0, 23)
    rows.loc[added, "hour"] = hour
    rows.loc[added, "when"] = rows.loc[added, "when"].dt.normalize() + pd.to_timedelta(
        hour, unit="h"
    )
    rows.loc[added, "demand"] = "high"
    flipped = np.zeros(len(rows), dtype=bool)
    was = rows["demand"].copy()
    rest, hit = flip_labels(rows[~added], "demand", 0.10, rng)
    rows.loc[~added, "demand"] = rest["demand"]
    flipped[~added] = hit
    kind = np.select([added, flipped], ["cluster", "flip"], default="")
    rows = rows.assign(kind=kind, was=was.where(flipped, ""))
    rows = numbered(rows.sort_values("when", kind="stable", ignore_index=True))
    truth = rows.loc[rows["kind"] != "", ["id", "kind", "was"]]
    truth = truth.rename_axis("row").reset_index()
    return rows.drop(columns=["kind", "was"]), truth


def numbered(table: pd.DataFrame) -> pd.DataFrame:
    """Give the rows ids in their order."""
    ids = pd.Series([f"h{i:05d}" for i in range(len(table))], name="id")
    return pd.concat([ids, table.drop(columns=["id"], errors="ignore")], axis=1)


def read(path: Path) -> pd.DataFrame:
    """Read one of the sample tables."""
    return pd.read_csv(path, parse_dates=["when"])


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a table the same way on every machine."""
    table.to_csv(path, index=False, lineterminator="\n", date_format="%Y-%m-%dT%H:%M:%S")


def main() -> None:
    """Make the files."""
    parser = argparse.ArgumentParser(description="make the sample tables")
    parser.add_argument("--origin", type=Path, help="Bikeshare.csv of ISLP 0.6.0")
    origin = parser.parse_args().origin
    if origin is not None:
        found = hashlib.sha256(origin.read_bytes()).hexdigest()
        if found != ORIGIN_SHA256:
            sys.exit(f"{origin}: SHA-256 {found}; expected {ORIGIN_SHA256}, of ISLP 0.6.0")
        write(clean(pd.read_csv(origin)), CLEAN)
    rows, truth = poison(read(CLEAN))
    write(rows, POISONED)
    write(truth, TRUTH)
    print(f"{POISONED.name}: {len(rows)} rows, {truth['kind'].value_counts().to_dict()}")


if __name__ == "__main__":
    main()
