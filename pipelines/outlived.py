"""A process that must not outlive the one that started it, however that one ends."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress

#: Waits until nobody can write to its standard input any more, which is so when the process
#: that started it has ended, and then ends the process that it was told of. It holds that
#: process itself where the system can, and not only its number, which may be given again.
_WATCH = """
import os, signal, sys
number = int(sys.argv[1])
held = os.pidfd_open(number) if hasattr(os, "pidfd_open") else None
sys.stdin.buffer.read()
try:
    if held is None:
        os.kill(number, signal.SIGKILL)
    else:
        signal.pidfd_send_signal(held, signal.SIGKILL)
except ProcessLookupError:
    pass
"""
#: Seconds that the watch may take to end.
_SECONDS = 5.0


def end_with_us(process: int) -> subprocess.Popen[bytes]:
    """Have a process ended when this one has ended, be it by ``kill -9``.

    The watch is a small process in a session of its own, so that what ends our group
    does not end it before its work is done.

    Parameters
    ----------
    process : int
        The number of a process that this one has started.

    Returns
    -------
    subprocess.Popen
        The watch, for `call_off` once the process has ended by itself.
    """
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCH, str(process)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


def call_off(watch: subprocess.Popen[bytes]) -> None:
    """End a watch; what it watches is to have ended already.

    Parameters
    ----------
    watch : subprocess.Popen
    """
    if watch.stdin is not None:
        watch.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        watch.wait(_SECONDS)
