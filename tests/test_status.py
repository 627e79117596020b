"""How datasets stand, read from the store alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import steps
from pipelines.cli import command
from pipelines.job import Job
from pipelines.ledger import Arrival, Ledger
from pipelines.plan import Plan
from pipelines.progress import SILENT
from pipelines.rulings import Rulings
from pipelines.status import STOPPED, DatasetState, states
from pipelines.status_text import text
from pipelines.store import Store
from pipelines.timing import Timed
from pipelines.work import Work
from sanitizers.core.errors import PlanError
from tests.staged import judge_stages, run_stages


@pytest.fixture
def store(tmp_path: Path) -> Store:
    rng = np.random.default_rng(0)
    lines = [f"{rng.normal():.4f},{rng.normal():.4f}" for _ in range(300)]
    (tmp_path / "a.csv").write_text("\n".join(["a,b", *lines, "90,90", "60,9"]) + "\n")
    return Store.open(tmp_path / "store", bytes(32))


def job(store: Store, name: str = "a", **policy: object) -> Job:
    plan = {
        "dataset": {"name": name, "source": str(store.root.parent / "a.csv")},
        "sanitizers": {"use": ["outliers"]},
        "policy": policy,
    }
    return Job(Plan.make(plan), store)


def held(one: Job) -> Work:
    work = judge_stages(one)
    outcome = steps.report_held(work, SILENT)
    steps.measure(work, outcome, Timed(SILENT))
    return work


def only(store: Store) -> DatasetState:
    (state,) = states(store)
    return state


def test_an_empty_store_has_no_dataset(store: Store) -> None:
    assert states(store) == ()
    assert text(()) == "no dataset yet"
    with pytest.raises(PlanError, match="no dataset 'a'"):
        states(store, "a")


def test_releases_are_shown_the_last_first_with_what_waits(store: Store) -> None:
    run_stages(job(store))
    rules = {"outliers": {"quarantine": "score > 1000000", "review": "top 2%"}}
    ran = run_stages(job(store, rules=rules))
    state = only(store)
    assert [release.version for release in state.releases] == [ran.release.name, "1.0.0"]
    counts = state.releases[0].counts
    assert counts is not None
    assert counts.rows == counts.keep + counts.review + counts.quarantine == 302
    assert state.review == counts.review == ran.part("review").num_rows > 0
    assert (state.held, state.at_work) == ((), None)
    said = text([state])
    assert f"{state.review:,} rows wait for review" in said
    assert ran.release.name in said
    row = str(ran.part("review").column("row_id")[0])
    Rulings.of(store, ran.work.job.name).add([row], "keep", who="ana", why="looked")
    assert only(store).review == state.review - 1


def test_a_held_run_is_shown_until_a_later_release(store: Store) -> None:
    work = held(job(store, budget=0.001))
    (one,) = only(store).held
    assert one.run == work.key
    assert "the budget is 0.1%" in one.why
    assert one.report == str(work.report)
    assert "nothing was published" in text(states(store))
    # A gate of the command is no part of the decision, and known all the same.
    gated = held(job(store, fail_on=("quarantine",)))
    assert {h.run for h in only(store).held} == {work.key, gated.key}
    assert any("fail on quarantine" in h.why for h in only(store).held)
    release = run_stages(job(store)).release
    manifest = json.loads((release / "manifest.json").read_text())
    left = [h for h in only(store).held if h.created < manifest["created"]]
    assert left == []
    assert gated.key not in {h.run for h in only(store).held}


def test_a_run_that_was_stopped_is_told_apart_from_one_at_work(store: Store) -> None:
    judge_stages(job(store))
    (one,) = only(store).held
    assert one.why == STOPPED
    with store.at_work("a", tell=print):
        state = only(store)
        assert state.held == ()
        assert state.at_work is not None
        assert "a: at work since" in text([state])


def test_what_is_damaged_is_shown_and_stops_nobody(store: Store) -> None:
    ran = run_stages(job(store))
    run_stages(job(store, "b"))
    (ran.release / "manifest.json").write_text("{}")
    (ran.work.folder / "run.json").write_text("\x1b[2J")
    (store.dataset("a") / ".at-work").write_text("\x1b[2J")
    first, second = states(store)
    assert first.releases[0].damaged
    assert (first.review, first.held) == (0, ())
    assert second.releases[0].damaged == ""
    said = text([first, second])
    assert "release 1.0.0 is damaged" in said
    assert "\x1b" not in said


def test_what_has_arrived_is_counted_by_what_became_of_it(store: Store) -> None:
    ledger = Ledger(store.arrivals("a"))
    states_: list[dict[str, Any]] = [
        {},
        {"state": "published", "version": "1.0.0"},
        {"state": "held"},
        {"state": "failed", "why": "no such column", "attempts": 1, "tried": 5.0},
        {"state": "failed", "why": "\x1b[2J", "attempts": 9, "tried": 4.0},
        {},
    ]
    for number, over in enumerate(states_):
        ledger.add(Arrival(f"{number:064x}", f"{number}.csv", 1, float(number), **over))
    waiting = only(store).arrivals
    assert (waiting.arrived, waiting.failed, waiting.given_up) == (2, 1, 1)
    assert (waiting.oldest, waiting.why) == (0.0, "no such column")
    said = text(states(store))
    assert "2 arrived, and not run yet" in said
    assert "1 arrived and failed too often" in said
    assert "\x1b" not in said
    (store.arrivals("a") / f"{0:064x}.json").write_text("{}")
    assert "not known" in text(states(store))


def test_the_command_prints_a_table_or_one_object(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stages(job(store))
    held(job(store, "b", budget=0.001))
    where = ["--store", str(store.root)]
    assert command(["status", *where]) == 0
    said = capsys.readouterr().out
    assert "none yet" in said
    assert "1.0.0" in said
    assert command(["status", "b", "--json", *where]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["store"] == str(store.root)
    (one,) = told["datasets"]
    assert list(one) == ["dataset", "releases", "held", "review", "arrivals", "at_work"]
    assert (one["dataset"], one["releases"], one["at_work"]) == ("b", [], None)
    with store.at_work("b", tell=print):
        assert command(["status", "b", "--json", *where]) == 0
        (one,) = json.loads(capsys.readouterr().out)["datasets"]
        assert set(one["at_work"]) == {"host", "pid", "since", "command"}
    assert command(["status", "c", *where]) == 2
