"""Prefect's own server for a single run: it is started and stopped with that run."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from signal import SIG_BLOCK, SIGINT
from subprocess import Popen
from typing import Any

from prefect.server.api.server import SubprocessASGIServer

from pipelines.outlived import call_off, end_with_us


class _Server(SubprocessASGIServer):
    """The server that Prefect runs for a process, and that ends with it even by ``kill -9``."""

    watch: Popen[bytes] | None = None

    def _run_uvicorn_command(self) -> Popen[Any]:
        # It is started again where another process has taken its port.
        self._call_off()
        process = super()._run_uvicorn_command()
        self.watch = end_with_us(process.pid)
        return process

    def stop(self) -> None:
        """Stop the server, then the watch that would do so."""
        super().stop()
        self._call_off()

    def _call_off(self) -> None:
        watch, self.watch = self.watch, None
        if watch is not None:
            call_off(watch)


def start_server() -> None:
    """Start the server that Prefect runs for this process.

    Prefect would start it by itself, and Ctrl-C in a terminal would reach it too: it
    would die with a traceback before the run could tell it how it ended. A process
    inherits the blocked signals of the thread that starts it.
    """
    pool = ThreadPoolExecutor(1, "server", signal.pthread_sigmask, (SIG_BLOCK, {SIGINT}))
    try:
        pool.submit(copy_context().run, _Server().start).result()
    finally:
        pool.shutdown(wait=False)


def stop_server() -> None:
    """Stop the server that Prefect has started for this process, if it has."""
    for server in list(SubprocessASGIServer._instances.values()):
        server.stop()
