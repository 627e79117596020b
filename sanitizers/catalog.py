"""Which sanitizers there are, by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

from sanitizers.core.data import Roles
from sanitizers.core.errors import PlanError, did_you_mean
from sanitizers.core.sanitizer import Sanitizer
from sanitizers.labels import Labels
from sanitizers.micro_models import MicroConcentration, MicroVotes
from sanitizers.outliers import Outliers

#: Every sanitizer of the product. Third parties say ``module:Name`` instead.
SANITIZERS: Mapping[str, type[Sanitizer]] = {
    kind.name: kind for kind in (Outliers, MicroVotes, MicroConcentration, Labels)
}

#: Which types of values are given for a setting whose default is of one of them.
_KINDS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((bool,), "true or false"),
    ((int,), "a whole number"),
    ((str,), "a text"),
    ((tuple, list), "a list"),
)


def sanitizer_class(name: str) -> type[Sanitizer]:
    """Find a sanitizer by its name, or by ``module:Name``.

    Raises
    ------
    PlanError
        If there is none, or what is found is not a frozen dataclass with the attributes of
        a sanitizer.
    """
    if name in SANITIZERS:
        return SANITIZERS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise PlanError(f"no sanitizer {name!r}", do=did_you_mean(name, SANITIZERS))
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise PlanError(f"sanitizer {name!r} cannot be imported: {error}") from error
    missing = [a for a in ("name", "needs", "fit", "reason") if not hasattr(found, a)]
    frozen = getattr(getattr(found, "__dataclass_params__", None), "frozen", False)
    if not is_dataclass(found) or not isinstance(found, type) or missing or not frozen:
        raise PlanError(
            f"{name!r} is not a sanitizer",
            expected="a frozen dataclass with name, needs, fit and reason",
        )
    return cast(type[Sanitizer], found)


def sanitizer(name: str, settings: Mapping[str, Any] | None = None) -> Sanitizer:
    """Make a sanitizer from its name and its settings.

    Raises
    ------
    PlanError
        If the name or a setting is unknown, or a setting has a wrong value.
    """
    kind = sanitizer_class(name)
    given = dict(settings or {})
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key, value in given.items():
        if key not in known:
            raise PlanError(
                f"sanitizer {name!r} has no setting {key!r}", do=did_you_mean(key, known)
            )
        _check_kind(name, key, value, getattr(kind, key, None))
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise PlanError(f"sanitizer {name!r}: {error}") from error


def _check_kind(name: str, key: str, value: object, usual: object) -> None:
    """Refuse a number where a list belongs, or the like, before any data are read."""
    for kinds, expected in _KINDS:
        if type(usual) in kinds and type(value) not in kinds:
            raise PlanError(f"sanitizer {name!r}: {key} is {value!r}", expected=expected)


def missing_roles(kind: Sanitizer | type[Sanitizer], roles: Roles) -> tuple[str, ...]:
    """The roles that a sanitizer needs and the data do not have; ``a|b`` means either."""
    have = roles.present
    return tuple(sorted(n for n in kind.needs if not have.intersection(n.split("|"))))
