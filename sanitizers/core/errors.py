"""Every error that the product raises on purpose."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class SanitizeError(Exception):
    """An error meant for people: what was found, what was expected, what to do.

    Parameters
    ----------
    found : str
        What was met, with names and counts.
    expected : str, optional
        What should have been there.
    do : str, optional
        The next step for the reader.
    """

    #: Exit status of the command line when this error ends a run.
    exit_status: ClassVar[int] = 4

    def __init__(self, found: str, *, expected: str = "", do: str = "") -> None:
        self.found = found
        self.expected = expected
        self.do = do
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = [self.found]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.do:
            parts.append(self.do)
        return "; ".join(parts)

    def __reduce__(self) -> tuple[object, tuple[str, str, str, type[SanitizeError]]]:
        # Keyword-only arguments do not survive the default reduction, and errors
        # cross process borders when a flow runs its tasks elsewhere.
        return (_rebuild, (self.found, self.expected, self.do, type(self)))


def _rebuild(found: str, expected: str, do: str, kind: type[SanitizeError]) -> SanitizeError:
    return kind(found, expected=expected, do=do)


class PlanError(SanitizeError):
    """The command or the plan is wrong."""

    exit_status = 2


class InputError(SanitizeError):
    """The input cannot be read."""

    exit_status = 3


class IntegrityError(SanitizeError):
    """Stored bytes are not what was written, or rows were lost or invented."""

    exit_status = 3


class StoreError(SanitizeError):
    """The store cannot be written or read."""

    exit_status = 3


class EvidenceError(SanitizeError):
    """A sanitizer raised, or broke its promise; nothing is published on partial evidence."""

    exit_status = 4


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?``, or the known words when nothing is near.

    Parameters
    ----------
    word : str
        What was written.
    known : iterable of str
        What could have been meant.
    """
    words = [str(k) for k in known]
    folded = {w.casefold(): w for w in reversed(words)}
    near = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    if near:
        return f"did you mean {folded[near[0]]!r}?"
    if not words:
        return ""
    listed = ", ".join(repr(w) for w in words[:12])
    more = f" and {len(words) - 12} more" if len(words) > 12 else ""
    return f"known: {listed}{more}"
