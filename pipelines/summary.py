"""The end of a run in the terminal: what was found, what could not be seen, where it lies."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from pipelines.outcome import Outcome
from pipelines.progress import per_second
from pipelines.terminal import StderrConsole, plain
from sanitizers.core.verdicts import KEEP, QUARANTINE, REVIEW
from sanitizers.risks import ALARM, NOTE, WARNING

_SEVERITIES = {ALARM: "bold red", WARNING: "yellow", NOTE: "bold"}
#: Columns that are named, at most.
NAMED = 5
_STYLES = {KEEP: "green", REVIEW: "yellow", QUARANTINE: "red"}


def summarise(console: StderrConsole, outcome: Outcome, seconds: float) -> None:
    """Print what came of a run.

    Parameters
    ----------
    console : StderrConsole
    outcome : Outcome
    seconds : float
        What the whole run took.
    """
    console.print()
    console.print(_headline(outcome, seconds), soft_wrap=True)
    console.print(_verdicts(outcome))
    console.print(_found(outcome))
    for severity, risk, message in outcome.findings:
        grave = Text(f"{severity}: {risk}: ", style=_SEVERITIES[severity])
        console.print(grave + Text(plain(message)), soft_wrap=True)
    for line in _unseen(outcome):
        console.print(plain(line), soft_wrap=True)
    console.print()
    for name, value in _paths(outcome):
        console.print(Text(f"{name:<12}", style="bold") + Text(plain(value)), soft_wrap=True)


def nothing_to_do(console: StderrConsole, outcome: Outcome) -> None:
    """Print that an earlier run has published exactly this."""
    console.print(
        f"nothing to do: release {outcome.version} already holds exactly this", soft_wrap=True
    )
    if outcome.held:
        console.print(plain(f"but {outcome.held_because}"), soft_wrap=True)
    for name, value in _paths(outcome):
        console.print(Text(f"{name:<12}", style="bold") + Text(plain(value)), soft_wrap=True)


def _headline(outcome: Outcome, seconds: float) -> Text:
    rate = f"{outcome.rows:,} rows in {seconds:.1f} s ({per_second(outcome.rows, seconds)})"
    if outcome.held:
        why = plain(f"nothing was published: {outcome.held_because}")
        return Text(f"{outcome.dataset}: held, {rate}\n", style="bold yellow") + Text(why)
    if outcome.already:
        text = f"{outcome.dataset}: release {outcome.version} was there already, {rate}"
        return Text(text, style="bold")
    joined = f", joined to {outcome.onto}" if outcome.onto else ""
    return Text(f"{outcome.dataset}: published {outcome.version}, {rate}{joined}", "bold green")


def _verdicts(outcome: Outcome) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("verdict")
    table.add_column("rows", justify="right")
    table.add_column("share", justify="right")
    for verdict in (KEEP, REVIEW, QUARANTINE):
        rows = getattr(outcome, verdict)
        share = f"{rows / max(outcome.rows, 1):.2%}"
        table.add_row(Text(verdict, style=_STYLES[verdict]), f"{rows:,}", share)
    return table


def _found(outcome: Outcome) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("sanitizer")
    for name in ("quarantine", "review", "scored", "abstained"):
        table.add_column(name, justify="right")
    for name, found in sorted(outcome.found.items()):
        counts = [f"{found[key]:,}" for key in (QUARANTINE, REVIEW, "scored", "abstained")]
        table.add_row(Text(plain(name)), *counts)
    if outcome.unreadable:
        table.add_row("unreadable rows", f"{outcome.unreadable:,}", "", "", "")
    return table


def _unseen(outcome: Outcome) -> Iterator[str]:
    for name, why in outcome.not_run:
        yield f"not run: {name}, because {why}"
    if outcome.unscanned:
        more = len(outcome.unscanned) - NAMED
        named = ", ".join(outcome.unscanned[:NAMED]) + (f" and {more} more" if more > 0 else "")
        yield f"not scanned: {named}; carried through as they came"
    if not outcome.trusted:
        yield (
            "no trusted rows: lines were drawn on the data under suspicion; a few hundred rows "
            "that you vouch for (--trusted, or an audit in 'sanitize review') find more"
        )


def _paths(outcome: Outcome) -> Iterator[tuple[str, str]]:
    place = outcome.place or outcome.release
    if place:
        yield "clean rows", f"{place}/clean"
    if outcome.report:
        yield "report", outcome.report
    if place:
        if outcome.review or outcome.quarantine:
            store = place.rsplit("/", 3)[0]
            yield "look", f"sanitize review {quote(outcome.dataset)} --store {quote(store)}"
        yield "next", f"sanitize verify {quote(place)}"
    else:
        yield "next", "read the report; raise --budget where you agree with what was found"
