"""The log of rulings only grows, obeys the last word, and shows tampering."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.audit import Audit
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
    last = json.dumps(second, sort_keys=True, separators=(",", ":"))
    log.path.write_bytes(forged.line() + last.encode() + b"\n")
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


# ------------------------------------------------------------------ rows that were drawn

#: A log as it was written before there were audits.
OLD = (
    b'{"before":"0000000000000000000000000000000000000000000000000000000000000000",'
    b'"digest":"@","group":"","number":1,"row_ids":["a"],"verdict":"keep",'
    b'"when":"2026-01-01T00:00:00+00:00","who":"ana","why":"looked at it"}\n'
)


def test_a_log_of_before_there_were_audits_is_still_intact(log: Rulings) -> None:
    body = json.loads(OLD)
    del body["digest"]
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    old = OLD.replace(b"@", hashlib.sha256(text.encode()).hexdigest().encode())
    log.path.parent.mkdir(parents=True)
    log.path.write_bytes(old)
    assert [r.drawn for r in log.read()] == [None]
    say(log, "keep", "b")
    drawn(log, "keep", "c")
    assert log.path.read_bytes().startswith(old)
    assert b"drawn" not in log.path.read_bytes().splitlines()[1]
    assert [r.drawn for r in log.read()] == [None, None, "d" * 32]


def test_that_a_row_was_drawn_cannot_be_changed(log: Rulings) -> None:
    say(log, "keep", "a")
    drawn(log, "keep", "b")
    plain, told = log.path.read_bytes().splitlines(keepends=True)
    added = b',"drawn":"' + b"d" * 32 + b'"'
    for data in (
        plain + told.replace(added, b""),
        plain + told.replace(b"d" * 32, b"e" * 32),
        plain + told.replace(b'"' + b"d" * 32 + b'"', b"null"),
        plain.replace(b',"group"', added + b',"group"') + told,
    ):
        assert data != plain + told
        log.path.write_bytes(data)
        with pytest.raises(IntegrityError, match="ruling"):
            list(log.read())


def test_an_audit_rules_on_one_row_at_a_time(log: Rulings) -> None:
    for rows, verdict, values in (
        (["a", "b"], "keep", "d"),
        (["a"], "none", "d"),
        (["a"], "keep", ""),
    ):
        with pytest.raises(PlanError, match="one row at a time"):
            log.add(rows, verdict, who="ana", why="looked", drawn=values)


def test_what_an_audit_kept_is_trusted_until_somebody_overrules_it(log: Rulings) -> None:
    for row in "abcdef":
        drawn(log, "keep", row)
    drawn(log, "quarantine", "g")
    say(log, "keep", "x", "b")
    say(log, "quarantine", "c", "x", who="ben")
    say(log, "none", "d")
    drawn(log, "quarantine", "e")
    say(log, "quarantine", "f")
    drawn(log, "keep", "f", digest="e" * 32)
    audit = Audit.of(log.read())
    assert audit.kept == {"a": "d" * 32, "b": "d" * 32, "f": "e" * 32}
    assert audit.ruled == {
        **dict.fromkeys("abcf", "keep"),
        **dict.fromkeys("eg", "quarantine"),
    }


def test_a_sentence_says_that_a_row_was_drawn(log: Rulings) -> None:
    assert "ana ruled keep in an audit on" in drawn(log, "keep", "a").sentence


def drawn(log: Rulings, verdict: str, row: str, digest: str = "d" * 32) -> Ruling:
    return log.add([row], verdict, who="ana", why="looked at it", drawn=digest)
