"""How many findings about columns and batches clean tables give, and how many are found.

Run it: ``python -m benchmarks.risks --data FOLDER``. The tables are taken as their
publishers made them; what is told of them is true or natural, so alarms should be none.
"""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.tables import REPORT, TUNING, arguments, available, data_folder, load
from sanitizers.core.data import Dataset, Roles
from sanitizers.risks import SEVERITIES, Finding, examine_risks

#: Tables with a target: file, target, columns that are no features.
TARGETS = {
    "concrete": ("modeldata_concrete.csv.gz", "compressive_strength", ("rownames",)),
    "ames": ("modeldata_ames.csv.gz", "Sale_Price", ("rownames",)),
    "bikeshare": ("Bikeshare.csv.gz", "bikers", ("rownames", "casual", "registered")),
    "grid": ("grid_stability-processed.csv.gz", "stab", ()),
    "house": ("house-processed.csv.gz", "", ()),
    "warfarin": ("warfarin_pharm-preproc.csv.gz", "", ()),
}


def main() -> None:
    """Print the findings of every table, and how many there are of each severity."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--all", action="store_true", help="print every finding")
    said = parser.parse_args()
    data = data_folder(said.data)
    print(f"{'table':<18} {'rows':>7} {'alarm':>6} {'warning':>8} {'note':>5} {'s':>6}")
    for name in available((*TUNING, *REPORT), data):
        table = load(name, data)
        rows = table.frame.sample(frac=1.0, random_state=0).reset_index(drop=True)
        rows["source"] = np.arange(len(rows)) % 10
        rows["arrived"] = np.arange(len(rows), dtype=np.int64)
        features = tuple(c for c in table.frame.columns if c != table.label)
        roles = Roles(label=table.label, source="source", time="arrived", features=features)
        _print(name, rows, roles, said.all)
    for name, (file, given, apart) in TARGETS.items():
        frame = pd.read_csv(data / "regression" / file, keep_default_na=False, na_values=[""])
        target = given or str(frame.columns[0])
        rows = frame.drop(columns=list(apart), errors="ignore").sample(frac=1.0, random_state=0)
        rows = rows.reset_index(drop=True)
        features = tuple(c for c in rows.columns if c != target)
        _print(name, rows, Roles(target=target, features=features), said.all)


def _print(name: str, frame: pd.DataFrame, roles: Roles, everything: bool) -> None:
    data = Dataset.from_table(pa.Table.from_pandas(frame, preserve_index=False), roles)
    half = data.rows // 2
    old, new = (Dataset.from_table(part, roles) for part in _halves(data.shards[0].read(), half))
    started = time.perf_counter()
    found = [*examine_risks(data), *_against(new, old)]
    seconds = time.perf_counter() - started
    counts = Counter(f.severity for f in found)
    numbers = " ".join(f"{counts[s]:>{w}}" for s, w in zip(SEVERITIES, (6, 8, 5), strict=True))
    print(f"{name:<18} {len(frame):>7} {numbers} {seconds:>6.1f}", flush=True)
    for finding in found:
        if everything or finding.severity != "note":
            print(f"    {finding.severity} {finding.risk}: {finding.message[:160]}")


def _halves(table: pa.Table, half: int) -> tuple[pa.Table, pa.Table]:
    return table.slice(0, half), table.slice(half)


def _against(new: Dataset, old: Dataset) -> list[Finding]:
    """What the second half says against the first, of what no single dataset says."""
    from sanitizers.risks import RiskSettings

    return list(examine_risks(new, RiskSettings(use=("shift", "skewing")), old))


if __name__ == "__main__":
    main()
