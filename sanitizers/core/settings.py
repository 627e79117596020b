"""Recipes from their names and settings, with errors that say what was meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from sanitizers.core.errors import PlanError, did_you_mean

#: Which types of values are given for a setting whose default is of one of them.
_KINDS: tuple[tuple[tuple[type, ...], tuple[type, ...], str], ...] = (
    ((bool,), (bool,), "true or false"),
    ((int,), (int,), "a whole number"),
    ((float,), (int, float), "a number"),
    ((str,), (str,), "a text"),
    ((tuple, list), (tuple, list), "a list"),
)

T = TypeVar("T")


def make(what: str, name: str, kind: type[T], settings: Mapping[str, Any] | None) -> T:
    """Make a recipe, a frozen dataclass, from its settings.

    Parameters
    ----------
    what : str
        What the recipe is, such as ``"sanitizer"``; errors begin with it.
    name : str
    kind : type
    settings : mapping, optional

    Raises
    ------
    PlanError
        If a setting is unknown, or has a wrong value.
    """
    given = dict(settings or {})
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key, value in given.items():
        if key not in known:
            raise PlanError(f"{what} {name!r} has no setting {key!r}", do=did_you_mean(key, known))
        _check_kind(f"{what} {name!r}", key, value, getattr(kind, key, None))
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise PlanError(f"{what} {name!r}: {error}") from error


def _check_kind(where: str, key: str, value: object, usual: object) -> None:
    """Refuse a number where a list belongs, or the like, before any data are read."""
    for usually, kinds, expected in _KINDS:
        if type(usual) in usually and type(value) not in kinds:
            raise PlanError(f"{where}: {key} is {value!r}", expected=expected)
