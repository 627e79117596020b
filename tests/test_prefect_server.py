"""The port of a Prefect server of our own: it is held before the server starts."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from pipelines import prefect_server
from pipelines.prefect_server import listen
from pipelines.prefect_settings import HOST
from sanitizers.core.errors import PlanError


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(prefect_server, "PORT_SECONDS", 0.2)
    with closing(listen(None)) as one:
        yield int(one.getsockname()[1])


def test_two_processes_never_have_one_port(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_server, "PORT", taken)
    with closing(listen(None)) as other:
        assert other.getsockname()[1] != taken
    with pytest.raises(PlanError, match=f"port {taken} is taken"):
        listen(taken)


def test_who_asks_too_early_waits_for_the_answer(taken: int) -> None:
    with closing(socket.create_connection((HOST, taken), timeout=5.0)) as asking:
        assert asking.getpeername() == (HOST, taken)


def test_a_port_that_is_none_is_told() -> None:
    with pytest.raises(PlanError, match="port 70000"):
        listen(70_000)
