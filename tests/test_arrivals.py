"""The flow that a server starts, and what a server that was killed leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from benchmarks.serving import table
from pipelines.board import Board
from pipelines.bound import SERVED_BY, end_with_server
from pipelines.ledger import PUBLISHED, Ledger
from pipelines.plan import Plan
from pipelines.store import Store

ROOT = str(Path(__file__).resolve().parent.parent)
PLAN = """\
[dataset]
name = "credit"
source = "in"
store = "store"
grow = {grow}
[roles]
label = "y"
[sanitizers]
use = ["conflicts"]
[risks]
use = "off"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text(table(1))
    Store.open(tmp_path / "store")
    return tmp_path


def plan(folder: Path, *, grow: bool, rest: str = "") -> str:
    path = folder / "plan.toml"
    path.write_text(PLAN.format(grow=str(grow).lower()) + rest)
    return str(path)


def test_a_run_by_hand_takes_what_has_arrived_or_else_the_plan(
    flow_runs: None, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from pipelines.arrivals import sanitize_arrivals

    whole = plan(folder, grow=False)
    assert sanitize_arrivals(whole)["version"] == "1.0.0"
    assert sanitize_arrivals(whole)["version"] == "1.0.0"
    watched = plan(folder, grow=True, rest="[arrivals]\nsettle = 0.1\n")
    assert sanitize_arrivals(watched, arrived=True) == {"batches": 0}
    (folder / "in" / "b.csv").write_text(table(2))
    assert sanitize_arrivals(watched) == {"batches": 1}
    ledger = Ledger(folder / "store" / "credit" / "arrivals")
    assert {a.name: (a.state, a.version) for a in ledger} == {
        "a.csv": (PUBLISHED, "1.0.0"),
        "b.csv": (PUBLISHED, "1.1.0"),
    }
    said = capfd.readouterr().err
    assert "credit: nothing to do: release 1.0.0 holds exactly this" in said
    assert "credit: published 1.1.0, 0 of 60 rows in quarantine (b.csv)" in said


def test_a_run_by_the_clock_leaves_the_work_to_one_that_is_at_work(
    flow_runs: None, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from pipelines.arrivals import sanitize_arrivals

    store = Store.open(folder / "store")
    with store.at_work("credit", tell=print):
        assert sanitize_arrivals(plan(folder, grow=False), wait=False) == {"batches": 0}
    assert "credit: another run is at work" in capfd.readouterr().err
    assert store.releases("credit") == ()


def test_a_deployment_says_when_and_on_what(folder: Path) -> None:
    from pipelines.arrivals import deployment_of

    when = '[schedule]\ncron = "0 2 * * *"\ntimezone = "Europe/Berlin"\n[arrivals]\n'
    made = deployment_of(
        Plan.read(Path(plan(folder, grow=True, rest=when))), Store.open(folder / "store")
    )
    assert made.name == "credit"
    clock = cast("Any", made.schedules)[0]
    assert clock.model_dump()["schedule"]["cron"] == "0 2 * * *"
    assert clock.model_dump()["schedule"]["timezone"] == "Europe/Berlin"
    assert clock.parameters == {"wait": False}
    assert [cast("Any", trigger).parameters for trigger in made.triggers] == [{"arrived": True}]
    assert made.parameters["plan"]["dataset"]["name"] == "credit"
    plain = deployment_of(Plan.read(Path(plan(folder, grow=True))), Store.open(folder / "store"))
    assert (plain.schedules, plain.triggers) == ([], [])


# ------------------------------------------------------------- after a server was killed


@dataclass
class Client:
    """A Prefect server with given runs."""

    runs: list[Any]
    crashed: list[UUID] = field(default_factory=list)
    deleted: list[UUID] = field(default_factory=list)

    def read_flow_runs(self, flow_run_filter: Any) -> list[Any]:
        states = flow_run_filter.state.type.any_
        before = flow_run_filter.expected_start_time
        parents = flow_run_filter.parent_flow_run_id
        found = [run for run in self.runs if run.state in states]
        if parents is not None:
            return [run for run in found if run.parent in parents.any_]
        found = [run for run in found if run.parent is None]
        return [r for r in found if before is None or r.expected_start_time <= before.before_]

    def set_flow_run_state(self, run: UUID, state: Any, force: bool) -> None:
        assert state.is_crashed()
        self.crashed.append(run)

    def delete_flow_run(self, run: UUID) -> None:
        self.deleted.append(run)


def run(state: str, hours: float = 0.0, *, auto: bool = False, parent: UUID | None = None) -> Any:
    at = datetime.now(UTC) + timedelta(hours=hours)
    return SimpleNamespace(
        id=uuid4(), state=state, expected_start_time=at, auto_scheduled=auto, parent=parent
    )


def test_runs_that_died_with_their_server_are_said_to_have_crashed() -> None:
    from pipelines.arrivals import PrefectOffice

    dead = run("RUNNING")
    child, ended, planned = run("RUNNING", parent=dead.id), run("COMPLETED"), run("SCHEDULED", 1)
    client = Client([dead, child, ended, planned])
    office = PrefectOffice(cast("Any", client), "credit", uuid4())
    assert office.is_busy()
    office.bury()
    assert client.crashed == [dead.id, child.id]
    assert not PrefectOffice(cast("Any", Client([ended, planned])), "credit", uuid4()).is_busy()
    now = Client([run("SCHEDULED")])
    assert PrefectOffice(cast("Any", now), "credit", uuid4()).is_busy()


def test_of_the_runs_by_the_clock_that_were_missed_the_last_one_is_kept() -> None:
    from pipelines.arrivals import PrefectOffice

    missed = [run("SCHEDULED", -hours, auto=True) for hours in (3, 1, 2)]
    by_hand, to_come = run("SCHEDULED", -5), run("SCHEDULED", 1, auto=True)
    client = Client([*missed, by_hand, to_come])
    PrefectOffice(cast("Any", client), "credit", uuid4()).catch_up()
    assert set(client.deleted) == {missed[0].id, missed[2].id}


def test_a_run_whose_server_is_gone_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SERVED_BY, raising=False)
    end_with_server()
    code = "from pipelines.bound import end_with_server; end_with_server()"
    for server, told in ((os.getpid(), ""), (1, "is gone")):
        ran = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {SERVED_BY: str(server), "PYTHONPATH": ROOT},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode == 0) == (told == ""), ran.stderr
        assert told in ran.stderr


def test_a_run_ends_with_its_server(tmp_path: Path) -> None:
    child = (
        "from pipelines.bound import *; end_with_server(); print('up', flush=True); time.sleep(60)"
    )
    server = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {'import time;' + child!r}],"
        f" env=os.environ | {{{SERVED_BY!r}: str(os.getpid())}}, stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", server],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": ROOT},
    ) as started:
        assert started.stdout is not None
        pid = int(started.stdout.readline())
        started.kill()
    until = time.monotonic() + 10.0
    while _lives(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True
    return state != "Z"


# ------------------------------------------------------------- progress on the page


def test_the_page_is_told_once_a_second_at_most() -> None:
    posts: list[tuple[float, str]] = []
    board = Board(lambda done, name: posts.append((done, name)), lambda line: None)
    with board.stage("examine: labels", 1000) as stage:
        for _ in range(100):
            stage.advance(10)
    assert posts == [(0.0, "examine: labels")]
    board._posted -= 1.0
    with board.stage("publish", 200) as stage:
        board._posted -= 1.0
        stage.advance(50)
    assert posts[1:] == [(0.0, "publish"), (25.0, "publish")]
