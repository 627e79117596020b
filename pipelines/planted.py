"""Groups of rows that look planted, without proof: told as findings, and no row leaves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipelines.examined import read_kept
from sanitizers.core.keepsake import SUSPICION, Keepsake
from sanitizers.risks import NOTE, PLANTED, Finding

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
    doubts = (one for one in kept if one.kind == SUSPICION)
    # What was tried in vain is in the report only: nature is full of such patterns.
    # What is proven is in quarantine.
    open_ones = (d for d in doubts if not d.facts["refuted"] and not d.facts["proven"])
    return tuple(_finding(one) for one in open_ones)


def _finding(doubt: Keepsake) -> Finding:
    facts = doubt.facts
    rows, label = int(facts["rows"]), facts["label"]
    labelled = f"labelled {label!r}" if label is not None else "of several labels"
    message = (
        f"{rows:,} of {facts['sampled']:,} rows that were looked at, {labelled}, look planted: "
        f"{facts['why']}; nothing is proven, and clean images have such groups, too: look at "
        "those in the report"
    )
    detail = {"rows": rows, "row_ids": list(facts["row_ids"])}
    subject = "several labels" if label is None else str(label)
    # A note: 5,000 clean images have none (Fashion-MNIST) or one to three (CIFAR-10, signs).
    return Finding(PLANTED, NOTE, subject, float(rows), float(LEAST), message, detail)
