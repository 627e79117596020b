"""What sanitizers see of the data: the columns of their roles, and features made of images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pipelines.plan import Plan
from sanitizers.core.data import EMBEDDING, Roles
from sanitizers.core.errors import PlanError
from sanitizers.core.sanitizer import Witness
from sanitizers.encoders import ImageEncoder


def encoder_for(plan: Plan, roles: Roles) -> ImageEncoder | None:
    """What makes features of the images; None without images, or where an embedding is given.

    Raises
    ------
    PlanError
        If it needs a role that no column has.
    """
    encoder = plan.encoder() if roles.image and not roles.embedding else None
    for role in sorted(encoder.needs - roles.present if encoder else ()):
        raise PlanError(
            f"the encoder {plan.encoders.use!r} needs a {role}, and no column has that role",
            do=f"name one with --{role} COLUMN, or another encoder in [encoders] use",
        )
    return encoder


def seen_roles(roles: Roles, encoder: ImageEncoder | None) -> Roles:
    """The roles of the columns where an encoder makes one more."""
    return replace(roles, embedding=EMBEDDING) if encoder else roles


def looks_at(recipe: Witness, role: str) -> bool:
    """Whether a sanitizer looks at a role; ``time|source`` in its needs means either."""
    return any(role in need.split("|") for need in recipe.needs)


def looked_at(recipe: Witness, roles: Roles, encoder: ImageEncoder | None) -> frozenset[str]:
    """The roles whose columns a sanitizer looks at: features may come from others."""
    needs = frozenset(role for need in recipe.needs for role in need.split("|"))
    if "features" not in needs:
        return needs
    made = {"image"} if encoder else {"embedding"} if roles.embedding else set()
    return needs | made


def any_looks_at(recipes: Iterable[Witness], role: str) -> bool:
    """Whether one of some sanitizers looks at a role."""
    return any(looks_at(recipe, role) for recipe in recipes)
