"""`sanitize serve` as a process of its own: killed, started, stopped, asked by the clock."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.dropping import drop_and_kill
from benchmarks.killing import left_behind
from benchmarks.serving import CLOCK, CRON, NAME, Serving, table, wait
from pipelines.cli import command
from pipelines.plan import Plan
from pipelines.store import Store
from pipelines.verify import verify

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere a killed server's runs live on for a second"
)
FILES, KILLS = 20, 3


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    for name in ("PREFECT_API_URL", "PREFECT_HOME", "SANITIZE_STORE"):
        monkeypatch.delenv(name, raising=False)
    made = Serving(tmp_path)
    made.prepare()
    yield made
    made.end()


@pytest.mark.timeout(600)
def test_every_file_is_taken_once_whatever_is_killed(serving: Serving) -> None:
    trial = drop_and_kill(serving, FILES, KILLS, random.Random(5))
    assert trial.is_good, f"{trial}\n{serving.said}"
    assert trial.copies == FILES // 5

    # The clock: without a scheduler that works there would be no runs to come.
    planned = serving.runs(CLOCK, "SCHEDULED")
    times = [datetime.fromisoformat(run["expected_start_time"]).astimezone(UTC) for run in planned]
    assert planned
    assert {(at.hour, at.minute) for at in times} == {(2, 0)}
    assert {run["auto_scheduled"] for run in planned} == {True}

    # No run that a killed server left behind counts as one at work.
    assert serving.runs(NAME, "CRASHED")
    wait(lambda: not serving.runs(NAME, "PENDING", "RUNNING"), 60.0, lambda: serving.said)

    # A second process does not serve the same.
    second = serving.other(stdout=subprocess.PIPE)
    out, _ = second.communicate(timeout=120)
    assert second.returncode == 3
    assert b"is served by another process" in out

    assert serving.stop(signal.SIGTERM, seconds=20.0) == 128 + signal.SIGTERM
    assert left_behind(serving.store) == 0
    assert "stopped by SIGTERM" in serving.said


@pytest.mark.timeout(300)
def test_a_run_that_is_cancelled_on_the_page_publishes_nothing(serving: Serving) -> None:
    (serving.folder / "clock.csv").write_text(table(0, rows=20_000))
    serving.start()
    serving.ready()
    (deployment,) = serving.ask("deployments", {"deployments": {"name": {"any_": [CLOCK]}}})
    ask = f"deployments/{deployment['id']}/create_flow_run"
    evidence, store = serving.store / CLOCK / "evidence", Store.open(serving.store)

    run = serving.post(ask, {})["id"]
    wait(lambda: any(evidence.glob("*")), 60.0, lambda: serving.said)
    cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    serving.post(f"flow_runs/{run}/set_state", cancelling)
    wait(lambda: bool(serving.runs(CLOCK, "CANCELLED")), 60.0, lambda: serving.said)
    wait(lambda: store.worker(CLOCK) is None, 30.0, lambda: serving.said)
    assert store.releases(CLOCK) == ()

    serving.post(ask, {})
    wait(lambda: bool(serving.runs(CLOCK, "COMPLETED")), 120.0, lambda: serving.said)
    (release,) = store.releases(CLOCK)
    assert verify(release).ok
    assert serving.stop(signal.SIGTERM, seconds=20.0) == 128 + signal.SIGTERM


def test_a_dataset_is_served_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    serving = Serving(tmp_path)
    serving.prepare()
    plan = str(tmp_path / f"{NAME}.toml")
    assert command(["serve", plan, plan]) == 2
    assert f"two plans are of a dataset '{NAME}'" in capsys.readouterr().err


def test_check_covers_when_a_plan_is_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serving = Serving(tmp_path)
    serving.prepare()
    plan = tmp_path / f"{CLOCK}.toml"
    assert command(["check", str(plan)]) == 0
    assert command(["check", str(tmp_path / f"{NAME}.toml")]) == 0, "nothing need have arrived"
    assert "0 input file(s)" in capsys.readouterr().out
    text = plan.read_text()
    for wrong, told in (
        ("61 * * * *", "minute, hour, day"),
        ("0 0 31 2 *", "cron is '0 0 31 2 *'"),
        ("* * * * * *", "it has 6 fields"),
    ):
        plan.write_text(text.replace(CRON, wrong))
        assert command(["check", str(plan)]) == 2
        assert told in capsys.readouterr().err
    plan.write_text(text.replace(f'"{CRON}"', f'"{CRON}"\ntimezone = "Europe/Berln"'))
    assert command(["check", str(plan)]) == 2
    assert "Europe/Berlin" in capsys.readouterr().err


def test_when_a_plan_is_run_decides_nothing_of_what_it_says() -> None:
    dataset = {"dataset": {"name": "a", "source": "a.csv"}}
    plain = Plan.make(dataset)
    when = Plan.make(dataset | {"schedule": {"cron": CRON}, "arrivals": {"settle": 9.0}})
    assert plain.digest == when.digest
