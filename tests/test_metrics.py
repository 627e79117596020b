"""What a run came to in numbers, and when people are told of it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from pipelines import metrics as module
from pipelines import steps
from pipelines.job import Job
from pipelines.metrics import METRICS, PROMETHEUS, Metrics
from pipelines.occasions import (
    EVENTS,
    HELD,
    LEAST,
    RELEASES,
    TIMES,
    TRIGGER,
    UNUSUAL,
    earlier_shares,
    is_unusual,
    letter,
    occasions,
)
from pipelines.plan import Plan
from pipelines.progress import SILENT
from pipelines.store import Store
from pipelines.timing import Timed
from sanitizers.core.errors import IntegrityError, PlanError, StoreError
from tests.staged import Ran, run_stages

CALM = Metrics(
    dataset="a",
    run="0" * 16,
    ended="2026-01-01T00:00:00+00:00",
    version="1.0.0",
    held=False,
    held_because="",
    rows=1_000,
    keep=985,
    review=10,
    quarantine=5,
    unreadable=1,
    sanitizers={"outliers": {"scored": 999, "abstained": 0, "review": 10, "quarantine": 4}},
    seconds={"ingest": 0.5, "examine: outliers": 1.25},
    whole_seconds=2.0,
    findings={"alarm": 0, "warning": 1, "note": 2},
    triggers=0,
)


@pytest.fixture
def ran(tmp_path: Path) -> Ran:
    rng = np.random.default_rng(0)
    lines = [f"{rng.normal():.4f},{rng.normal():.4f}" for _ in range(300)]
    (tmp_path / "a.csv").write_text("\n".join(["a,b", *lines, "90,90"]) + "\n")
    plan = {
        "dataset": {"name": "a", "source": str(tmp_path / "a.csv")},
        "sanitizers": {"use": ["outliers"]},
    }
    return run_stages(Job(Plan.make(plan), Store.open(tmp_path / "store", bytes(32))))


def samples(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


# ------------------------------------------------------------- metrics


def test_a_run_is_counted_as_it_was_published(ran: Ran) -> None:
    outcome = ran.work.outcome(ran.release)
    timed = Timed(SILENT, {"ingest": 0.25}, began=time.monotonic() - 1.5)
    made = steps.measure(ran.work, outcome, timed)
    assert made.rows == made.keep + made.review + made.quarantine == 301
    assert made.keep == ran.part("clean").num_rows
    assert made.quarantine == ran.part("quarantine").num_rows > 0
    assert (made.version, made.held, made.triggers) == ("1.0.0", False, 0)
    assert sum(made.findings.values()) == len(ran.work.findings)
    assert Metrics.load(ran.work.folder) == made
    assert 1.5 <= made.whole_seconds < 60
    told = samples((ran.work.job.store.dataset("a") / PROMETHEUS).read_bytes())
    rows = {dict(labels)["verdict"]: v for (n, labels), v in told.items() if n == "sanitize_rows"}
    assert rows == {"keep": made.keep, "review": made.review, "quarantine": made.quarantine}
    assert told["sanitize_held", frozenset({("dataset", "a")})] == 0
    stage = frozenset({("dataset", "a"), ("stage", "ingest")})
    assert told["sanitize_stage_seconds", stage] == 0.25


def test_a_disk_that_refuses_the_metrics_is_told_and_fails_nothing(
    ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> None:
        raise StoreError("no space left on the disk")

    class Lines:
        told: ClassVar[list[str]] = []
        stage = SILENT.stage

        def note(self, text: str) -> None:
            self.told.append(text)

    monkeypatch.setattr(module, "write_json", refuse)
    outcome = ran.work.outcome(ran.release)
    assert steps.measure(ran.work, outcome, Timed(Lines())).version == "1.0.0"
    assert Lines.told == ["a: the metrics were not written: no space left on the disk"]


@given(name=st.text(max_size=20), why=st.text(max_size=20))
def test_labels_are_read_back_as_they_were(name: str, why: str) -> None:
    name = name.encode("utf-8", "ignore").decode()
    made = replace(CALM, sanitizers={name: {"scored": 3}}, seconds={name: 1.0}, held_because=why)
    told = samples(made.prometheus())
    labels = {"dataset": "a", "sanitizer": name, "found": "scored"}
    assert told["sanitize_sanitizer_rows", frozenset(labels.items())] == 3
    assert told["sanitize_stage_seconds", frozenset({("dataset", "a"), ("stage", name)})] == 1


def test_the_files_of_two_datasets_go_together() -> None:
    def helps(made: Metrics) -> list[str]:
        text = made.prometheus().decode()
        return [line for line in text.splitlines() if line.startswith("#")]

    assert helps(CALM) == helps(replace(CALM, dataset="b", held=True, version=None))


def test_a_stage_is_timed_and_told_where_it_would_be() -> None:
    timed = Timed(SILENT)
    with timed.stage("ingest", 3) as stage:
        stage.advance(3)
    with pytest.raises(KeyError), timed.stage("decide"):
        raise KeyError
    with timed.stage("ingest"):
        pass
    assert set(timed.seconds) == {"ingest", "decide"}
    assert all(seconds >= 0 for seconds in timed.seconds.values())


def test_metrics_that_were_changed_are_refused(ran: Ran) -> None:
    steps.measure(ran.work, ran.work.outcome(ran.release), Timed(SILENT))
    file = ran.work.folder / METRICS
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rows": "many"}))
    with pytest.raises(IntegrityError, match="rows"):
        Metrics.load(ran.work.folder)


# ------------------------------------------------------------- occasions


def test_a_calm_run_is_no_occasion() -> None:
    assert occasions(CALM, []) == ()
    assert occasions(CALM, [0.005] * 10) == ()


def test_each_occasion_is_told_with_counts_and_no_row() -> None:
    made = replace(
        CALM,
        version=None,
        held=True,
        held_because="the run is to fail on shift: 'anna smith' has drifted",
        triggers=2,
        quarantine=300,
        keep=690,
    )
    told = occasions(made, [0.001] * 3)
    assert [one.kind for one in told] == [HELD, TRIGGER, UNUSUAL] == list(EVENTS)
    subject, text = letter(made, told, "/store/report.html")
    assert subject == "a: held, nothing was published"
    assert "anna" not in text
    for word in ("the run is to fail on shift", "2 confirmed", "30.00%", "1,000 rows: 690 clean"):
        assert word in text
    assert text.endswith("report: /store/report.html")


@given(
    share=st.floats(0, 1),
    earlier=st.lists(st.floats(0, 1), max_size=30),
    more=st.floats(0, 1),
)
def test_more_than_usual(share: float, earlier: list[float], more: float) -> None:
    unusual = is_unusual(share, earlier)
    if len(earlier) < RELEASES or share <= LEAST:
        assert not unusual
    if unusual:
        # More is no less unusual; and the half of them or more lies far below.
        assert is_unusual(min(1.0, share + more), earlier)
        assert 2 * sum(e * TIMES < share for e in earlier) >= len(earlier)
    assert unusual == is_unusual(share, earlier[::-1])
    assert not is_unusual(share, [share] * 3)


def test_one_bad_release_does_not_make_bad_ones_usual() -> None:
    assert is_unusual(0.05, [0.002, 0.9, 0.003, 0.002])
    assert not is_unusual(0.05, [0.002, 0.04, 0.03, 0.05])


def test_the_release_of_the_run_itself_is_no_earlier_one(ran: Ran) -> None:
    store, work = ran.work.job.store, ran.work
    assert earlier_shares(store, "a", work.key) == []
    share = work.decision.quarantine / work.decision.rows
    assert earlier_shares(store, "a", "f" * 16) == [share]
    (ran.release / "manifest.json").write_text("{}")
    assert earlier_shares(store, "a", "f" * 16) == []


# ------------------------------------------------------------- the plan


def plan(**notify: object) -> Plan:
    return Plan.make({"dataset": {"name": "a", "source": "a.csv"}, "notify": notify})


def test_who_is_told_decides_nothing() -> None:
    assert plan(block="slack-webhook/alerts", when=["held"]).digest == plan().digest


@pytest.mark.parametrize(
    ("notify", "said"),
    [
        ({"when": ["hold"]}, "did you mean 'held'"),
        ({"block": "https://hooks.example/secret"}, r"\[notify\] block"),
        ({"whom": "me"}, r"\[notify\] 'whom' is not known"),
    ],
)
def test_a_wrong_notify_is_refused(notify: dict[str, object], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        plan(**notify)
