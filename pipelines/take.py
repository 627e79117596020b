"""Which files of a source a run takes; no part of the plan, which says what a run will say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Take:
    """Which files of the source a run takes, where the dataset grows.

    Parameters
    ----------
    only : tuple of str, optional
        The names of the files; all whose rows no release holds by default.
    full : bool
        All files, scanned anew: the release stands for itself.
    """

    only: tuple[str, ...] | None = None
    full: bool = False

    @classmethod
    def load(cls, value: Mapping[str, Any]) -> Self:
        """Make it from what `to_json` made."""
        only = value.get("only")
        return cls(None if only is None else tuple(map(str, only)), bool(value.get("full")))

    def to_json(self) -> dict[str, Any]:
        """As an object that JSON can hold."""
        return asdict(self)


#: All that there is to take.
ALL = Take()
