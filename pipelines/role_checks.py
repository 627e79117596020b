"""What is wrong with roles that a person gave, said before anything is fitted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

from pipelines.profiles import MAX_DISTINCT, ColumnProfile
from sanitizers.core.errors import PlanError, did_you_mean

#: Roles of one column each, in the order in which they are told.
SINGLE = (
    "id", "label", "target", "text", "prompt", "response",
    "image", "embedding", "time", "source", "trusted",
)  # fmt: skip
#: A label with more values is an id, a text or a number.
MAX_CLASSES = 1_000
#: Fractions with more values than this are measured, not named.
MAX_FRACTIONS = 50
_BYTES, _PATH = "bytes: (large_)?binary", "path: (large_)?string"
_IMAGE_STRUCT = re.compile(f"struct<({_BYTES}, {_PATH}|{_PATH}, {_BYTES})>")


class GivenRoles(Protocol):
    """The roles that a person gave; what is None or empty is inferred."""

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that models learn from."""
        ...

    @property
    def ignore(self) -> tuple[str, ...]:
        """Columns that no model may learn from."""
        ...


def given_columns(given: GivenRoles) -> dict[str, str]:
    """The roles of one column that were given, with their columns."""
    found = ((role, getattr(given, role)) for role in SINGLE)
    return {role: column for role, column in found if column}


def check_given(given: GivenRoles, profiles: Mapping[str, ColumnProfile]) -> None:
    """Refuse roles that cannot be played.

    Raises
    ------
    PlanError
        If a column does not exist, plays two parts, or is of the wrong kind for its role.
    """
    single = given_columns(given)
    parts: dict[str, str] = {}
    several = [("features", c) for c in given.features] + [("ignore", c) for c in given.ignore]
    for role, column in [*single.items(), *several]:
        if column not in profiles:
            raise PlanError(
                f"no column {column!r} for the role {role!r}", do=_known(column, profiles)
            )
        if column in parts:
            raise PlanError(
                f"the column {column!r} has two roles: {parts[column]} and {role}",
                expected="one role for each column",
            )
        parts[column] = role
    # A few new images may all have one label, and carry a trigger that is known.
    images = "image" in single or any(kind_of(p) in {"bytes", "image"} for p in profiles.values())
    for role, column in single.items():
        if role == "label":
            check_label(profiles[column], least=1 if images else 2)
        else:
            _check(role, profiles[column])
    for column in given.features:
        if kind_of(profiles[column]) in {"bytes", "image", "vector", "nested"}:
            raise PlanError(
                f"column {column!r} is of type {profiles[column].type}, which no model learns from",
                expected="numbers, truth values, dates or texts as features",
            )


def kind_of(profile: ColumnProfile) -> str:
    """What the values of a column are.

    Returns
    -------
    str
        ``missing``, ``number``, ``boolean``, ``time`` (a date), ``clock`` (a time of day
        or a duration), ``string``, ``bytes``, ``image`` (a struct of bytes and path),
        ``vector`` or ``nested``.
    """
    name = profile.type
    if _IMAGE_STRUCT.fullmatch(name):
        return "image"
    if name.startswith("dictionary<values="):
        name = name.removeprefix("dictionary<values=").split(",")[0]
    if name == "null":
        return "missing"
    starts = (
        (("int", "uint", "double", "float", "halffloat", "decimal"), "number"),
        (("bool",), "boolean"),
        (("date", "timestamp"), "time"),
        (("time", "duration"), "clock"),
        (("string", "large_string"), "string"),
        (("binary", "large_binary", "fixed_size_binary"), "bytes"),
    )
    for beginnings, kind in starts:
        if name.startswith(beginnings):
            return kind
    is_vector = name.startswith("fixed_size_list<") and any(
        f": {number}" in name for number in ("float", "double", "halffloat")
    )
    return "vector" if is_vector and name.count("<") == 1 else "nested"


def is_continuous(profile: ColumnProfile) -> bool:
    """Whether a column is measured: fractions, of more values than anybody would name."""
    fractions = kind_of(profile) == "number" and not profile.integers
    return fractions and profile.distinct > MAX_FRACTIONS


def all_missing(profile: ColumnProfile, rows: int) -> bool:
    """Whether a column has no value."""
    return kind_of(profile) == "missing" or profile.nulls >= rows


def _check(role: str, profile: ColumnProfile) -> None:
    if role == "target":
        _check_target(profile)
    else:
        fitting = {
            "time": ({"time", "number"}, "dates, times or numbers"),
            "trusted": ({"boolean"}, "true and false"),
            "text": ({"string"}, "texts"),
            "prompt": ({"string"}, "texts"),
            "response": ({"string"}, "texts"),
            "image": (
                {"bytes", "image", "string"},
                "images as bytes, or their paths relative to the folder of the table",
            ),
            "embedding": ({"vector", "nested"}, "lists of numbers"),
            "source": ({"string", "number", "boolean"}, "names"),
        }.get(role)
        if fitting is not None and kind_of(profile) not in fitting[0]:
            raise PlanError(
                f"column {profile.name!r} cannot be the {role}: it is of type {profile.type}",
                expected=fitting[1],
            )


def check_label(profile: ColumnProfile, least: int = 2) -> None:
    """Refuse a label that names no classes.

    Parameters
    ----------
    profile : ColumnProfile
    least : int
        The fewest classes.

    Raises
    ------
    PlanError
    """
    name, count = profile.name, profile.distinct
    if kind_of(profile) in {"bytes", "image", "vector", "nested"}:
        raise PlanError(f"column {name!r} is no label: it is of type {profile.type}")
    if count == 0:
        raise PlanError(f"the label {name!r} has no value in any row", do="name another column")
    if is_continuous(profile):
        raise PlanError(
            f"column {name!r} looks like a target (continuous): "
            f"{shown(count)} distinct values, not whole",
            expected="classes as a label",
            do=f"use --target {name}",
        )
    if count > MAX_CLASSES:
        do = f"use --target {name}" if kind_of(profile) == "number" else "name another column"
        raise PlanError(
            f"the label {name!r} has {shown(count)} distinct values",
            expected=f"at most {MAX_CLASSES:,} classes",
            do=do,
        )
    if count < least:
        raise PlanError(
            f"the label {name!r} has one class only",
            expected="at least two",
            do="name another column, or leave --label out",
        )


def _check_target(profile: ColumnProfile) -> None:
    name = profile.name
    if kind_of(profile) in {"string", "boolean"}:
        raise PlanError(
            f"column {name!r} looks like a label: it is of type {profile.type}",
            expected="numbers as a target",
            do=f"use --label {name}",
        )
    if profile.distinct == 0:
        raise PlanError(f"the target {name!r} has no value in any row", do="name another column")
    if kind_of(profile) != "number":
        raise PlanError(
            f"column {name!r} is no target: it is of type {profile.type}", expected="numbers"
        )
    if profile.distinct == 1:
        raise PlanError(f"the target {name!r} has the same value in every row")


def shown(distinct: int) -> str:
    """A count of distinct values for people."""
    return f"more than {MAX_DISTINCT:,}" if distinct > MAX_DISTINCT else f"{distinct:,}"


def _known(column: str, profiles: Mapping[str, ColumnProfile]) -> str:
    names = list(profiles)
    hint = did_you_mean(column, names)
    if not hint.startswith("did you mean"):
        return hint
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"{hint} The columns are {', '.join(map(repr, names[:12]))}{more}"
