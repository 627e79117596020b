"""The rows that the report shows: the worst of each sanitizer, and those that cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipelines.ingest import FILE, ROW
from pipelines.pictures import described, thumbnail
from pipelines.report_facts import RunFacts
from pipelines.report_scan import Candidate, take
from pipelines.report_text import Text, cut, sentence, value_text, visible
from pipelines.shards import shard_name
from sanitizers.core.data import ROW_ID
from sanitizers.core.image_columns import IMAGE

#: Features of a row that are shown at once, and columns that are shown folded.
FEATURES, FOLDED = 12, 40
#: Unreadable rows, and reasons for them, that are shown.
UNREADABLE_ROWS, UNREADABLE_REASONS = 20, 20
# HTML of all values of a report, and of those of one row, in characters.
_ALL_VALUES, _ROW_VALUES = 2_400_000, 6_000
# The same of the pictures of rows with images.
_ALL_PICTURES, _ROW_PICTURE = 1_200_000, 20_000
_LIST_ITEM = 60
_SENTENCE, _OTHERS = 300, 2
# Different reasons that are counted at once.
_REASONS = 1_000


@dataclass(frozen=True)
class Field:
    """One value of a row. `role` is empty where the column is a feature or has none."""

    column: Text
    role: str
    value: Text


@dataclass(frozen=True)
class WorstRow:
    """A row that a sanitizer scored high.

    Parameters
    ----------
    row_id, file, sentence : Text
    row : int
        Its position among the rows of its file, from 0.
    verdict : str
    score : float
    p_value : float or None
    others : tuple of Text
        What other sanitizers say of it.
    shown, folded : tuple of Field
    left_out : int
        Columns that are not shown.
    picture : str
        A small picture of its image, painted anew; empty where there is none.
    """

    row_id: Text
    file: Text
    row: int
    verdict: str
    score: float
    p_value: float | None
    sentence: Text
    others: tuple[Text, ...]
    shown: tuple[Field, ...]
    folded: tuple[Field, ...]
    left_out: int
    picture: str = ""


@dataclass(frozen=True)
class UnreadableRow:
    """A row that could not be read, as it came."""

    file: Text
    row: int
    reason: Text
    raw: Text


@dataclass(frozen=True)
class Unreadable:
    """The rows that could not be read: how many for which reason, and the first of them."""

    rows: int
    reasons: tuple[tuple[Text, int], ...] = ()
    other_reasons: int = 0
    first: tuple[UnreadableRow, ...] = ()


def worst_rows(
    facts: RunFacts, candidates: Mapping[str, Sequence[Candidate]]
) -> dict[str, tuple[WorstRow, ...]]:
    """Read the worst rows of every sanitizer, with what is known of them.

    Parameters
    ----------
    facts : RunFacts
    candidates : mapping of str to sequence of Candidate
        For each sanitizer where its worst rows lie.
    """
    every = [c for chosen in candidates.values() for c in chosen]
    shown, folded = _columns(facts)
    wanted = [ROW_ID, FILE, ROW, *shown, *folded, *_inner(facts)]
    rows = _read(facts.ingested.folder, "rows", every, wanted)
    verdicts = _read(facts.runs_folder, "verdicts", every, ["verdict", "reasons"])
    allowance = min(_ROW_VALUES, _ALL_VALUES // max(len(every), 1))
    picture = min(_ROW_PICTURE, _ALL_PICTURES // max(len(every), 1))
    found = {}
    for name, chosen in candidates.items():
        evidence = _read(facts.evidence[name], "evidence", chosen, ["p_value", "hint"])
        found[name] = tuple(
            _row(facts, name, c, rows[key] | verdicts[key] | evidence[key], (allowance, picture))
            for c, key in ((c, (c.shard, c.position)) for c in chosen)
        )
    return found


def unreadable_rows(facts: RunFacts) -> Unreadable:
    """Count the unreadable rows by reason, and read the first of them."""
    path = facts.ingested.unreadable_file()
    if path is None:
        return Unreadable(0)
    reasons = Counter[str]()
    first = list[UnreadableRow]()
    with pq.ParquetFile(path) as file:
        shown = ["file", "row", "raw", "reason"]
        for batch in file.iter_batches(batch_size=UNREADABLE_ROWS, columns=shown):
            first = [_unreadable_row(r) for r in batch.to_pylist()]
            break
        for batch in file.iter_batches(columns=["reason"]):
            for reason in batch.column(0).to_pylist():
                known = reason in reasons or len(reasons) < _REASONS
                reasons[reason if known else ""] += 1
    top = [(cut(r), n) for r, n in reasons.most_common(UNREADABLE_REASONS) if r]
    other = reasons.total() - sum(n for _, n in top)
    return Unreadable(facts.ingested.unreadable, tuple(top), other, tuple(first))


def _unreadable_row(row: Mapping[str, Any]) -> UnreadableRow:
    return UnreadableRow(
        cut(str(row["file"])), int(row["row"]), cut(str(row["reason"])), cut(str(row["raw"]), 300)
    )


def _columns(facts: RunFacts) -> tuple[list[str], list[str]]:
    """The columns to show at once, and those to show folded."""
    roles = facts.roles
    named = [c for c in roles.columns if c not in roles.features and c != roles.id]
    shown = [*named, *roles.features[:FEATURES]]
    rest = [*roles.features[FEATURES:], *(c.name for c in facts.ingested.columns)]
    seen = {*shown, roles.id}
    return shown, [c for c in dict.fromkeys(rest) if c not in seen][:FOLDED]


def _inner(facts: RunFacts) -> list[str]:
    """The column of ours that holds the images, where theirs holds paths."""
    shards = facts.ingested.shard_files() if facts.roles.image else ()
    return [IMAGE] if any(IMAGE in shard.schema.names for shard in shards[:1]) else []


def _image(facts: RunFacts, known: Mapping[str, Any]) -> bytes | None:
    """The bytes of the image of a row, wherever they are kept."""
    found = known.get(IMAGE) or known.get(facts.roles.image or "")
    found = found.get("bytes") if isinstance(found, Mapping) else found
    return found if isinstance(found, bytes) else None


def _read(
    folder: Path, kind: str, candidates: Sequence[Candidate], columns: Sequence[str]
) -> dict[tuple[int, int], dict[str, Any]]:
    """Read some rows, by their shards and positions."""
    found = {}
    for shard in sorted({c.shard for c in candidates}):
        positions = np.unique([c.position for c in candidates if c.shard == shard])
        table = take(folder / shard_name(shard, kind), list(dict.fromkeys(columns)), positions)
        for position, row in zip(positions, table.to_pylist(), strict=True):
            found[shard, int(position)] = row
    return found


def _row(
    facts: RunFacts,
    name: str,
    candidate: Candidate,
    known: Mapping[str, Any],
    allowance: tuple[int, int],
) -> WorstRow:
    files = facts.ingested.files
    file = files[known[FILE]].path if 0 <= known[FILE] < len(files) else "unknown file"
    reasons = known["reasons"] or []
    shown, folded = _columns(facts)
    fields = list(_within(allowance[0], facts, [*shown, *folded], known))
    image = _image(facts, known)
    every = len(facts.ingested.columns) - (facts.roles.id is not None)
    return WorstRow(
        row_id=cut(known[ROW_ID], 80),
        file=cut(file, 120),
        row=known[ROW],
        verdict=known["verdict"],
        score=candidate.score,
        p_value=known["p_value"],
        sentence=cut(_sentence(facts, name, candidate.score, known["hint"], reasons), _SENTENCE),
        others=tuple(
            cut(f"{r['sanitizer']}: {r['message']}", _SENTENCE // 2)
            for r in reasons
            if r["sanitizer"] != name
        )[:_OTHERS],
        shown=tuple(fields[: len(shown)]),
        folded=tuple(fields[len(shown) :]),
        left_out=max(every - len(fields), 0),
        picture="" if image is None else thumbnail(image, allowance[1]),
    )


def _sentence(
    facts: RunFacts, name: str, score: float, hint: str | None, reasons: Sequence[Mapping[str, Any]]
) -> str:
    stored = [r["message"] for r in reasons if r["sanitizer"] == name]
    if stored:
        return sentence(str(stored[0]))
    reason = facts.reasons.get(name)
    return sentence(reason(score, hint)) if reason else ""


def _within(
    allowance: int, facts: RunFacts, columns: Sequence[str], known: Mapping[str, Any]
) -> Iterator[Field]:
    """The values of a row, as long as their HTML stays within the allowance."""
    roles = {getattr(facts.roles, role): role for role in facts.roles.present if role != "features"}
    for column in columns:
        field = Field(cut(column, 80), roles.get(column, ""), _value(known[column]))
        allowance -= len(visible(field.column)) + len(visible(field.value)) + _LIST_ITEM
        if allowance < 0:
            return
        yield field


def _value(value: object) -> Text:
    """A value in characters; an image in words."""
    if isinstance(value, Mapping) and set(value) == {"bytes", "path"}:
        words = [_value(value[part]).text for part in ("path", "bytes") if value[part] is not None]
        return cut(", ".join(word for word in words if word))
    found = described(value) if isinstance(value, bytes) else None
    return value_text(value) if found is None else cut(found)
