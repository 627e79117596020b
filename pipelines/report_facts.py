"""What a report is made from: the facts of one run, as the stages leave them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING

from sanitizers.core.data import Roles

if TYPE_CHECKING:
    from pipelines.alarms import Alarms
    from pipelines.decide import Decision
    from pipelines.ingest import Ingested
    from pipelines.manifest import Audited, Counts
    from pipelines.risks import Looked
    from sanitizers.core.promise import Promise

#: Says in a sentence what a score means for a row: score and hint to sentence.
Reason = Callable[[float, str | None], str]


@dataclass(frozen=True)
class SanitizerCard:
    """What a reader must know of a sanitizer before believing it.

    Parameters
    ----------
    summary : str
        What its score says, in a line.
    threat : str
        Which attack it is for, and what the attacker can do.
    blind_spots : str
        When it stays silent or cries wolf, and what covers that.
    """

    summary: str
    threat: str = ""
    blind_spots: str = ""

    @classmethod
    def of(cls, sanitizer: object) -> SanitizerCard:
        """Read the card from the docstring of a sanitizer, or of its class.

        Its first paragraph is the summary; one begins with ``Threat:``, another with
        ``Blind spots:``.
        """
        kind = sanitizer if isinstance(sanitizer, type) else type(sanitizer)
        paragraphs = [" ".join(p.split()) for p in cleandoc(kind.__doc__ or "").split("\n\n")]

        def after(title: str) -> str:
            found = (p.removeprefix(title).strip() for p in paragraphs if p.startswith(title))
            return next(found, "")

        return cls(paragraphs[0], after("Threat:"), after("Blind spots:"))


@dataclass(frozen=True)
class Previous:
    """The release before this one."""

    version: str
    counts: Counts


@dataclass(frozen=True)
class RunFacts:
    """One run, ready to be reported.

    Parameters
    ----------
    dataset : str
        Its name.
    ingested : Ingested
    roles : Roles
    roles_notes : sequence of str
        How the roles were found, a line each.
    decision : Decision
    evidence : mapping of str to Path
        For each sanitizer that ran the folder with its evidence files.
    runs_folder : Path
        Where the verdict files lie.
    plan : mapping
        The resolved plan, as in the manifest.
    not_run : sequence of (str, str)
        Sanitizers that did not run, each with the reason.
    cards : mapping of str to SanitizerCard
        Of the sanitizers that ran and of those that did not.
    trusted_rows : int
        How many rows a person vouches for.
    version : str or None
        The release; None where nothing was published.
    created : str
        When, as it stands in the manifest. Nothing else in a report depends on the clock.
    run : str
        The key of the run.
    tool_version : str
    release : str
        Where the release lies, for the command that verifies it.
    reasons : mapping of str to callable
        Says what a score means, for rows under the line, of which no reason is stored.
    needs : mapping of str to roles
        Which roles each sanitizer looks at; says which columns nobody scanned.
    skipped : mapping of str to sequence of (str, str)
        For each sanitizer the columns that it could not use, each with the reason.
    previous : Previous or None
    looked : Looked or None
        What was looked for in columns and batches, and found.
    alarms : Alarms or None
        How the finds lie in time and among the sources.
    promise : Promise or None
        What the policy promises of clean rows, and what was measured of it.
    audited : Audited or None
        The trusted rows that people kept in an audit.
    """

    dataset: str
    ingested: Ingested
    roles: Roles
    roles_notes: Sequence[str]
    decision: Decision
    evidence: Mapping[str, Path]
    runs_folder: Path
    plan: Mapping[str, object]
    not_run: Sequence[tuple[str, str]]
    cards: Mapping[str, SanitizerCard]
    trusted_rows: int
    version: str | None
    created: str = ""
    run: str = ""
    tool_version: str = ""
    release: str = ""
    reasons: Mapping[str, Reason] = field(default_factory=dict)
    needs: Mapping[str, Iterable[str]] = field(default_factory=dict)
    skipped: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    previous: Previous | None = None
    looked: Looked | None = None
    alarms: Alarms | None = None
    promise: Promise | None = None
    audited: Audited | None = None
