"""``rule`` and ``publish`` as words of the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.cli import command
from pipelines.rulings import Rulings
from pipelines.verify import verify
from tests.staged import part_of, run_stages
from tests.test_ruled import job, landing

__all__ = ["landing"]


def test_rule_and_publish(landing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = run_stages(job(landing))
    store = str(ran.work.job.store.root)
    row, other = part_of(ran.release, "quarantine").column("row_id").to_pylist()[:2]
    words = ["rule", "g", row, other, "keep", "--why", "checked", "--who", "ana", "--store", store]
    assert command(words) == 0
    assert "ruling 1 by ana: keep: 2 rows" in capsys.readouterr().out
    assert set(Rulings.of(ran.work.job.store, "g").standing()) == {row, other}
    assert command(["explain", "g", row, "--store", store]) == 0
    assert "ruling    ana ruled keep on " in capsys.readouterr().out
    assert command(["publish", "g", "--store", store, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["version"], said["already"]) == ("1.1.0", False)
    assert verify(Path(said["release"])).ok
    assert command(["publish", "g", "--store", store]) == 0
    assert "nothing to do: release 1.1.0 obeys all rulings" in capsys.readouterr().err


def test_what_cannot_be_ruled_is_said(landing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = run_stages(job(landing))
    store = str(ran.work.job.store.root)
    row = str(part_of(ran.release, "clean").column("row_id")[0])
    for words, told in (
        (["g", row[:8], "keep"], f"did you mean '{row}'"),
        (["g", row, "kept"], "invalid choice"),
        (["h", row, "keep"], "no dataset 'h'"),
    ):
        assert command(["rule", *words, "--why", "x", "--store", store]) == 2
        assert told in capsys.readouterr().err
    assert not Rulings.of(ran.work.job.store, "g").path.exists()
