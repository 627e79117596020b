"""Attack: a poisoned copy of a file, and the truth about it."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipelines.disk import make_folder, remove, temporary_of, write_bytes, writing
from pipelines.identity import content_digests
from pipelines.ingest import Ingested, ingest
from pipelines.plan_parts import RolesPart
from pipelines.readers.sources import find_sources, identify
from pipelines.roles import InferredRoles, infer_roles
from pipelines.truth import truth_bytes, truth_path
from pipelines.writers import check_ending, default_name, write
from sanitizers.core.data import ROW_ID
from sanitizers.core.errors import InputError, IntegrityError, PlanError
from sanitizers.poisons import Poison, Poisoned


@dataclass(frozen=True)
class Attacked:
    """What an attack left.

    Parameters
    ----------
    file, truth : Path
    rows, poison : int
        Rows of the poisoned file, and how many of them are poison.
    notes : tuple of str
        How the roles were found.
    """

    file: Path
    truth: Path
    rows: int
    poison: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The object that ``--json`` prints."""
        return {
            "file": str(self.file),
            "truth": str(self.truth),
            "rows": self.rows,
            "poison": self.poison,
        }


def attack(
    source: str,
    recipe: Poison,
    rate: float,
    seed: int,
    given: RolesPart,
    out: Path | None = None,
    *,
    force: bool = False,
) -> Attacked:
    """Write a poisoned copy of a file, and its truth beside it.

    Parameters
    ----------
    source : str
        One file, taken for clean.
    recipe : Poison
    rate : float
    seed : int
    given : RolesPart
        The roles that a person gave; the rest are inferred.
    out : Path, optional
        The poisoned file; by default ``NAME.poisoned.ENDING`` in the working directory.
    force : bool
        Whether files that are there may be replaced.

    Raises
    ------
    PlanError
        If there is more than one file, or the output is there already.
    InputError
        If the file cannot be read whole, or cannot be poisoned in this way.
    """
    path = _one(find_sources(source))
    clean = identify(path, path.name)
    out = Path(default_name(clean)) if out is None else out
    check_ending(clean, out)
    _check_free(path, out, force)
    with tempfile.TemporaryDirectory(prefix="sanitize-attack-") as work:
        read = ingest(path, Path(work) / "clean", salt=secrets.token_bytes(), id_column=given.id)
        found, table = _roles(read, given), table_of(read)
    done = recipe.poison(table, found.roles, rate, seed)
    new = temporary_of(out)
    make_folder(new)
    try:
        write(clean, table, done, new / out.name)
        ids = _read_back(new / out.name, done, given.id)
        write_bytes(truth_path(out), truth_bytes(done.truth, ids))
        with writing(out):
            os.replace(new / out.name, out)
    finally:
        remove(new)
    return Attacked(out, truth_path(out), done.table.num_rows, done.truth.num_rows, found.notes)


def table_of(read: Ingested) -> pa.Table:
    """All rows of an input, with its own columns."""
    parts = [shard.read() for shard in read.shard_files()]
    return pa.concat_tables(parts).select([column.name for column in read.columns])


def _one(paths: Sequence[Path]) -> Path:
    if len(paths) > 1:
        raise PlanError(f"{len(paths)} files are to be attacked", expected="one file at a time")
    return paths[0]


def _check_free(source: Path, out: Path, force: bool) -> None:
    if out.exists() and out.samefile(source):
        raise PlanError(f"{out} is the clean data", do="name another file with --out")
    if not out.parent.is_dir():
        raise PlanError(f"no folder {str(out.parent)!r}", do="make it, or name another with --out")
    for path in (out, truth_path(out)):
        if path.is_dir() or (path.exists() and not force):
            raise PlanError(
                f"{path} is there already", do="name another file with --out, or say --force"
            )


def _roles(read: Ingested, given: RolesPart) -> InferredRoles:
    if read.unreadable:
        raise InputError(
            f"{read.unreadable:,} rows of {read.files[0].path} cannot be read",
            expected="clean data",
            do="remove them; 'sanitize run' shows them in quarantine",
        )
    return infer_roles(read.columns, given, read.rows)


def _read_back(path: Path, done: Poisoned, id_column: str | None) -> list[str]:
    """The ids that a run will give the rows of the file, which holds what it should."""
    with tempfile.TemporaryDirectory(prefix="sanitize-attack-") as work:
        read = ingest(path, Path(work) / "back", salt=secrets.token_bytes(), id_column=id_column)
        table = table_of(read)
        alike = (
            not read.unreadable
            and table.num_rows == done.table.num_rows
            and (content_digests(table) == content_digests(done.table)).all()
        )
        if not alike:
            raise IntegrityError(
                f"{path.name} does not read back as it was poisoned",
                do="take the data as Parquet, where types are certain",
            )
        ids = [shard.read([ROW_ID]).column(ROW_ID) for shard in read.shard_files()]
        return [str(name) for part in ids for name in part.to_pylist()]
