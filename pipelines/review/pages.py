"""Pages: templates, the addresses between them, and answers as HTML or as a sheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import fields
from datetime import UTC, date, datetime, time
from functools import cache
from pathlib import Path
from urllib.parse import urlencode

from jinja2 import Environment
from starlette.responses import HTMLResponse

from pipelines.report import environment
from pipelines.report_text import moment
from pipelines.review.filters import Filter
from pipelines.review.queue import HeldRow
from pipelines.review.sessions import Session

_HERE = Path(__file__).parent
#: What a cell of a sheet must not begin with, lest a spreadsheet takes it for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@cache
def templates() -> Environment:
    """The templates of the review, beside those of the report."""
    made = environment(_HERE / "templates")
    made.globals |= {"address": address, "words": words_of, "day": day}
    return made


def page(
    name: str, session: Session | None, status: int = 200, /, **values: object
) -> HTMLResponse:
    """Render a page.

    Parameters
    ----------
    name : str
        Of the template, without its ending.
    session : Session or None
    status : int
    **values
        What the template asks for.
    """
    text = templates().get_template(f"{name}.html.j2").render(session=session, **values)
    return HTMLResponse(text, status)


@cache
def style() -> str:
    """The style: that of the report, and what the review adds to it."""
    names = ("report.css.j2", "review.css.j2")
    return "\n".join(templates().get_template(name).render() for name in names)


@cache
def keys() -> str:
    """The script for those who use the keyboard; all else works without it."""
    return (_HERE / "templates" / "keys.js").read_text(encoding="utf-8")


def words_of(chosen: Filter) -> dict[str, str]:
    """A filter as words of an address; what limits nothing is left out."""
    plain, found = Filter(), {}
    for one in fields(Filter):
        value = getattr(chosen, one.name)
        if value != getattr(plain, one.name) and value is not None:
            found[one.name] = f"{value:.10g}" if isinstance(value, float) else value
    return found


def address(dataset: str, chosen: Filter | None = None, to: str = "", **more: object) -> str:
    """The address of a page of a dataset.

    Parameters
    ----------
    dataset : str
    chosen : Filter, optional
    to : str
        Which page, as ``/row``; empty for the queue.
    **more
        Further words of the address; those that are None or empty are left out.
    """
    words = words_of(chosen) if chosen else {}
    words |= {name: str(value) for name, value in more.items() if value not in (None, "")}
    return f"/d/{dataset}{to}" + (f"?{urlencode(words)}" if words else "")


def row_address(dataset: str, row_id: str, chosen: Filter | None = None) -> str:
    """The address of the page of a row."""
    return address(dataset, chosen, "/row", id=row_id)


def moment_of(text: str, *, after: bool = False) -> float | None:
    """Read a date or a number from a form; None where it is neither.

    Parameters
    ----------
    text : str
    after : bool
        The end of a day that is to be included.
    """
    try:
        return float(text)
    except ValueError:
        pass
    try:
        start = datetime.combine(date.fromisoformat(text), time(), UTC).timestamp()
    except ValueError:
        return None
    return start + 86_400 if after else start


def day(seconds: float | None, dates: bool) -> str:
    """Write a time, of a column of dates or of numbers."""
    if seconds is None:
        return ""
    return moment(seconds) if dates else f"{seconds:.10g}"


def sheet(rows: Iterable[HeldRow]) -> Iterator[str]:
    """Held rows as CSV, in which no cell is a formula."""
    names = ("row_id", "verdict", "sanitizer", "score", "line", "p_value", "reason", "label")
    yield _line((*names, "source", "ruled", "who"))
    for row in rows:
        numbers = (row.score, row.line, row.p_value)
        shown = ("" if n is None else f"{n:.10g}" for n in numbers)
        texts = (row.message, row.label, row.source, row.ruled, row.who)
        yield _line(
            (row.row_id, row.verdict, row.sanitizer, *shown, *(text or "" for text in texts))
        )


def cell(text: str) -> str:
    """Make a text safe to open in a spreadsheet: what would be a formula is quoted."""
    return f"'{text}" if text.startswith(FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii()


def _line(cells: Iterable[str]) -> str:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerow([cell(text) for text in cells])
    return out.getvalue()
