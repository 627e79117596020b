"""Working through arrivals: every content once, whatever is interrupted, and when."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipelines import drain as drains
from pipelines.drain import Drain
from pipelines.ledger import ARRIVED, FAILED, HELD, MOST_BEGUN, PUBLISHED, Ledger
from pipelines.outcome import Outcome
from pipelines.plan import Plan
from pipelines.store import Store
from pipelines.take import Take
from sanitizers.core.errors import InputError, IntegrityError


class Killed(BaseException):
    """The process is gone: nothing after it is done."""


@dataclass
class World:
    """A source, a store, and runs that publish in an instant, or die before or after."""

    root: Path
    grow: bool = True
    published: list[list[str]] = field(default_factory=list)
    fate: Any = None

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.root / "ledger")

    def drain(self) -> Drain:
        plan = Plan.make(
            {
                "dataset": {"name": "d", "source": str(self.inbox), "grow": self.grow},
                "arrivals": {"settle": 0.0},
            }
        )
        return Drain(plan, cast("Store", self), self.run, self.told.append)

    told: list[str] = field(default_factory=list)

    def run(self, take: Take) -> Outcome:
        """Publish the names that are taken, each with what it holds."""
        self.meet("before")
        names = take.only or tuple(sorted(p.name for p in self.inbox.iterdir()))
        self.published.append([(self.inbox / name).read_text() for name in names])
        self.meet("after")
        return outcome(version=f"1.{len(self.published) - 1}.0")

    def meet(self, moment: str) -> None:
        if self.fate is not None:
            self.fate(moment)

    # What Drain asks of a store.

    def arrivals(self, dataset: str) -> Path:
        return self.root / "ledger"

    def refresh(self, folder: Path) -> None:
        pass

    def give_file(self, path: Path, data: bytes, *, new: bool = False) -> bool:
        return True

    def releases(self, dataset: str) -> tuple[Path, ...]:
        return tuple(Path(f"1.{i}.0") for i in range(len(self.published)))

    @contextmanager
    def at_work(self, dataset: str, **how: object) -> Iterator[bool]:
        yield False

    def manifest(self, release: Path) -> object:
        """A release holds what it published, and where it grows also what those before did."""
        from hashlib import sha256

        number = int(release.name.split(".")[1])
        batches = self.published[: number + 1] if self.grow else [self.published[number]]
        texts = [text for batch in batches for text in batch]
        files = [SimpleNamespace(sha256=sha256(t.encode()).hexdigest()) for t in texts]
        return SimpleNamespace(source=SimpleNamespace(files=files))


def outcome(**said: object) -> Outcome:
    version = said.get("version")
    given = {
        "dataset": "d",
        **dict.fromkeys(("rows", "keep", "review", "quarantine", "unreadable"), 0),
        "held": version is None,
        "held_because": "" if version else "over the budget",
        "found": {},
        "not_run": (),
        "trusted": False,
        "release": version,
        "report": "/store/d/runs/0123/report.html",
    }
    return Outcome(**(given | said))  # type: ignore[arg-type]


@pytest.fixture(params=[True, False], ids=["grows", "whole"])
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path, grow=request.param)
    made.inbox.mkdir()
    monkeypatch.setattr(drains, "Manifest", SimpleNamespace(load=made.manifest))
    return made


def states(world: World) -> dict[str, str]:
    return {arrival.name: arrival.state for arrival in world.ledger}


def drop(world: World, name: str, text: str) -> None:
    (world.inbox / name).write_text(text)


def test_each_content_is_published_once_and_oldest_first(world: World) -> None:
    drop(world, "b.csv", "x\n1\n")
    world.drain().all()
    drop(world, "a.csv", "x\n2\n")
    drop(world, "c.csv", "x\n1\n")  # a copy
    world.drain().all()
    assert world.drain().all() == 0
    if world.grow:
        assert world.published == [["x\n1\n"], ["x\n2\n"]]
    assert states(world) == {"b.csv": PUBLISHED, "a.csv": PUBLISHED}
    assert {a.name: a.version for a in world.ledger} == {"b.csv": "1.0.0", "a.csv": "1.1.0"}


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_killed_every_content_is_published_once(world: World, seed: int) -> None:
    rng = random.Random(seed)
    contents = [f"x\n{i}\n" for i in range(8)]

    def fate(moment: str) -> None:
        if rng.random() < 0.3:
            raise Killed

    world.fate = fate
    left = list(contents)
    for _ in range(40):
        if left and rng.random() < 0.5:
            drop(world, f"{len(left)}.csv", left.pop())
        if rng.random() < 0.2:
            drop(world, f"copy{rng.randrange(4)}.csv", rng.choice(contents[len(left) :] or ["x\n"]))
        try:
            world.drain().all(most=rng.randrange(1, 4))
        except Killed:
            continue
    world.fate = None
    for text in left:
        drop(world, f"late{text.split()[1]}.csv", text)
    world.drain().all()
    if world.grow:
        published = [text for batch in world.published for text in batch]
        assert sorted(t for t in published if t != "x\n") == contents
    else:
        assert set(contents) <= set(world.published[-1])
    assert {a.state for a in world.ledger if a.bytes > 2} == {PUBLISHED}


def test_what_fails_is_told_and_tried_again_and_others_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000_000.0]
    monkeypatch.setattr(drains, "time", SimpleNamespace(time=lambda: now[0], sleep=lambda s: None))
    drop(world, "a.csv", "x\nbad\n")
    fails = [5]

    def fate(moment: str) -> None:
        if fails[0]:
            fails[0] -= 1
            raise InputError("no row can be read")

    world.fate = fate
    for attempt in range(1, 5):
        assert world.drain().all() == 1
        assert world.drain().all() == 0, "not at once"
        (entry,) = world.ledger
        assert (entry.state, entry.attempts, entry.why) == (FAILED, attempt, "no row can be read")
        now[0] += 301.0
    assert world.drain().all() == 0
    assert "given up" in world.told[-1]
    fails[0] = 0
    assert world.drain().all(again=True) == 1
    assert states(world) == {"a.csv": PUBLISHED}


def test_a_held_run_is_not_run_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    drop(world, "a.csv", "x\n1\n")
    drain = world.drain()
    drain.run = lambda take: outcome(version=None)
    assert drain.all() == 1
    (entry,) = world.ledger
    assert (entry.state, entry.run, entry.why) == (HELD, "0123", "over the budget")
    assert world.drain().all() == 0


def test_what_the_process_dies_of_is_given_up(world: World) -> None:
    drop(world, "a.csv", "x\n1\n")

    def fate(moment: str) -> None:
        raise Killed

    world.fate = fate
    for _ in range(MOST_BEGUN):
        with pytest.raises(Killed):
            world.drain().all()
        world.published.clear()
    assert world.drain().all() == 0
    (entry,) = world.ledger
    assert (entry.state, entry.is_given_up) == (FAILED, True)
    assert f"{MOST_BEGUN} times" in world.told[-1]


def test_an_entry_that_somebody_removed_is_found_out_again(world: World) -> None:
    drop(world, "a.csv", "x\n1\n")
    world.drain().all()
    (entry,) = world.ledger
    (world.ledger.folder / f"{entry.sha256}.json").write_text("{")
    with pytest.raises(IntegrityError, match=entry.sha256):
        world.drain().all()
    (world.ledger.folder / f"{entry.sha256}.json").unlink()
    drain = world.drain()
    assert drain.all() == 0
    assert drain.all() == 0
    assert states(world) == {"a.csv": PUBLISHED}
    assert len(world.published) == 1


def test_what_was_taken_away_is_not_run(world: World) -> None:
    drop(world, "a.csv", "x\n1\n")
    world.drain().inbox.look()
    (world.inbox / "a.csv").unlink()
    assert world.drain().all() == 0
    assert states(world) == {"a.csv": ARRIVED}
