"""The real tables that are measured on, in two halves that are never mixed.

Defaults may be chosen on `TUNING`; figures are quoted on `REPORT`. Tables that come
from the same source stand on the same side.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

#: The environment variable that names the folder with the data.
DATA_VARIABLE = "SANITIZER_BENCH_DATA"

TUNING = (
    "german",
    "letter",
    "phoneme",
    "segment",
    "attrition",
    "nsl_kdd",
    "mammography",
    "campaign",
    "annthyroid",
    "magic",
)
REPORT = (
    "satimage",
    "optdigits",
    "vehicle",
    "spambase",
    "credit",
    "pendigits",
    "cardiotocography",
    "faults",
)
HALVES = {"tuning": TUNING, "report": REPORT}

#: Five of each half, of different kinds, on which the headline means are taken.
FIVE = {
    "tuning": ("german", "letter", "phoneme", "segment", "nsl_kdd"),
    "report": ("satimage", "optdigits", "vehicle", "spambase", "credit"),
}

_FILES = {
    "german": ("tabular/keel_german.csv.gz", "class"),
    "optdigits": ("tabular/keel_optdigits.csv.gz", "class"),
    "satimage": ("tabular/keel_satimage.csv.gz", "class"),
    "credit": ("tabular/modeldata_credit_data.csv.gz", "Status"),
    "magic": ("adbench/22_magic.gamma.npz", "y"),
    "annthyroid": ("adbench/2_annthyroid.npz", "y"),
    "pendigits": ("adbench/28_pendigits.npz", "y"),
    "cardiotocography": ("adbench/7_Cardiotocography.npz", "y"),
    "letter": ("tabular/keel_letter.csv.gz", "class"),
    "phoneme": ("tabular/keel_phoneme.csv.gz", "class"),
    "segment": ("tabular/keel_segment.csv.gz", "class"),
    "vehicle": ("tabular/keel_vehicle.csv.gz", "class"),
    "spambase": ("tabular/spambase.csv.gz", "type"),
    "attrition": ("tabular/modeldata_attrition.csv.gz", "Attrition"),
    "nsl_kdd": ("nsl_kdd/KDDTrain+_20Percent.txt.gz", "attack"),
    "campaign": ("adbench/5_campaign.npz", "y"),
    "mammography": ("adbench/23_mammography.npz", "y"),
    "faults": ("adbench/12_fault.npz", "y"),
}

#: Tables with a number to predict, and its column; columns that give it away are left out.
REGRESSION = {
    "tuning": ("warfarin", "grid", "air_quality", "concrete"),
    "report": ("house", "bikes", "ames", "telomere"),
}
_TARGETS = {
    "warfarin": ("warfarin_pharm-preproc", "TherapeuticDoseofWarfarin"),
    "grid": ("grid_stability-processed", "stab"),
    "air_quality": ("airquality_co", "true_label"),
    "concrete": ("modeldata_concrete", "compressive_strength"),
    "house": ("house-processed", "SalePrice"),
    "bikes": ("Bikeshare", "bikers"),
    "ames": ("modeldata_ames", "Sale_Price"),
    "telomere": ("telomere_ts", "true_label"),
}
_ANSWERS = ("Unnamed: 0", "rownames", "given_label", "true_error", "casual", "registered")


@dataclass(frozen=True)
class Table:
    """A real table, as its publisher made it.

    Parameters
    ----------
    name : str
    frame : pandas.DataFrame
        The labels are strings.
    label : str
        The column of the labels.
    """

    name: str
    frame: pd.DataFrame
    label: str


def load(name: str, data: Path) -> Table:
    """Read one of the tables.

    Parameters
    ----------
    name : str
        One of `TUNING` or `REPORT`.
    data : Path
        The folder with the data.
    """
    file, label = _FILES[name]
    path = data / file
    if path.suffix == ".npz":
        frame = _read_npz(path)
    elif name == "nsl_kdd":
        frame = _read_nsl_kdd(path)
    else:
        # `NA` is a category of some tables; only an empty field is missing.
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
        frame = frame.drop(columns=["rownames"], errors="ignore")
    frame[label] = frame[label].astype(str)
    return Table(name, frame, label)


def load_regression(name: str, data: Path) -> Table:
    """Read one of the tables of `REGRESSION`; its `label` is the number to predict."""
    file, target = _TARGETS[name]
    frame = pd.read_csv(data / "regression" / f"{file}.csv.gz")
    return Table(name, frame.drop(columns=[c for c in _ANSWERS if c in frame]), target)


def sample(table: Table, rows: int, seed: int) -> Table:
    """Take some rows of a table, shuffled; all of them where there are no more than `rows`."""
    frame = table.frame.sample(n=min(rows, len(table.frame)), random_state=seed)
    return Table(table.name, frame.reset_index(drop=True), table.label)


def available(names: tuple[str, ...], data: Path) -> tuple[str, ...]:
    """Return the names whose files are there, and say on standard error which are not."""
    there = tuple(name for name in names if (data / _FILES[name][0]).is_file())
    for name in names:
        if name not in there:
            print(f"skipped {name}: no file {_FILES[name][0]} in {data}", file=sys.stderr)
    return there


def arguments(description: str) -> argparse.ArgumentParser:
    """Make the command line that the benchmarks on real tables share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, default=os.environ.get(DATA_VARIABLE))
    parser.add_argument("--half", choices=sorted(HALVES), default="report")
    return parser


def data_folder(given: Path | None) -> Path:
    """Return the folder with the data, or end with the reason for skipping."""
    if given is None:
        print(f"skipped: name the folder with the data, --data or ${DATA_VARIABLE}")
        sys.exit(0)
    if not given.is_dir():
        print(f"skipped: no folder {str(given)!r}")
        sys.exit(0)
    return given


def _read_npz(path: Path) -> pd.DataFrame:
    with np.load(path, allow_pickle=False) as arrays:
        values, anomaly = arrays["X"], arrays["y"]
    frame = pd.DataFrame(values, columns=[f"x{i + 1}" for i in range(values.shape[1])])
    frame["y"] = np.where(anomaly == 1, "anomaly", "normal")
    return frame


def _read_nsl_kdd(path: Path) -> pd.DataFrame:
    frame = pd.read_csv(path, header=None)
    names = [f"x{i + 1}" for i in range(frame.shape[1] - 2)]
    frame.columns = pd.Index([*names, "attack", "difficulty"])
    # How many models of its publishers got the row right: an answer, not a feature.
    return frame.drop(columns=["difficulty"])
