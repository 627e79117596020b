"""A plan as a run of the server works on it: what has arrived, or the plan as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipelines import flows
from pipelines.drain import Drain
from pipelines.job import Job
from pipelines.outcome import Outcome
from pipelines.plan import Plan
from pipelines.progress import Progress
from pipelines.store import Store
from pipelines.take import ALL, Take
from pipelines.terminal import tell
from sanitizers.core.errors import SanitizeError

Json = dict[str, Any]
#: Shows the progress of what is run inside, under a name.
Shown = Callable[[str], Progress]


@dataclass(frozen=True)
class Served:
    """A plan as a run of the server works on it.

    Parameters
    ----------
    plan : Plan
    store : Store
    shown : callable
    device : str
    runner : str or None
    """

    plan: Plan
    store: Store
    shown: Shown
    device: str = "auto"
    runner: str | None = None

    @property
    def name(self) -> str:
        """The name of the dataset."""
        return self.plan.dataset.name

    def tell(self, line: str) -> None:
        """Say one line to people."""
        tell(self.name, line)

    def drain(self, *, again: bool) -> int:
        """Process what has arrived, and return in how many batches."""
        return Drain(self.plan, self.store, self.run, self.tell).all(again=again)

    def run_plan(self) -> Json:
        """Run the plan, unless it has published just this."""
        try:
            with self.store.at_work(self.name, tell=self.tell, command="sanitize serve"):
                published = Job(self.plan, self.store).published()
                outcome = published or self.run(ALL)
        except SanitizeError as error:
            self.tell(f"failed: {error}")
            raise
        self.tell(_line(outcome, new=published is None))
        return outcome.to_json()

    def run(self, take: Take) -> Outcome:
        """Run the plan on some files, as a flow of its own; the dataset is to be locked."""
        plan, store = self.plan.model_dump(mode="json"), self.store.address
        with flows.shown_by(self.shown(", ".join(take.only or ()) or self.name)):
            outcome = flows.sanitize_dataset(plan, store, self.device, take.to_json(), self.runner)
        return Outcome.load(outcome)


def _line(outcome: Outcome, *, new: bool) -> str:
    if outcome.held:
        return f"held: {outcome.held_because}"
    if not new:
        return f"nothing to do: release {outcome.version} holds exactly this"
    rows = f"{outcome.quarantine:,} of {outcome.rows:,} rows in quarantine"
    return f"published {outcome.version}, {rows}"
