"""Progress that also counts the seconds of every stage."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from pipelines.progress import Progress, Stage

#: Among the seconds of the stages: how long a run waited for a Prefect server of its own.
WAIT = "wait: server"


@dataclass
class TimedStage:
    """A stage whose seconds are counted when it ends, also where it ends with an error."""

    stage: Stage
    name: str
    seconds: dict[str, float]
    started: float = 0.0

    def advance(self, rows: int) -> None:
        """Hand on that a shard is done."""
        self.stage.advance(rows)

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        self.stage.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stage.__exit__(kind, error, trace)
        took = time.monotonic() - self.started
        self.seconds[self.name] = self.seconds.get(self.name, 0.0) + took


@dataclass(frozen=True)
class Timed:
    """Progress told elsewhere, and timed here.

    Parameters
    ----------
    progress : Progress
        Where it is told.
    seconds : dict of str to float
        For each stage that was opened what it took; stages that were done by an earlier
        run are not opened. Stages may lie in one another and beside one another.
    began : float
        When it was made, by the monotonic clock.
    """

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    @property
    def whole_seconds(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self.began

    def stage(self, name: str, total: int | None = None, shards: int | None = None) -> Stage:
        """Open a stage that is timed."""
        return TimedStage(self.progress.stage(name, total, shards), name, self.seconds)

    def note(self, text: str) -> None:
        """Hand on a line."""
        self.progress.note(text)
