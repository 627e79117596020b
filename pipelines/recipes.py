"""Which sanitizers a plan asks for, with their settings, and which of them can run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from pipelines.plan import Plan
from sanitizers.catalog import SANITIZERS, missing_packages, missing_roles, sanitizer_class
from sanitizers.core.consensus import CONSENSUS
from sanitizers.core.data import Roles
from sanitizers.core.errors import PlanError, did_you_mean
from sanitizers.core.keepsake import Keepsake
from sanitizers.core.policy import SUM
from sanitizers.core.sanitizer import Recalling, Sanitizer
from sanitizers.core.verdicts import QUARANTINE, REVIEW
from sanitizers.risks import RISKS


@dataclass(frozen=True)
class Chosen:
    """The sanitizers of a run.

    Parameters
    ----------
    run : mapping of str to Sanitizer
    not_run : tuple of (str, str)
        Those whose roles or packages are not there, each with the reason; with ``(search)``
        after the name, those that apply what is known and look for nothing new.
    """

    run: Mapping[str, Sanitizer]
    not_run: tuple[tuple[str, str], ...]


def recipes(plan: Plan) -> dict[str, Sanitizer]:
    """Make every sanitizer that a plan asks for; all of the catalog unless it says which.

    Raises
    ------
    PlanError
        If a name, a setting or its value is wrong.
    """
    part = plan.sanitizers
    names = part.use if part.use is not None else tuple(SANITIZERS)
    made = {name: _make(name, part.settings.get(name, {})) for name in names}
    for name in part.settings:
        if name not in made:
            _make(name, part.settings[name])
            raise PlanError(
                f"[sanitizers.{name}] has settings, and [sanitizers] use does not name it"
            )
    judges = [*made, CONSENSUS] if plan.policy.consensus == SUM else list(made)
    for name in plan.policy.rules:
        if name not in judges:
            raise PlanError(
                f"[policy.rules.{name}] names no sanitizer", do=did_you_mean(name, judges)
            )
    for name in plan.policy.fail_on:
        known = (REVIEW, QUARANTINE, *judges, "risks", *RISKS)
        if name not in known:
            raise PlanError(f"nothing to fail on is named {name!r}", do=did_you_mean(name, known))
    return made


def choose(
    plan: Plan,
    roles: Roles,
    known: Callable[[], Sequence[Keepsake]] = tuple,
    *,
    trusted: bool = False,
) -> Chosen:
    """Choose the sanitizers whose roles and packages are there.

    One that the plan does not name, and whose packages are not there, applies what is known
    where anything is, and looks for nothing new.

    Parameters
    ----------
    plan : Plan
    roles : Roles
    known : callable
        What earlier fits have left; asked where that decides.
    trusted : bool
        Whether there are trusted rows beside those of a column.

    Raises
    ------
    PlanError
        If a plan names one whose roles or packages are not there, or none can run.
    """
    made, named = recipes(plan), plan.sanitizers.use is not None
    lacking = {
        name: _lacking(recipe, roles, named=named, trusted=trusted) for name, recipe in made.items()
    }
    refused = next((name for name, why in lacking.items() if why), None)
    if refused and named:
        raise PlanError(
            f"sanitizer {refused!r} is to run, and {lacking[refused]}",
            do="give it, or leave it out",
        )
    able = {
        name: made[name] if not why else _reduced(made[name], roles, known)
        for name, why in lacking.items()
    }
    run = {name: recipe for name, recipe in able.items() if recipe}
    told = (_not_run(name, run.get(name), why) for name, why in lacking.items())
    not_run = tuple(pair for pair in told if pair)
    if not run:
        raise PlanError(
            "no sanitizer can run: " + "; ".join(f"{name}: {why}" for name, why in not_run),
            do="name the columns, for instance with --label COLUMN or --features A,B",
        )
    return Chosen(run, not_run)


def _lacking(recipe: Sanitizer, roles: Roles, *, named: bool = True, trusted: bool = False) -> str:
    """What a sanitizer needs that is not there, or nothing."""
    needs = missing_roles(recipe, roles, named=named, trusted=trusted)
    if needs == ("trusted",):
        return "nobody vouches for any row"
    if needs:
        return "no column has the role " + " and ".join(" or ".join(n.split("|")) for n in needs)
    if packages := missing_packages(recipe):
        module, install = next(iter(packages.items()))
        return f"{module} is not installed: pip install '{install}'"
    return ""


def _reduced(
    recipe: Sanitizer, roles: Roles, known: Callable[[], Sequence[Keepsake]]
) -> Sanitizer | None:
    """What of a recipe can run: applying what is known, where anything is."""
    if not isinstance(recipe, Recalling):
        return None
    reduced: Sanitizer = replace(recipe, search=False)  # type: ignore[type-var]
    return None if _lacking(reduced, roles) or not known() else reduced


def _not_run(name: str, runs: Sanitizer | None, lacking: str) -> tuple[str, str] | None:
    """What of a sanitizer does not run, and why."""
    if runs is None:
        return name, lacking
    if not isinstance(runs, Recalling) or runs.search:
        return None
    why = lacking or "the plan says search = false"
    return f"{name} (search)", f"no new triggers were looked for: {why}"


def _make(name: str, settings: Mapping[str, Any]) -> Sanitizer:
    kind: Any = sanitizer_class(name)
    known = [f.name for f in fields(kind) if f.init]
    hints = get_type_hints(kind)
    values = {}
    for key, value in settings.items():
        if key not in known:
            raise PlanError(
                f"[sanitizers.{name}] {key!r} is not a setting", do=did_you_mean(key, known)
            )
        values[key] = _typed(f"[sanitizers.{name}] {key}", hints[key], value)
    try:
        made: Sanitizer = kind(**values)
    except PlanError as error:
        where = f"[sanitizers.{name}] {error.found}"
        raise PlanError(where, expected=error.expected, do=error.do) from None
    except (TypeError, ValueError) as error:
        raise PlanError(f"[sanitizers.{name}]: {error}") from None
    return made


def _typed(where: str, hint: Any, value: object) -> Any:
    """A value as the type that a setting has: a list may be a tuple, a text is no number."""
    adapter: TypeAdapter[Any] = TypeAdapter(hint)
    wrong = ""
    for candidate in (value, tuple(value) if isinstance(value, list) else value):
        try:
            return adapter.validate_python(candidate, strict=True)
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]["msg"]
    raise PlanError(f"{where} is {value!r}", expected=wrong[:1].lower() + wrong[1:])
