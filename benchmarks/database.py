"""A PostgreSQL of its own for a benchmark, on this machine, thrown away afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Where Debian puts the programs of each version.
_DEBIAN = Path("/usr/lib/postgresql")
#: Seconds that it may take to start.
START = 60.0


def programs() -> Path | None:
    """The folder of the newest PostgreSQL that is installed; None where none is."""
    found = sorted(_DEBIAN.glob("*/bin/postgres"), key=lambda p: float(p.parts[-3]))
    if found:
        return found[-1].parent
    named = shutil.which("postgres")
    return Path(named).resolve().parent if named else None


@contextmanager
def postgres() -> Iterator[str]:
    """Start a server with an empty database.

    Yields
    ------
    str
        The address of the database, as Prefect's server takes it.

    Raises
    ------
    FileNotFoundError
        If PostgreSQL is not installed.
    """
    folder = programs()
    if folder is None:
        raise FileNotFoundError("no PostgreSQL: install Debian's package 'postgresql'")
    with tempfile.TemporaryDirectory() as place:
        who = _user(Path(place))
        data = Path(place) / "data"
        subprocess.run(
            [folder / "initdb", "-D", data, "-U", "prefect", "-A", "trust", "-E", "UTF8"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=place,
            user=who,
        )
        port = _free_port()
        listen = ["-c", "listen_addresses=127.0.0.1", "-k", place, "-p", str(port)]
        server = subprocess.Popen(
            [folder / "postgres", "-D", data, *listen],
            stderr=subprocess.DEVNULL,
            cwd=place,
            user=who,
        )
        try:
            _wait(folder, port)
            yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()
            server.wait(START)


def _user(place: Path) -> int:
    """Who runs it: root may not, so that its own user does."""
    if os.geteuid() != 0:
        return os.geteuid()
    found = pwd.getpwnam("postgres")
    os.chown(place, found.pw_uid, found.pw_gid)
    return found.pw_uid


def _wait(folder: Path, port: int) -> None:
    until = time.monotonic() + START
    ask = [str(folder / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(ask, check=False).returncode:
        if time.monotonic() > until:
            raise TimeoutError("PostgreSQL does not start")
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
