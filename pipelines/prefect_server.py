"""Prefect's own server beside a process that runs flows: it ends when that process ends."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.disk import writing
from pipelines.outlived import call_off, end_with_us
from pipelines.prefect_settings import HOST
from sanitizers.core.errors import PlanError, StoreError

#: The port of its page, where it is free.
PORT = 4200
#: Seconds that it may take to start, and that a port may take to become free.
START_SECONDS, PORT_SECONDS = 120.0, 5.0
#: Seconds that it has to end by itself.
END_SECONDS = 2.0
#: Said to a server of a single run, as Prefect says it to those that it starts by itself: it
#: shows no page, and plans nothing for later.
_SINGLE = {
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_UI_ENABLED": "false",
}


@dataclass(frozen=True)
class PrefectServer:
    """A server that this process has started.

    Parameters
    ----------
    port : int
    log : Path
        What it has to say.
    process, watch : subprocess.Popen
        The server, and what ends it when this process is killed.
    """

    port: int
    log: Path
    process: subprocess.Popen[bytes]
    watch: subprocess.Popen[bytes]

    @classmethod
    def start(cls, port: int, *, single: bool = False) -> PrefectServer:
        """Start the server, without waiting until it answers.

        Parameters
        ----------
        port : int
            Where it serves, the environment is to name it too; see `prefect_settings`.
        single : bool
            For one run only, without a page.
        """
        log = Path(os.environ["PREFECT_HOME"]) / "server.log"
        with writing(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            file = log.open("wb")
        with file:
            process = subprocess.Popen(
                _command(port),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=os.environ | (_SINGLE if single else {}),
                # Ctrl-C is for us; we end it when nothing needs it any more.
                start_new_session=True,
            )
        return cls(port, log, process, end_with_us(process.pid))

    @property
    def page(self) -> str:
        """The address of its page."""
        return f"http://{HOST}:{self.port}"

    @property
    def api(self) -> str:
        """The address of its interface."""
        return f"{self.page}/api"

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def wait(self) -> None:
        """Wait until it answers.

        Raises
        ------
        StoreError
            If it ends, or does not answer in time.
        """
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.is_alive:
            try:
                with urllib.request.urlopen(f"{self.api}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise StoreError("Prefect's server did not start", do=f"see {self.log}")

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        call_off(self.watch)


@contextmanager
def single_server() -> Iterator[PrefectServer]:
    """A server for one run, which starts at once and stops with the context.

    It takes seconds to start, and so does the import of Prefect; at once they take as long
    as one of them.
    """
    server = PrefectServer.start(_any_port(), single=True)
    try:
        yield server
    finally:
        server.stop()


def _command(port: int) -> list[str]:
    app = ("--factory", "prefect.server.api.server:create_app", "--lifespan", "on")
    address = ("--host", HOST, "--port", str(port))
    return [sys.executable, "-m", "uvicorn", *app, *address, "--log-level", "warning"]


def choose_port(port: int | None) -> int:
    """The port for a server of our own: the one that is asked for, 4200, or any that is free.

    Raises
    ------
    PlanError
        If the one that is asked for is taken.
    """
    if port:
        return _given(port)
    if _is_free(PORT):
        return PORT
    return _any_port()


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _given(port: int) -> int:
    """Wait until a server that was killed has let go of the port."""
    until = time.monotonic() + PORT_SECONDS
    while not _is_free(port):
        if time.monotonic() >= until:
            raise PlanError(f"port {port} is taken", do="name another one with --port")
        time.sleep(0.1)
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise PlanError(f"port {port}: {error.strerror}", do="name another one") from None
    return True
