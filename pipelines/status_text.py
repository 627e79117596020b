"""How datasets stand, in words: a table, and lines below it."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.status import DatasetState, ReleaseState, Waiting
from pipelines.terminal import plain

#: Columns of a table that goes to no terminal.
WIDTH = 200


def text(found: Sequence[DatasetState]) -> str:
    """Write for people how datasets stand, a table and lines below it."""
    if not found:
        return "no dataset yet"
    wide = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    console = Console(file=io.StringIO(), width=wide, highlight=False, markup=False, emoji=False)
    console.print(_table(found))
    for line in _lines(found):
        console.print(plain(line), soft_wrap=True)
    written = console.file
    return written.getvalue().rstrip("\n") if isinstance(written, io.StringIO) else ""


def _table(found: Sequence[DatasetState]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("dataset", no_wrap=True)
    table.add_column("release")
    table.add_column("when (UTC)")
    for name in ("rows", "clean", "review", "quarantine"):
        table.add_column(name, justify="right")
    for state in found:
        shown = Text(state.dataset, style="bold")
        for release in state.releases or (ReleaseState("none yet", "", None),):
            counts = release.counts
            cells = [counts.rows, counts.keep, counts.review, counts.quarantine] if counts else []
            when = release.created[:16].replace("T", " ")
            table.add_row(shown, release.version, when, *(f"{cell:,}" for cell in cells))
            shown = Text("")
    return table


def _lines(found: Sequence[DatasetState]) -> Iterator[str]:
    for state in found:
        if state.at_work is not None:
            yield f"{state.dataset}: at work {state.at_work}"
        for release in state.releases:
            if release.damaged:
                yield f"{state.dataset}: release {release.version} is damaged: {release.damaged}"
        for held in state.held:
            where = f"; report: {held.report}" if held.report else ""
            when = held.created[:16].replace("T", " ")
            yield f"{state.dataset}: nothing was published {when}: {held.why}{where}"
        if state.review:
            yield f"{state.dataset}: {state.review:,} rows wait for review"
        for line in _waiting(state.arrivals):
            yield f"{state.dataset}: {line}"


def _waiting(found: Waiting) -> Iterator[str]:
    if found.arrived:
        yield f"{found.arrived:,} arrived, and not run yet"
    if found.failed:
        yield f"{found.failed:,} arrived and failed, and will be tried again: {found.why}"
    if found.given_up:
        yield f"{found.given_up:,} arrived and failed too often: {found.why}"
    if found.damaged:
        yield f"what has arrived is not known: {found.damaged}"
