"""Vouching: the rows that people kept in an audit, put beside those of a file that is trusted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.audit import seen
from pipelines.disk import appearing, share_file, write_json
from pipelines.ingested import MARKER, Ingested, ShardFile
from pipelines.shards import ParquetShard, ShardWriter, shard_name
from pipelines.store import key_of
from pipelines.vouched import Vouched
from sanitizers.core.data import ROW_ID


def vouch(
    data: Ingested,
    given: Ingested | None,
    kept: Mapping[str, str],
    earlier: Iterable[Ingested],
    column: str | None,
    folder: Path,
) -> Ingested:
    """Gather the rows that people vouch for; what is finished is loaded.

    Rows that a file or a column vouches for already are not taken twice. Those that are not
    there any more, or not as they were seen, are left out and counted.

    Parameters
    ----------
    data : Ingested
        The rows that are judged.
    given : Ingested or None
        Those of a file that is trusted.
    kept : mapping of str to str
        The ids of the rows that people kept in an audit, and the digests of their values.
    earlier : iterable of Ingested
        The inputs of the release that the rows join, the latest first; only those are asked
        for that are needed.
    column : str or None
        The column that vouches for rows.
    folder : Path
        Appears whole, or not at all.

    Returns
    -------
    Ingested
        It may have no shards.
    """
    if (folder / MARKER).is_file():
        return Ingested.load(folder)
    with appearing(folder) as new:
        known = _known(data, given, column)
        left = {row: digest for row, digest in kept.items() if row not in known}
        shards, wanted = _share(given, new), len(left)
        for number, source in enumerate(_sources(data, earlier, left)):
            if (path := _write(source, left, new / shard_name(number, "audited"))) is not None:
                shards.append(ShardFile.of(path))
        made = _made(given, data, shards, wanted)
        write_json(new / MARKER, {k: v for k, v in asdict(made).items() if k != "folder"})
    return Ingested.load(folder)


def _share(given: Ingested | None, new: Path) -> list[ShardFile]:
    """Let the rows of the file that is trusted lie in the folder too."""
    if given is None:
        return []
    for shard in given.shards:
        share_file(given.folder / shard.name, new / shard.name)
    return list(given.shards)


def _made(
    given: Ingested | None, data: Ingested, shards: Sequence[ShardFile], wanted: int
) -> Ingested:
    rows = sum(shard.rows for shard in shards)
    audited = rows - (given.rows if given else 0)
    return replace(
        given or data,
        files=given.files if given else (),
        shards=tuple(shards),
        rows=rows,
        unreadable=0,
        digest=key_of("vouched", [shard.sha256 for shard in shards]),
        onto=None,
        earlier=(),
        aside=(),
        again=0,
        audited=audited,
        lost=wanted - audited,
    )


def _known(data: Ingested, given: Ingested | None, column: str | None) -> set[str]:
    """The ids of the rows that a file or a column vouches for."""
    known = set[str]()
    for shard in given.shard_files() if given else ():
        known.update(shard.read([ROW_ID]).column(0).to_pylist())
    if column is not None:
        by_column = Vouched(column, None)
        for shard in (*data.published_files(), *data.shard_files()):
            ids, vouched = by_column.read(shard)
            known.update(ids.filter(pa.array(vouched)).to_pylist())
    return known


def _sources(
    data: Ingested, earlier: Iterable[Ingested], left: Mapping[str, str]
) -> Iterator[Ingested]:
    """The inputs that may hold rows, for as long as some are looked for."""
    yield data
    if left:
        for one in earlier:
            yield one
            if not left:
                break


def _write(source: Ingested, left: dict[str, str], path: Path) -> Path | None:
    """Write the rows of an input that are looked for; those that were found are not any more."""
    writer: ShardWriter | None = None
    for shard in source.shard_files():
        rows = _found(shard, left)
        if rows.num_rows and writer is None:
            writer = ShardWriter(path, rows.schema)
        if rows.num_rows and writer is not None:
            writer.write(rows)
    if writer is None:
        return None
    writer.close()
    return path


def _found(shard: ParquetShard, left: dict[str, str]) -> pa.Table:
    """The rows of a shard that are looked for, as they were seen."""
    ids = shard.read([ROW_ID]).column(0)
    at = np.flatnonzero(pc.is_in(ids, value_set=pa.array(left, pa.string())).to_numpy())
    if not len(at):
        return shard.schema.empty_table()
    rows = shard.read().take(pa.array(at))
    named = zip(rows.column(ROW_ID).to_pylist(), seen(rows), strict=True)
    return rows.filter(pa.array([left.pop(row) == digest for row, digest in named]))
