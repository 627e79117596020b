"""What an examination of columns and batches finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

NOTE, WARNING, ALARM = "note", "warning", "alarm"
#: How grave a finding is, the gravest first.
SEVERITIES = (ALARM, WARNING, NOTE)


@dataclass(frozen=True)
class Finding:
    """A risk of a column, a class, a batch or a source; never of a row.

    Parameters
    ----------
    risk : str
        One of `sanitizers.risks.RISKS`.
    severity : str
        ``note``: worth knowing, and natural in many tables. ``warning``: rare in clean
        tables. ``alarm``: about never met in clean tables.
    subject : str
        The column, class, batch or source that it is about, as one would name it.
    value : float
        What was measured.
    line : float
        Where a value of this risk begins to be told with this severity.
    message : str
        One or two sentences for people.
    detail : mapping
        Other numbers, names and row ids, as JSON can hold them.
    """

    risk: str
    severity: str
    subject: str
    value: float
    line: float
    message: str
    detail: Mapping[str, Any] = field(default_factory=dict)


def in_order(findings: list[Finding], risks: tuple[str, ...]) -> tuple[Finding, ...]:
    """The gravest first, then in the order of the risks, then the largest beyond its line."""
    # As floats, since 30 and 30.0 are two texts in JSON.
    plain = (replace(f, value=round(float(f.value), 6), line=float(f.line)) for f in findings)
    return tuple(
        sorted(
            plain,
            key=lambda f: (
                SEVERITIES.index(f.severity),
                risks.index(f.risk),
                -abs(f.value - f.line),
                f.subject,
                f.message,
            ),
        )
    )
