"""Obeying: rows of a release move to where people have ruled that they belong.

Only the files that hold such rows are written anew, and no row is lost on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.disk import remove
from pipelines.manifest import Counts, FileEntry
from pipelines.rulings import Ruling
from pipelines.shards import ParquetShard, shard_name
from pipelines.split import (
    PART,
    SPLITS,
    UNREADABLE,
    next_part,
    with_reasons,
    write_part,
    write_parts,
)
from sanitizers.core.data import ROW_ID
from sanitizers.core.verdicts import KEEP, REASON, VERDICT_SCHEMA, VERDICTS

#: Who gives the reason where a person has ruled.
RULING = "ruling"


@dataclass(frozen=True)
class Place:
    """Where a row belongs, and why.

    Parameters
    ----------
    verdict : str
    ruling : Ruling or None
        None where a ruling was taken back, and the row returns to what sanitizers said.
    reasons : tuple of dict
        What sanitizers said, in the second case.
    """

    verdict: str
    ruling: Ruling | None
    reasons: tuple[Mapping[str, object], ...] = ()


@dataclass(frozen=True)
class Moved:
    """What became of the files of a release.

    Parameters
    ----------
    files : tuple of FileEntry
        All files of rows, those that were not touched too.
    rows : mapping of (str, str) to int
        How many rows went from one verdict to another.
    found : frozenset of str
        The ids, of those that have a place, that the release has.
    """

    files: tuple[FileEntry, ...]
    rows: Mapping[tuple[str, str], int]
    found: frozenset[str]

    def recount(self, counts: Counts) -> Counts:
        """The counts after the move."""
        now = dict(zip(VERDICTS, (counts.keep, counts.review, counts.quarantine), strict=True))
        for (old, new), rows in self.rows.items():
            now[old] -= rows
            now[new] += rows
        keep, review, quarantine = (now[verdict] for verdict in VERDICTS)
        return Counts(counts.rows, keep, review, quarantine, counts.unreadable)


@dataclass(frozen=True)
class _Hit:
    """The rows of a file that are to move, by the verdict that they get."""

    file: FileEntry
    verdict: str
    rows: Mapping[str, NDArray[np.int64]]


def obey(staging: Path, files: Sequence[FileEntry], places: Mapping[str, Place]) -> Moved:
    """Move rows of a release that is being made.

    Parameters
    ----------
    staging : Path
        Its folder. A file that is shared with an earlier release is replaced, never changed.
    files : sequence of FileEntry
        Its files of rows that could be read.
    places : mapping of str to Place
        Where rows belong, by their ids; rows that the release does not have are left out.

    Raises
    ------
    IntegrityError
        If a file cannot be read, or the disk does not hold what was written.
    """
    verdicts = {folder: verdict for verdict, folder in SPLITS.items()}
    wanted = pa.array(places, pa.string())
    hits, found = [], set[str]()
    for file in files:
        if file.path == UNREADABLE:
            continue
        verdict = verdicts[file.path.split("/")[0]]
        ids = ParquetShard(staging / file.path).read([ROW_ID]).column(0)
        at = np.flatnonzero(pc.is_in(ids, value_set=wanted).to_numpy())
        named = ids.take(pa.array(at)).to_pylist()
        found.update(named)
        where = np.array([places[row_id].verdict for row_id in named], dtype=object)
        rows = {v: at[where == v] for v in VERDICTS if v != verdict and (where == v).any()}
        if rows:
            hits.append(_Hit(file, verdict, rows))
    moved: dict[tuple[str, str], int] = {}
    for hit in hits:
        for target, at in hit.rows.items():
            moved[hit.verdict, target] = moved.get((hit.verdict, target), 0) + len(at)
    number = next_part(files)
    written = [_write(staging, hits, v, places, number) for v in VERDICTS if _goes(hits, v)]
    touched = {hit.file.path: _rest(staging, hit) for hit in hits}
    kept = [touched.get(file.path, file) for file in files]
    return Moved((*(f for f in kept if f), *written), moved, frozenset(found))


def _goes(hits: Sequence[_Hit], verdict: str) -> bool:
    return any(verdict in hit.rows for hit in hits)


def _write(
    staging: Path, hits: Sequence[_Hit], verdict: str, places: Mapping[str, Place], number: int
) -> FileEntry:
    """Write the rows that get a verdict as one more file of its folder."""

    def tables() -> Iterator[pa.Table]:
        for hit in hits:
            if verdict in hit.rows:
                table = ParquetShard(staging / hit.file.path).read()
                rows = table.take(pa.array(hit.rows[verdict]))
                yield _judged(rows, hit.verdict, verdict, places)

    return write_parts(tables(), staging, f"{SPLITS[verdict]}/{shard_name(number, PART)}")


def _judged(rows: pa.Table, old: str, new: str, places: Mapping[str, Place]) -> pa.Table:
    """Rows of one folder with the columns of another, and the reasons why they are there."""
    before: list[list[dict[str, object]]] = [[]] * len(rows)
    shown = rows
    if old != KEEP:
        # The last two columns of such a folder are the verdict and its reasons.
        before = rows.column(rows.num_columns - 1).to_pylist()
        shown = rows.select(rows.column_names[:-2])
    if new == KEEP:
        return shown
    ids = rows.column(ROW_ID).to_pylist()
    reasons = [_reasons(places[i], said) for i, said in zip(ids, before, strict=True)]
    words = pa.array([new] * len(ids), pa.string()).cast(VERDICT_SCHEMA.field("verdict").type)
    judged = pa.table(
        [pa.array(ids, pa.string()), words, pa.array(reasons, pa.list_(REASON))],
        schema=VERDICT_SCHEMA,
    )
    return with_reasons(shown, judged)


def _reasons(place: Place, before: list[dict[str, object]]) -> list[Mapping[str, object]]:
    if place.ruling is None:
        return list(place.reasons)
    told = [reason for reason in before if reason["sanitizer"] != RULING]
    return [*told, {"sanitizer": RULING, "message": place.ruling.sentence}]


def _rest(staging: Path, hit: _Hit) -> FileEntry | None:
    """Write a file without the rows that have left it; None where it is not needed any more."""
    path = staging / hit.file.path
    table = ParquetShard(path).read()
    gone = np.concatenate(list(hit.rows.values()))
    stays = np.ones(len(table), dtype=bool)
    stays[gone] = False
    # The name may lead to the bytes of an earlier release, so it is given up first.
    remove(path)
    if not stays.any() and hit.file.path != f"{SPLITS[hit.verdict]}/{shard_name(0, PART)}":
        return None
    return write_part(table.filter(pa.array(stays)), staging, hit.file.path)
