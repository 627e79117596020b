"""Which sanitizers there are, by name."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, cast

from sanitizers.backdoors import Backdoors
from sanitizers.conflicts import Conflicts
from sanitizers.core.data import Roles
from sanitizers.core.errors import PlanError, did_you_mean
from sanitizers.core.sanitizer import Sanitizer
from sanitizers.core.settings import make
from sanitizers.label_regions import LabelRegions
from sanitizers.labels import Labels
from sanitizers.micro_models import MicroConcentration, MicroVotes
from sanitizers.outliers import Outliers
from sanitizers.regression import Regression
from sanitizers.shared_values import SharedValues

#: Every sanitizer of the product. Third parties say ``module:Name`` instead.
SANITIZERS: Mapping[str, type[Sanitizer]] = {
    kind.name: kind
    for kind in (
        Outliers,
        MicroVotes,
        MicroConcentration,
        Labels,
        LabelRegions,
        Conflicts,
        SharedValues,
        Regression,
        Backdoors,
    )
}

#: What most of them import, once they have something to do.
LIBRARIES = ("faiss", "pyod.models.iforest", "pyod.models.knn", "sklearn.ensemble")


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
    return make("sanitizer", name, sanitizer_class(name), settings)


def missing_roles(
    kind: Sanitizer | type[Sanitizer], roles: Roles, *, named: bool = True, trusted: bool = False
) -> tuple[str, ...]:
    """The roles that a sanitizer needs and the data do not have; ``a|b`` means either.

    Parameters
    ----------
    kind : Sanitizer or type of one
        It may say in an attribute, ``needs_unless_named``, without which roles it is of no
        use, though it can run; and in another, ``needs_trusted``, that it needs trusted rows.
    roles : Roles
    named : bool
        Whether somebody asks for it by name.
    trusted : bool
        Whether there are trusted rows beside those of a column.
    """
    have = roles.present | ({"trusted"} if trusted else set())
    more: frozenset[str] = (
        frozenset() if named else getattr(kind, "needs_unless_named", frozenset())
    )
    if getattr(kind, "needs_trusted", False):
        more |= {"trusted"}
    return tuple(sorted(n for n in kind.needs | more if not have.intersection(n.split("|"))))


def missing_packages(recipe: Sanitizer) -> dict[str, str]:
    """The modules that a sanitizer imports and that are not there, and what to install for each.

    A sanitizer may say so in an attribute, ``packages``.
    """
    packages: Mapping[str, str] = getattr(recipe, "packages", {})
    return {m: what for m, what in packages.items() if importlib.util.find_spec(m) is None}
