"""One run of a dataset at a time, whatever becomes of the processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelines import at_work as module
from pipelines.at_work import BYTES, LEASE_SECONDS, Owner, kernel
from pipelines.cli import command
from pipelines.store import Store
from sanitizers.core.errors import StoreError

ROOT = Path(__file__).resolve().parent.parent
#: Is at work until its standard input ends.
HOLDER = """
import sys
from pathlib import Path
from pipelines.store import Store

with Store.open(sys.argv[1], create=False).at_work("a", tell=print) as waited:
    print("at work", waited, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", bytes(32))


def holder(store: Store) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store.root)],
        stdin=pipe,
        stdout=pipe,
        text=True,
        cwd=ROOT,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.kill()
        process.communicate()


def lock_file(store: Store) -> Path:
    return store.dataset("a") / ".at-work"


def silent(line: str) -> None:
    raise AssertionError(f"nothing was to be said, and this was: {line}")


def write_owner(store: Store, data: bytes) -> None:
    store.dataset("a").mkdir(parents=True, exist_ok=True)
    lock_file(store).write_bytes(data)


def other(seconds: float, **over: object) -> bytes:
    """An owner on another machine, whose lease runs out after so many seconds."""
    now = time.time()
    value = {"host": "far", "kernel": "another", "pid": 7, "since": now - 5.0}
    value |= {"expires": now + seconds, "command": "sanitize run", "token": "t"}
    return json.dumps(value | over).encode().ljust(BYTES)


# ------------------------------------------------------------- two processes


def test_the_second_process_says_who_is_at_work_and_goes_on_when_it_ends(store: Store) -> None:
    first = holder(store)
    second: subprocess.Popen[str] | None = None
    try:
        assert said(first) == "at work False"
        second = holder(store)
        waiting = said(second)
        assert waiting.startswith("waiting: another run of 'a' is at work since ")
        assert f"(process {first.pid} on " in waiting
        worker = store.worker("a")
        assert worker is not None
        assert worker.pid == first.pid
        first.communicate()
        assert said(second) == "at work True"
        second.communicate()
        assert store.worker("a") is None
    finally:
        end(first, *([] if second is None else [second]))


def test_a_process_that_was_killed_is_at_work_no_more(store: Store) -> None:
    first = holder(store)
    second: subprocess.Popen[str] | None = None
    try:
        said(first)
        second = holder(store)
        said(second)
        os.kill(first.pid, signal.SIGKILL)
        began = time.monotonic()
        assert said(second) == "at work True"
        # At once, and not when the lease runs out.
        assert time.monotonic() - began < LEASE_SECONDS / 3
    finally:
        end(first, *([] if second is None else [second]))
    assert store.worker("a") is None


def test_without_waiting_the_owner_is_named(store: Store) -> None:
    first = holder(store)
    try:
        said(first)
        began = time.monotonic()
        with (
            pytest.raises(StoreError, match=rf"'a' is at work since .*process {first.pid} on"),
            store.at_work("a", tell=silent, wait=0),
        ):
            pass
        assert time.monotonic() - began < 20
        with store.at_work("b", tell=silent, wait=0) as waited:
            assert not waited
    finally:
        end(first)


def test_a_command_that_does_not_wait_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("x,y\n1,2\n3,4\n")
    store = Store.open(tmp_path / "s", bytes(32))
    with store.at_work("a", tell=silent):
        assert command(["run", "a.csv", "--store", "s", "--wait", "0"]) == 3
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "another run of 'a' is at work since" in err
        assert f"process {os.getpid()} on" in err
        # Reading never waits.
        assert command(["explain", "a", "r", "--store", "s"]) != 0
    assert command(["run", "a.csv", "--wait", "-1"]) == 2
    assert "'-1' is not a number of seconds" in capsys.readouterr().err


def test_threads_of_one_process_take_turns(store: Store) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        with store.at_work("a", tell=lambda line: None):
            inside += 1
            most = max(most, inside)
            time.sleep(0.01)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside, most) == (0, 1)


