"""People are told of a run from its flow, and a message that fails changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from prefect.blocks.abstract import NotificationBlock

from pipelines import flows
from pipelines.cli import command
from pipelines.metrics import Metrics
from pipelines.store import Store


class Letters(NotificationBlock):
    """Keeps what it is told, or refuses it."""

    _block_type_slug = "letters"
    _block_type_name = "Letters"

    refuses: bool = False
    kept: ClassVar[list[tuple[str, str | None]]] = []

    def notify(self, body: str, subject: str | None = None) -> None:  # type: ignore[override]
        if self.refuses:
            raise ConnectionError("nobody is there")
        self.kept.append((body, subject))


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str], dict[str, Any]]]:
    found: list[tuple[str, dict[str, str], dict[str, Any]]] = []

    def keep(event: str, resource: dict[str, str], payload: dict[str, Any]) -> None:
        found.append((event, resource, payload))

    monkeypatch.setattr(flows, "emit_event", keep)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SANITIZE_STORE", raising=False)
    rng = np.random.default_rng(0)
    rows = [f"{rng.normal():.4f},{rng.normal():.4f}" for _ in range(300)]
    (tmp_path / "a.csv").write_text("\n".join(["a,b", *rows, "90,90"]) + "\n")
    return tmp_path


def write_plan(block: str, budget: float, when: str = '["held"]') -> None:
    Path("plan.toml").write_text(
        '[dataset]\nname = "a"\nsource = "a.csv"\nstore = "s"\n[sanitizers]\nuse = ["outliers"]\n'
        f'[policy]\nbudget = {budget}\n[notify]\nblock = "{block}"\nwhen = {when}\n'
    )


def test_a_held_run_is_told_once_and_a_calm_one_is_not(
    flow_runs: None,
    folder: Path,
    events: list[tuple[str, dict[str, str], dict[str, Any]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    Letters().save("inbox", overwrite=True)
    Letters.kept.clear()
    write_plan("letters/inbox", 0.001)
    assert command(["run", "plan.toml", "--quiet", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    ((text, subject),) = Letters.kept
    assert subject == "a: held, nothing was published"
    assert f"report: {said['report']}" in text
    ((event, resource, payload),) = events
    assert event == "dataset.held"
    assert resource == {"prefect.resource.id": "dataset.a"}
    assert payload["report"] == said["report"]
    (run,) = Store.open("s").runs("a")
    made = Metrics.load(run)
    assert (made.held, made.version, made.rows) == (True, None, said["rows"])
    assert {"ingest", "examine: outliers", "decide", "report"} <= set(made.seconds)
    assert sum(made.seconds.values()) >= made.whole_seconds * 0.01

    write_plan("letters/inbox", 0.2)
    assert command(["run", "plan.toml", "--quiet"]) == 0
    assert (len(Letters.kept), len(events)) == (1, 1)


@pytest.mark.parametrize(
    ("block", "said"), [("letters/deaf", "nobody is there"), ("letters/none", "none")]
)
def test_a_message_that_fails_is_told_and_fails_nothing(
    flow_runs: None,
    folder: Path,
    events: list[tuple[str, dict[str, str], dict[str, Any]]],
    capsys: pytest.CaptureFixture[str],
    block: str,
    said: str,
) -> None:
    Letters(refuses=True).save("deaf", overwrite=True)
    write_plan(block, 0.001)
    assert command(["run", "plan.toml", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["held"]
    assert "nobody was told of the run" in err
    assert said in err
    assert "Traceback" not in err
    assert [event for event, _, _ in events] == ["dataset.held"]
