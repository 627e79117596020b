"""A process that is watched never outlives the one that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.outlived import call_off, end_with_us

ROOT = Path(__file__).resolve().parent.parent
#: Starts a process that sleeps, has it watched, and says the numbers of both.
PARENT = """
import subprocess, sys, time
from pipelines.outlived import end_with_us

child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
watch = end_with_us(child.pid)
print(child.pid, watch.pid, flush=True)
time.sleep(100)
"""


def lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    # Nobody may be there to bury it.
    return state != "Z"


def wait_for_the_end(*processes: int) -> list[int]:
    until = time.monotonic() + 10
    while (left := [p for p in processes if lives(p)]) and time.monotonic() < until:
        time.sleep(0.05)
    return left


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("whole_group", [False, True])
def test_it_ends_with_its_parent_even_by_kill_9(whole_group: bool) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    child, watch = map(int, parent.stdout.readline().split())
    try:
        time.sleep(0.2)
        assert lives(child)
        assert lives(watch)
        (os.killpg if whole_group else os.kill)(parent.pid, signal.SIGKILL)
        parent.communicate()
        assert wait_for_the_end(child, watch) == []
    finally:
        for process in (child, watch):
            if lives(process):
                os.kill(process, signal.SIGKILL)


def test_the_watch_of_a_process_that_has_ended_ends_and_harms_nobody() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    watch = end_with_us(child.pid)
    child.communicate()
    call_off(watch)
    assert watch.returncode is not None
    assert other.poll() is None
    other.communicate()
