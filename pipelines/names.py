"""Names of datasets, keys of pieces of work, numbers of versions: what may become a path."""

from __future__ import annotations

import re
from pathlib import Path

from sanitizers.core.errors import IntegrityError, PlanError

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_KEY = re.compile(r"[0-9a-f]{16}")
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
_RESERVED = frozenset({"salt"})


def is_name(name: str) -> bool:
    """Whether a text can name a dataset."""
    return bool(_NAME.fullmatch(name)) and name not in _RESERVED


def is_version(name: str) -> bool:
    """Whether a text is a version such as ``1.2.0``."""
    return bool(_VERSION.fullmatch(name))


def version_of(name: str) -> tuple[int, int, int]:
    """Split a version such as ``1.2.0`` into its numbers."""
    match = _VERSION.fullmatch(name)
    if match is None:
        raise PlanError(f"{name!r} is not a version", expected="one like '1.0.0'")
    return int(match[1]), int(match[2]), int(match[3])


def checked_name(name: str) -> str:
    """Return the name of a dataset if it is a good one.

    Raises
    ------
    PlanError
        If it is none; the message offers one that is.
    """
    if not is_name(name):
        raise PlanError(
            f"{name!r} cannot name a dataset",
            expected="1 to 64 of a-z, 0-9, '.', '_', '-', the first a letter or digit",
            do=f"try {name_from(name)!r}",
        )
    return name


def name_from(source: str | Path) -> str:
    """Make the name of a dataset from that of a file, a folder or a glob."""
    parts = [p for p in str(source).replace("\\", "/").split("/") if p not in {"", ".", ".."}]
    for part in reversed(parts):
        # A glob says nothing; the folder that it looks into does.
        if any(c in part for c in "*?["):
            continue
        stem = re.sub(r"(\.[A-Za-z0-9]{1,8}){1,2}$", "", part) or part
        name = re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_")[:64].rstrip("-_")
        if name:
            return f"{name}-data" if name in _RESERVED else name
    return "data"


def checked_key(key: str) -> str:
    """Return a key if it is one, so that no path leads out of the store.

    Raises
    ------
    IntegrityError
        If it is none.
    """
    if not _KEY.fullmatch(key):
        raise IntegrityError(f"{key!r} is not a key", expected="16 hex characters")
    return key
