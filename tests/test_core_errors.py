"""Errors say what was found, what was expected and what to do, in one line."""

from __future__ import annotations

import copy
import pickle

import pytest

from sanitizers.core.errors import (
    EvidenceError,
    InputError,
    IntegrityError,
    PlanError,
    SanitizeError,
    StoreError,
    did_you_mean,
)

STATUS = {PlanError: 2, InputError: 3, IntegrityError: 3, StoreError: 3, EvidenceError: 4}


@pytest.mark.parametrize("kind", STATUS)
def test_every_error_has_the_exit_status_of_its_kind(kind: type[SanitizeError]) -> None:
    assert kind("x").exit_status == STATUS[kind]
    assert issubclass(kind, SanitizeError)
    assert set(STATUS) == set(SanitizeError.__subclasses__())


@pytest.mark.parametrize(
    ("expected", "do", "line"),
    [
        ("", "", "found"),
        ("this", "", "found; expected this"),
        ("", "do that", "found; do that"),
        ("this", "do that", "found; expected this; do that"),
    ],
)
def test_an_error_is_one_line_of_its_parts(expected: str, do: str, line: str) -> None:
    assert str(PlanError("found", expected=expected, do=do)) == line


@pytest.mark.parametrize("kind", STATUS)
def test_an_error_crosses_a_process_border_whole(kind: type[SanitizeError]) -> None:
    error = kind("found", expected="this", do="do that")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301
        assert type(other) is kind
        assert (other.found, other.expected, other.do) == ("found", "this", "do that")
        assert str(other) == str(error)


@pytest.mark.parametrize(
    ("word", "known", "said"),
    [
        ("lable", ["label", "time"], "did you mean 'label'?"),
        ("knn", ["KNN", "LOF"], "did you mean 'KNN'?"),
        ("SURVIVED", ["age", "Survived"], "did you mean 'Survived'?"),
        ("a", ["A", "a"], "did you mean 'A'?"),
        ("zzz", ["b", "a"], "known: 'b', 'a'"),
        ("zzz", [], ""),
        ("zzz", [f"c{i}" for i in range(12)], "known: " + ", ".join(f"'c{i}'" for i in range(12))),
        (
            "zzz",
            [f"c{i}" for i in range(15)],
            "known: " + ", ".join(f"'c{i}'" for i in range(12)) + " and 3 more",
        ),
    ],
)
def test_did_you_mean_names_the_nearest_word_or_all(word: str, known: list[str], said: str) -> None:
    assert did_you_mean(word, known) == said
