"""Charts of a trigger: what it did before and after its carriers were left out, and a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipelines.report_text import percent, spelled
from pipelines.svg import LEFT, RIGHT, WIDTH, bar, number, svg, words


@dataclass(frozen=True)
class TriggerMap:
    """Images of a label as points.

    Parameters
    ----------
    points : tuple of (float, float)
        How much of the trigger is in an image, and its place along the first principal
        component of the images.
    marked : tuple of bool
        Which of them are carriers.
    line : bool
        Whether carriers are those from 1 on; else exact pixels decide.
    """

    points: tuple[tuple[float, float], ...]
    marked: tuple[bool, ...]
    line: bool


def flip_bars(bars: Sequence[tuple[str, float]], label: str) -> Markup:
    """Draw shares of images that changed their label, a bar each.

    Parameters
    ----------
    bars : sequence of (str, float)
        What was done, and the share.
    label : str
        What the chart shows.
    """
    tall, left, right = 26.0, 190.0, 70.0
    wide, body = WIDTH - left - right, []
    for i, (name, share) in enumerate(bars):
        y = i * (tall + 10)
        said = percent(share)
        body.append(words(left - 10, y + 17, name, "e"))
        body.append(bar("m", left, y, wide, tall, f"{name}: {said}"))
        body.append(bar("q", left, y, wide * min(share, 1.0), tall, f"{name}: {said}"))
        body.append(words(left + wide + 10, y + 17, said, "s w"))
    return svg(len(bars) * (tall + 10) - 10, spelled(label), body, "chart flips")


def trigger_map(data: TriggerMap, label: str) -> Markup:
    """Draw the images of a label by how much of the trigger is in them; carriers in colour.

    Parameters
    ----------
    data : TriggerMap
    label : str
        What the chart shows.
    """
    top, bottom, height = 8.0, 232.0, 264.0
    xs, ys = zip(*data.points, strict=True)
    across = _Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    up = _Axis(min(ys), max(ys), bottom - 6, top)
    body = [_dots("others", data, across, up, False), _dots("carriers", data, across, up, True)]
    ends = (LEFT, bottom, WIDTH - RIGHT, top)
    frame = Markup('<path class="a" d="M{} {}H{}M{} {}V{}"/>').format(
        *(number(v) for v in (ends[0], ends[1], ends[2], ends[0], ends[1], ends[3]))
    )
    if data.line and min(xs) < 1 < max(xs):
        x = number(across(1.0))
        line = Markup('<path class="l" d="M{} {}V{}"/>').format(x, number(top), number(bottom))
        body += [line, words(across(1.0) + 5, top + 8, "the line", "s")]
    body += [
        frame,
        words((LEFT + WIDTH) / 2, bottom + 24, "how much of the trigger is in an image", "c"),
        Markup('<text class="c" transform="translate({} {}) rotate(-90)">{}</text>').format(
            number(LEFT - 14), number((top + bottom) / 2), "what varies most"
        ),
    ]
    return svg(height, spelled(label), body)


class _Axis:
    """From values to places on the page."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        pad = 0.04 * (high - low) or 1.0
        self._low, self._width = low - pad, high - low + 2 * pad
        self._start, self._span = start, end - start

    def __call__(self, value: float) -> float:
        return self._start + self._span * (value - self._low) / self._width


def _dots(name: str, data: TriggerMap, across: _Axis, up: _Axis, chosen: bool) -> Markup:
    # One path of strokes without a length, with round ends: a tenth of as many circles.
    pairs = zip(data.points, data.marked, strict=True)
    places = [
        f"M{number(across(x))} {number(up(y))}h0" for (x, y), marked in pairs if marked == chosen
    ]
    return Markup('<path class="dots {}" d="{}"><title>{}</title></path>').format(
        "q" if chosen else "k", "".join(places), name
    )