def test_publishing_has_a_lock_of_its_own(store: Store) -> None:
    with store.at_work("a", tell=silent), store.lock("a", 0.0):
        pass
    with store.lock("a", 0.0), store.at_work("b", tell=silent):
        pass


def test_looking_at_who_works_stops_nobody(store: Store) -> None:
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            store.worker("a")
            time.sleep(0.002)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(20):
            with store.at_work("a", tell=silent, wait=0) as waited:
                assert not waited
    finally:
        done.set()
        watcher.join()


# ------------------------------------------------------------- other machines


def test_the_lease_of_another_machine_holds_until_it_expires(store: Store) -> None:
    began = time.monotonic()
    write_owner(store, other(1.5))
    lines: list[str] = []
    with store.at_work("a", tell=lines.append, wait=60) as waited:
        assert waited
        assert 1.4 < time.monotonic() - began < LEASE_SECONDS
        worker = store.worker("a")
        assert worker is not None
        assert (worker.pid, worker.kernel) == (os.getpid(), kernel())
    assert len(lines) == 1
    assert "(process 7 on far)" in lines[0]


def test_a_lease_that_holds_is_not_taken(store: Store) -> None:
    write_owner(store, other(LEASE_SECONDS))
    worker = store.worker("a")
    assert worker is not None
    assert worker.host == "far"
    with (
        pytest.raises(StoreError, match="process 7 on far"),
        store.at_work("a", tell=silent, wait=0),
    ):
        pass
    assert lock_file(store).read_bytes().startswith(b'{"host": "far"')


def test_a_lease_of_a_process_of_this_machine_is_what_the_kernel_says(store: Store) -> None:
    write_owner(store, other(LEASE_SECONDS, kernel=kernel(), host="here"))
    assert store.worker("a") is None
    with store.at_work("a", tell=silent, wait=0):
        pass


def test_the_lease_is_renewed_and_given_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.02)
    with store.at_work("a", tell=silent):
        first = later = store.worker("a")
        assert first is not None
        until = time.monotonic() + 20
        while later == first and time.monotonic() < until:
            time.sleep(0.02)
            later = store.worker("a")
        assert later is not None
        assert later.expires > first.expires
        assert (later.token, later.since) == (first.token, first.since)
        # Another machine has taken it over: it is left to it.
        lock_file(store).write_bytes(other(LEASE_SECONDS))
        time.sleep(0.2)
    assert b'"far"' in lock_file(store).read_bytes()


# ------------------------------------------------------------- hostile owners

HOSTILE = [
    b"",
    b"\0" * 5000,
    b"{",
    b"[]",
    b"null",
    b"[" * 100_000,
    other(60, pid="7"),
    other(60, pid=-1),
    other(60, host=["far"]),
    other(60, host="x" * 129),
    other(60, since=1e300),
    other(60).replace(b'"since": ', b'"since": -'),
    other(1e9),
    b'{"host": NaN}',
    other(60).replace(b'"expires": ', b'"expires": NaN, "x": '),
    json.dumps({"host": "far"}).encode(),
]


@pytest.mark.parametrize("data", HOSTILE)
def test_an_owner_that_is_none_holds_nothing_and_crashes_nobody(store: Store, data: bytes) -> None:
    write_owner(store, data)
    assert store.worker("a") is None
    with store.at_work("a", tell=silent, wait=0):
        write_owner(store, data)
        worker = store.worker("a")
        assert worker is not None
        lines: list[str] = []
        with (
            pytest.raises(StoreError, match=r"another run of 'a' is at work"),
            store.at_work("a", tell=lines.append, wait=0.5),
        ):
            pass
        assert len(lines) == 1


def test_an_owner_is_read_as_it_was_written() -> None:
    owner = Owner.make("é" * 500)
    assert Owner.load(json.dumps(owner.__dict__).encode().ljust(BYTES)) == owner


def test_a_lock_that_is_a_link_is_refused(store: Store, tmp_path: Path) -> None:
    store.dataset("a").mkdir()
    lock_file(store).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError), store.at_work("a", tell=silent):
        pass
    assert not (tmp_path / "elsewhere").exists()
    assert store.worker("a") is None
