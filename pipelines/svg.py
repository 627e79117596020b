"""The parts of charts as inline SVG: bars, rules, axes and words, all of them escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import floor, isfinite, log10

from markupsafe import Markup

#: Units across a chart, and those left of its first bar and right of its last one.
WIDTH = 640.0
LEFT, RIGHT = 54.0, 12.0
#: Units that a letter takes where they are largest, on a narrow screen.
LETTER = 9.0


def bar(mark: str, x: float, y: float, width: float, height: float, title: str) -> Markup:
    """Draw a bar of a class of colour, which says its title under the pointer."""
    if height <= 0:
        return Markup("")
    place = tuple(number(v) for v in (x, y, width, height))
    return Markup(
        '<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>'
    ).format(mark, *place, title)


def words(x: float, y: float, text: str, mark: str) -> Markup:
    """Write words; `mark` says where they begin: ``s`` start, ``c`` centre, ``e`` end."""
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(
        mark, number(x), number(y), text
    )


def rule(y: float, label: str) -> tuple[Markup, Markup]:
    """Draw a level line with its label at the left."""
    line = Markup('<path class="g" d="M{} {}H{}"/>').format(
        number(LEFT), number(y), number(WIDTH - RIGHT)
    )
    return line, words(LEFT - 6, y + 4, label, "e")


def x_axis(ticks: Sequence[tuple[float, str]], bottom: float) -> list[Markup]:
    """Draw the axis below, with labels at places."""
    axis = Markup('<path class="a" d="M{} {}H{}"/>').format(
        number(LEFT), number(bottom), number(WIDTH - RIGHT)
    )
    return [axis, *(words(x, bottom + 16, label, "c") for x, label in ticks)]


def spaced(ticks: Sequence[tuple[float, str]], room: float = 62.0) -> list[tuple[float, str]]:
    """Those ticks that have room, earlier ones first."""
    kept: list[tuple[float, str]] = []
    for x, label in ticks:
        if all(abs(x - other) >= room for other, _ in kept):
            kept.append((x, label))
    return sorted(kept)


def nice(step: float) -> float:
    """The next round number: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** floor(log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * 0.999)


def peak(share: float) -> float:
    """Where an axis of shares ends that reaches a share."""
    return min(nice(100 * share), 100.0) / 100 if share > 0 else 0.01


def number(value: float) -> str:
    """Write a place with at most one digit behind the point."""
    return f"{value:.1f}".removesuffix(".0") if isfinite(value) else "0"


def svg(
    height: float, label: str, body: Iterable[Markup], mark: str = "chart", stretch: bool = False
) -> Markup:
    """Join the parts of a chart; its label says what it shows."""
    # Every part went through Markup.format, which escapes; joining keeps that.
    fit = Markup(' preserveAspectRatio="none"') if stretch else ""
    return Markup(
        '<svg class="{}" viewBox="0 0 {} {}"{} role="img" aria-label="{}"><title>{}</title>{}</svg>'
    ).format(mark, number(WIDTH), number(height), fit, label, label, Markup("").join(body))
