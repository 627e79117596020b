"""Charts as inline SVG: no script, no picture from elsewhere, colours from the page's CSS."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import asinh, ceil, floor, log10, sinh

from markupsafe import Markup

from pipelines.report_text import count, figure, moment, share, spelled
from pipelines.svg import (
    LEFT,
    LETTER,
    RIGHT,
    WIDTH,
    bar,
    nice,
    number,
    peak,
    rule,
    spaced,
    svg,
    words,
    x_axis,
)

_SUFFIX = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Histogram:
    """Scores counted in bars; each holds the scores above its left edge, up to its right one.

    Parameters
    ----------
    edges : tuple of float, length k + 1
    counts : tuple of int, length k
    centre, unit : float
        The axis runs with ``asinh((x - centre) / unit)``: even within a unit or so of the
        centre, logarithmic beyond. A unit of 0 makes it even everywhere.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    centre: float = 0.0
    unit: float = 0.0

    def place(self, score: float) -> float:
        """Where on the axis a score lies."""
        return asinh((score - self.centre) / self.unit) if self.unit else score

    def value(self, place: float) -> float:
        """The score at a place on the axis."""
        return sinh(place) * self.unit + self.centre if self.unit else place


@dataclass(frozen=True)
class TimeBins:
    """Verdicts counted over time; each bin begins at its left edge.

    Parameters
    ----------
    edges : tuple of float, length k + 1
        Seconds since 1970 where `dates`, else plain numbers.
    keep, review, quarantine : tuple of int, length k
    dates : bool
    """

    edges: tuple[float, ...]
    keep: tuple[int, ...]
    review: tuple[int, ...]
    quarantine: tuple[int, ...]
    dates: bool


def share_bar(keep: int, review: int, quarantine: int) -> Markup:
    """Draw the three verdicts as one bar; what is not nothing is at least a sliver."""
    whole = keep + review + quarantine
    parts = [("k", "keep", keep), ("r", "review", review), ("q", "quarantine", quarantine)]
    drawn = [(mark, name, n) for mark, name, n in parts if n]
    widths = [max(n / whole * WIDTH, 3.0) for _, _, n in drawn]
    body, x = [], 0.0
    for (mark, name, n), least in zip(drawn, widths, strict=True):
        width = least * WIDTH / sum(widths)
        title = f"{name}: {count(n)} rows, {share(n, whole)}"
        body.append(bar(mark, x, 0, max(width - 1, 1), 18, title))
        x += width
    label = ", ".join(f"{count(n)} {name}" for _, name, n in parts)
    return svg(18, f"Rows by verdict: {label}", body, "share", stretch=True)


def meter(share: float, most: float, mark: str) -> Markup:
    """Draw a share as a small bar in a table, long as the largest of them allows.

    Parameters
    ----------
    share, most : float
        This one, and the largest in the table.
    mark : str
        The class of its colour.
    """
    width = 100 * share / most if most else 0.0
    return Markup(
        '<svg class="meter" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="m" width="100" height="8"/><rect class="{}" width="{}" height="8"/></svg>'
    ).format(mark, number(max(width, 1.0 if share else 0.0)))


def histogram_chart(
    data: Histogram,
    review: float | None,
    quarantine: float | None,
    name: str,
    row: float | None = None,
) -> Markup:
    """Draw all scores of a sanitizer with its lines; counts on a logarithmic axis.

    Parameters
    ----------
    data : Histogram
    review, quarantine : float or None
        The lines; rows with a score above one get its verdict.
    name : str
        The sanitizer, for the title.
    row : float, optional
        The score of one row, to be marked.
    """
    top, bottom, height = 44.0, 210.0, 252.0 if row is None else 268.0
    low, high = data.place(data.edges[0]), data.place(data.edges[-1])
    wide = WIDTH - LEFT - RIGHT

    def across(score: float) -> float:
        return LEFT + wide * (data.place(score) - low) / (high - low)

    # From half a row up, so that a bar of one row is seen.
    tall = log10(2 * max(*data.counts, 10) * 1.2)
    up = [bottom - (bottom - top) * log10(2 * max(n, 0.5)) / tall for n in data.counts]
    body = list(_count_axis(max(data.counts), bottom, top, tall))
    for left, right, n, y in zip(data.edges, data.edges[1:], data.counts, up, strict=False):
        if n:
            x = across(left)
            title = f"score {figure(left)} to {figure(right)}: {count(n)} rows"
            mark = _zone(right, review, quarantine)
            body.append(bar(mark, x, y, max(across(right) - x - 0.6, 1), bottom - y, title))
    ticks = [(across(v), f"{v:.4g}") for v in _score_ticks(data)]
    body += x_axis(spaced(ticks), bottom)
    body.append(words(LEFT + wide / 2, height - 6, "score (higher is worse)", "c"))
    body.append(words(0, 12, "rows, log scale", "t"))
    for verdict, line, y in (("quarantine", quarantine, 12.0), ("review", review, 31.0)):
        if line is not None:
            body += _line(verdict, line, across(line), y, bottom)
    if row is not None:
        body += _mark(min(max(across(row), LEFT), WIDTH - RIGHT), bottom)
    label = f"Scores of {spelled(name)}: {count(sum(data.counts))} rows, with the lines drawn"
    return svg(height, label, body)


