"""Fixtures that more than one file of tests needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import prefect_settings


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """Prefect's own server on a database that is thrown away; takes some seconds, once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        patch.setenv("DO_NOT_TRACK", "1")
        from prefect.testing.utilities import prefect_test_harness

        with prefect_test_harness(server_startup_timeout=120):
            yield


@pytest.fixture
def flow_runs(prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands run flows in this process, on the server of the tests."""

    def keep(store: Path) -> None:
        return None

    monkeypatch.setattr(prefect_settings, "prepare", keep)
