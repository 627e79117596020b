from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

#: A process that is busy in a thread, in code that does not listen to signals.
BUSY = """
import signal, sys, threading, time
from pipelines import cli, commands, interrupts

# A job in the background of a shell inherits that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

interrupts.GRACE = 0.5

def busy(said):
    thread = threading.Thread(target=time.sleep, args=({seconds},))
    thread.start()
    print("busy", flush=True)
    try:
        thread.join()
    finally:
        print("closed", flush=True)
    return 0

commands.run = busy
sys.argv = ["sanitize", "run", "a.csv"]
sys.exit(cli.main())
"""


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a process has said; one that does not end is killed, its pipes are closed."""
    try:
        return process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise


def start(seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY.format(seconds=seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "busy\n"
    time.sleep(0.2)
    return process


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")],
)
def test_a_signal_ends_a_busy_process_soon_in_one_line(
    number: signal.Signals, status: int, word: str
) -> None:
    process = start(60)
    process.send_signal(number)
    began = time.monotonic()
    out, err = ended(process)
    assert process.returncode == status
    assert time.monotonic() - began < 10
    assert err.count("\n") == 1
    assert f"stopped by {word}" in err
    assert "closed" in out


def test_a_run_without_signals_ends_as_it_would() -> None:
    process = start(0.1)
    out, err = ended(process)
    assert (process.returncode, out, err) == (0, "closed\n", "")
