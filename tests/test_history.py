"""The page of all releases, and what changed between two of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.cli import command
from pipelines.comparing import compare, write_comparison
from pipelines.history import PAGE, write_history
from pipelines.ruled import publish_rulings
from sanitizers.core.errors import PlanError
from tests.staged import Ran, part_of, run_stages
from tests.test_growing import rows
from tests.test_ruled import job, landing, rule

__all__ = ["landing"]


@pytest.fixture
def releases(landing: Path) -> tuple[Ran, list[Path]]:
    """Three: all rows, new ones that joined, and one that obeys rulings."""
    first = run_stages(job(landing))
    rows(1).to_csv(landing / "<b> & c.csv", index=False)
    second = run_stages(job(landing))
    held = part_of(first.release, "quarantine").column("row_id").to_pylist()
    rule(second, "keep", held[0], held[1])
    rule(second, "quarantine", str(part_of(first.release, "clean").column("row_id")[0]))
    release, _, _ = publish_rulings(second.work.job.store, "g")
    return second, [first.release, second.release, release]


def test_the_page_tells_of_every_release(releases: tuple[Ran, list[Path]]) -> None:
    ran, folders = releases
    store = ran.work.job.store
    path = write_history(store, "g")
    page = path.read_text()
    assert path == store.dataset("g") / PAGE
    for folder in folders:
        assert f'href="releases/{folder.name}/report.html"' in page
        assert (path.parent / "releases" / folder.name / "report.html").is_file()
    assert "400 new rows joined 1.0.0; 3 rows as people have ruled" in page
    assert page.count("<svg") == 1
    assert "<script" not in page
    assert write_history(store, "g").read_text() == page
    with pytest.raises(PlanError, match="no dataset"):
        write_history(store, "h")


def test_what_changed_is_told_with_reasons(releases: tuple[Ran, list[Path]]) -> None:
    _, (first, second, third) = releases
    joined = compare(first, second)
    assert joined.same == 600
    assert {change.old for change in joined.changes} == {None}
    assert sum(change.rows for change in joined.changes) == 400
    assert joined.files_added == ("<b> & c.csv",)
    ruled = compare(second, third)
    assert {(c.old, c.new): c.rows for c in ruled.changes} == {
        ("quarantine", "keep"): 2,
        ("keep", "quarantine"): 1,
    }
    why = next(c for c in ruled.changes if c.new == "quarantine").examples[0].why
    assert why.startswith("ruling: ana ruled quarantine")
    assert (ruled.files_added, ruled.files_gone, ruled.settings) == ((), (), ())
    back = compare(second, first)
    assert {change.new for change in back.changes} == {None}


def test_other_settings_are_told(landing: Path) -> None:
    first = run_stages(job(landing, dataset={"name": "g", "source": str(landing)}))
    other = {"rules": {"outliers": {"quarantine": "top 1%", "review": "top 5%"}}}
    whole = {"name": "g", "source": str(landing)}
    second = run_stages(job(landing, dataset=whole, policy=other))
    told = {key: (old, new) for key, old, new in compare(first.release, second.release).settings}
    assert told["policy.rules.outliers.quarantine"] == ("top 2%", "top 1%")
    assert "outliers.quarantine_above" in told


def test_the_pages_are_escaped_and_run_no_script(
    releases: tuple[Ran, list[Path]], tmp_path: Path
) -> None:
    _, (first, second, _) = releases
    page = write_comparison(compare(first, second), tmp_path / "c.html").read_text()
    assert "&lt;b&gt; &amp; c.csv" in page
    assert "<b> &" not in page
    assert "<script" not in page
    assert "default-src 'none'" in page


def test_the_commands(
    releases: tuple[Ran, list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran, (_, second, third) = releases
    out = tmp_path / "changed.html"
    assert command(["compare", str(second), str(third), "--out", str(out)]) == 0
    assert "2 rows: quarantine to keep" in capsys.readouterr().out
    assert out.is_file()
    assert command(["history", "g", "--store", str(ran.work.job.store.root)]) == 0
    assert capsys.readouterr().out.strip().endswith("index.html")
