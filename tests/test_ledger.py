"""The ledger and the inbox: a content is known once, whatever happens to files and entries."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path

import fsspec
import pytest

from pipelines import inbox as inboxes
from pipelines.fetch import fetch
from pipelines.inbox import Inbox, Settling, listing
from pipelines.ledger import (
    ARRIVED,
    DELAYS,
    FAILED,
    HELD,
    MOST_BEGUN,
    PUBLISHED,
    Arrival,
    Ledger,
)
from pipelines.plan_parts import ArrivalsPart
from pipelines.readers.sources import digest_sources
from sanitizers.core.errors import IntegrityError

SHA = "a" * 64
NEW = Arrival(SHA, "a.csv", 10, 1000.0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def inbox(source: Path, **asked: object) -> Inbox:
    part = ArrivalsPart.model_validate({"settle": 0.0} | asked)
    return Inbox(str(source), Ledger(source.parent / "ledger"), part)


def names(found: Inbox) -> list[str]:
    return [arrival.name for arrival in found.look().new]


# ------------------------------------------------------------- entries


@pytest.mark.parametrize(
    "arrival",
    [
        NEW,
        replace(NEW, state=PUBLISHED, version="1.2.0"),
        replace(NEW, state=HELD, run="abc", why="over the budget"),
        replace(NEW, state=FAILED, why="é\n", attempts=2, begun=1, tried=3.5),
    ],
)
def test_what_is_put_is_what_is_got(tmp_path: Path, arrival: Arrival) -> None:
    ledger = Ledger(tmp_path)
    ledger.put(arrival)
    assert ledger.get(SHA) == arrival
    assert list(ledger) == [arrival]


def test_only_the_first_who_sees_a_content_writes_it_down(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "arrivals")
    assert ledger.add(NEW)
    ledger.put(replace(NEW, state=PUBLISHED, version="1.0.0"))
    assert not ledger.add(replace(NEW, name="b.csv"))
    found = ledger.get(SHA)
    assert found is not None
    assert (found.state, found.name) == (PUBLISHED, "a.csv")
    assert [p.name for p in ledger.folder.iterdir()] == [f"{SHA}.json"]


@pytest.mark.parametrize(
    "change",
    [
        lambda v: "{",
        lambda v: "[]",
        lambda v: v | {"state": "gone"},
        lambda v: v | {"bytes": "10"},
        lambda v: v | {"more": 1},
        lambda v: {k: x for k, x in v.items() if k != "begun"},
        lambda v: v | {"sha256": "b" * 64},
        lambda v: v | {"why": "x" * 100_000},
    ],
)
def test_a_damaged_entry_is_named(tmp_path: Path, change: object) -> None:
    import json

    ledger = Ledger(tmp_path)
    changed = change(asdict(NEW))  # type: ignore[operator]
    path = tmp_path / f"{SHA}.json"
    path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(IntegrityError, match=path.name):
        ledger.get(SHA)


def test_no_entry_lies_outside_of_the_ledger(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="names no content"):
        Ledger(tmp_path).get("../../salt")


def test_what_was_seen_is_checked(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.seen() == {}
    ledger.remember({"a.csv": ("[1, 2]", SHA)})
    assert ledger.seen() == {"a.csv": ("[1, 2]", SHA)}
    (tmp_path / "seen.json").write_text('{"files": {"a.csv": ["[1, 2]", "../x"]}}')
    with pytest.raises(IntegrityError, match=r"seen\.json"):
        ledger.seen()


def test_a_failed_one_is_tried_again_later_and_later_and_then_no_more() -> None:
    assert list(DELAYS) == sorted(DELAYS)
    for attempts, delay in enumerate(DELAYS, start=1):
        failed = replace(NEW, state=FAILED, attempts=attempts, tried=100.0)
        assert not failed.is_due(100.0 + delay - 0.1)
        assert failed.is_due(100.0 + delay)
    last = replace(NEW, state=FAILED, attempts=len(DELAYS) + 1, tried=100.0)
    assert last.is_given_up
    assert not last.is_due(1e12)
    died = replace(NEW, state=FAILED, begun=MOST_BEGUN)
    assert not died.is_due(1e12)
    assert not replace(NEW, state=HELD).is_due(1e12)
    assert not replace(NEW, state=PUBLISHED).is_due(1e12)
    assert NEW.state == ARRIVED
    assert NEW.is_due(0.0)


# ------------------------------------------------------------- the inbox


def test_a_content_arrives_once_under_whatever_name_and_however_often(source: Path) -> None:
    first = inbox(source)
    assert names(first) == []
    (source / "a.csv").write_text("x\n1\n")
    assert names(first) == ["a.csv"]
    assert names(first) == []
    os.utime(source / "a.csv", (1, 1))
    shutil.copy(source / "a.csv", source / "b.csv")
    assert names(first) == []
    # Another process, after a restart.
    second = inbox(source)
    assert names(second) == []
    (source / "a.csv").rename(source / "c.csv")
    looked = second.look()
    assert (looked.new, sorted(looked.there.values()), looked.waiting) == ((), ["b.csv"], 0)
    (source / "b.csv").write_text("x\n2\n")
    assert names(second) == ["b.csv"]
    assert len(list(second.ledger)) == 2


def test_a_restart_hashes_nothing_anew(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(5):
        (source / f"{i}.csv").write_text(f"x\n{i}\n")
    assert len(names(inbox(source))) == 5
    (source / "9.csv").write_text("x\n9\n")
    hashed: list[str] = []

    def count(paths: list[Path]) -> list[tuple[str, int]]:
        hashed.extend(path.name for path in paths)
        return digest_sources(paths)

    monkeypatch.setattr(inboxes, "digest_sources", count)
    again = inbox(source)
    assert names(again) == ["9.csv"]
    assert names(again) == []
    assert hashed == ["9.csv"]


def test_what_came_while_nobody_looked_is_found(source: Path) -> None:
    inbox(source).look()
    (source / "deep").mkdir()
    (source / "deep" / "a.csv").write_text("x\n1\n")
    assert names(inbox(source)) == ["deep/a.csv"]


def test_a_file_that_grows_is_not_taken() -> None:
    settling = Settling(2.0)
    assert settling.settled({"a": "1"}, 0.0) == set()
    assert settling.settled({"a": "1"}, 1.9) == set()
    assert settling.settled({"a": "2"}, 2.5) == set()
    assert settling.settled({"a": "2"}, 4.4) == set()
    assert settling.settled({"a": "2"}, 4.5) == {"a"}
    # Gone and back again: it starts anew.
    assert settling.settled({}, 5.0) == set()
    assert settling.settled({"a": "2"}, 6.0) == set()


def test_a_file_that_changes_while_it_is_hashed_is_not_taken(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "a.csv").write_text("x\n1\n")

    def grow(paths: list[Path]) -> list[tuple[str, int]]:
        found = digest_sources(paths)
        with (source / "a.csv").open("a") as file:
            file.write("2\n")
        return found

    first = inbox(source)
    monkeypatch.setattr(inboxes, "digest_sources", grow)
    looked = first.look()
    assert (looked.new, looked.waiting) == ((), 1)
    monkeypatch.undo()
    assert names(first) == ["a.csv"]


@pytest.mark.parametrize("marker", ["a.csv.done", "_SUCCESS"])
def test_a_marker_says_at_once_that_a_file_is_whole(source: Path, marker: str) -> None:
    waits = inbox(source, settle=3600.0)
    (source / "a.csv").write_text("x\n1\n")
    assert names(waits) == []
    (source / marker).touch()
    assert names(waits) == ["a.csv"]
    # One that was there before the file was written says nothing of it.
    (source / "a.csv").write_text("x\n2\n")
    os.utime(source / marker, (1, 1))
    assert names(waits) == []


def test_where_only_markers_count_nothing_else_does(source: Path) -> None:
    waits = inbox(source, marker=True)
    (source / "a.csv").write_text("x\n1\n")
    assert names(waits) == []
    (source / "a.csv.done").touch()
    assert names(waits) == ["a.csv"]


def test_a_source_in_which_there_is_nothing_yet_is_empty(source: Path, tmp_path: Path) -> None:
    assert listing(str(source)) == {}
    assert listing(str(tmp_path / "nowhere")) == {}
    assert listing(str(source / "*.csv")) == {}
    (source / "b.csv").write_text("x\n1\n")
    (source / "b.csv.done").touch()
    assert list(listing(str(source / "*"))) == ["b.csv"]


def test_what_is_behind_a_url_arrives_once(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    url = f"memory://{tmp_path.name}/in"
    found = Inbox(
        url,
        Ledger(tmp_path / "ledger"),
        ArrivalsPart(settle=0.0, poll=0.1),
        lambda: fetch(url, tmp_path / "fetched"),
    )

    def names_after(name: str, text: str) -> list[str]:
        memory.pipe(f"{url}/{name}", text.encode())
        time.sleep(0.1)
        return names(found)

    assert names(found) == []
    assert names_after("a.csv", "x\n1\n") == ["a.csv"]
    assert names_after("deep/b.csv", "x\n2\n") == ["deep/b.csv"]
    assert names_after("copy.csv", "x\n1\n") == []
    assert names_after("a.csv", "x\n3\n") == ["a.csv"]
    assert len(list(found.ledger)) == 3


def test_behind_a_url_is_looked_no_more_often_than_asked(source: Path) -> None:
    asked: list[float] = []

    def locate() -> str:
        asked.append(time.monotonic())
        return str(source)

    part = ArrivalsPart(settle=0.0, poll=3600.0)
    found = Inbox("memory://x", Ledger(source.parent / "ledger"), part, locate)
    (source / "a.csv").write_text("x\n1\n")
    assert names(found) == ["a.csv"]
    assert names(found) == []
    assert len(asked) == 1


def test_a_file_that_cannot_be_read_is_told_and_hides_no_other(source: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (source / "a.csv").write_text("x\n1\n")
    (source / "b.csv").write_text("x\n2\n")
    (source / "a.csv").chmod(0)
    looked = inbox(source).look()
    assert [a.name for a in looked.new] == ["b.csv"]
    assert "a.csv" in looked.troubles["a.csv"]
