"""Triggers for the report: those that were found, with pictures, and groups that look planted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from pipelines.examined import read_kept
from pipelines.report_facts import RunFacts
from pipelines.report_scan import read
from pipelines.report_text import Text, cut
from pipelines.shards import shard_name
from pipelines.trigger_charts import TriggerMap
from pipelines.trigger_pictures import TriggerPictures, strip, trigger_pictures
from sanitizers.backdoors.signature import FORMAT
from sanitizers.core.keepsake import CARRIERS, SUSPICION, TRIGGER, Keepsake

#: Characters of all pictures of triggers and groups.
_ALL_PICTURES = 900_000
#: Triggers and groups that are shown with pictures, at most.
CARDS = 40


@dataclass(frozen=True)
class Strip:
    """Images as ``data:`` addresses: some of the rows told of, and some others of their label.

    Parameters
    ----------
    rows, others : tuple of str
    row_ids : tuple of Text
        Of the rows told of.
    """

    rows: tuple[str, ...]
    others: tuple[str, ...]
    row_ids: tuple[Text, ...]


@dataclass(frozen=True)
class TriggerCard:
    """A confirmed trigger.

    Parameters
    ----------
    name, digest : str
        How reasons call it, and how its files are named.
    origin : str
        The release that confirmed it; empty where this run did.
    found : int
        Rows of this run that carry it, with its label.
    label, source : Text or None
        The label that it calls for, None where it moves every label; the label from which it
        moves most.
    kind : str
        ``patch`` or ``additive``.
    exact : bool
        Whether exact pixels decide who is a carrier.
    flips : mapping of str to float
        ``before`` and ``after`` its carriers were left out, in the label where it moves most;
        ``mean_before`` and ``mean_after`` over the labels; ``tried`` images.
    carriers, covers, audited : int
        When it was confirmed: carriers with its label, and with others; images looked at.
    pictures : TriggerPictures
    strip : Strip or None
    map : TriggerMap or None
    """

    name: str
    digest: str
    origin: str
    found: int
    label: Text | None
    source: Text | None
    kind: str
    exact: bool
    flips: Mapping[str, float]
    carriers: int
    covers: int
    audited: int
    pictures: TriggerPictures
    strip: Strip | None
    map: TriggerMap | None


@dataclass(frozen=True)
class GroupCard:
    """A group of rows that looks planted."""

    label: Text | None
    rows: int
    sampled: int
    why: Text
    strip: Strip


@dataclass(frozen=True)
class Triggers:
    """What the report says of triggers.

    Parameters
    ----------
    cards : tuple of TriggerCard
        Those that some row carries, and those that this run has confirmed.
    calm : tuple of (str, str, Text or None)
        Known ones that no row carries: name, origin, label.
    proven, groups, refuted : tuple of GroupCard
        Those with a trigger that cannot be stamped, those that look planted, and those whose
        pattern was tried in vain.
    more : int
        Triggers and groups that are not shown.
    """

    cards: tuple[TriggerCard, ...] = ()
    calm: tuple[tuple[str, str, Text | None], ...] = ()
    proven: tuple[GroupCard, ...] = ()
    groups: tuple[GroupCard, ...] = ()
    refuted: tuple[GroupCard, ...] = ()
    more: int = 0

    @property
    def any(self) -> bool:
        """Whether there is anything to say."""
        return bool(self.calm or self.pictures)

    @property
    def pictures(self) -> bool:
        """Whether there are pictures."""
        return bool(self.cards or self.proven or self.groups or self.refuted)


def triggers(facts: RunFacts) -> Triggers:
    """Read what sanitizers have left of triggers and groups.

    Raises
    ------
    IntegrityError
        If it is not as it was written.
    """
    kept = [(name, one) for name, folder in facts.evidence.items() for one in read_kept(folder)]
    ours = [(n, k) for n, k in kept if k.kind == TRIGGER and k.facts.get("format") == FORMAT]
    counts = {name: _counts(facts, name) for name in {n for n, _ in ours}}
    found = [(one, counts[name][one.digest[:8]]) for name, one in ours]
    shown = [(one, rows) for one, rows in found if rows or not one.origin]
    calm = [one for one, rows in found if one.origin and not rows]
    doubts = [one for _, one in kept if one.kind == SUSPICION]
    more = max(len(shown) + len(doubts) - CARDS, 0)
    shown, doubts = shown[:CARDS], doubts[: max(CARDS - len(shown), 0)]
    allowance = _ALL_PICTURES // max(len(shown) + len(doubts), 1)
    exhibits = {k.facts["trigger"]: k for _, k in kept if k.kind == CARRIERS}
    return Triggers(
        tuple(_card(one, rows, exhibits.get(one.digest), allowance) for one, rows in shown),
        tuple((one.digest[:8], one.origin, _label(one.facts["label"])) for one in calm),
        tuple(_group(one, allowance) for one in doubts if one.facts["proven"]),
        tuple(_group(one, allowance) for one in doubts if _is_open(one)),
        tuple(_group(one, allowance) for one in doubts if one.facts["refuted"]),
        more,
    )


def _is_open(doubt: Keepsake) -> bool:
    return not doubt.facts["refuted"] and not doubt.facts["proven"]


def _counts(facts: RunFacts, name: str) -> Counter[str]:
    """How many rows carry each trigger, by its name, which hints begin with."""
    found = Counter[str]()
    for number, shard in enumerate(facts.ingested.shards):
        path = facts.evidence[name] / shard_name(number, "evidence")
        hints = read(path, ["hint"], shard.rows).column("hint").cast("string")
        for pair in pc.value_counts(hints).to_pylist():
            if pair["values"] is not None:
                found[pair["values"].removeprefix("trigger ")[:8]] += pair["counts"]
    return found


def _card(one: Keepsake, rows: int, exhibit: Keepsake | None, characters: int) -> TriggerCard:
    facts = one.facts
    pictures = trigger_pictures(facts["stamp"], one.arrays)
    left = characters - len(pictures.stamp) - len(pictures.place) - len(pictures.stamped)
    return TriggerCard(
        name=one.digest[:8],
        digest=one.digest,
        origin=one.origin,
        found=rows,
        label=_label(facts["label"]),
        source=_label(facts["source"]),
        kind=facts["stamp"],
        exact=facts["mark"] is not None,
        flips=facts["flips"],
        carriers=facts["carriers"],
        covers=facts["covers"],
        audited=facts["rows"],
        pictures=pictures,
        strip=_strip(exhibit, left) if exhibit else None,
        map=_map(exhibit, facts["mark"] is None) if exhibit else None,
    )


def _group(one: Keepsake, characters: int) -> GroupCard:
    facts = one.facts
    return GroupCard(
        _label(facts["label"]),
        facts["rows"],
        facts["sampled"],
        cut(facts["why"], 500),
        _strip(one, characters),
    )


def _strip(one: Keepsake, characters: int) -> Strip:
    half = max(characters // 2, 0)
    rows, others = (strip(one.arrays[name], half) for name in ("carriers", "innocents"))
    ids: Sequence[str] = one.facts["row_ids"]
    return Strip(rows, others, tuple(cut(row_id, 80) for row_id in ids[: len(rows)]))


def _map(one: Keepsake, line: bool) -> TriggerMap | None:
    if "points" not in one.arrays:
        return None
    points = tuple((float(x), float(y)) for x, y in one.arrays["points"])
    return TriggerMap(points, tuple(map(bool, one.arrays["marked"])), line)


def _label(label: str | None) -> Text | None:
    return None if label is None else cut(label, 80)
