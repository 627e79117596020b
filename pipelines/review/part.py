"""One run whose rows are looked at: what it read, what it decided, and where its evidence lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.decide import Decision
from pipelines.ingested import Ingested
from pipelines.manifest import Run, roles_in
from pipelines.store import Store
from sanitizers.core.data import Roles


@dataclass(frozen=True)
class Part:
    """One run whose rows a release holds; there are several where it has grown.

    Parameters
    ----------
    run : Run
    ingested : Ingested
    decision : Decision
    version : str or None
        The release in which its rows first appeared; None where it published nothing.
    """

    run: Run
    ingested: Ingested
    decision: Decision
    version: str | None

    @classmethod
    def of(cls, store: Store, run: Run, version: str | None) -> Part:
        """Read what a run has left.

        Parameters
        ----------
        store : Store
        run : Run
        version : str or None
            The release in which its rows first appeared.
        """
        return cls(
            run,
            Ingested.load(store.inputs(run.dataset, run.input)),
            Decision.load(store.run(run.dataset, run.key)),
            version,
        )

    @property
    def grave(self) -> dict[str, float | None]:
        """For each sanitizer the line of its quarantine."""
        return {line.sanitizer: line.quarantine for line in self.decision.thresholds}

    def evidence(self, store: Store) -> dict[str, Path]:
        """For each sanitizer the folder of its evidence."""
        keys = self.run.evidence.items()
        return {name: store.evidence(self.run.dataset, key) for name, key in keys}

    @property
    def roles(self) -> Roles:
        """The roles of the columns, as the run took them."""
        return roles_in(self.run.plan)
