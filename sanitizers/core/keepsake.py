"""What a fit leaves behind, for later fits and for people: named plain arrays, and facts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanitizers.core.errors import EvidenceError

#: The kind of a keepsake that later fits may apply; it is published with the release.
TRIGGER = "trigger"
#: Kinds that are for people: images that carry a trigger, and groups of images that look
#: planted, without proof.
CARRIERS, SUSPICION = "carriers", "suspicion"
KINDS = (TRIGGER, CARRIERS, SUSPICION)
#: Arrays of a keepsake, their axes and bytes, and the bytes of its facts as JSON, at most.
ARRAYS, AXES, ARRAY_BYTES, FACT_BYTES = 16, 4, 16 * 2**20, 2**18
#: The types of numbers that an array may have: truth values, bytes, and little-endian numbers.
TYPES = ("|b1", "|u1", "<i8", "<f4", "<f8")


@dataclass(frozen=True, eq=False)
class Keepsake:
    """Something found, by which it can be shown or found again. Never code, never objects.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    facts : mapping
        As JSON can hold them.
    arrays : mapping of str to ndarray
        Of one of `TYPES`, finite.
    origin : str
        Where it was found first, for instance ``release 1.0.0 of mine``; empty where it is
        new. No part of what it says.

    Raises
    ------
    EvidenceError
        If it is too large, or not plain.
    """

    kind: str
    facts: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]] = field(repr=False)
    origin: str = ""

    def __post_init__(self) -> None:
        if wrong := flaw(self.kind, self.facts, self.arrays):
            raise EvidenceError(f"a keepsake is not plain: {wrong}")

    @cached_property
    def digest(self) -> str:
        """Names it by all that it says; 32 hex characters."""
        named = sorted(self.arrays.items())
        forms = [[name, array.dtype.str, list(array.shape)] for name, array in named]
        head = hashlib.sha256(_json([self.kind, dict(self.facts), forms]))
        for _, array in named:
            head.update(np.ascontiguousarray(array).tobytes())
        return head.hexdigest()[:32]


def flaw(kind: str, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Say what keeps facts and arrays from being a keepsake; empty where nothing does."""
    if kind not in KINDS:
        return f"it is of the kind {kind!r}"
    try:
        size = len(_json(dict(facts)))
    except (TypeError, ValueError, RecursionError) as error:
        return f"its facts are no JSON: {error}"
    if size > FACT_BYTES:
        return f"its facts take {size:,} bytes, and may take {FACT_BYTES:,}"
    if len(arrays) > ARRAYS:
        return f"it has {len(arrays)} arrays, and may have {ARRAYS}"
    total = sum(array.nbytes for array in arrays.values())
    if total > ARRAY_BYTES:
        return f"its arrays take {total:,} bytes, and may take {ARRAY_BYTES:,}"
    found = (_flaw_of(name, array) for name, array in sorted(arrays.items()))
    return next((wrong for wrong in found if wrong), "")


def _flaw_of(name: str, array: NDArray[Any]) -> str:
    if not name.isidentifier() or not name.isascii() or len(name) > 64:
        return f"an array is named {name[:64]!r}"
    if array.dtype.str not in TYPES:
        return f"array {name!r} is of type {array.dtype}"
    if array.ndim > AXES:
        return f"array {name!r} has {array.ndim} axes"
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return f"array {name!r} has values that are no finite numbers"
    return ""


def _json(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return text.encode()
