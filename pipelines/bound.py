"""A run that ends with the server that started it, also where that one is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

from sanitizers.core.errors import StoreError

#: The environment variable in which a server tells the runs that it starts who it is.
SERVED_BY = "SANITIZE_SERVED_BY"

_PR_SET_PDEATHSIG = 1


def end_with_server() -> None:
    """Let this process be killed when the server that started it dies; else do nothing.

    Linux does that at once. Elsewhere a thread looks every second. A run may be killed at
    any point, so there is no need for a kinder signal.

    Raises
    ------
    StoreError
        If that server is gone already: another one may be at work by now.
    """
    said = os.environ.get(SERVED_BY, "")
    if not said.isdigit():
        return
    server = int(said)
    if threading.current_thread() is threading.main_thread():
        # In a terminal Ctrl-C reaches all; it is for the server, which then ends this too.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    else:
        threading.Thread(target=_follow, args=(server,), name="server", daemon=True).start()
    # It may have died before the kernel was asked.
    if os.getppid() != server:
        raise StoreError(f"the server that started this run, process {server}, is gone")


def _follow(server: int) -> None:
    while os.getppid() == server:
        time.sleep(1.0)
    os._exit(1)
