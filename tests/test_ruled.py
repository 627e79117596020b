"""What people rule is obeyed by the next release; what is taken back returns; no row is lost."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pipelines import steps
from pipelines.job import Job
from pipelines.manifest import Manifest
from pipelines.plan import Plan
from pipelines.progress import SILENT
from pipelines.ruled import publish_rulings
from pipelines.rulings import Rulings
from pipelines.store import Store
from pipelines.verify import verify
from sanitizers.core.errors import IntegrityError, PlanError
from tests.staged import Ran, judge_stages, part_of, run_stages
from tests.test_growing import rows

FOLDERS = ("clean", "review", "quarantine")


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    folder = tmp_path / "landing"
    folder.mkdir()
    table = rows(0, 600)
    table.loc[:7, "a"] = [60.0, -60.0] * 4
    table.loc[8:15, "b"] = 4.5
    table.to_csv(folder / "a.csv", index=False)
    return folder


def job(landing: Path, **more: object) -> Job:
    tables: dict[str, object] = {
        "dataset": {"name": "g", "source": str(landing), "grow": True},
        "roles": {"label": "y"},
        "policy": {"rules": {"outliers": {"quarantine": "top 2%", "review": "top 5%"}}},
        "sanitizers": {"use": ["outliers"]},
        **more,
    }
    return Job(Plan.make(tables), Store.open(landing.parent / "store", bytes(range(32))))


def ids(release: Path, folder: str) -> list[str]:
    found: list[str] = part_of(release, folder).column("row_id").to_pylist()
    return found


def rule(ran: Ran, verdict: str, *row_ids: str, who: str = "ana") -> None:
    Rulings.of(ran.work.job.store, "g").add(row_ids, verdict, who=who, why="I know it")


def obey(ran: Ran) -> Path:
    release, _, already = publish_rulings(ran.work.job.store, "g")
    assert not already
    assert verify(release).ok
    return release


def everything(release: Path) -> list[str]:
    return sorted(row for folder in FOLDERS for row in ids(release, folder))


def test_rows_go_where_people_say(landing: Path) -> None:
    ran = run_stages(job(landing))
    held, clean = ids(ran.release, "quarantine"), ids(ran.release, "clean")
    rule(ran, "keep", held[0], held[1])
    rule(ran, "quarantine", clean[0])
    release = obey(ran)
    assert release.name == "2.0.0"
    assert everything(release) == everything(ran.release)
    assert {held[0], held[1]} <= set(ids(release, "clean"))
    last = part_of(release, "quarantine").to_pylist()[-1]
    assert last["row_id"] == clean[0]
    assert [(r["sanitizer"], r["message"][:20]) for r in last["reasons"]] == [
        ("ruling", "ana ruled quarantine")
    ]
    manifest = Manifest.load(release)
    assert manifest.ruled is not None
    assert (manifest.ruled.keep, manifest.ruled.quarantine, manifest.ruled.moved) == (2, 1, 3)
    assert (release / "rulings.jsonl").read_bytes() == Rulings.of(
        ran.work.job.store, "g"
    ).path.read_bytes()


def test_a_row_that_is_kept_is_as_it_came(landing: Path) -> None:
    ran = run_stages(job(landing))
    held = ran.part("quarantine")
    rule(ran, "keep", *held.column("row_id").to_pylist())
    release = obey(ran)
    assert release.name == "1.1.0"
    clean = part_of(release, "clean")
    assert clean.schema.equals(ran.part("clean").schema)
    before = held.select(clean.column_names).to_pandas().sort_values("row_id")
    after = clean.to_pandas()
    after = after[after.row_id.isin(before.row_id)].sort_values("row_id")
    pd.testing.assert_frame_equal(before.reset_index(drop=True), after.reset_index(drop=True))


def test_the_report_says_what_people_have_ruled(landing: Path) -> None:
    ran = run_stages(job(landing))
    held, clean = ids(ran.release, "quarantine"), ids(ran.release, "clean")
    rule(ran, "keep", held[0], held[1])
    assert "People have ruled" not in ran.page
    first = (obey(ran) / "report.html").read_text()
    assert "the rulings on 2 rows: 2 to keep, 0 to leave out" in first
    assert "ana ruled keep on" in first
    why = "<!-- /rulings --><script>alert(1)</script>"
    log = Rulings.of(ran.work.job.store, "g")
    log.add([clean[0]], "quarantine", who="ben", why=why)
    second = (obey(ran) / "report.html").read_text()
    assert second.count("People have ruled") == 1
    assert "the rulings on 3 rows: 2 to keep, 1 to leave out" in second
    assert "For this 1 row lies elsewhere" in second
    assert "<script" not in second
    assert second.count("<!-- /rulings -->") == 1
    # A run that comes later obeys too, and its report says so.
    rows(1).to_csv(landing / "b.csv", index=False)
    assert run_stages(job(landing)).page.count("People have ruled") == 1


def test_only_files_that_hold_ruled_rows_are_written(landing: Path) -> None:
    run_stages(job(landing))
    rows(1).to_csv(landing / "b.csv", index=False)
    ran = run_stages(job(landing))
    before = {p: p.read_bytes() for p in ran.release.rglob("*") if p.is_file()}
    new = ran.work.folder / "verdicts-00000.parquet"
    assert new.is_file()
    rule(ran, "quarantine", ids(ran.release, "clean")[-1])
    release = obey(ran)
    touched = [
        p.relative_to(ran.release)
        for p in before
        if p.suffix == ".parquet" and not (release / p.relative_to(ran.release)).samefile(p)
    ]
    assert [str(p) for p in touched] == ["clean/part-00001.parquet"]
    # What was published before stays as it was, to the byte.
    assert {p: p.read_bytes() for p in before} == before
    assert verify(ran.release).ok


def test_what_is_taken_back_returns_to_what_sanitizers_said(landing: Path) -> None:
    ran = run_stages(job(landing))
    review, held = ids(ran.release, "review")[0], ids(ran.release, "quarantine")[0]
    reasons = {
        row["row_id"]: row["reasons"]
        for folder in ("review", "quarantine")
        for row in ran.part(folder).to_pylist()
    }
    rule(ran, "keep", review, held)
    rule(ran, "quarantine", review, who="ben")
    obey(ran)
    rule(ran, "none", review, held)
    release = obey(ran)
    assert everything(release) == everything(ran.release)
    for folder in FOLDERS:
        assert sorted(ids(release, folder)) == sorted(ids(ran.release, folder))
    for folder, row in (("review", review), ("quarantine", held)):
        found = {r["row_id"]: r["reasons"] for r in part_of(release, folder).to_pylist()}
        assert found[row] == reasons[row]


def test_a_release_that_grows_obeys_what_was_ruled(landing: Path) -> None:
    first = run_stages(job(landing))
    held = ids(first.release, "quarantine")
    rule(first, "keep", held[0])
    obey(first)
    rows(1).to_csv(landing / "b.csv", index=False)
    # Ruled before the next rows came, and not yet published.
    rule(first, "keep", held[1])
    grown = run_stages(job(landing))
    assert {held[0], held[1]} <= set(ids(grown.release, "clean"))
    assert verify(grown.release).ok
    manifest = Manifest.load(grown.release)
    assert manifest.grown is not None
    assert manifest.grown.onto == "1.1.0"
    rule(first, "none", held[0])
    release = obey(grown)
    assert held[0] in ids(release, "quarantine")


def test_rulings_that_came_while_new_rows_were_scanned_do_not_stop_them(landing: Path) -> None:
    first = run_stages(job(landing))
    rows(1).to_csv(landing / "b.csv", index=False)
    work = judge_stages(job(landing))
    held = ids(first.release, "quarantine")[0]
    rule(first, "keep", held)
    obey(first)
    outcome = steps.publish_rows(work, SILENT)
    assert outcome.version == "1.2.0"
    assert held in ids(Path(str(outcome.release)), "clean")


def test_a_full_scan_obeys_too(landing: Path) -> None:
    ran = run_stages(job(landing))
    held = ids(ran.release, "quarantine")[0]
    rule(ran, "keep", held)
    whole = {"name": "g", "source": str(landing)}
    other = run_stages(job(landing, policy={"clean_loss": 0.02}, dataset=whole))
    assert held in ids(other.release, "clean")
    assert verify(other.release).ok


def test_nothing_new_is_nothing_to_do(landing: Path) -> None:
    ran = run_stages(job(landing))
    store = ran.work.job.store
    assert publish_rulings(store, "g")[2]
    rule(ran, "keep", ids(ran.release, "quarantine")[0], "no such row")
    release = obey(ran)
    found, manifest, already = publish_rulings(store, "g")
    assert (found, already) == (release, True)
    assert manifest.ruled is not None
    assert manifest.ruled.unknown == 1
    with pytest.raises(PlanError, match="no dataset"):
        publish_rulings(store, "other")


def test_a_log_that_was_tampered_with_stops_the_publish(landing: Path) -> None:
    ran = run_stages(job(landing))
    rule(ran, "keep", *ids(ran.release, "quarantine")[:2])
    rule(ran, "keep", ids(ran.release, "quarantine")[2])
    path = Rulings.of(ran.work.job.store, "g").path
    path.write_bytes(path.read_bytes().replace(b"I know it", b"I knew it", 1))
    with pytest.raises(IntegrityError, match=r"ruling 1 .* was changed"):
        publish_rulings(ran.work.job.store, "g")
    assert [p.name for p in ran.work.job.store.releases("g")] == ["1.0.0"]
