from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.cli import command
from pipelines.job import Job
from pipelines.plan import Plan
from pipelines.store import Store
from pipelines.verify import verify

ROWS = 300


def table(rows: int = ROWS, seed: int = 0) -> str:
    """A small table with two classes that a model can tell apart, as CSV."""
    rng = np.random.default_rng(seed)
    lines = ["name,a,b,kind,y"]
    for i in range(rows):
        y = i % 2
        a, b = rng.normal(2.0 * y), rng.normal()
        lines.append(f"r{i},{a:.4f},{b:.4f},{'uvw'[i % 3]},{'no' if y else 'yes'}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SANITIZE_STORE", raising=False)
    (tmp_path / "a.csv").write_text(table())
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = command(["run", *words])
    said = capsys.readouterr()
    return status, said.out, said.err


def releases(folder: Path) -> list[str]:
    found = folder.glob("sanitized/*/releases/*")
    return sorted(f"{p.parent.parent.name}/{p.name}" for p in found)


# ------------------------------------------------------------- the main job


def test_a_table_is_sanitized_and_the_same_again_is_nothing_to_do(
    flow_runs: None,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status, out, err = run(capsys, "a.csv", "--label", "y", "--json")
    assert status == 0, err
    said = json.loads(out)
    assert list(said) == [
        *("dataset", "version", "rows", "keep", "review", "quarantine", "held"),
        *("release", "manifest", "report"),
    ]
    assert (said["dataset"], said["version"], said["held"]) == ("a", "1.0.0", False)
    assert said["rows"] == said["keep"] + said["review"] + said["quarantine"] == ROWS
    assert verify(Path(said["release"])).ok
    assert "version 1.0.0" in Path(said["report"]).read_text()
    for word in ("label: y", "examine: outliers: done", "quarantine", "clean rows", "not run"):
        assert word in err

    from pipelines import flows

    monkeypatch.setattr(flows, "run", None)
    status, out, err = run(capsys, "a.csv", "--label", "y", "--json")
    assert (status, json.loads(out)) == (0, said)
    assert "nothing to do: release 1.0.0 already holds exactly this" in err

    status, out, err = run(capsys, "a.csv", "--label", "y", "--json", "--fail-on", "quarantine")
    held = bool(said["quarantine"])
    assert (status, json.loads(out)["held"]) == (int(held), held)


def test_over_the_budget_nothing_is_published(
    flow_runs: None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "plan.toml").write_text(
        '[dataset]\nname = "b"\nsource = "a.csv"\nstore = "sanitized"\n[roles]\nlabel = "y"\n'
        '[policy.rules.outliers]\nquarantine = "top 40%"\n[sanitizers]\nuse = ["outliers"]\n'
    )
    status, out, err = run(capsys, "plan.toml", "--json")
    said = json.loads(out)
    assert (status, said["held"], said["version"], said["release"]) == (1, True, None, None)
    assert "nothing was published" in err
    assert "budget" in err
    assert "Held." in Path(said["report"]).read_text()
    assert releases(folder) == []
    # The same evidence, another budget: published, and no detector runs again.
    status, out, err = run(capsys, "plan.toml", "--json", "--budget", "0.5")
    assert (status, json.loads(out)["version"]) == (0, "1.0.0")
    assert "examine" not in err


def test_only_small_values_pass_between_tasks(folder: Path) -> None:
    from pipelines import flows

    store = Store.open(folder / "sanitized", bytes(32))
    plan = Plan.make(
        {"dataset": {"name": "a", "source": "a.csv"}, "roles": {"label": "y"}}
    ).model_dump(mode="json")
    inputs = flows.ingest.fn(plan, str(store.root))
    results: list[object] = [inputs]
    for name in Job.load(plan, str(store.root)).ingested(inputs).chosen.run:
        results.append(flows.examine.fn(plan, str(store.root), inputs, name))
    results.append(flows.decide.fn(plan, str(store.root), inputs))
    results.append(flows.report.fn(plan, str(store.root), inputs))
    results.append(flows.publish.fn(plan, str(store.root), inputs))
    assert max(len(json.dumps(result)) for result in results) < 20_000
    assert str(store.salt.hex()) not in json.dumps(results)
    assert all(not t.persist_result for t in (flows.ingest, flows.examine, flows.publish))
