"""What the terminal says at the end of a run."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace

import pytest
from rich.console import Console

from pipelines.outcome import JSON_KEYS, Outcome
from pipelines.summary import NAMED, nothing_to_do, summarise
from sanitizers.risks import ALARM

OUTCOME = Outcome(
    dataset="mine",
    rows=1_000,
    keep=960,
    review=30,
    quarantine=10,
    unreadable=2,
    held=False,
    held_because="",
    found={"labels": {"quarantine": 8, "review": 30, "scored": 990, "abstained": 8}},
    not_run=(("regression", "no column has the role target"),),
    trusted=False,
    version="1.0.0",
    release="store/mine/releases/1.0.0",
    manifest="store/mine/releases/1.0.0/manifest.json",
    report="store/mine/releases/1.0.0/report.html",
)


def said(outcome: Outcome) -> str:
    console = Console(file=io.StringIO(), width=200)
    summarise(console, outcome, 2.0)  # type: ignore[arg-type]
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_counts_places_and_limits_are_said() -> None:
    text = said(OUTCOME)
    for part in ("published 1.0.0", "960", "96.00%", "unreadable rows", "no trusted rows"):
        assert part in text
    assert "not run: regression, because no column has the role target" in text
    assert "sanitize review mine --store store" in text
    assert "sanitize verify store/mine/releases/1.0.0" in text
    assert "not scanned" not in text


@pytest.mark.parametrize("count", [1, NAMED, NAMED + 3])
def test_columns_that_nobody_scanned_are_named(count: int) -> None:
    text = said(replace(OUTCOME, unscanned=tuple(f"text{i}" for i in range(count))))
    line = next(line for line in text.splitlines() if line.startswith("not scanned: text0"))
    assert ("and 3 more" in line) == (count > NAMED)
    assert line.count("text") == min(count, NAMED)


def test_a_held_run_says_why_and_that_nothing_was_published() -> None:
    text = said(replace(OUTCOME, held=True, held_because="too many", release=None, version=None))
    assert "held" in text
    assert "nothing was published: too many" in text


def test_alarms_are_told() -> None:
    text = said(replace(OUTCOME, findings=((ALARM, "leakage", "column 'x' gives it away"),)))
    assert "column 'x' gives it away" in text


def test_nothing_to_do_names_the_release() -> None:
    console = Console(file=io.StringIO(), width=200)
    nothing_to_do(console, OUTCOME)  # type: ignore[arg-type]
    assert "release 1.0.0 already holds exactly this" in console.file.getvalue()  # type: ignore[attr-defined]


def test_an_outcome_survives_json_and_shows_what_the_design_names() -> None:
    outcome = replace(OUTCOME, unscanned=("note",), findings=((ALARM, "shift", "x"),))
    assert Outcome.load(json.loads(json.dumps(asdict(outcome)))) == outcome
    assert tuple(outcome.to_json()) == JSON_KEYS
