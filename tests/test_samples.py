"""The committed samples are what the committed script makes, and the truth about them is true."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from data_samples import make


@pytest.fixture(scope="module")
def clean() -> pd.DataFrame:
    return make.read(make.CLEAN)


@pytest.fixture(scope="module")
def poisoned() -> pd.DataFrame:
    return make.read(make.POISONED)


@pytest.fixture(scope="module")
def truth() -> pd.DataFrame:
    return pd.read_csv(make.TRUTH, keep_default_na=False)


def test_the_script_makes_the_committed_bytes(clean: pd.DataFrame, tmp_path: Path) -> None:
    rows, truth = make.poison(clean)
    make.write(rows, tmp_path / "rows.csv")
    make.write(truth, tmp_path / "truth.csv")
    assert (tmp_path / "rows.csv").read_bytes() == make.POISONED.read_bytes()
    assert (tmp_path / "truth.csv").read_bytes() == make.TRUTH.read_bytes()


def test_the_truth_names_rows_by_position_and_id(
    poisoned: pd.DataFrame, truth: pd.DataFrame
) -> None:
    assert poisoned["id"].is_unique
    assert poisoned["id"].iloc[truth["row"]].tolist() == truth["id"].tolist()


def test_undoing_the_poison_gives_the_clean_rows(
    clean: pd.DataFrame, poisoned: pd.DataFrame, truth: pd.DataFrame
) -> None:
    flips = truth[truth["kind"] == "flip"]
    mended = poisoned.copy()
    assert (mended.loc[flips["row"], "demand"].to_numpy() != flips["was"].to_numpy()).all()
    mended.loc[flips["row"], "demand"] = flips["was"].to_numpy()
    mended = mended.drop(index=truth.loc[truth["kind"] == "cluster", "row"].tolist())
    columns = ["when", *clean.columns.drop(["id", "when"])]
    mended, clean = (t[columns].sort_values(columns, ignore_index=True) for t in (mended, clean))
    pd.testing.assert_frame_equal(mended, clean)


def test_the_cluster_is_in_three_neighbouring_slices(
    clean: pd.DataFrame, poisoned: pd.DataFrame, truth: pd.DataFrame
) -> None:
    hit = truth.loc[truth["kind"] == "cluster", "row"].to_numpy()
    span = poisoned["when"].iloc[hit]
    inside = clean["when"].between(span.min().normalize(), span.max())
    assert inside.mean() == pytest.approx(3 / 20, abs=0.01)
    assert len(hit) / (len(hit) + inside.sum()) == pytest.approx(0.3, abs=0.01)


def test_rows_are_in_order_of_time(poisoned: pd.DataFrame) -> None:
    assert poisoned["when"].is_monotonic_increasing
