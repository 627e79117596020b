"""A store in a bucket: the same releases, whatever machine, and whatever ends in between."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipelines import lease as lease_module
from pipelines import mirror as mirror_module
from pipelines import steps
from pipelines.at_work import LEASE_SECONDS, Owner
from pipelines.bucket import Bucket
from pipelines.cli import command
from pipelines.explain import explain
from pipelines.job import Job
from pipelines.ledger import PUBLISHED, Arrival, Ledger
from pipelines.manifest import MANIFEST, Manifest
from pipelines.mirror import WORK_VARIABLE
from pipelines.plan import Plan
from pipelines.progress import SILENT
from pipelines.review.desk import Desk
from pipelines.ruled import publish_rulings
from pipelines.rulings import Rulings
from pipelines.status import states
from pipelines.store import Store
from pipelines.verify import verify
from sanitizers.core.errors import IntegrityError, PlanError, StoreError
from tests.spine import SALT
from tests.staged import judge_stages, part_of, run_stages
from tests.test_growing import rows

URL = "memory://lake/store"
Machine = Callable[[str], Store]


@pytest.fixture
def machine(lake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Opens the store on a machine of a name, which shares nothing but the bucket."""
    monkeypatch.setattr(mirror_module, "ASK_AGAIN", 0.0)

    def open_on(name: str) -> Store:
        monkeypatch.setenv(WORK_VARIABLE, str(tmp_path / name))
        return Store.open(URL, SALT)

    return open_on


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    folder = tmp_path / "landing"
    folder.mkdir()
    rows(0).to_csv(folder / "a.csv", index=False)
    return folder


def job(landing: Path, store: Store, *, grow: bool = True) -> Job:
    tables = {
        "dataset": {"name": "g", "source": str(landing), "grow": grow},
        "roles": {"label": "y"},
        "sanitizers": {"use": ["outliers"]},
        "policy": {"rules": {"outliers": {"quarantine": "top 2%", "review": "top 5%"}}},
    }
    return Job(Plan.make(tables), store)


def rows_of(release: Path) -> dict[str, str]:
    return {f.path: f.sha256 for f in Manifest.load(release).files if f.rows is not None}


# ---------------------------------------------------------------- one store, many machines


def test_a_bucket_holds_the_release_that_a_folder_would(
    machine: Machine, landing: Path, tmp_path: Path
) -> None:
    far = run_stages(job(landing, machine("one"))).release
    near = run_stages(job(landing, Store.open(tmp_path / "store", SALT))).release
    assert rows_of(far) == rows_of(near)
    there = machine("two").release("g", "1.0.0")
    assert there != far
    assert verify(there).ok
    assert {p.relative_to(there): p.read_bytes() for p in there.rglob("*") if p.is_file()} == {
        p.relative_to(far): p.read_bytes() for p in far.rglob("*") if p.is_file()
    }


def test_another_machine_knows_what_was_done(machine: Machine, landing: Path) -> None:
    ran = run_stages(job(landing, machine("one")))
    two = machine("two")
    assert two.datasets() == ("g",)
    assert two.known("g") == "g"
    done = job(landing, two).published()
    assert done is not None
    assert (done.already, done.version) == (True, "1.0.0")
    (state,) = states(two)
    assert state.releases[0].version == "1.0.0"
    row = part_of(ran.release, "clean").column("row_id")[0].as_py()
    assert "1.0.0" in str(explain(two, "g", row))


