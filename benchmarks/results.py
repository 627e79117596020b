"""What a benchmark prints, and the files that keep it."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parent / "results"
PACKAGES = ("numpy", "pandas", "pyarrow", "scikit-learn", "pyod", "prefect")

#: A cell; numbers are formatted when they are printed.
Cell = str | float | int | None


@dataclass(frozen=True)
class Grid:
    """A table of results.

    Parameters
    ----------
    title : str
    columns : sequence of str
        Those that end in ``%`` hold shares.
    rows : sequence of sequence
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def text(self) -> str:
        """Write the table as Markdown, aligned so that it reads well as it is."""
        cells = [
            [_format(c, name) for c, name in zip(row, self.columns, strict=True)]
            for row in self.rows
        ]
        widths = [
            max(len(line[i]) for line in [list(self.columns), *cells])
            for i in range(len(self.columns))
        ]
        numeric = [all(_is_number(row[i]) for row in self.rows) for i in range(len(widths))]
        lines = [_line(self.columns, widths, numeric)]
        lines.append(
            "|"
            + "|".join(
                "-" * (w + 1) + (":" if n else "-") for w, n in zip(widths, numeric, strict=True)
            )
            + "|"
        )
        lines += [_line(line, widths, numeric) for line in cells]
        return f"**{self.title}**\n\n" + "\n".join(lines) + "\n"


def publish(
    name: str, command: str, grids: Sequence[Grid], notes: Sequence[str], raw: object
) -> None:
    """Print the tables, and keep them as ``results/NAME.md`` with the raw figures beside it.

    Parameters
    ----------
    name : str
    command : str
        The command that prints them again.
    grids : sequence of Grid
    notes : sequence of str
        What has to be known to read them, a paragraph each.
    raw : object
        The single measurements, for ``results/NAME.json``.
    """
    parts = [f"# {name}", f"`{command}`", *notes, *(grid.text() for grid in grids), machine()]
    text = "\n\n".join(part.strip() for part in parts) + "\n"
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.md").write_text(text, encoding="utf-8")
    (FOLDER / f"{name}.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    print(text)


def say(text: str) -> None:
    """Say on standard error how far a benchmark has come."""
    print(text, file=sys.stderr, flush=True)


def machine() -> str:
    """Say on what the figures were taken."""
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    load = f"; load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, {versions}{load}."
    )


def mean(values: Sequence[float]) -> float:
    """Return the mean; there is at least one value."""
    return sum(values) / len(values)


def bound(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean and two standard errors of it, of each column, shape (tables, columns)."""
    error = shares.std(axis=0, ddof=1) / np.sqrt(len(shares))
    return np.asarray(shares.mean(axis=0) + 2 * error, dtype=np.float64)


def _format(cell: Cell, column: str) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    if column.endswith("%"):
        return f"{100 * cell:.2f}"
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:,.1f}"


def _is_number(cell: Cell) -> bool:
    return not isinstance(cell, str)


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, numeric, strict=True)
    )
    return "| " + " | ".join(padded) + " |"
