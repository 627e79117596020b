"""Groups of rows that look planted, without proof: told as findings, and no row leaves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipelines.examined import read_kept
from sanitizers.core.keepsake import SUSPICION, Keepsake
from sanitizers.risks import NOTE, PLANTED, WARNING, Finding

#: The fewest rows of such a group.
LEAST = 10


def planted(evidence: Iterable[Path]) -> tuple[Finding, ...]:
    """The suspicions that sanitizers have left in their evidence.

    Parameters
    ----------
    evidence : iterable of Path
        Folders of finished evidence.

    Raises
    ------
    IntegrityError
        If a keepsake is not as it was written.
    """
    kept = (one for folder in evidence for one in read_kept(folder))
    return tuple(_finding(one) for one in kept if one.kind == SUSPICION)


def _finding(doubt: Keepsake) -> Finding:
    facts = doubt.facts
    rows, label = int(facts["rows"]), facts["label"]
    labelled = f"labelled {label!r}" if label is not None else "of several labels"
    begins, severity = "look planted, and nothing is proven", WARNING
    if facts["refuted"]:
        # A pattern that was tried on innocent rows, in vain: nature is full of these.
        begins, severity = "were tried for a trigger, in vain", NOTE
    message = (
        f"{rows:,} rows {labelled} {begins} ({facts['sampled']:,} were looked at): "
        f"{facts['why']}; the report shows some"
    )
    detail = {"rows": rows, "row_ids": list(facts["row_ids"])}
    subject = "several labels" if label is None else str(label)
    return Finding(PLANTED, severity, subject, float(rows), float(LEAST), message, detail)
