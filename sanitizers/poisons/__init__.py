"""Known attacks on tables and images, each returning the poisoned rows and the truth.

They are for measuring defences: poison a copy, sanitize it, and compare with the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanitizers.core.errors import PlanError, did_you_mean
from sanitizers.core.settings import make
from sanitizers.poisons.batches import DuplicateFlood, SkewBatch
from sanitizers.poisons.clusters import DenseCluster
from sanitizers.poisons.corners import FarCorner
from sanitizers.poisons.flips import (
    FlipCluster,
    FlipFar,
    FlipNear,
    FlipPair,
    FlipRandom,
    FlipTarget,
)
from sanitizers.poisons.image_triggers import ImageTrigger
from sanitizers.poisons.poison import TRUTH_SCHEMA, Poison, Poisoned
from sanitizers.poisons.regressions import Gradient, Statistical, Stealthy
from sanitizers.poisons.shifts import FeatureShift
from sanitizers.poisons.triggers import Trigger

__all__ = ["POISONS", "TRUTH_SCHEMA", "Poison", "Poisoned", "poison"]

#: Every poison of the product.
POISONS: Mapping[str, type[Poison]] = {
    kind.name: kind
    for kind in (
        FlipRandom,
        FlipPair,
        FlipTarget,
        FlipNear,
        FlipFar,
        FlipCluster,
        FarCorner,
        DenseCluster,
        Statistical,
        Gradient,
        Stealthy,
        DuplicateFlood,
        SkewBatch,
        Trigger,
        FeatureShift,
        ImageTrigger,
    )
}


def poison(name: str, settings: Mapping[str, Any] | None = None) -> Poison:
    """Make a poison from its name and its settings.

    Raises
    ------
    PlanError
        If the name or a setting is unknown, or a setting has a wrong value.
    """
    if name not in POISONS:
        raise PlanError(f"no poison {name!r}", do=did_you_mean(name, POISONS))
    return make("poison", name, POISONS[name], settings)