def test_a_run_that_stopped_goes_on_elsewhere(machine: Machine, landing: Path) -> None:
    judge_stages(job(landing, machine("one")))
    two = job(landing, machine("two"))
    keys = two.input_keys()
    assert two.is_ingested(keys)
    work = two.ingested(keys)
    for name, folder in work.evidence.items():
        before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
        assert before
        steps.examine_with(work, name, SILENT)
        assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_rows_join_from_another_machine_and_old_files_do_not_travel(
    machine: Machine, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_stages(job(landing, machine("one"))).release
    rows(1).to_csv(landing / "b.csv", index=False)
    put: list[str] = []
    plain = Bucket.put

    def watched(self: Bucket, files: dict[str, Path]) -> None:
        put.extend(files)
        plain(self, files)

    monkeypatch.setattr(Bucket, "put", watched)
    second = run_stages(job(landing, machine("two"))).release
    assert second.name == "1.1.0"
    shared = rows_of(first).items() & rows_of(second).items()
    assert shared
    assert not {f"g/releases/1.1.0/{path}" for path, _ in shared} & set(put)
    assert verify(machine("three").release("g", "1.1.0")).ok


def test_releases_come_without_their_rows_until_they_are_asked_for(
    machine: Machine, landing: Path
) -> None:
    run_stages(job(landing, machine("one")))
    two = machine("two")
    (light,) = two.releases("g")
    assert Manifest.load(light).version == "1.0.0"
    assert not list(light.rglob("*.parquet"))
    assert list(two.release("g", "1.0.0").rglob("*.parquet"))


# ---------------------------------------------------------------- whole, or not at all


def test_a_release_appears_with_its_manifest(
    machine: Machine, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = judge_stages(job(landing, machine("one")))
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "create", broken)
        patch.setattr(lease_module, "_acquire", lambda *_: False)
        patch.setattr(lease_module.Lease, "check", lambda _: None)
        with pytest.raises(StoreError, match="the network is gone"):
            steps.publish_rows(work, SILENT)
    assert machine("two").releases("g") == ()
    assert machine("one").releases("g") == ()
    assert verify(run_stages(job(landing, machine("one"))).release).ok
    assert verify(machine("two").release("g", "1.0.0")).ok


def broken(*_: object, **__: object) -> None:
    raise StoreError("the network is gone")


def test_what_died_between_bucket_and_folder_is_published(
    machine: Machine, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = judge_stages(job(landing, machine("one")))
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.appearing.os.rename", broken)
        with pytest.raises(StoreError):
            steps.publish_rows(work, SILENT)
    done = steps.publish_rows(job(landing, machine("one")).ingested(work.keys), SILENT)
    assert (done.version, done.already) == ("1.0.0", True)
    assert verify(Path(str(done.release))).ok


@pytest.mark.parametrize("name", ["releases/1.0.0/clean/part-00000.parquet", "inputs"])
def test_a_changed_object_is_refused(machine: Machine, landing: Path, lake: Any, name: str) -> None:
    run_stages(job(landing, machine("one"), grow=False))
    (path, *_) = (p for p in lake.store if f"/g/{name}" in p and p.endswith(".parquet"))
    lake.pipe(path, lake.cat(path)[:-1] + b"x")
    two = machine("two")
    read: Callable[[], object] = job(landing, two, grow=False).published
    if name != "inputs":
        read = partial(two.release, "g", "1.0.0")
    with pytest.raises(IntegrityError, match="not as it was written"):
        read()
    assert not list((two.root / "g").rglob("part-*"))


@pytest.mark.parametrize("name", ["../../../evil.txt", "a/../../b.txt"])
def test_a_list_that_leads_out_is_refused(
    machine: Machine, landing: Path, lake: Any, tmp_path: Path, name: str
) -> None:
    run_stages(job(landing, machine("one"), grow=False))
    (path, *_) = (p for p in lake.store if "/g/inputs/" in p and p.endswith(".whole.json"))
    lake.pipe(path, json.dumps({name: "0" * 64}).encode())
    with pytest.raises(IntegrityError, match="damaged"):
        job(landing, machine("two"), grow=False).published()
    assert not list(tmp_path.rglob("evil.txt"))


# ---------------------------------------------------------------- locks among machines


def test_one_machine_is_at_work(machine: Machine) -> None:
    one, two = machine("one"), machine("two")
    told: list[str] = []
    with one.at_work("g", tell=told.append):
        assert (owner := two.worker("g"))
        assert owner.command == "sanitize run"
        assert one.worker("g")
        with (
            pytest.raises(StoreError, match=r"another run of 'g' is at work since .*process"),
            two.at_work("g", tell=told.append, wait=0.0),
        ):
            pass
    assert two.worker("g") is None
    with two.at_work("g", tell=told.append, wait=0.0) as waited:
        assert not waited


def test_the_second_machine_goes_on_when_the_first_has_ended(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "PAUSE", 0.05)
    one, two = machine("one"), machine("two")
    told: list[str] = []
    began = threading.Event()

    def first() -> None:
        with one.at_work("g", tell=told.append):
            began.set()
            time.sleep(0.6)

    thread = threading.Thread(target=first)
    thread.start()
    began.wait()
    with two.at_work("g", tell=told.append) as waited:
        assert waited
    thread.join()
    assert [line.partition(" since")[0] for line in told] == [
        "waiting: another run of 'g' is at work"
    ]


def leave_lease(lake: Any, expires: float) -> None:
    """What a machine leaves that was switched off while it was at work."""
    owner = replace(Owner.make("sanitize run"), host="gone", kernel="gone", expires=expires)
    lake.pipe("/lake/store/g/.at-work", json.dumps(asdict(owner)).encode())


def test_a_machine_that_is_gone_holds_nothing_for_ever(
    machine: Machine, lake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "SETTLE_SECONDS", 0.0)
    store = machine("one")
    leave_lease(lake, time.time() + LEASE_SECONDS)
    with pytest.raises(StoreError, match="on gone"), store.at_work("g", tell=print, wait=0.0):
        pass
    leave_lease(lake, time.time() - 1.0)
    with store.at_work("g", tell=print, wait=0.0):
        pass


def test_who_has_lost_the_lock_publishes_nothing(
    machine: Machine, landing: Path, lake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = judge_stages(job(landing, machine("one")))
    plain = Bucket.put

    def slow(self: Bucket, files: dict[str, Path]) -> None:
        plain(self, files)
        if any("/releases/" in name for name in files):
            other = replace(Owner.make("sanitize run"), kernel="other")
            lake.pipe("/lake/store/g/.lock", json.dumps(asdict(other)).encode())

    monkeypatch.setattr(Bucket, "put", slow)
    with pytest.raises(StoreError, match="lost"):
        steps.publish_rows(work, SILENT)
    assert machine("two").releases("g") == ()


def test_a_service_that_cannot_lock_is_refused(
    lake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(self: Bucket, name: str, data: bytes) -> bool:
        self.write(name, data)
        return True

    monkeypatch.setattr(Bucket, "create", careless)
    monkeypatch.setenv(WORK_VARIABLE, str(tmp_path))
    for _ in range(2):
        with pytest.raises(PlanError, match="If-None-Match"):
            Store.open(URL)


def test_a_store_that_was_emptied_is_not_taken_for_a_new_one(machine: Machine, lake: Any) -> None:
    machine("one")
    lake.rm("/lake/store", recursive=True)
    with pytest.raises(StoreError, match="not the store any more"):
        machine("one")


# ---------------------------------------------------------------- what changes


def test_rulings_of_many_machines_are_one_chain(machine: Machine, landing: Path) -> None:
    one, two = machine("one"), machine("two")
    ran = run_stages(job(landing, one))
    ids = part_of(ran.release, "clean").column("row_id").to_pylist()
    for store, row in ((one, ids[0]), (two, ids[1]), (one, ids[2])):
        Rulings.of(store, "g").add([row], "quarantine", who="ana", why="I know it")
    for store in (one, two):
        assert [r.row_ids for r in Rulings.of(store, "g").read()] == [(i,) for i in ids[:3]]
    release, made, already = publish_rulings(two, "g")
    assert not already
    assert verify(release).ok
    assert publish_rulings(one, "g")[2]
    held = part_of(one.release("g", made.version), "quarantine").column("row_id").to_pylist()
    assert set(ids[:3]) <= set(held)


def test_people_review_on_another_machine(machine: Machine, landing: Path) -> None:
    ran = run_stages(job(landing, machine("one")))
    held = part_of(ran.release, "quarantine").column("row_id").to_pylist()
    desk = Desk(machine("two"))
    try:
        assert desk.overview() == [("g", "1.0.0", 20, 400)]
        queue = desk.seat("g").queue
        assert queue.rule(held[:2], "keep", who="ben", why="I know them", group="") == 2
        Rulings.of(machine("one"), "g").add(held[2:3], "keep", who="ana", why="I know it")
        with queue.fresh():
            assert [r.who for r in queue.history(held[2])] == ["ana"]
    finally:
        desk.close()
    release, _, _ = publish_rulings(machine("one"), "g")
    assert set(held[:3]) <= set(part_of(release, "clean").column("row_id").to_pylist())


def test_what_an_audit_kept_is_trusted_on_another_machine(machine: Machine, landing: Path) -> None:
    run_stages(job(landing, machine("one"), grow=False))
    desk = Desk(machine("two"))
    kept = []
    try:
        seat = desk.seat("g")
        for _ in range(3):
            due = seat.due
            assert due is not None
            kept.append(due.row_id)
            seen = seat.values_of(due)
            seat.queue.rule([due.row_id], "keep", who="ben", why="right", group="", drawn=seen)
    finally:
        desk.close()
    ran = run_stages(job(landing, machine("three"), grow=False))
    trusted = ran.work.plain.trusted_rows
    assert trusted is not None
    assert sorted(trusted.row_ids.to_pylist()) == sorted(kept)
    # What machine three has vouched for, machine one finds.
    done = job(landing, machine("one"), grow=False).published()
    assert done is not None
    assert done.version == ran.release.name


def test_a_ruling_that_the_bucket_did_not_get_was_none(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = machine("one")
    Rulings.of(store, "g").add(["a"], "keep", who="ana", why="I know it")
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "write", broken)
        with pytest.raises(StoreError):
            Rulings.of(store, "g").add(["b"], "keep", who="ana", why="I know it")
    assert [r.row_ids for r in Rulings.of(store, "g").read()] == [("a",)]


def test_what_has_arrived_is_known_to_all(machine: Machine) -> None:
    one, two = machine("one"), machine("two")
    arrival = Arrival("a" * 64, "x.csv", 5, 1.0)
    assert Ledger.of(one, "g").add(arrival)
    known = Ledger.of(two, "g")
    assert list(known) == [arrival]
    assert not known.add(replace(arrival, name="copy.csv"))
    Ledger.of(one, "g").put(replace(arrival, state=PUBLISHED, version="1.0.0"))
    known.refresh()
    assert [a.state for a in known] == [PUBLISHED]


def test_two_machines_that_see_an_arrival_at_once_take_it_once(machine: Machine) -> None:
    one, two = Ledger.of(machine("one"), "g"), Ledger.of(machine("two"), "g")
    arrival = Arrival("a" * 64, "x.csv", 5, 1.0)
    assert [one.add(arrival), two.add(arrival)] == [True, False]
    assert list(two) == [arrival]


# ---------------------------------------------------------------- a real protocol


@pytest.mark.usefixtures("flow_runs")
def test_commands_work_on_a_store_in_s3(
    bucket: Any,
    landing: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = ["--store", "s3://lake/kept"]
    run = ["run", str(landing), "--grow", "--name", "g", "--label", "y", "--use", "outliers"]
    monkeypatch.setenv(WORK_VARIABLE, str(tmp_path / "one"))
    assert command([*run, *where, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["version"] == "1.0.0"
    assert f"lake/kept/g/releases/1.0.0/{MANIFEST}" in bucket.find("lake/kept")
    monkeypatch.setenv(WORK_VARIABLE, str(tmp_path / "two"))
    assert command([*run, *where]) == 0
    assert "nothing to do" in capsys.readouterr().err
    rows(1).to_csv(landing / "b.csv", index=False)
    assert command([*run, *where]) == 0
    assert "s3://lake/kept/g/releases/1.1.0" in capsys.readouterr().err
    for argv, word in (
        (["status", *where], "1.1.0"),
        (["verify", "s3://lake/kept/g/releases/1.1.0"], "good"),
        (["compare", *(f"s3://lake/kept/g/releases/1.{n}.0" for n in (0, 1))], "1.1.0"),
        (["history", "g", *where], ".html"),
    ):
        assert command(argv) == 0
        assert word in capsys.readouterr().out
    (name,) = bucket.glob("lake/kept/g/releases/1.1.0/clean/part-00001*")
    bucket.pipe(name, b"x" + bucket.cat(name)[1:])
    assert command(["verify", "s3://lake/kept/g/releases/1.1.0"]) != 0
