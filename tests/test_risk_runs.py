"""Findings about columns and batches, from the plan to the manifest and the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.decide import Decision, matching
from pipelines.job import Job
from pipelines.manifest import Manifest, Run
from pipelines.plan import Plan
from pipelines.progress import SILENT
from pipelines.report import render
from pipelines.report_data import gather
from pipelines.risks import Looked, Reference
from pipelines.steps import decide_all, examine_with, ingest_inputs, look_for_risks, publish_rows
from pipelines.store import Store
from pipelines.verify import verify
from pipelines.work import Work
from sanitizers.core.errors import IntegrityError, PlanError
from sanitizers.risks import ALARM, NOTE, RISKS, WARNING, Finding
from tests.report_run import make_run

LEAK = Finding("leakage", ALARM, "x", 1.0, 0.99, "column 'x' tells all", {"measure": "AUC"})
SHIFT = Finding("shift", NOTE, "the newest half", 0.1, 0.1, "it drifts")


def write(path: Path, rows: int, seed: int, *, leak: bool = False, far: float = 0.0) -> Path:
    rng = np.random.default_rng(seed)
    lines = ["a,b,y"]
    for i in range(rows):
        a = float(i % 2) if leak else rng.normal(i % 2) + far
        lines.append(f"{a:.6f},{rng.normal():.6f},{'no' if i % 2 else 'yes'}")
    path.write_text("\n".join(lines) + "\n")
    return path


def work(folder: Path, source: Path, **tables: dict[str, object]) -> Work:
    raw = {"dataset": {"name": "a", "source": str(source)}, "roles": {"label": "y"}, **tables}
    raw["sanitizers"] = {"use": ["outliers"]}
    job = Job(Plan.make(raw), Store.open(folder / "store", bytes(32)))
    return job.ingested(ingest_inputs(job, SILENT))


def go(work: Work) -> Work:
    examine_with(work, "outliers", SILENT)
    look_for_risks(work, SILENT)
    decide_all(work, SILENT)
    return work


def test_findings_reach_the_run_the_manifest_and_the_report(tmp_path: Path) -> None:
    done = go(work(tmp_path, write(tmp_path / "a.csv", 400, 0, leak=True)))
    outcome = publish_rows(done, SILENT)
    release = Path(str(outcome.release))
    (leak,) = [f for f in Manifest.load(release).findings if f.severity == ALARM]
    assert (leak.risk, leak.subject) == ("leakage", "a")
    assert Run.load(done.folder).findings == Manifest.load(release).findings
    assert outcome.findings[0][:2] == (ALARM, "leakage")
    assert "column &#39;a&#39; alone predicts" in (release / "report.html").read_text()
    assert verify(release).ok


def test_what_is_found_once_is_not_sought_again(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", 400, 0)
    first = look_for_risks(work(tmp_path, source), SILENT)
    budget: dict[str, object] = {"budget": 0.5, "clean_loss": 0.02}
    again = look_for_risks(work(tmp_path, source, policy=budget), SILENT)
    assert again == first


def test_the_plan_decides_what_is_sought_and_the_key_says_so(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", 400, 0, leak=True)
    every, off = work(tmp_path, source), work(tmp_path, source, risks={"use": "off"})
    some = work(tmp_path, source, risks={"use": ["imbalance"]})
    assert len({w.key for w in (every, off, some)}) == 3
    assert off.risks_key is None
    assert look_for_risks(off, SILENT).findings == ()
    assert look_for_risks(some, SILENT) == replace(some.looked, use=("imbalance",), findings=())
    assert look_for_risks(every, SILENT).use == RISKS


def test_new_rows_are_held_against_the_release_before(tmp_path: Path) -> None:
    first = go(work(tmp_path, write(tmp_path / "a.csv", 400, 0)))
    assert first.reference is None
    publish_rows(first, SILENT)
    # The same input again has no release before it, so its work is found to be done.
    assert work(tmp_path, tmp_path / "a.csv").key == first.key
    second = go(work(tmp_path, write(tmp_path / "b.csv", 400, 1, far=3.0)))
    assert second.looked.reference == "1.0.0"
    assert "the new rows" in {f.subject for f in second.looked.findings if f.severity == WARNING}
    publish_rows(second, SILENT)
    assert work(tmp_path, tmp_path / "b.csv").key == second.key
    source = second.data.digest
    assert Reference.before(second.job.store, "a", source) == second.reference


def test_what_a_run_fails_on() -> None:
    decision = Decision(1, 1, 0, 0, 0, (), {})
    assert decision.failing_on(["risks"], [LEAK]).held_because.endswith("column 'x' tells all")
    assert not decision.failing_on(["risks"], [SHIFT]).held
    assert decision.failing_on(["shift"], [SHIFT]).held
    assert not decision.failing_on(["leakage", "risks"], []).held
    assert matching([LEAK, SHIFT], "leakage") == (LEAK,)


def test_a_damaged_file_of_findings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "risks.json").write_text('{"use": [], "findings": [1]}')
    with pytest.raises(IntegrityError, match="malformed"):
        Looked.load(tmp_path)


@pytest.mark.parametrize(
    ("risks", "match"),
    [
        ({"use": ["leak"]}, r"\[risks\] no risk is named 'leak'.*leakage"),
        ({"use": "of"}, "a list of strings"),
        ({"sample": 0}, "at least 1"),
        ({"usee": []}, "did you mean 'use'"),
    ],
)
def test_a_wrong_table_of_risks_is_refused(risks: dict[str, object], match: str) -> None:
    with pytest.raises(PlanError, match=match):
        Plan.make({"dataset": {"name": "a", "source": "a.csv"}, "risks": risks})


def test_the_report_shows_findings_and_escapes_them(tmp_path: Path) -> None:
    facts = make_run(tmp_path)
    hostile = replace(LEAK, subject="<script>x", message="<script>\u202e")
    looked = Looked(RISKS, "1.1.0", 0.0, (hostile, *([SHIFT] * 70)))
    page = render(gather(replace(facts, looked=looked)))
    assert "<script>" not in page
    assert "U+202E" in page
    assert "And 11 more" in page
    assert "release 1.1.0" in page
    calm = render(gather(replace(facts, looked=Looked(RISKS, None, 0.0, ()))))
    assert "Nothing was found." in calm
    assert "switches it off" in render(gather(replace(facts, looked=Looked((), None, 0.0, ()))))
