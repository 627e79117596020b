"""The terminal that people read: one console on standard error, and text made safe for it."""

from __future__ import annotations

import os
import sys
import unicodedata

from rich.console import Console


class StderrConsole(Console):
    """A console on standard error that falls silent when its reader goes away.

    A run that publishes must not die because the pager behind it was closed.
    """

    def __init__(self) -> None:
        super().__init__(stderr=True, highlight=False, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Write nothing more; anything still buffered goes nowhere."""
        self.quiet = True
        silence(sys.stderr.fileno())


def answer(text: str) -> None:
    """Write lines to standard output, where the next program may read them."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def tell(dataset: str, line: str) -> None:
    """Say one line about a dataset on standard error."""
    sys.stderr.write(plain(f"{dataset}: {line}") + "\n")
    sys.stderr.flush()


def silence(descriptor: int) -> None:
    """Point a file descriptor at nothing, so that a last flush cannot raise."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def plain(text: str) -> str:
    r"""Make text from data safe to print: one line, no control characters.

    A column name may hold escape codes that repaint a terminal; they are shown
    as ``\x1b`` and the like.

    Parameters
    ----------
    text : str
    """
    return "".join(c if _shows(c) else c.encode("unicode_escape").decode() for c in text)


def _shows(character: str) -> bool:
    return unicodedata.category(character)[0] != "C"
