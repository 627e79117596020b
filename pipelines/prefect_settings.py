"""What Prefect is told before it is imported; it reads its settings at import."""

from __future__ import annotations

import os
import shutil
from collections.abc import MutableMapping
from pathlib import Path

from sanitizers.core.errors import StoreError

#: Where a server of our own listens: on this machine only.
HOST = "127.0.0.1"
#: What the database of Prefect's own server may grow to in a run, generously.
DATABASE_BYTES = 16 * 2**20

#: Said unless the user has said otherwise.
_DEFAULTS = {
    # On a machine without a network these two only cost tracebacks in the log.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # The default serializer is pickle: whoever can write the results could run code.
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
}

#: Said besides by what serves.
_SERVING = {
    # By default a run waits up to 10 s until it is started.
    "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    # Events go after a week by default; runs would stay for ever, now they go after 90 days.
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    # A busy SQLite answers "try again" for a while.
    "PREFECT_CLIENT_MAX_RETRIES": "15",
}


def prepare(store: Path, *, environment: MutableMapping[str, str] = os.environ) -> bool:
    """Set what Prefect needs for a quiet run whose state lies in the store.

    What the user has set stays. With ``PREFECT_API_URL`` the run appears on that
    server, without it on one that is started and stopped for the run.

    Parameters
    ----------
    store : Path
        The root of the store.
    environment : mapping

    Returns
    -------
    bool
        True where nothing can name a server, so that one is to be started; a profile of
        Prefect may name one, which is known once Prefect is imported.

    Raises
    ------
    StoreError
        If the disk of the store is full.
    """
    for name, value in _DEFAULTS.items():
        environment.setdefault(name, value)
    profiles = Path("~/.prefect/profiles.toml").expanduser()
    if "PREFECT_HOME" not in environment:
        environment["PREFECT_HOME"] = str(store / ".prefect")
        _require_space(store)
        # A profile with the address of a server keeps its effect.
        if profiles.is_file():
            environment.setdefault("PREFECT_PROFILES_PATH", str(profiles))
    if "PREFECT_API_URL" not in environment and not profiles.is_file():
        # Nobody reads the logs of a server that ends with the run, and a Ctrl-C that
        # ends it first would fill the terminal with failed deliveries.
        environment.setdefault("PREFECT_LOGGING_TO_API_ENABLED", "false")
        return "PREFECT_PROFILES_PATH" not in environment and not _has_profiles(environment)
    return False


def _has_profiles(environment: MutableMapping[str, str]) -> bool:
    return (Path(environment["PREFECT_HOME"]).expanduser() / "profiles.toml").is_file()


def prepare_to_serve(
    store: Path,
    port: int | None,
    *,
    verbose: bool,
    environment: MutableMapping[str, str] = os.environ,
) -> None:
    """Set what Prefect needs to start runs, and to show them on a server.

    Parameters
    ----------
    store : Path
        The root of the store.
    port : int or None
        Of a server of our own on this machine; None where the user has named one.
    verbose : bool
        Show what Prefect logs on the terminal too, not only on the server.
    environment : mapping

    Raises
    ------
    StoreError
        If the disk of the store is full.
    """
    if port is not None:
        environment["PREFECT_API_URL"] = f"http://{HOST}:{port}/api"
        environment["PREFECT_SERVER_API_HOST"] = HOST
        environment["PREFECT_SERVER_API_PORT"] = str(port)
    for name, value in _SERVING.items():
        environment.setdefault(name, value)
    if not verbose:
        environment.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    prepare(store, environment=environment)
    # The default lies in the installed package, which need not be ours to write.
    page = str(Path(environment["PREFECT_HOME"]) / "page")
    environment.setdefault("PREFECT_UI_STATIC_DIRECTORY", page)


def _require_space(folder: Path) -> None:
    # On a full disk Prefect's server starts, fails and starts again for minutes.
    free = shutil.disk_usage(folder).free
    if free < DATABASE_BYTES:
        raise StoreError(
            f"no space left on the disk of {folder}: {free / 2**20:.1f} MiB are free",
            expected=f"at least {DATABASE_BYTES // 2**20} MiB",
            do="free some, and run the same command again",
        )
