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

#: The server, on a port that it is handed; connections that may wait there for it.
_RUN = """
import socket, sys, uvicorn
app = "prefect.server.api.server:create_app"
config = uvicorn.Config(app, factory=True, lifespan="on", log_level="warning")
uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""
_BACKLOG = 2048


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
    def start(cls, listener: socket.socket, *, single: bool = False) -> PrefectServer:
        """Start the server, without waiting until it answers.

        Parameters
        ----------
        listener : socket
            Of `listen`; it is the server's from now on. Where it serves, the environment is to
            name its port too; see `prefect_settings`.
        single : bool
            For one run only, without a page.
        """
        log = Path(os.environ["PREFECT_HOME"]) / "server.log"
        with writing(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            file = log.open("wb")
        port = listener.getsockname()[1]
        with file, listener:
            process = subprocess.Popen(
                [sys.executable, "-c", _RUN, str(listener.fileno())],
                pass_fds=[listener.fileno()],
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
    server = PrefectServer.start(_any(), single=True)
    try:
        yield server
    finally:
        server.stop()


def listen(port: int | None) -> socket.socket:
    """Take a port for a server of our own: the one that is asked for, 4200, or any.

    It is held from here on, so that no other process can answer there in the server's name.

    Raises
    ------
    PlanError
        If the one that is asked for is taken.
    """
    if port:
        return _given(port)
    return _listener(PORT) or _any()


def _any() -> socket.socket:
    made = _listener(0)
    if made is None:
        raise StoreError("no port is free on this machine")
    return made


def _given(port: int) -> socket.socket:
    """Wait until a server that was killed has let go of the port."""
    until = time.monotonic() + PORT_SECONDS
    while (made := _listener(port)) is None:
        if time.monotonic() >= until:
            raise PlanError(f"port {port} is taken", do="name another one with --port")
        time.sleep(0.1)
    return made


def _listener(port: int) -> socket.socket | None:
    """Listen on a port; None where it is taken."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((HOST, port))
        # Two may be bound to one port, and only one may listen.
        made.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        made.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            return None
        raise PlanError(f"port {port}: {error}", do="name another one with --port") from None
    return made
