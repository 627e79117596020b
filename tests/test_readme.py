"""What the README shows does what it says."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean

import pytest

from benchmarks.tables import REGRESSION
from pipelines.cli import command
from pipelines.plan import Plan
from sanitizers.catalog import sanitizer
from sanitizers.core.data import Dataset
from sanitizers.core.evidence import examine_batch
from sanitizers.core.sanitizer import Sanitizer
from sanitizers.testing import LAWS, ROLES, Threat, clean_data, scattered_rows

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
#: Laws that hold for any sanitizer, whatever its threat.
GENERAL = [law for law in LAWS if law.__name__ not in ("law_calm", "law_purpose", "law_abstention")]


def block(language: str, holding: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(str(text) for text in blocks if holding in text)


@pytest.fixture
def missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sanitizer]:
    (tmp_path / "missing.py").write_text(block("python", "class Missing"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield sanitizer("missing:Missing")
    sys.modules.pop("missing")


@pytest.mark.parametrize("law", GENERAL, ids=lambda law: law.__name__)
def test_the_sanitizer_of_ones_own_obeys_the_laws(
    law: Callable[[Sanitizer, Threat], None], missing: Sanitizer
) -> None:
    law(missing, scattered_rows)


def test_the_sanitizer_of_ones_own_counts_missing_values(missing: Sanitizer) -> None:
    table = clean_data(0, 200)
    data = Dataset.from_table(table, ROLES)
    found = examine_batch("missing", missing.fit(data), next(data.batches()))
    expected = [sum(row[f] is None for f in ROLES.features) for row in table.to_pylist()]
    assert found.column("score").to_pylist() == expected
    assert missing.reason(3.0, None) == "3 of its values are missing"


def test_the_plan_is_a_plan(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(block("toml", "[dataset]"))
    plan = Plan.read(path)
    assert plan.policy.clean_loss == 0.005
    assert str(plan.core_policy().rules["outliers"].review) == "top 0.5%"


def test_when_a_plan_is_run_is_part_of_a_plan(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('[dataset]\nsource = "in"\n' + block("toml", "[schedule]"))
    plan = Plan.read(path)
    assert plan.schedule is not None
    assert plan.schedule.timezone == "Europe/Berlin"
    assert plan.arrivals is not None
    assert plan.arrivals.settle == 2.0


def test_every_command_of_the_table_exists(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["--help"]) == 0
    said = capsys.readouterr().out
    for name in re.findall(r"^\| `sanitize (\w+)", README, re.MULTILINE):
        assert re.search(rf"^    {name}\b", said, re.MULTILINE), name


def test_every_file_that_is_linked_exists() -> None:
    for link in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_war_game_is_that_of_the_benchmark() -> None:
    """Every line of the README's table, from the single measurements."""
    file = ROOT / "benchmarks" / "results" / "quality.json"
    results = [r for r in json.loads(file.read_text()) if r["poison"] != "none" or not r["timed"]]
    lines = re.findall(r"^\| (?:`([a-z-]+)`, (\d+) %|none) \| (.*) \|$", _measured(), re.M)
    assert len(lines) > 10
    for name, percent, cells in lines:
        game = (name or "none", int(percent or 0) / 100)
        mine = [r for r in results if (r["poison"], r["rate"]) == game]
        if not name:
            mine = [r for r in mine if r["table"] not in REGRESSION["report"]]
        told = []
        for trusted in (0, 300):
            found = [r["recall"] for r in mine if r["trusted"] == trusted and r["poison"] != "none"]
            lost = [r["lost"] for r in mine if r["trusted"] == trusted]
            told += [f"{100 * fmean(found):.0f} %" if found else "–", f"{100 * fmean(lost):.2f} %"]
        assert cells.split(" | ") == told, name


def _measured() -> str:
    return README.split("## What was measured")[1].split("\n## ")[0]
