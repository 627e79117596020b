"""Filters: which held rows are looked at, as words of an address and as a condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sanitizers.core.verdicts import KEEP, QUARANTINE

OPEN, RULED, ALL = "open", "ruled", "all"
STATES = (OPEN, KEEP, QUARANTINE, RULED, ALL)
_WORDS = ("state", "verdict", "sanitizer", "label", "source", "group")


@dataclass(frozen=True)
class Filter:
    """Which held rows are looked at; an empty text is no limit.

    Parameters
    ----------
    state : {"open", "keep", "quarantine", "ruled", "all"}
        Those that nobody has ruled on yet, those ruled so, those ruled at all, or all.
    verdict, sanitizer, label, source : str
    since, until : float or None
        Of the time column; the second is not included.
    group : str
        Rows of one group only.
    """

    state: str = OPEN
    verdict: str = ""
    sanitizer: str = ""
    label: str = ""
    source: str = ""
    since: float | None = None
    until: float | None = None
    group: str = ""

    @property
    def any(self) -> bool:
        """Whether it limits more than the state."""
        return replace(self, state=OPEN) != Filter()

    def sql(self) -> tuple[str, list[object]]:
        """A condition on the tables of the queue, and its values."""
        parts: list[tuple[str, object]] = []
        for name in ("verdict", "label", "source"):
            if value := getattr(self, name):
                parts.append((f"h.{name} = ?", value))
        if self.sanitizer:
            parts.append(("list_contains(h.sanitizers, ?)", self.sanitizer))
        if self.group:
            parts.append(("h.shared = ?", self.group))
        if self.since is not None:
            parts.append(("h.time >= ?", self.since))
        if self.until is not None:
            parts.append(("h.time < ?", self.until))
        plain = {OPEN: "s.place is null", RULED: "s.place is not null", ALL: "true"}
        if self.state in plain:
            parts.append((f"({plain[self.state]} or ?)", False))
        else:
            parts.append(("s.verdict = ?", self.state))
        return " and ".join(text for text, _ in parts), [value for _, value in parts]


def filter_of(said: Mapping[str, str], since: float | None, until: float | None) -> Filter:
    """Read a filter from words of an address; what is not understood is left out."""
    words = {name: said.get(name, "")[:500] for name in _WORDS}
    if words["state"] not in STATES:
        words["state"] = OPEN
    return Filter(**words, since=since, until=until)
