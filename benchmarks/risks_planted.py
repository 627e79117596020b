"""How often planted risks of columns and batches are found on real tables.

Run it: ``python -m benchmarks.risks_planted --data FOLDER``. Batches of 800 rows are held
against 800 others of the same table; what is planted is in the first column of the output.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.tables import arguments, data_folder, load
from sanitizers.core.data import Dataset, Roles
from sanitizers.risks import Finding, RiskSettings, examine_risks

TABLES = ("magic", "phoneme", "satimage", "spambase")
BATCH, REPEATS = 800, 4
Plant = Callable[[pd.DataFrame, pd.DataFrame, str, np.random.Generator], pd.DataFrame]


def main() -> None:
    """Print how often each planted risk is found, and with which severity at worst."""
    said = arguments(__doc__ or "").parse_args()
    data = data_folder(said.data)
    print(f"{'planted':<22} {'shift':>6} {'warning':>8} {'skewing':>8} {'other alarms':>13}")
    for name, plant in _PLANTS.items():
        runs = [
            _one(load(t, data).frame, load(t, data).label, plant, seed)
            for t in TABLES
            for seed in range(REPEATS)
        ]
        shift = np.mean([any(f.risk == "shift" for f in r) for r in runs])
        warned = np.mean([any(f.risk == "shift" and f.severity != "note" for f in r) for r in runs])
        skewed = np.mean([any(f.risk == "skewing" for f in r) for r in runs])
        others = np.mean(
            [any(f.severity == "alarm" and f.risk != "skewing" for f in r) for r in runs]
        )
        print(f"{name:<22} {shift:>6.2f} {warned:>8.2f} {skewed:>8.2f} {others:>13.2f}", flush=True)
    for noise in (0.0, 0.02, 0.05, 0.1):
        told = [_leak(data, t, noise) for t in TABLES]
        print(f"leak, {noise:.0%} noise: {'; '.join(told)}")
    for flips in (0.2, 0.3, 0.5):
        pairs = [_sources(data, t, flips, seed) for t in TABLES for seed in range(2)]
        share = sum(hits for hits, _ in pairs) / (2 * len(pairs))
        wrong = sum(others for _, others in pairs)
        print(f"2 of 20 sources, {flips:.0%} flips: found {share:.2f}, others accused {wrong}")


def _one(frame: pd.DataFrame, label: str, plant: Plant, seed: int) -> tuple[Finding, ...]:
    rng = np.random.default_rng(seed)
    rows = frame.iloc[rng.permutation(len(frame))].reset_index(drop=True)
    old, new = rows[:BATCH], plant(rows[BATCH : 2 * BATCH].copy(), rows[2 * BATCH :], label, rng)
    roles = Roles(label=label, features=tuple(c for c in frame.columns if c != label))
    return examine_risks(
        _data(new, roles, "new"), RiskSettings(use=("shift", "skewing")), _data(old, roles, "old")
    )


def _data(frame: pd.DataFrame, roles: Roles, name: str) -> Dataset:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    ids = pa.array([f"{name}-{i}" for i in range(len(frame))])
    return Dataset.from_table(table.append_column("row_id", ids), roles, salt=b"bench")


def _features(frame: pd.DataFrame, label: str) -> list[str]:
    return [c for c in frame.columns if c != label]


def _mean(size: float) -> Plant:
    def plant(
        new: pd.DataFrame, rest: pd.DataFrame, label: str, rng: np.random.Generator
    ) -> pd.DataFrame:
        column = str(rng.choice(_features(new, label)))
        new[column] = new[column].astype(float) + size * float(rest[column].std())
        return new

    return plant


def _broken(
    new: pd.DataFrame, rest: pd.DataFrame, label: str, rng: np.random.Generator
) -> pd.DataFrame:
    for column in _features(new, label):
        new[column] = rng.permutation(new[column].to_numpy())
    return new


def _prior(
    new: pd.DataFrame, rest: pd.DataFrame, label: str, rng: np.random.Generator
) -> pd.DataFrame:
    whole = pd.concat([new, rest])
    weights = np.where(whole[label] == whole[label].mode()[0], 1.0, 3.0)
    return whole.sample(n=BATCH, weights=weights, random_state=int(rng.integers(1 << 30)))


def _crowd(share: float) -> Plant:
    def plant(
        new: pd.DataFrame, rest: pd.DataFrame, label: str, rng: np.random.Generator
    ) -> pd.DataFrame:
        columns, many = _features(new, label), int(share * BATCH)
        one = rest.iloc[[0]][columns].astype(float).to_numpy()
        noise = 0.02 * rest[columns].std().to_numpy() * rng.normal(size=(many, len(columns)))
        new[columns] = new[columns].astype(float)
        new.loc[new.index[:many], columns] = one + noise
        return new

    return plant


def _nothing(
    new: pd.DataFrame, rest: pd.DataFrame, label: str, rng: np.random.Generator
) -> pd.DataFrame:
    return new


_PLANTS: dict[str, Plant] = {
    "nothing": _nothing,
    "mean of one, .2 sd": _mean(0.2),
    "mean of one, .5 sd": _mean(0.5),
    "correlation broken": _broken,
    "prior x3": _prior,
    "skewing, 5 %": _crowd(0.05),
    "skewing, 20 %": _crowd(0.2),
}


def _leak(data: Path, name: str, noise: float) -> str:
    table = load(name, data)
    frame, rng = (
        table.frame.sample(2000, random_state=0).reset_index(drop=True),
        np.random.default_rng(0),
    )
    codes = frame[table.label].astype("category").cat.codes.to_numpy()
    wrong = rng.random(len(frame)) < noise
    leak = np.where(wrong, rng.permutation(codes), codes).astype(float)
    features = tuple(_features(frame, table.label))
    frame = frame.assign(leak=leak)
    roles = Roles(label=table.label, features=(*features, "leak"))
    found = examine_risks(_data(frame, roles, "row"), RiskSettings(use=("leakage",)))
    return ", ".join(f"{f.severity} {f.subject} {f.value:.3f}" for f in found) or "nothing"


def _sources(data: Path, name: str, flips: float, seed: int) -> tuple[int, int]:
    table, rng = load(name, data), np.random.default_rng(seed)
    frame = table.frame.sample(4000, random_state=seed, replace=False).reset_index(drop=True)
    frame["source"] = [f"s{i % 20:02d}" for i in range(len(frame))]
    bad = frame["source"].isin(["s03", "s11"]) & (rng.random(len(frame)) < flips)
    names = sorted(frame[table.label].unique())
    other = {n: names[(i + 1) % len(names)] for i, n in enumerate(names)}
    frame.loc[bad, table.label] = frame.loc[bad, table.label].map(other)
    features = tuple(_features(table.frame, table.label))
    roles = Roles(label=table.label, source="source", features=features)
    found = examine_risks(_data(frame, roles, "row"), RiskSettings(use=("suppliers",)))
    accused = {f.subject for f in found}
    return len(accused & {"s03", "s11"}), len(accused - {"s03", "s11"})


if __name__ == "__main__":
    main()
