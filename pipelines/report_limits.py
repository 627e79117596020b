"""What a run could not see, said in the report so that silence is not taken for innocence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.report_facts import RunFacts
from pipelines.report_text import count, share

#: Columns that one sentence names.
NAMED = 12

_UNSCANNED = {
    "text": "poisoned texts, hidden instructions and trigger phrases",
    "prompt": "trigger phrases and hidden instructions in prompts",
    "response": "poisoned answers",
    "image": "patches, blended patterns and other changes to pictures",
    "embedding": "clusters of poisoned examples in the embedding",
}
_ABSENT = {
    "label": "rows with flipped or wrong labels",
    "time": "a campaign that was slipped in during one span of time",
    "source": "one supplier among many that delivers poisoned rows",
    "features": "unusual values, and anything that models could learn from them",
}


@dataclass(frozen=True)
class Limit:
    """One thing that the run could not see.

    Parameters
    ----------
    title : str
    text : str
        What stays invisible, and what would change that.
    columns : tuple of str
        The columns that it is about, at most `NAMED`.
    more : int
        How many columns are not named.
    """

    title: str
    text: str
    columns: tuple[str, ...] = ()
    more: int = 0


def limits(facts: RunFacts) -> tuple[Limit, ...]:
    """Gather what the run could not see, the most costly first."""
    parts = (_trust, _not_run, _roles, _unscanned, _no_role, _skipped, _abstained)
    return tuple(limit for part in parts for limit in part(facts))


def _trust(facts: RunFacts) -> Iterator[Limit]:
    if facts.trusted_rows:
        return
    yield Limit(
        "No trusted rows: the weaker mode",
        "Nobody vouched for any row, so every row was measured against the data under suspicion "
        "itself. An attacker who controls many rows shifts that measure; the lines must be "
        "cautious to spare clean rows; and attacks that look like ordinary rows are missed more "
        "often. A few hundred rows that a person vouches for buy more than any change of settings: "
        "give them with `--trusted FILE`, as a true-or-false column, or by an audit in "
        "`sanitize review`.",
    )


def _not_run(facts: RunFacts) -> Iterator[Limit]:
    for name, why in facts.not_run:
        card = facts.cards.get(name)
        threat = f" Not looked for: {card.threat or card.summary}" if card else ""
        yield Limit(f"{name} did not run", f"{why.rstrip('.')}.{threat}")


def _roles(facts: RunFacts) -> Iterator[Limit]:
    for role, unseen in _ABSENT.items():
        if role not in facts.roles.present and not _used(facts, role):
            where = f" If there is one, name it with `--{role} COLUMN`."
            give = "" if role == "features" else where
            yield Limit(f"No column has the role {role}", f"Invisible to this run: {unseen}.{give}")


def _unscanned(facts: RunFacts) -> Iterator[Limit]:
    for role, unseen in _UNSCANNED.items():
        if role in facts.roles.present and not _used(facts, role):
            yield Limit(
                f"The {role} column was carried through and not scanned",
                f"Its values were published as they came. Invisible to this run: {unseen}.",
                (getattr(facts.roles, role),),
            )


def _used(facts: RunFacts, role: str) -> bool:
    return any(role in facts.needs.get(name, ()) for name in facts.evidence)


def _no_role(facts: RunFacts) -> Iterator[Limit]:
    known = set(facts.roles.columns)
    names = [c.name for c in facts.ingested.columns if c.name not in known]
    if names:
        yield Limit(
            f"{_columns(len(names))} without a role",
            "Carried through unchanged; no sanitizer looked at what is in there. Poison that shows "
            "nowhere else is invisible.",
            tuple(names[:NAMED]),
            max(len(names) - NAMED, 0),
        )


def _skipped(facts: RunFacts) -> Iterator[Limit]:
    by_reason: dict[tuple[str, str], list[str]] = {}
    for column, why, names in _skips(facts):
        by_reason.setdefault((why, names), []).append(column)
    for (why, names), columns in by_reason.items():
        yield Limit(
            f"{_columns(len(columns))} skipped: {why}",
            f"Features by their role, but not looked at by {names}.",
            tuple(columns[:NAMED]),
            max(len(columns) - NAMED, 0),
        )


def _skips(facts: RunFacts) -> Iterator[tuple[str, str, str]]:
    """Each column that was skipped, why, and by which sanitizers."""
    by_column: dict[tuple[str, str], list[str]] = {}
    for name, skipped in facts.skipped.items():
        for column, why in skipped:
            by_column.setdefault((column, why), []).append(name)
    for (column, why), names in by_column.items():
        yield column, why, ", ".join(names)


def _abstained(facts: RunFacts) -> Iterator[Limit]:
    for name, found in facts.decision.found.items():
        abstained = found.get("abstained", 0)
        if abstained:
            whole = abstained + found.get("scored", 0)
            yield Limit(
                f"{name} gave no score for {count(abstained)} rows",
                f"That is {share(abstained, whole)} of the rows. It had nothing to go by, such as "
                "a missing label or too few rows of a class; these rows were judged by the other "
                "sanitizers alone.",
            )


def _columns(number: int) -> str:
    return "1 column" if number == 1 else f"{number:,} columns"
