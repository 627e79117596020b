"""What sanitizers see of the data: the columns of their roles, and features made of images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.embed import embedding_key
from pipelines.embedded import Embedded
from pipelines.ingest import Ingested
from pipelines.manifest import Embedding
from pipelines.plan import Plan
from pipelines.plan_parts import OFF
from pipelines.store import Store
from sanitizers.core.data import EMBEDDING, Roles
from sanitizers.core.errors import PlanError
from sanitizers.core.sanitizer import Witness
from sanitizers.encoders import AUTO, ImageEncoder, check_device, find_device


@dataclass(frozen=True)
class MadeFeatures:
    """Features that an encoder makes of the images of a run.

    Parameters
    ----------
    encoder : ImageEncoder
    name : str
        As a plan would give it.
    keys : tuple of str
        That of the rows and, where there are any, that of the trusted rows of a file.
    folders : tuple of Path
        Where the embeddings lie, one for each key.
    """

    encoder: ImageEncoder
    name: str
    keys: tuple[str, ...]
    folders: tuple[Path, ...]

    @classmethod
    def of(
        cls, plan: Plan, roles: Roles, data: Ingested, trusted: Ingested | None, store: Store
    ) -> MadeFeatures | None:
        """What a plan makes of the images; None where it makes nothing."""
        encoder = encoder_for(plan, roles)
        if encoder is None:
            return None
        asked = plan.encoders.use
        parts = [data, *([trusted] if trusted else [])]
        keys = tuple(embedding_key(encoder, data, part, roles, store.salt) for part in parts)
        folders = tuple(store.embeddings(plan.dataset.name, key) for key in keys)
        return cls(encoder, encoder.name if asked == AUTO else asked, keys, folders)

    def record(self) -> Embedding:
        """What the record of the run says of them, once they are made."""
        done = Embedded.load(self.folders[0])
        return Embedding(self.name, self.keys[0], done.device, done.width)


def resolved(made: MadeFeatures | None) -> dict[str, Any]:
    """``[encoders]`` of a plan, with nothing left to choose."""
    if made is None:
        return {"use": OFF, "settings": {}}
    settings = asdict(made.encoder)  # type: ignore[call-overload]
    return {"use": made.name, "settings": {made.name: settings}}


def check_encoder(plan: Plan, device: str = "cpu") -> None:
    """Refuse an encoder or a device that is not there, before any data are read.

    Raises
    ------
    PlanError
    """
    encoder = plan.encoder()
    if encoder is not None:
        encoder.check()
    check_device(device)
    if device == "cuda":
        find_device(device)


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


def seen_roles(plan: Plan, roles: Roles) -> Roles:
    """The roles of the columns, with one more where an encoder makes it."""
    return replace(roles, embedding=EMBEDDING) if encoder_for(plan, roles) else roles


def looks_at(recipe: Witness, role: str) -> bool:
    """Whether a sanitizer looks at a role; ``time|source`` in its needs means either."""
    return any(role in need.split("|") for need in recipe.needs)


def looked_at(recipe: Witness, roles: Roles, made: MadeFeatures | None) -> frozenset[str]:
    """The roles whose columns a sanitizer looks at: features may come from others."""
    needs = frozenset(role for need in recipe.needs for role in need.split("|"))
    if "features" not in needs:
        return needs
    return needs | ({"image"} if made else {"embedding"} if roles.embedding else set())


def any_looks_at(recipes: Iterable[Witness], role: str) -> bool:
    """Whether one of some sanitizers looks at a role."""
    return any(looks_at(recipe, role) for recipe in recipes)
