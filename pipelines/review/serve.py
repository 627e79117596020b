"""Serving the review: where it listens, who may come in, and the address that is printed."""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import os
import socket
import sys
import tempfile
import webbrowser
from dataclasses import dataclass
from html import escape
from pathlib import Path

from pipelines.progress import show
from pipelines.review.app import guarded
from pipelines.review.desk import Desk
from pipelines.review.guard import Guard
from pipelines.review.users import Users, add_user
from pipelines.terminal import StderrConsole, plain
from sanitizers.core.errors import PlanError, StoreError

#: The port that is tried first.
PORT = 4250
#: Connections that may wait until the server is up.
_BACKLOG = 128

_AWAY = """<!doctype html>
<meta charset="utf-8"><meta http-equiv="refresh" content="0;url={0}">
<title>Review</title><p><a href="{0}">Review</a>
"""


@dataclass(frozen=True)
class Listening:
    """Where the review listens.

    Parameters
    ----------
    host : str
    port : int or None
        None takes `PORT`, or another one where that is taken.
    names : tuple of str
        Names of this host by which browsers may call it.
    certificate, key : Path or None
        Files for HTTPS.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    names: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None

    @property
    def is_shared(self) -> bool:
        """Whether others than people at this machine can reach it."""
        if self.host == "localhost":
            return False
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return True

    def check(self, users: Path | None) -> None:
        """Refuse what would let strangers in.

        Raises
        ------
        PlanError
            If it listens to other machines without users, or has half of what HTTPS needs.
        """
        if self.is_shared and users is None:
            raise PlanError(
                f"--host {self.host} lets other machines in, and there are no users",
                do="name a file of users with --users FILE, or leave out --host",
            )
        if (self.certificate is None) != (self.key is None):
            raise PlanError("HTTPS needs both --certificate and --key")
        for path in (self.certificate, self.key):
            if path is not None and not path.is_file():
                raise PlanError(f"no file {path}")


def review(
    desk: Desk,
    where: Listening,
    users: Path | None,
    *,
    console: StderrConsole,
    browse: bool = True,
) -> None:
    """Serve the review until the process is asked to end.

    Parameters
    ----------
    desk : Desk
        The datasets to look at; closed in the end.
    where : Listening
    users : Path or None
        The file of users; None where one person is at this machine.
    console : StderrConsole
    browse : bool
        Open the browser too.

    Raises
    ------
    PlanError
        If there is no such dataset, or strangers could come in.
    StoreError
        If the port is taken.
    """
    import uvicorn

    where.check(users)
    known = Users.read(users) if users is not None else None
    with contextlib.ExitStack() as stack:
        bound = stack.enter_context(listen(where))
        port = bound.getsockname()[1]
        secure = where.certificate is not None
        names = frozenset({*where.names, *([] if _is_address(where.host) else [where.host])})
        guard = Guard(port, known, names, secure, _person())
        stack.enter_context(contextlib.closing(desk))
        if desk.only is not None:
            with show(console) as progress:
                desk.seat(desk.only, progress)
        address = _address(where, port, secure)
        url = f"{address}/sign-in" if known else f"{address}/enter?token={guard.token}"
        console.print(plain(f"review: {url}"), soft_wrap=True)
        if where.is_shared and not secure:
            line = (
                "passwords cross the network in the clear: use --certificate and --key, or a proxy"
            )
            console.print(line, soft_wrap=True)
        if browse and not where.is_shared:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sanitize-review-"))
            browse_to(url, Path(folder))
        config = uvicorn.Config(
            guarded(desk, guard),
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=30,
            ssl_certfile=where.certificate,
            ssl_keyfile=where.key,
        )
        uvicorn.Server(config).run(sockets=[bound])


def browse_to(url: str, folder: Path) -> None:
    """Open an address in the browser, by way of a file that only its owner may read.

    The words of a command can be read by everybody on a machine, and the address is a secret.

    Parameters
    ----------
    url : str
    folder : Path
        That of the file; nobody else may look into it.
    """
    page = folder / "review.html"
    page.write_text(_AWAY.format(escape(url)), encoding="utf-8")
    with contextlib.suppress(webbrowser.Error, OSError):
        webbrowser.open(page.as_uri())


def ask_user(path: Path, name: str, role: str) -> None:
    """Add a user to a file; the password is asked for, or the first line of standard input.

    Raises
    ------
    PlanError
        As `add_user` does.
    """
    if sys.stdin.isatty():
        password = getpass.getpass(f"Password of {name}: ")
        if getpass.getpass("The same again: ") != password:
            raise PlanError("the two passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    add_user(path, name, role, password)


def listen(where: Listening) -> socket.socket:
    """Take the port; who comes from now on waits until the server is up.

    Raises
    ------
    StoreError
        If it is taken.
    """
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    for port in [where.port] if where.port is not None else [PORT, 0]:
        bound = socket.socket(family)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((where.host, port))
            # Two may be bound to one port, and only one may listen.
            bound.listen(_BACKLOG)
            return bound
        except OSError as error:
            bound.close()
            why = error.strerror
    raise StoreError(f"{where.host} port {where.port or PORT}: {why}", do="choose another --port")


def _address(where: Listening, port: int, secure: bool) -> str:
    host = where.names[0] if where.names else where.host
    host = f"[{host}]" if ":" in host else host
    return f"{'https' if secure else 'http'}://{host}:{port}"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _person() -> str:
    """Under which name the person at this machine rules."""
    try:
        return os.environ.get("SANITIZE_USER") or getpass.getuser()
    except (KeyError, OSError):
        return "you"
