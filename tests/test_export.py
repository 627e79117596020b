"""One table of all rows in the words of label tools; no cell of it is a formula."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from pipelines.cli import command
from pipelines.export import SCHEMA, export
from pipelines.ruled import publish_rulings
from sanitizers.core.errors import PlanError
from tests.staged import part_of, run_stages
from tests.test_growing import FOLDERS, rows
from tests.test_ruled import job, landing, rule

__all__ = ["landing"]


def labelled(landing: Path) -> None:
    table = rows(0, 600)
    table.loc[:19, "y"] = table.loc[:19, "y"].map({"yes": "no", "no": "yes"})
    table.loc[:19, "a"] *= 1.5
    table["y"] = table["y"].map({"yes": "=1+1", "no": "-no"})
    table.to_csv(landing / "a.csv", index=False)


def test_every_row_is_there_with_its_verdict(landing: Path) -> None:
    labelled(landing)
    ran = run_stages(job(landing, sanitizers={}, policy={}))
    held = part_of(ran.release, "quarantine").column("row_id").to_pylist()
    rule(ran, "keep", held[0])
    release, _, _ = publish_rulings(ran.work.job.store, "g")
    # Ruled, and not yet published: no part of the release.
    rule(ran, "keep", held[1])
    done = export(ran.work.job.store, "g", landing.parent / "rows.parquet")
    table = pd.read_parquet(done.file)
    assert list(table.columns) == SCHEMA.names
    assert len(table) == done.rows == 600
    for folder, verdict in zip(FOLDERS, ("keep", "review", "quarantine"), strict=True):
        ids = set(part_of(release, folder).column("row_id").to_pylist())
        assert set(table.row_id[table.verdict == verdict]) == ids
    assert table.reasons[table.row_id == held[0]].item().startswith("ana ruled keep on ")
    flagged = table[table.is_label_issue.fillna(False)]
    assert len(flagged) == done.label_issues > 5
    assert (flagged.given_label != flagged.predicted_label).all()
    assert flagged.label_score.max() < table.label_score.median()
    assert table.label_score.between(0, 1).all()


def test_rows_of_all_batches_are_there_in_their_order(landing: Path) -> None:
    run_stages(job(landing))
    rows(1).to_csv(landing / "b.csv", index=False)
    ran = run_stages(job(landing))
    done = export(ran.work.job.store, "g", landing.parent / "rows.csv")
    table = pd.read_csv(done.file)
    assert len(table) == 1_000
    assert table.label_score.isna().all()
    assert set(table.row_id[600:]) == set(
        ran.work.data.shard_files()[0].read(["row_id"]).column(0).to_pylist()
    )


def test_no_cell_is_a_formula(landing: Path) -> None:
    labelled(landing)
    ran = run_stages(job(landing, sanitizers={}, policy={}))
    done = export(ran.work.job.store, "g", landing.parent / "rows.csv")
    table = pd.read_csv(done.file, dtype=str, keep_default_na=False)
    assert set(table.given_label) == {"'=1+1", "'-no"}
    assert not table.map(lambda cell: cell[:1] in "=+-@\t\r|%" if cell else False).any().any()


def test_the_command(landing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = run_stages(job(landing))
    store, out = str(ran.work.job.store.root), str(landing.parent / "rows.csv")
    assert command(["export", "g", "--out", out, "--store", store, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"file": out, "rows": 600, "label_issues": 0}
    with pytest.raises(PlanError, match=r"or \.parquet"):
        export(ran.work.job.store, "g", Path("rows.xlsx"))
