"""What a run tells people while it works: live bars, plain lines, or nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from pipelines.terminal import StderrConsole, plain

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import ProgressColumn, TaskID

#: Seconds between two plain lines of one stage, at least.
LINE_SECONDS = 10.0


class Stage(Protocol):
    """One stage of a run while it works: a context manager, safe to use from any thread."""

    def advance(self, rows: int) -> None:
        """Say that a shard is done, and how many rows it had."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Progress(Protocol):
    """Where a run says how far it is. Stages may be open at once, in threads."""

    def stage(self, name: str, total: int | None = None, shards: int | None = None) -> Stage:
        """Open a stage.

        Parameters
        ----------
        name : str
            For instance ``examine: outliers``.
        total : int, optional
            The rows that it will work through, where known.
        shards : int, optional
            How many shards they lie in, where known.
        """
        ...

    def note(self, text: str) -> None:
        """Say one line."""
        ...


@dataclass(frozen=True)
class SilentStage:
    """A stage that says nothing."""

    def advance(self, rows: int) -> None:
        """Say nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


@dataclass(frozen=True)
class Silent:
    """Progress that says nothing."""

    def stage(self, name: str, total: int | None = None, shards: int | None = None) -> Stage:
        """Open a stage that says nothing."""
        return SilentStage()

    def note(self, text: str) -> None:
        """Say nothing."""


SILENT = Silent()


@dataclass
class LineStage:
    """A stage told in plain lines: one at its start, one at its end, few in between."""

    console: StderrConsole
    name: str
    total: int | None
    shards: int | None
    rows: int = 0
    done: int = 0
    started: float = 0.0
    spoke: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def advance(self, rows: int) -> None:
        """Count a shard; say so when the last line is ten seconds old."""
        with self._lock:
            self.rows += rows
            self.done += 1
            now = time.monotonic()
            speak = now - self.spoke >= LINE_SECONDS
            if speak:
                self.spoke = now
                line = self._so_far(now)
        if speak:
            self._say(line)

    def __enter__(self) -> Self:
        self.started = self.spoke = time.monotonic()
        self._say("started" + (f", {self.total:,} rows" if self.total else ""))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        seconds = time.monotonic() - self.started
        if kind is not None:
            self._say(f"stopped after {seconds:.1f} s")
            return
        rows = f"{self.rows:,} rows in " if self.rows else ""
        rate = f" ({per_second(self.rows, seconds)})" if self.rows else ""
        self._say(f"done, {rows}{seconds:.1f} s{rate}")

    def _so_far(self, now: float) -> str:
        parts = [f"{self.rows:,}" + (f" of {self.total:,} rows" if self.total else " rows")]
        if self.shards:
            parts.append(f"shard {self.done} of {self.shards}")
        parts.append(per_second(self.rows, now - self.started))
        if self.total and self.rows:
            left = (now - self.started) * max(self.total - self.rows, 0) / self.rows
            parts.append(f"about {left:.0f} s left")
        return ", ".join(parts)

    def _say(self, text: str) -> None:
        self.console.print(plain(f"{self.name}: {text}"), soft_wrap=True)


@dataclass(frozen=True)
class Lines:
    """Progress in plain lines, for logs and pipes."""

    console: StderrConsole

    def stage(self, name: str, total: int | None = None, shards: int | None = None) -> Stage:
        """Open a stage told in lines."""
        return LineStage(self.console, name, total, shards)

    def note(self, text: str) -> None:
        """Say one line."""
        self.console.print(plain(text), soft_wrap=True)


@dataclass
class LiveStage:
    """A stage shown as a bar."""

    bars: Bars
    task: TaskID
    shards: int | None
    done: int = 0

    def advance(self, rows: int) -> None:
        """Move the bar by a shard's rows."""
        self.done += 1
        self.bars.update(self.task, advance=rows, shards=_shards(self.done, self.shards))

    def __enter__(self) -> Self:
        self.bars.start_task(self.task)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.bars.update(self.task, total=self.bars.tasks[self.task].completed)
        self.bars.stop_task(self.task)


@dataclass(frozen=True)
class Live:
    """Progress as one bar per stage, for a terminal."""

    console: StderrConsole
    bars: Bars

    def stage(self, name: str, total: int | None = None, shards: int | None = None) -> Stage:
        """Open a stage shown as a bar."""
        task = self.bars.add_task(plain(name), start=False, total=total, shards=_shards(0, shards))
        return LiveStage(self.bars, task, shards)

    def note(self, text: str) -> None:
        """Say one line above the bars."""
        self.console.print(plain(text), soft_wrap=True)


def per_second(rows: int, seconds: float) -> str:
    """Say a speed, for instance ``12,300 rows/s``."""
    return f"{rows / max(seconds, 1e-3):,.0f} rows/s"


@contextmanager
def show(console: StderrConsole, *, quiet: bool = False) -> Iterator[Progress]:
    """Show progress on a console: bars on a terminal, lines elsewhere, nothing when quiet.

    Parameters
    ----------
    console : StderrConsole
    quiet : bool
    """
    try:
        if quiet:
            yield SILENT
        elif not console.is_terminal:
            yield Lines(console)
        else:
            from rich.progress import Progress as Bars

            with Bars(*_columns(), console=console, refresh_per_second=5) as bars:
                yield Live(console, bars)
    except BaseException:
        # Stages in other threads may go on for a while; the error is the last word.
        console.quiet = True
        raise


def _shards(done: int, of: int | None) -> str:
    return f"shard {done}/{of}" if of else ""


def _columns() -> tuple[ProgressColumn, ...]:
    from rich import progress
    from rich.text import Text

    class RowsPerSecond(progress.ProgressColumn):
        """The speed of a stage, over all its time: its shards are few."""

        def render(self, task: progress.Task) -> Text:
            rows = int(task.completed)
            return Text(per_second(rows, task.elapsed or 0.0) if rows else "")

    return (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=24),
        progress.TextColumn("{task.completed:,.0f} rows", markup=False),
        progress.TextColumn("{task.fields[shards]}", markup=False),
        RowsPerSecond(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
