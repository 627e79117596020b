"""The log of rulings only grows, obeys the last word, and shows tampering."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.rulings import START, Ruling, Rulings, conflicts
from pipelines.store import Store
from sanitizers.core.errors import IntegrityError, PlanError


@pytest.fixture
def log(tmp_path: Path) -> Rulings:
    return Rulings.of(Store.open(tmp_path), "data")


def say(log: Rulings, verdict: str, *rows: str, who: str = "ana", group: str = "") -> Ruling:
    return log.add(rows, verdict, who=who, why="looked at it", group=group)


def verdicts(log: Rulings) -> dict[str, str]:
    return {row: ruling.verdict for row, ruling in log.standing().items()}


def test_the_last_word_stands(log: Rulings) -> None:
    assert (log.head, verdicts(log)) == (START, {})
    say(log, "keep", "a", "b")
    say(log, "quarantine", "b", "c", who="ben")
    say(log, "none", "c")
    last = say(log, "keep", "d", "d")
    assert verdicts(log) == {"a": "keep", "b": "quarantine", "d": "keep"}
    assert (last.number, last.row_ids, last.digest) == (4, ("d",), log.head)
    every = list(log.read())
    assert [r.before for r in every] == [START, *(r.digest for r in every[:-1])]


def test_what_two_people_say_differently_is_a_conflict(log: Rulings) -> None:
    say(log, "keep", "a", "b", "c")
    say(log, "quarantine", "a", "b", who="ben")
    say(log, "keep", "b", who="ben")
    say(log, "quarantine", "c")
    found = conflicts(log.read())
    assert {row: (one.who, other.who) for row, (one, other) in found.items()} == {
        "a": ("ben", "ana")
    }


def test_a_ruling_has_all_that_it_needs(log: Rulings) -> None:
    wrong: list[tuple[list[str], str, str, str, str]] = [
        (["a"], "kep", "ana", "why", "did you mean 'keep'"),
        ([], "keep", "ana", "why", "0 rows"),
        (["a"] * 100_001, "keep", "ana", "why", "100,001 rows"),
        (["a"], "keep", " ", "why", "without a name"),
        (["a"], "keep", "ana", "", "without a name or a reason"),
        (["a"], "keep", "ana", "y" * 2_001, "2,001 characters"),
    ]
    for rows, verdict, who, why, told in wrong:
        with pytest.raises(PlanError, match=told):
            log.add(rows, verdict, who=who, why=why)
    assert not log.path.exists()


def test_any_change_shows(log: Rulings) -> None:
    for row in "abc":
        say(log, "keep", row)
    whole = log.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    changed = [
        lines[0].replace(b'"keep"', b'"none"') + lines[1] + lines[2],
        lines[0] + lines[2],
        lines[1] + lines[0] + lines[2],
        lines[1] + lines[2],
        whole + lines[2],
        whole.replace(b"ana", b"Ana", 1),
        b"{}\n" + whole,
        whole.replace(b"{", b"{ ", 1),
        b"\xff" + whole[1:],
    ]
    for data in changed:
        log.path.write_bytes(data)
        with pytest.raises(IntegrityError, match="ruling"):
            list(log.read())
    log.path.write_bytes(whole)
    assert len(list(log.read())) == 3


def test_a_ruling_cannot_be_forged_by_sealing_it_again(log: Rulings) -> None:
    say(log, "keep", "a")
    say(log, "keep", "b")
    first, second = (json.loads(line) for line in log.path.read_text().splitlines())
    forged = Ruling(**{**first, "row_ids": ("z",), "digest": ""}).sealed()
    log.path.write_text(
        json.dumps({**forged.__dict__, "row_ids": ["z"]}, sort_keys=True, separators=(",", ":"))
        + "\n"
        + json.dumps(second, sort_keys=True, separators=(",", ":"))
        + "\n"
    )
    with pytest.raises(IntegrityError, match=r"ruling 2 .* does not follow"):
        list(log.read())


def test_an_end_that_a_power_cut_left_is_no_ruling(log: Rulings) -> None:
    first = say(log, "keep", "a")
    with log.path.open("ab") as file:
        file.write(b'{"before":"' + b"0" * 200_000)
    assert verdicts(log) == {"a": "keep"}
    assert log.head == first.digest
    say(log, "keep", "b")
    assert verdicts(log) == {"a": "keep", "b": "keep"}


def test_only_the_end_is_read_to_add(log: Rulings) -> None:
    say(log, "keep", *(f"row-{i}" for i in range(20_000)))
    say(log, "keep", "b")
    damaged = log.path.read_bytes()
    log.path.write_bytes(b"x" * 1_000 + damaged[1_000:])
    assert say(log, "keep", "c").number == 3


def test_people_may_rule_at_once(log: Rulings) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: say(log, "keep", f"r{i}", who=f"p{i % 3}"), range(40)))
    assert sorted(verdicts(log)) == sorted(f"r{i}" for i in range(40))
    assert [r.number for r in log.read()] == list(range(1, 41))
