"""Everything that a page says of one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.charts import Histogram
from pipelines.explain import Explanation, Opinion, explain, explain_at
from pipelines.pictures import described
from pipelines.report_rows import Field
from pipelines.report_text import Text, cut, value_text
from pipelines.review.draw import Drawn
from pipelines.review.held import Held
from pipelines.review.index import SAMPLE
from pipelines.review.part import Part
from pipelines.review.queue import HeldRow
from pipelines.review.sampling import Neighbour, read_sample, row_of
from pipelines.rulings import NONE, Ruling, conflicts
from sanitizers.core.data import Roles
from sanitizers.core.image_columns import IMAGE
from sanitizers.core.verdicts import KEEP, QUARANTINE

#: Characters of a text that are shown, and of any other value.
LONG, SHORT = 20_000, 300
#: Columns of a row that are shown.
COLUMNS = 300

_TEXTS = frozenset({"text", "prompt", "response"})


@dataclass(frozen=True)
class Heard:
    """What one sanitizer says of a row, beside all its scores.

    Parameters
    ----------
    opinion : Opinion
    verdict : str
        What its lines make of the score.
    chart : Histogram or None
    """

    opinion: Opinion
    verdict: str
    chart: Histogram | None


@dataclass(frozen=True)
class RowPage:
    """All that is known of a row, as a page shows it.

    Parameters
    ----------
    known : Explanation
    held : HeldRow or None
        None where no sanitizer holds it.
    heard : tuple of Heard
        The gravest first.
    texts, fields : tuple of Field
        Long texts, and all other values.
    more : int
        Columns that are not shown.
    has_image : bool
    image : Text or None
        A line about the image.
    neighbours : tuple of Neighbour
    sampled : int
        Rows among which they were looked for.
    history : tuple of Ruling
    conflict : (Ruling, Ruling) or None
        What stands, and what another person had ruled.
    """

    known: Explanation
    held: HeldRow | None
    heard: tuple[Heard, ...]
    texts: tuple[Field, ...]
    fields: tuple[Field, ...]
    more: int
    has_image: bool
    image: Text | None
    neighbours: tuple[Neighbour, ...]
    sampled: int
    history: tuple[Ruling, ...]
    conflict: tuple[Ruling, Ruling] | None

    @property
    def ruled(self) -> Ruling | None:
        """The ruling that stands."""
        last = self.history[-1] if self.history else None
        return last if last is not None and last.verdict != NONE else None

    @property
    def may_be(self) -> tuple[str, ...]:
        """What may be ruled on it: a row that could not be read cannot be kept, one that no
        sanitizer holds is kept as it is.
        """
        keep = self.known.message is None and (self.held is not None or self.ruled is not None)
        return (*([KEEP] if keep else []), QUARANTINE)


def gather_row(
    held: Held,
    row_id: str,
    row: HeldRow | None,
    history: Sequence[Ruling],
    drawn: Drawn | None = None,
) -> RowPage:
    """Gather what is known of a row.

    Parameters
    ----------
    held : Held
    row_id : str
    row : HeldRow or None
        What the index knows of it.
    history : sequence of Ruling
    drawn : Drawn, optional
        Where it lies, if it was drawn.

    Raises
    ------
    PlanError
        If there is no such row.
    """
    place = row or drawn
    number = place.part if place else 0
    part = held.parts[number]
    at = (place.shard, place.position) if place and place.shard >= 0 else None
    if at is not None:
        known = explain_at(held.store, part.run, part.ingested, part.version, at)
    else:
        known = explain(held.store, held.dataset, row_id, held.version)
    table, values = row_of(held.store, part.run, part.ingested, at) if at else (None, {})
    fields = list(_fields(part.roles, known, values))
    texts = [f for f in fields if f.role in _TEXTS or len(f.value.text or "") > SHORT]
    near, sampled = _neighbours(held, part, table)
    found = conflicts(iter(history))
    image = image_bytes(part.roles, values)
    return RowPage(
        known=known,
        held=row,
        heard=_heard(held, number, known),
        texts=tuple(texts),
        fields=tuple(f for f in fields if f not in texts)[:COLUMNS],
        more=max(len(fields) - len(texts) - COLUMNS, 0),
        has_image=image is not None,
        image=None if image is None else cut(described(image) or "an image"),
        neighbours=near,
        sampled=sampled,
        history=tuple(history),
        conflict=found.get(row_id),
    )


def image_of(held: Held, row: HeldRow | Drawn) -> bytes | None:
    """The bytes of the image of a held row, or of one that was drawn."""
    if row.shard < 0:
        return None
    part = held.parts[row.part]
    if part.roles.image is None:
        return None
    shard = part.ingested.shard_files()[row.shard]
    names = [name for name in (IMAGE, part.roles.image) if name in shard.schema.names]
    return image_bytes(part.roles, shard.row(row.position, names).to_pylist()[0])


def image_bytes(roles: Roles, values: Mapping[str, Any]) -> bytes | None:
    """The bytes of the image of a row, wherever they are kept."""
    found = values.get(IMAGE) or values.get(roles.image or "")
    found = found.get("bytes") if isinstance(found, Mapping) else found
    return found if isinstance(found, bytes) else None


def _fields(roles: Roles, known: Explanation, values: Mapping[str, Any]) -> Sequence[Field]:
    named = {getattr(roles, role): role for role in roles.present if role != "features"}
    order = sorted(known.values, key=lambda name: name not in named)
    found = []
    for name in order:
        if name == roles.image and isinstance(values.get(name), bytes | Mapping):
            continue
        role = named.get(name, "")
        value = known.values[name]
        limit = LONG if role in _TEXTS or isinstance(value, str) else SHORT
        found.append(Field(cut(name, 80), role, _shown(value, limit)))
    return found


def _shown(value: object, limit: int) -> Text:
    if isinstance(value, list):
        return cut(str(value), SHORT)
    return value_text(value, limit)


def _heard(held: Held, part: int, known: Explanation) -> tuple[Heard, ...]:
    grave = {"quarantine": 0, "review": 1, "keep": 2, "abstained": 3}
    found = [
        Heard(opinion, _verdict(opinion), held.histogram(part, opinion.sanitizer))
        for opinion in known.opinions
    ]
    return tuple(sorted(found, key=lambda heard: grave[heard.verdict]))


def _verdict(opinion: Opinion) -> str:
    if opinion.score is None:
        return "abstained"
    for verdict, line in (("quarantine", opinion.quarantine), ("review", opinion.review)):
        if line is not None and opinion.score > line:
            return verdict
    return "keep"


def _neighbours(
    held: Held, part: Part, table: pa.Table | None
) -> tuple[tuple[Neighbour, ...], int]:
    # The sample is of the latest run, whose encoder may not fit the columns of another.
    if table is None or part is not held.parts[0]:
        return (), 0
    sample = read_sample(held.folder / SAMPLE, held.store, part.run, part.roles)
    if sample is None:
        return (), 0
    return sample.nearest(table), sample.rows