def time_chart(data: TimeBins, column: str) -> Markup:
    """Draw which share of the rows was found over time, and how many rows there were.

    Parameters
    ----------
    data : TimeBins
    column : str
        The time column, for the title.
    """
    top, middle, base, bottom, height = 26.0, 150.0, 192.0, 222.0, 248.0
    wide = WIDTH - LEFT - RIGHT
    step = wide / len(data.keep)
    rows = [sum(n) for n in zip(data.keep, data.review, data.quarantine, strict=True)]
    found = [r + q for r, q in zip(data.review, data.quarantine, strict=True)]
    most = max((f / n for f, n in zip(found, rows, strict=True) if n), default=0.0)
    end = peak(most)
    body = [words(0, 12, "share of rows", "t"), words(0, base - 10, "rows", "t")]
    for part in (0.0, 0.5, 1.0):
        body += rule(middle - (middle - top) * part, f"{100 * end * part:.3g} %")
    for i, n in enumerate(rows):
        if n:
            x, width = LEFT + i * step, max(step - 1, 0.6)
            when = f"{_when(data, i)} to {_when(data, i + 1)}"
            low = data.quarantine[i] / n / end * (middle - top)
            over = data.review[i] / n / end * (middle - top)
            title = (
                f"{when}: {count(data.quarantine[i])} quarantine, {count(data.review[i])} review, "
                f"{count(data.keep[i])} keep"
            )
            tall = max((bottom - base) * n / max(rows), 1.0)
            body.append(bar("q", x, middle - low, width, low, title))
            body.append(bar("r", x, middle - low - over, width, over, title))
            body.append(bar("k", x, bottom - tall, width, tall, title))
    body.append(words(LEFT - 6, base + 8, _short(max(rows)), "e"))
    starts = [(LEFT + i * step, _when(data, i)) for i in range(len(rows))]
    body += x_axis(spaced(starts, LETTER * len(starts[0][1]) + 12), bottom)
    return svg(height, f"Verdicts over time, by the column {spelled(column)}", body)


def _count_axis(most: int, bottom: float, top: float, tall: float) -> Iterable[Markup]:
    power = 0
    while 10**power <= max(most, 10):
        yield from rule(bottom - (bottom - top) * log10(2 * 10**power) / tall, _short(10**power))
        power += 1


def _line(verdict: str, line: float, x: float, y: float, bottom: float) -> list[Markup]:
    label, right = f"{verdict} above {figure(line)}", WIDTH - RIGHT
    if x > right:
        return [words(right, y, f"{label} (beyond the right edge)", "e")]
    x, room = max(x, LEFT), 8.5 * len(label)
    # Labels point away from each other, so that neither is crossed by the other line.
    leftwards = x > room if verdict == "review" else x + room > right
    said = words(x - 5, y, label, "e") if leftwards else words(x + 5, y, label, "s")
    path = Markup('<path class="l" d="M{} {}V{}"/>').format(
        number(x), number(y - 10), number(bottom)
    )
    return [path, said]


def _mark(x: float, bottom: float) -> list[Markup]:
    """Point at the score of a row from below the axis."""
    tip = Markup('<path class="w" d="M{} {}l7 11h-14z"/>').format(number(x), number(bottom + 1))
    # Words at an edge of the chart point inwards.
    side = "s" if x < LEFT + 40 else "e" if x > WIDTH - RIGHT - 40 else "c"
    return [tip, words(x, bottom + 33, "this row", f"{side} w")]


def _zone(right: float, review: float | None, quarantine: float | None) -> str:
    # No bar crosses a line, so its right edge tells on which side all of it lies.
    if quarantine is not None and right > quarantine:
        return "q"
    return "r" if review is not None and right > review else "k"


def _score_ticks(data: Histogram) -> list[float]:
    low, high = data.edges[0], data.edges[-1]
    if not data.unit:
        step = nice((high - low) / 6)
        return [i * step for i in range(ceil(low / step), floor(high / step) + 1)]
    powers = range(floor(log10(data.unit)) - 1, ceil(log10(max(abs(low), abs(high)))) + 1)
    sizes = [m * 10.0**p for p in powers for m in (1, 2, 5)]
    # The roundest first, since those that come later must find room between them.
    sizes.sort(key=lambda v: (round(v / 10 ** floor(log10(v) + 1e-9)), v))
    return [v for v in [0.0, *(s * x for x in sizes for s in (1, -1))] if low <= v <= high]


def _when(data: TimeBins, edge: int) -> str:
    if not data.dates:
        return f"{data.edges[edge]:.6g}"
    span, width = data.edges[-1] - data.edges[0], data.edges[1] - data.edges[0]
    if width >= 86400 * 28:
        return moment(data.edges[edge], "%Y" if width >= 86400 * 360 else "%Y-%m")
    if width >= 86400:
        return moment(data.edges[edge])
    return moment(data.edges[edge], "%m-%d %H:%M" if span < 86400 * 300 else "%Y-%m-%d %H:%M")


def _short(number: int) -> str:
    for size, suffix in _SUFFIX:
        if number >= size:
            return f"{number / size:.3g}{suffix}"
    return str(number)
