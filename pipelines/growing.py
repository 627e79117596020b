"""Growing: rows of new files join the last release, whose rows are not scanned again.

New rows are scanned beside a sample of that release's clean rows. What a run costs is set by
the new rows and the sample, but for two passes over the history: the digests of the source's
files, and one over the row ids, so that no id is given twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.base import Base
from pipelines.disk import appearing, make_folder, remove, share_file, write_json
from pipelines.identity import ID_LENGTH, counted_on
from pipelines.ingested import MARKER, Ingested, ShardFile
from pipelines.manifest import FileEntry
from pipelines.progress import SILENT, Progress
from pipelines.readers.sources import digest_sources, find_sources, names_within
from pipelines.row_ids import seen_before
from pipelines.rows import SHARD_BYTES
from pipelines.shards import SHARD_ROWS, ParquetShard, shard_name, write_shard
from pipelines.store import key_of
from sanitizers.core.data import ROW_ID, ROW_KEY, row_keys
from sanitizers.core.errors import InputError
from sanitizers.risks import NOTE, WARNING, Finding

#: Clean rows of the release that new ones are scanned beside: so many times theirs, at least
#: and at most.
TIMES, LEAST, MOST = 4, 20_000, 100_000
#: Files that these rows come from, at most, so that a long history costs no more.
MOST_FILES = 32
#: Shares of new rows that the release has already: that are told, and that are a warning.
TOLD, MOSTLY = 0.01, 0.5
#: Bytes of them, at most: rows may hold images.
MOST_BYTES = 512 * 2**20


@dataclass(frozen=True)
class NewFile:
    """A file of the source, by its content.

    Parameters
    ----------
    path : Path
    name : str
        How manifests call it.
    sha256 : str
    bytes : int
    """

    path: Path
    name: str
    sha256: str
    bytes: int


def files_of(source: str | Path, only: Sequence[str] | None = None) -> list[tuple[Path, str]]:
    """The files of a source, each with a name that does not change when others come.

    Parameters
    ----------
    source : str or Path
        A file, a folder or a glob.
    only : sequence of str, optional
        The names of those that are wanted.

    Raises
    ------
    InputError
        If there are none, or a wanted one is not there, or one is no table.
    """
    paths = find_sources(source)
    if folder := next((path for path in paths if path.is_dir()), None):
        raise InputError(
            f"{folder} is a folder per class, which cannot grow file by file",
            do="use tables or NPZ files with the images in them, or leave `grow` out",
        )
    names = names_within(source, paths)
    found = list(zip(paths, names, strict=True))
    if only is None:
        return found
    if missing := sorted(set(only) - set(names)):
        raise InputError(f"no file {missing[0]!r} in {source}")
    return [(path, name) for path, name in found if name in set(only)]


def new_files(files: Sequence[tuple[Path, str]], base: Base | None) -> tuple[NewFile, ...]:
    """Those files whose content a release does not hold, each content once.

    Raises
    ------
    InputError
        If one of them has changed since the release took it.
    """
    known = base.digests if base else {}
    names = {name: sha256 for sha256, name in known.items()}
    digests = digest_sources([path for path, _ in files])
    found: dict[str, NewFile] = {}
    for (path, name), (sha256, size) in zip(files, digests, strict=True):
        if sha256 in known:
            continue
        if name in names and base:
            raise InputError(
                f"{name} has changed since release {base.version} took its rows",
                expected="new rows in new files",
                do="undo the change, or scan everything anew with --full",
            )
        found.setdefault(sha256, NewFile(path, name, sha256, size))
    return tuple(found.values())


def join(
    plain: Ingested, base: Base, folder: Path, salt: bytes, *, progress: Progress = SILENT
) -> Ingested:
    """Put rows that were ingested by themselves beside the release that they join.

    Rows get ids that no row of the release has, and a sample of its clean rows lies with
    them; what is finished is loaded.

    Parameters
    ----------
    plain : Ingested
        Read with the columns of the release.
    base : Base
    folder : Path
        Appears whole, or not at all.
    salt : bytes
        The store's.
    progress : Progress

    Raises
    ------
    InputError
        If an id column names a row that the release has already.
    """
    if (folder / MARKER).is_file():
        return Ingested.load(folder)
    with appearing(folder) as new:
        with progress.stage(f"join: {base.version}", plain.rows, len(plain.shards)) as stage:
            shards, again = _number(plain, base, new, salt)
            earlier, aside = _sample(base, plain.rows, new, salt)
            stage.advance(plain.rows)
        if (unreadable := plain.unreadable_file()) is not None:
            share_file(unreadable, new / unreadable.name)
        digest = key_of("joined", base.manifest.source.digest, plain.digest)
        joined = {k: v for k, v in asdict(plain).items() if k != "folder"}
        joined |= {"shards": [asdict(s) for s in shards], "digest": digest}
        joined |= {"onto": base.version, "again": again}
        joined |= {"earlier": [asdict(s) for s in earlier], "aside": [asdict(s) for s in aside]}
        write_json(new / MARKER, joined)
    return Ingested.load(folder)


def repeats(data: Ingested) -> tuple[Finding, ...]:
    """What is to be told of new rows that the release which they join has already.

    Rows repeat by nature, also in clean tables (`sanitizers.risks.duplicates`); so it is a
    note, and a warning where most of the new rows are old ones.
    """
    share = data.again / max(data.rows, 1)
    if share < TOLD:
        return ()
    severity, line = (WARNING, MOSTLY) if share >= MOSTLY else (NOTE, TOLD)
    message = (
        f"{data.again:,} of the {data.rows:,} new rows ({share:.1%}) are in release {data.onto} "
        "already, value for value"
    )
    return (Finding("duplicates", severity, "new rows", share, line, message),)


def _number(plain: Ingested, base: Base, new: Path, salt: bytes) -> tuple[list[ShardFile], int]:
    """Write the shards with ids that are new; those that need no change are shared.

    Returns
    -------
    list of ShardFile
    int
        How many rows the release has too.
    """
    old = [base.folder / file.path for file in base.rows_files]
    own = plain.shard_files()
    spill = new / "spill"
    make_folder(spill)
    seen = seen_before(old, [s.path for s in own], spill, by_content=plain.id_column is None)
    written, again = [], 0
    for shard, known, before in zip(own, plain.shards, seen, strict=True):
        path = new / known.name
        if not before:
            share_file(shard.path, path)
            written.append(known)
        elif plain.id_column is None:
            table = shard.read()
            again += sum(i[:ID_LENGTH] in before for i in table.column(ROW_ID).to_pylist())
            written.append(_written(path, _renamed(table, before, salt)))
        else:
            raise InputError(
                f"the id column {plain.id_column!r} names {len(before):,} rows that release "
                f"{base.version} has already, for instance {min(before)!r}",
                expected="ids that are new",
                do="leave out rows that are there already, or scan everything anew with --full",
            )
    remove(spill)
    return written, again


def _renamed(table: pa.Table, before: Mapping[str, int], salt: bytes) -> pa.Table:
    """Rows with ids that count copies on from those of earlier rows."""
    ids = [counted_on(row_id, before) for row_id in table.column(ROW_ID).to_pylist()]
    columns = {ROW_ID: pa.array(ids, pa.string()), ROW_KEY: pa.array(row_keys(ids, salt))}
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _sample(
    base: Base, rows: int, new: Path, salt: bytes
) -> tuple[list[ShardFile], list[ShardFile]]:
    """Write some rows of the release, chosen with the salt of the store.

    Returns
    -------
    list of ShardFile
        Clean rows.
    list of ShardFile
        Rows that were set aside, as large a share of them.
    """
    seed = int(key_of("earlier", base.manifest.run, base.version, salt.hex()), 16)
    rng = np.random.default_rng(seed)
    wanted = min(MOST, max(LEAST, TIMES * rows))
    share = min(1.0, wanted / max(sum(file.rows or 0 for file in base.clean), 1))
    written: tuple[list[ShardFile], list[ShardFile]] = ([], [])
    others = tuple(file for file in base.rows_files if file not in base.clean)
    for kind, files, into in zip(("earlier", "aside"), (base.clean, others), written, strict=True):
        for table in _gathered(_taken(base, kind, _chosen(files, share, rng), salt)):
            into.append(_written(new / shard_name(len(into), kind), table))
    return written


def _taken(
    base: Base, kind: str, chosen: Sequence[tuple[FileEntry, NDArray[np.int64]]], salt: bytes
) -> Iterator[pa.Table]:
    """The rows that were chosen of each file, with their keys."""
    for file, positions in chosen:
        table = ParquetShard(base.folder / file.path).read().take(pa.array(positions))
        # What was set aside has two columns more: the verdict and its reasons.
        table = table if kind == "earlier" else table.select(table.column_names[:-2])
        keys = pa.array(row_keys(table.column(ROW_ID).to_pylist(), salt))
        yield table.append_column(ROW_KEY, keys)


def _gathered(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in fewer tables: a release of many files gives a few rows of each."""
    pending: list[pa.Table] = []
    for table in tables:
        with_it = [*pending, table]
        rows, size = (sum(t.num_rows for t in with_it), sum(t.nbytes for t in with_it))
        alike = all(t.schema.equals(table.schema) for t in pending)
        if pending and (rows > SHARD_ROWS or size > SHARD_BYTES or not alike):
            yield pa.concat_tables(pending)
            with_it = [table]
        pending = with_it
    if pending:
        yield pa.concat_tables(pending)


def _chosen(
    files: Sequence[FileEntry], share: float, rng: np.random.Generator
) -> list[tuple[FileEntry, NDArray[np.int64]]]:
    """Which rows of which files: all files have their share, where there are not too many."""
    files = [file for file in files if file.rows]
    rows = np.array([file.rows or 0 for file in files], dtype=np.int64)
    wanted = share * rows.sum()
    if len(files) > MOST_FILES:
        some = rng.choice(len(files), MOST_FILES, replace=False, p=rows / rows.sum())
        files, rows = [files[i] for i in sorted(some)], rows[np.sort(some)]
    size = sum(file.bytes for file in files)
    wanted = min(wanted, rows.sum() * min(1.0, MOST_BYTES / max(size, 1)))
    share = min(1.0, wanted / max(rows.sum(), 1))
    found = []
    for file, count in zip(files, rows.tolist(), strict=True):
        taken = min(count, int(np.ceil(share * count)))
        if taken:
            found.append((file, np.sort(rng.choice(count, taken, replace=False))))
    return found


def _written(path: Path, table: pa.Table) -> ShardFile:
    write_shard(path, table)
    return ShardFile.of(path)
