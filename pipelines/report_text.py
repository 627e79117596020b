"""Text for the report: values of hostile rows made visible, numbers and lines in words."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby

from markupsafe import Markup, escape

from sanitizers.core.errors import PlanError
from sanitizers.core.lines import Condition, Line

#: Characters of one value that the report shows.
VALUE_CHARACTERS = 200

# Letters and symbols by their category, and yet blank on the screen.
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
# More accents than this on one letter paint over the lines above and below.
_ACCENTS = 3


@dataclass(frozen=True)
class Text:
    """A value as the report shows it.

    Parameters
    ----------
    text : str or None
        Its first characters; None where the value is missing.
    more : int
        How many characters were cut off.
    """

    text: str | None
    more: int = 0


def cut(text: str, limit: int = VALUE_CHARACTERS) -> Text:
    """Keep the first `limit` characters, and count the others."""
    return Text(text[:limit], max(len(text) - limit, 0))


def value_text(value: object, limit: int = VALUE_CHARACTERS) -> Text:
    """Say a value of a row in characters, never all of a large one.

    Parameters
    ----------
    value : object
        What pyarrow gives for it.
    limit : int
    """
    if value is None:
        return Text(None)
    if isinstance(value, bytes | list | Mapping):
        unit = "bytes" if isinstance(value, bytes) else "values"
        return Text(f"({len(value):,} {unit})")
    if isinstance(value, float):
        return Text(f"{value:.10g}")
    if isinstance(value, datetime | date | time):
        return cut(value.isoformat(), limit)
    return cut(str(value), limit)


def visible(value: Text | str | None) -> Markup:
    """Escape text for HTML, with every character that hides or misleads spelled out.

    Control characters, direction overrides, zero-width and unassigned characters and
    piles of accents become ``<i>U+202E</i>`` and the like; a run of one such character
    is written once, with its length.
    """
    if not isinstance(value, Text):
        value = Text(value)
    if value.text is None:
        return Markup("<i>missing</i>")
    if not value.text:
        return Markup("<i>empty</i>")
    if value.text.isascii() and value.text.isprintable():
        return escape(value.text) + _rest(value.more)
    html = Markup("").join(
        _spelled(run[0][0], len(run)) if hidden else escape("".join(c for c, _ in run))
        for hidden, run in ((h, list(r)) for h, r in groupby(_marked(value.text), _group))
    )
    return html + _rest(value.more)


def spelled(text: str) -> str:
    """Do as `visible`, for a place that takes no markup: the name of a chart, an attribute."""
    return str(visible(cut(text)).striptags())


def _rest(more: int) -> Markup:
    return Markup(" <i>… {} more characters</i>").format(count(more)) if more else Markup("")


def _marked(text: str) -> list[tuple[str, bool]]:
    """Each character, and whether it has to be spelled out."""
    marked, accents = [], 0
    for character in text:
        category = unicodedata.category(character)
        accents = accents + 1 if category in {"Mn", "Me"} else 0
        hides = category[0] == "C" or category in {"Zl", "Zp"} or character in _BLANK
        marked.append((character, hides or accents > _ACCENTS))
    return marked


def _group(marked: tuple[str, bool]) -> str:
    """What keeps neighbours apart: a hidden character stands with its equals only."""
    return marked[0] if marked[1] else ""


def _spelled(character: str, times: int) -> Markup:
    name = _SHORT.get(character, f"U+{ord(character):04X}")
    return Markup("<i>{}</i>").format(name if times == 1 else f"{name} ×{times:,}")


def sentence(text: str) -> str:
    """Begin with a capital letter and end with a full stop."""
    text = text.strip()
    ended = not text or text.endswith((".", "!", "?"))
    return text[:1].upper() + text[1:] + ("" if ended else ".")


def count(number: int) -> str:
    """Write a count, for instance ``12,345``."""
    return f"{number:,}"


def share(part: int, whole: int) -> str:
    """Write a share in percent; what is not nothing is never written as nothing."""
    if not whole or not part:
        return "0 %"
    percent = 100 * part / whole
    if percent < 0.01:
        return "< 0.01 %"
    if part < whole and percent > 99.99:
        return "> 99.99 %"
    if part == whole:
        return "100 %"
    return f"{percent:.1f} %" if 10 <= percent <= 90 else f"{percent:.2f} %"


def percent(share: float) -> str:
    """Write a share that was measured or promised in percent, in three digits."""
    return f"{100 * share:.3g} %"


def figure(number: float | None) -> str:
    """Write a score or a p-value in four digits."""
    return "–" if number is None else f"{number:.4g}"


def probability(number: float | None) -> str:
    """Write a p-value in two digits."""
    if number is None:
        return "unknown"
    return f"{number:.2g}" if number > 0 else "< 1e-300"


def moment(seconds: float, form: str = "%Y-%m-%d") -> str:
    """Write a time in seconds as a date, or as a number where no calendar has it."""
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).strftime(form)
    except (OverflowError, ValueError):
        return f"{seconds:.4g}"


def line_in_words(line: str) -> str:
    """Say what a line of a plan, such as ``p <= 0.002``, means.

    A line of a kind that is not known here is given back as it is.
    """
    try:
        conditions = Line.parse(line).conditions
    except PlanError:
        return line
    return ", and ".join(_condition_in_words(c) for c in conditions)


def _condition_in_words(condition: Condition) -> str:
    value = condition.value
    percent = f"{100 * value:.4g} %"
    words = {
        "score": f"the score is above {value:g}",
        "p": f"fewer than {percent} of clean rows are expected to score this high",
        "fdr": f"at most {percent} of the rows found are expected to be clean",
        "mad": f"the score lies more than {value:g} robust standard deviations above the median",
        "top": f"the row is among the worst {percent} of all rows",
    }
    return words.get(condition.kind, str(condition))
