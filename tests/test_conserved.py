"""Who has the input sees whether a release holds its rows, whatever its manifest says."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import steps
from pipelines.cli import command
from pipelines.job import Job
from pipelines.plan import Plan
from pipelines.progress import SILENT
from pipelines.ruled import publish_rulings
from pipelines.rulings import Rulings
from pipelines.store import Store
from pipelines.verify import verify
from sanitizers.core.errors import InputError
from tests.pictures import encoded
from tests.spine import SALT
from tests.staged import part_of, run_stages
from tests.test_growing import rows
from tests.test_verify import relist

LINES = {"outliers": {"quarantine": "top 5%", "review": "top 10%"}}


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    folder = tmp_path / "landing"
    folder.mkdir()
    rows(0).to_csv(folder / "a.csv", index=False)
    return folder


def release_of(source: Path, *, grow: bool = False, **roles: object) -> Path:
    plan = Plan.make(
        {
            "dataset": {"name": "g", "source": str(source), "grow": grow},
            "roles": {"label": "y", **roles},
            "sanitizers": {"use": ["outliers"]},
            "policy": {"rules": LINES},
        }
    )
    return run_stages(Job(plan, Store.open(source.parent / "store", SALT))).release


def found(release: Path, source: Path | str) -> str:
    return "\n".join(verify(release, source=str(source)).problems)


def change(release: Path, table: pa.Table, file: str = "clean/part-00000.parquet") -> None:
    """Write other rows into a release, and make its manifest agree with them."""
    pq.write_table(table, release / file)
    relist(release, file)


def test_every_row_of_a_table_is_there_once(landing: Path) -> None:
    release = release_of(landing / "a.csv")
    assert part_of(release, "quarantine").num_rows
    assert part_of(release, "review").num_rows
    assert found(release, landing) == ""


def test_copies_and_rows_that_cannot_be_read_are_counted(landing: Path) -> None:
    lines = (landing / "a.csv").read_text().splitlines()
    lines += [lines[1]] * 3 + ["1,2,3,4,5,6,7"] * 2
    (landing / "a.csv").write_text("\n".join(lines) + "\n")
    assert found(release_of(landing), landing) == ""


def test_rows_with_ids_of_their_own(landing: Path) -> None:
    rows(1).assign(key=[f"k{i}" for i in range(400)]).to_csv(landing / "a.csv", index=False)
    assert found(release_of(landing, id="key"), landing) == ""
    rows(1).assign(row_id=np.arange(400)).to_csv(landing / "a.csv", index=False)
    assert found(release_of(landing, id="row_id"), landing) == ""


def test_a_release_that_has_grown_and_obeys_people(landing: Path) -> None:
    release_of(landing, grow=True)
    rows(1).to_parquet(landing / "b.parquet")
    shutil.copy(landing / "a.csv", landing / "copy.csv")
    grown = release_of(landing, grow=True)
    store = Store.open(landing.parent / "store", SALT)
    row = part_of(grown, "quarantine").column("row_id")[0].as_py()
    Rulings.of(store, "g").add([row], "keep", who="ana", why="I know it")
    release, _, _ = publish_rulings(store, "g")
    rows(2).to_csv(landing / "later.csv", index=False)
    assert release.name != grown.name
    assert found(release, landing) == ""


def test_images_of_a_folder_per_class(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(256, size=(8, 8, 3), dtype=np.uint8)
            (tmp_path / "pets" / name / f"{i}.png").write_bytes(encoded(pixels))
    (tmp_path / "pets" / "dog" / "broken.png").write_bytes(b"no image")
    plan = Plan.make(
        {
            "dataset": {"name": "g", "source": str(tmp_path / "pets")},
            "sanitizers": {"use": ["conflicts"]},
            "policy": {"budget": 1.0},
        }
    )
    job = Job(plan, Store.open(tmp_path / "store", SALT))
    steps.embed_images(job.ingested(steps.ingest_inputs(job, SILENT)), "cpu", SILENT)
    ran = run_stages(job)
    assert part_of(ran.release, "quarantine").num_rows == 0
    assert found(ran.release, tmp_path / "pets") == ""


# ---------------------------------------------------------------- what is told


def test_a_row_that_was_left_out_is_told(landing: Path) -> None:
    release = release_of(landing)
    table = pq.read_table(release / "clean/part-00000.parquet")
    ids = table.column("row_id").to_pylist()
    more = pa.concat_tables([table.slice(1), table.slice(5, 1)])
    at = table.column_names.index("row_id")
    change(release, more.set_column(at, "row_id", pa.array([*ids[1:], "0" * 32])))
    assert verify(release).ok
    assert found(release, landing) == (
        "1 rows of the input are not in the release\n1 rows of the release are not in the input"
    )


@pytest.mark.parametrize("value", [9.9, None])
def test_a_value_that_was_changed_is_told(landing: Path, value: float | None) -> None:
    release = release_of(landing)
    table = pq.read_table(release / "clean/part-00000.parquet")
    at = table.column_names.index("a")
    values = table.column("a").to_pylist()
    values[3] = value
    change(release, table.set_column(at, table.field(at), pa.array(values, table.field(at).type)))
    assert "1 rows of the input are not in the release" in found(release, landing)


def test_a_verdict_that_was_changed_is_none_of_it(landing: Path) -> None:
    release = release_of(landing)
    name = "quarantine/part-00000.parquet"
    table = pq.read_table(release / name)
    reasons = table.column("reasons").take(pa.array([0] * table.num_rows))
    change(release, table.set_column(table.num_columns - 1, "reasons", reasons), name)
    assert found(release, landing) == ""


def test_an_input_that_has_changed_is_told(landing: Path) -> None:
    rows(1).to_csv(landing / "b.csv", index=False)
    release = release_of(landing)
    with (landing / "b.csv").open("a") as file:
        file.write("1,2,0001,yes\n")
    assert found(release, landing) == f"not at {landing} as it was read: b.csv"
    with pytest.raises(InputError):
        verify(release, source=str(landing / "none.csv"))


def test_the_command_says_so(landing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = release_of(landing)
    assert command(["verify", str(release), "--source", str(landing)]) == 0
    assert f"it holds every row of {landing} once, and no other" in capsys.readouterr().out
    pd.DataFrame({"a": [1.0], "y": ["yes"]}).to_csv(landing / "a.csv", index=False)
    assert command(["verify", str(release), "--source", str(landing)]) != 0
    assert "a.csv" in capsys.readouterr().out
