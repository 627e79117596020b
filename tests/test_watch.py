"""The watch: what is due is asked for, soon, once, and again where nothing came of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pipelines.inbox import Inbox
from pipelines.ledger import PUBLISHED, Ledger
from pipelines.plan_parts import ArrivalsPart
from pipelines.watch import EARLY, PATIENCE, Bell, Watch, root_of

A, B = frozenset("a"), frozenset("ab")


def idle() -> bool:
    return False


def busy() -> bool:
    return True


def test_the_bell_rings_once_for_what_is_due_and_again_after_a_while() -> None:
    bell = Bell()
    assert not bell.rings(frozenset(), idle, 0.0)
    assert bell.rings(A, idle, 1.0)
    assert not bell.rings(A, idle, 2.0)
    assert not bell.rings(A, idle, 1.0 + PATIENCE - 0.1)
    assert bell.rings(A, idle, 1.0 + PATIENCE)
    # More has come.
    assert bell.rings(B, idle, 2.0 + PATIENCE)


def test_the_bell_is_silent_while_a_run_is_at_work() -> None:
    bell = Bell()
    assert not bell.rings(A, busy, 0.0)
    assert bell.rings(A, idle, 1.0)
    # That run ended, and left something that came too late for it.
    assert not bell.rings(B, busy, 2.0)
    assert bell.rings(B, idle, 3.0)


def test_the_bell_rings_once_before_a_file_is_whole() -> None:
    bell, soon = Bell(), frozenset({"a.csv"})
    none: frozenset[str] = frozenset()
    assert not bell.rings(none, busy, 0.0, soon)
    assert bell.rings(none, idle, 1.0, soon)
    # It goes on growing, and stops again.
    assert not bell.rings(none, idle, 2.0)
    assert not bell.rings(none, idle, 3.0, soon)
    # It is whole now: the run that was asked for is on its way to it; or was too soon.
    assert not bell.rings(A, idle, 3.0)
    assert bell.rings(A, idle, 1.0 + EARLY)
    assert not bell.rings(A, idle, 2.0 + EARLY)


@dataclass
class Desk:
    """Notes what it is asked for; processes nothing."""

    asked: list[tuple[float, int]] = field(default_factory=list)

    def is_busy(self) -> bool:
        return False

    def announce(self, contents: int) -> None:
        self.asked.append((time.monotonic(), contents))


@dataclass
class Scene:
    source: Path
    ledger: Ledger
    desk: Desk
    told: list[str]
    watch: Watch

    def until(self, asked: int, seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while len(self.desk.asked) < asked and time.monotonic() < end:
            time.sleep(0.02)
        assert len(self.desk.asked) == asked, self.told


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    source, ledger, desk = tmp_path / "inbox", Ledger(tmp_path / "ledger"), Desk()
    source.mkdir()
    told: list[str] = []
    inbox = Inbox(str(source), ledger, ArrivalsPart(settle=0.3, poll=3600.0))
    made = Scene(source, ledger, desk, told, Watch(inbox, desk, told.append))
    yield made
    made.watch.stop()


def test_a_file_is_noticed_without_waiting_for_the_next_listing(scene: Scene) -> None:
    (scene.source / "before.csv").write_text("x\n0\n")
    scene.watch.start()
    scene.until(1)
    time.sleep(2.0)
    began = time.monotonic()
    (scene.source / "a.csv").write_text("x\n1\n")
    scene.until(2)
    assert scene.desk.asked[1][0] - began < 3.0
    # The first was asked for while it settled, the second while the first was due.
    assert [count for _, count in scene.desk.asked] == [0, 1]
    assert scene.told[0] == "1 file arrived"


def test_what_is_processed_is_not_asked_for(scene: Scene) -> None:
    (scene.source / "a.csv").write_text("x\n1\n")
    scene.watch.inbox.asked = ArrivalsPart(settle=0.0)
    scene.watch.inbox.look()
    time.sleep(0.4)
    scene.watch.inbox.look()
    (entry,) = scene.ledger
    scene.ledger.put(replace(entry, state=PUBLISHED, version="1.0.0"))
    scene.watch.start()
    time.sleep(1.5)
    assert scene.desk.asked == []


def test_trouble_is_told_once_and_passes(scene: Scene) -> None:
    scene.ledger.folder.mkdir()
    damaged = scene.ledger.folder / "seen.json"
    damaged.write_text("{")
    (scene.source / "a.csv").write_text("x\n1\n")
    scene.watch.inbox.asked = ArrivalsPart(settle=0.0, poll=0.1)
    scene.watch.start()
    time.sleep(2.5)
    assert len(scene.told) == 1
    assert "seen.json" in scene.told[0]
    damaged.unlink()
    scene.until(1)


@pytest.mark.parametrize(
    ("source", "root"),
    [
        ("in/*.csv", "in"),
        ("in/**/x.csv", "in"),
        ("in/a.csv", "in"),
        ("*.csv", "."),
        ("s3://bucket/in", None),
    ],
)
def test_the_folder_that_is_watched(source: str, root: str | None) -> None:
    assert root_of(source) == (None if root is None else Path(root))
