"""Import rules that the contracts in pyproject.toml cannot say."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(p for top in ("sanitizers", "pipelines") for p in (ROOT / top).rglob("*.py"))
#: The only modules that know Prefect.
ORCHESTRATED = {"pipelines/flows.py", "pipelines/arrivals.py"}
#: Reading these would run code that somebody else wrote.
RUNS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
#: Who hands objects to processes of the same run, in memory; nothing of that is stored.
HANDS_OUT_WORK = {"pipelines/runners/processes.py": {"joblib"}}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_prefect_is_known_to_the_flows_only(path: Path) -> None:
    if str(path.relative_to(ROOT)) not in ORCHESTRATED:
        assert "prefect" not in set(imported(path))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_stored_or_loaded_as_code(path: Path) -> None:
    granted = HANDS_OUT_WORK.get(str(path.relative_to(ROOT)), set())
    assert not (RUNS_CODE - granted) & set(imported(path))


def test_a_new_sanitizer_is_under_the_import_contracts() -> None:
    contracts = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    shared = {"__init__", "catalog", "testing", "scorecard"}
    for path in (ROOT / "sanitizers").glob("*.py"):
        if path.stem not in shared:
            assert f'"sanitizers.{path.stem}"' in contracts, f"add {path.stem} to pyproject.toml"


def test_the_library_starts_without_the_pipelines() -> None:
    heavy = "{'prefect', 'duckdb', 'pipelines', 'torch', 'scipy.stats'}"
    code = f"import sys, sanitizers.catalog; print({heavy} & set(sys.modules) or 'none')"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "none"
