"""A chart of the slices of time: which share of each was found, and where finds crowd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from pipelines.report_text import count, share, spelled
from pipelines.svg import (
    LEFT,
    LETTER,
    RIGHT,
    WIDTH,
    bar,
    number,
    peak,
    rule,
    spaced,
    svg,
    words,
    x_axis,
)

#: What is written where rows have no time.
MISSING = "no time"


@dataclass(frozen=True)
class SliceBar:
    """One slice of time.

    Parameters
    ----------
    first, last : str
        The least and the greatest time in it; `first` is `MISSING` where the rows have none.
    rows, review, quarantine : int
    severity : str
        ``alarm`` or ``warning`` where finds crowd, else nothing.
    """

    first: str
    last: str
    rows: int
    review: int
    quarantine: int
    severity: str


def slice_chart(bars: Sequence[SliceBar], column: str) -> Markup:
    """Draw the share of the rows of every slice that was found, crowded slices bracketed.

    Parameters
    ----------
    bars : sequence of SliceBar
        In order of time; at least one.
    column : str
        The time column, for the title.
    """
    # Brackets and their words stand between the title and the highest rule.
    top = 56.0 if any(b.severity for b in bars) else 26.0
    bottom = top + 96.0
    step = (WIDTH - LEFT - RIGHT) / len(bars)
    end = peak(max((b.quarantine + b.review) / b.rows for b in bars))
    body = [words(0, 12, "share of rows", "t")]
    for part in (0.0, 0.5, 1.0):
        body += rule(bottom - (bottom - top) * part, f"{100 * end * part:.3g} %")
    for i, b in enumerate(bars):
        x, unit = LEFT + i * step + 1, (bottom - top) / end / b.rows
        title = (
            f"{spelled(_span(b))}: {count(b.quarantine)} quarantine "
            f"({share(b.quarantine, b.rows)}), {count(b.review)} review, of {count(b.rows)} rows"
        )
        low, over = b.quarantine * unit, b.review * unit
        body.append(bar("q", x, bottom - low, step - 2, low, title))
        body.append(bar("r", x, bottom - low - over, step - 2, over, title))
    body += _brackets(bars, step, top - 10)
    body += x_axis(spaced(*_ticks(bars, step)), bottom)
    return svg(bottom + 26, f"Slices of time of equal size, by the column {spelled(column)}", body)


def _ticks(bars: Sequence[SliceBar], step: float) -> tuple[list[tuple[float, str]], float]:
    """Where slices begin, as days or, within a day, as times; and the room that a label needs."""
    days = len({b.first.partition(" ")[0] for b in bars if b.first != MISSING}) > 1
    words = [b.first.split(" ")[0 if days else -1] for b in bars]
    labels = [w if b.first != MISSING else MISSING for w, b in zip(words, bars, strict=True)]
    ticks = [(LEFT + (i + 0.5) * step, spelled(label)) for i, label in enumerate(labels)]
    # The last bar may be about rows without a time, which has to be said.
    if bars[-1].first == MISSING:
        ticks = [ticks[-1], *ticks[:-1]]
    return ticks, LETTER * max(len(label) for _, label in ticks) + 12


def _brackets(bars: Sequence[SliceBar], step: float, y: float) -> list[Markup]:
    """Lines over neighbours in which finds crowd, with their severity in a word."""
    parts, named, at = list[Markup](), list[tuple[float, str]](), 0
    for (severity, _), group in groupby(bars, lambda b: (b.severity, b.first == MISSING)):
        size = len(list(group))
        if severity:
            left, right = LEFT + at * step + 1, LEFT + (at + size) * step - 1
            line = Markup('<path class="b" d="M{} {}v-5H{}v5"/>').format(
                number(left), number(y), number(right)
            )
            middle = min(max((left + right) / 2, LEFT + 20), WIDTH - RIGHT - 20)
            parts.append(line)
            named.append((middle, severity))
        at += size
    return parts + [words(x, y - 10, severity, "c w") for x, severity in spaced(named)]


def _span(b: SliceBar) -> str:
    return b.first if b.first == MISSING or b.first == b.last else f"{b.first} to {b.last}"
