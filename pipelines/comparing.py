"""Comparing two releases: which rows came, went or changed their place, and what may be why."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.disk import write_bytes
from pipelines.manifest import Manifest
from pipelines.report import environment
from pipelines.row_ids import Move, moves
from pipelines.shards import ParquetShard
from pipelines.split import SPLITS, UNREADABLE
from sanitizers.core.data import ROW_ID
from sanitizers.core.verdicts import KEEP

#: Rows of one kind of change that are named, and characters of what is said of them.
NAMED, TOLD = 20, 300
#: Keys of plans, and files, that are listed.
LISTED = 100


@dataclass(frozen=True)
class Example:
    """A row that changed its place, and what is said of it in the newer release."""

    row_id: str
    why: str


@dataclass(frozen=True)
class Change:
    """Rows that went from one place to another.

    Parameters
    ----------
    old, new : str or None
        The verdict; None where the release does not have the row.
    rows : int
    examples : tuple of Example
    """

    old: str | None
    new: str | None
    rows: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Comparison:
    """What is different between two releases of a dataset.

    Parameters
    ----------
    old, new : Manifest
    same : int
        Rows that lie where they lay.
    changes : tuple of Change
        The most frequent first.
    files_added, files_gone : tuple of str
        Files of the input.
    settings : tuple of (str, str, str)
        What differs in the plans: key, before, after; lines of sanitizers among it.
    """

    old: Manifest
    new: Manifest
    same: int
    changes: tuple[Change, ...]
    files_added: tuple[str, ...]
    files_gone: tuple[str, ...]
    settings: tuple[tuple[str, str, str], ...]


def compare(old: Path, new: Path) -> Comparison:
    """Compare two releases.

    Parameters
    ----------
    old, new : Path
        Their folders.

    Raises
    ------
    IntegrityError
        If a manifest or a file cannot be read.
    """
    before, after = Manifest.load(old), Manifest.load(new)
    with tempfile.TemporaryDirectory(prefix="sanitize-compare-") as spill:
        found = list(moves(_parts(old, before), _parts(new, after), Path(spill), NAMED))
    same = sum(move.rows for move in found if move.old == move.new)
    changed = sorted((m for m in found if m.old != m.new), key=lambda m: -m.rows)
    files = [{f.path: f.sha256 for f in m.source.files} for m in (before, after)]
    return Comparison(
        before,
        after,
        same,
        tuple(_change(new, after, move) for move in changed),
        tuple(sorted(n for n, sha in files[1].items() if files[0].get(n) != sha))[:LISTED],
        tuple(sorted(n for n, sha in files[0].items() if files[1].get(n) != sha))[:LISTED],
        tuple(_settings(before, after))[:LISTED],
    )


def write_comparison(comparison: Comparison, out: Path) -> Path:
    """Write a comparison as a page.

    Parameters
    ----------
    comparison : Comparison
    out : Path
    """
    page = environment().get_template("compare.html.j2")
    text: str = page.render(c=comparison)
    write_bytes(out, text.encode())
    return out


def _parts(release: Path, manifest: Manifest) -> dict[str, list[Path]]:
    """The files of each verdict."""
    return {
        verdict: [
            release / file.path
            for file in manifest.files
            if file.path.startswith(f"{folder}/") and file.path != UNREADABLE
        ]
        for verdict, folder in SPLITS.items()
    }


def _change(new: Path, manifest: Manifest, move: Move) -> Change:
    told = _reasons(new, manifest, move) if move.new not in {None, KEEP} else {}
    named = (Example(row_id, told.get(row_id, "")) for row_id in move.examples)
    return Change(move.old, move.new, move.rows, tuple(named))


def _reasons(release: Path, manifest: Manifest, move: Move) -> dict[str, str]:
    """Why rows are not clean, from the files that hold them."""
    wanted, found = pa.array(move.examples, pa.string()), dict[str, str]()
    for path in _parts(release, manifest)[str(move.new)]:
        shard = ParquetShard(path)
        ids = shard.read([ROW_ID]).column(0)
        mask = pc.is_in(ids, value_set=wanted)
        if pc.any(mask).as_py():
            # The reasons are the last column of such a file.
            reasons = shard.read([shard.schema.names[-1]]).column(0).filter(mask).to_pylist()
            for row_id, said in zip(ids.filter(mask).to_pylist(), reasons, strict=True):
                text = "; ".join(f"{one['sanitizer']}: {one['message']}" for one in said)
                found[row_id] = text[:TOLD]
    return found


def _settings(old: Manifest, new: Manifest) -> Iterator[tuple[str, str, str]]:
    sides = [dict(_flat(manifest.plan)) for manifest in (old, new)]
    for side, manifest in zip(sides, (old, new), strict=True):
        side["tool.version"] = manifest.tool.version
        for check in manifest.checks:
            for name in ("quarantine_above", "review_above"):
                value = getattr(check, name)
                side[f"{check.sanitizer}.{name}"] = "no line" if value is None else f"{value:.4g}"
    for key in sorted(set(sides[0]) | set(sides[1])):
        before, after = (side.get(key, "–") for side in sides)
        if before != after:
            yield key, before[:TOLD], after[:TOLD]


def _flat(plan: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in plan.items():
        key = f"{above}.{name}" if above else str(name)
        if isinstance(value, Mapping):
            yield from _flat(value, key)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield key, ", ".join(map(str, value))
        else:
            yield key, str(value)
