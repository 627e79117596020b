"""Questions about the ids of many rows, answered by DuckDB, which spills what does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.identity import ID_LENGTH
from sanitizers.core.data import ROW_ID
from sanitizers.core.errors import IntegrityError, StoreError

#: Memory that a question may take before it spills to disk.
MEMORY = "256MB"

# 16 bytes stand for an id of any length: five million rows take 80 MB.
_NAME = "md5_number(row_id)"


@dataclass(frozen=True)
class Difference:
    """How many rows one set of files has that another has not, and the other way round."""

    removed: int
    added: int


def difference(old: Sequence[Path], new: Sequence[Path], spill: Path) -> Difference:
    """Compare the row ids of two sets of Parquet files.

    Parameters
    ----------
    old, new : sequence of Path
    spill : Path
        A folder for what does not fit into memory.
    """
    with _database(spill) as database:
        for name, files in (("old_ids", old), ("new_ids", new)):
            database.register("ids", _ids(files))
            database.execute(f"create table {name} as select {_NAME} as id from ids")
        row = database.execute(
            "select count(*) filter (new_ids.id is null), count(*) filter (old_ids.id is null)"
            " from old_ids full join new_ids on old_ids.id = new_ids.id"
        ).fetchone()
    return Difference(*row) if row else Difference(0, 0)


def changed(old: Sequence[Path], new: Sequence[Path], spill: Path) -> bool:
    """Whether any row that is in both sets of Parquet files has other values in one.

    Parameters
    ----------
    old, new : sequence of Path
        Files of the same columns.
    spill : Path
    """
    with _database(spill) as database:
        for name, files in (("old_rows", old), ("new_rows", new)):
            database.register("rows", _rows(files))
            database.execute(
                f"create table {name} as select {_NAME} as id, hash(rows) as h from rows"
            )
        row = database.execute(
            "select count(*) from old_rows join new_rows"
            " on old_rows.id = new_rows.id where old_rows.h <> new_rows.h"
        ).fetchone()
    return bool(row and row[0])


def contents_differ(old: Iterable[pa.Table], new: Iterable[pa.Table], spill: Path) -> Difference:
    """Compare two sets of rows by their contents, of which each may occur many times.

    Parameters
    ----------
    old, new : iterable of pyarrow.Table
        The digests of contents, as two columns ``high`` and ``low`` of whole numbers.
    spill : Path
    """
    with _database(spill) as database:
        for name, tables in (("old_rows", old), ("new_rows", new)):
            database.execute(f"create table {name} (high ubigint, low ubigint)")
            for table in tables:
                database.register("digests", table)
                database.execute(f"insert into {name} select high, low from digests")
        row = database.execute(
            "select coalesce(sum(greatest(o - n, 0)), 0), coalesce(sum(greatest(n - o, 0)), 0)"
            " from (select high, low, sum(o)::bigint as o, sum(n)::bigint as n from"
            " (select *, 1 as o, 0 as n from old_rows"
            " union all select *, 0 as o, 1 as n from new_rows) group by high, low)"
        ).fetchone()
    return Difference(int(row[0]), int(row[1])) if row else Difference(0, 0)


def repeated(files: Sequence[Path], spill: Path) -> tuple[int, str]:
    """Count the row ids that occur more than once, and name one of them.

    Parameters
    ----------
    files : sequence of Path
    spill : Path
    """
    with _database(spill) as database:
        database.register("ids", _ids(files))
        database.execute(
            "create table twice as select hash(row_id) as h from ids group by h having count(*) > 1"
        )
        # Equal hashes are mere suspects; there are hardly any, so the ids fit into memory.
        database.register("ids", _ids(files))
        row = database.execute(
            "select count(*), min(row_id) from (select row_id from ids where hash(row_id) in"
            " (select h from twice) group by row_id having count(*) > 1)"
        ).fetchone()
    return (int(row[0]), str(row[1])) if row and row[0] else (0, "")


@dataclass(frozen=True)
class Move:
    """Rows that went from one place to another; None is no place at all."""

    old: str | None
    new: str | None
    rows: int
    examples: tuple[str, ...]


def moves(
    old: Mapping[str, Sequence[Path]],
    new: Mapping[str, Sequence[Path]],
    spill: Path,
    examples: int,
) -> Iterator[Move]:
    """Compare where the rows of two sets of Parquet files lie.

    Parameters
    ----------
    old, new : mapping of str to sequence of Path
        For each place its files.
    spill : Path
    examples : int
        Ids that are named of each move, the first ones by their order.
    """
    with _database(spill) as database:
        for name, places in (("old_ids", old), ("new_ids", new)):
            database.execute(f"create table {name} (row_id varchar, place varchar)")
            for place, files in places.items():
                database.register("ids", _ids(files))
                database.execute(f"insert into {name} select row_id, ? from ids", [place])
        rows = database.execute(
            "select o.place, n.place, count(*), min(coalesce(n.row_id, o.row_id), ?)"
            " from old_ids o full join new_ids n on o.row_id = n.row_id group by all",
            [examples],
        ).fetchall()
    for before, after, count, named in rows:
        yield Move(before, after, int(count), tuple(named or ()))


def seen_before(
    old: Sequence[Path], new: Sequence[Path], spill: Path, *, by_content: bool
) -> Iterator[dict[str, int]]:
    """Find the ids of new files that old files have too.

    Parameters
    ----------
    old, new : sequence of Path
    spill : Path
    by_content : bool
        The ids are hashes of the content, and copies of a row are numbered: all of them
        count for the first one's id.

    Yields
    ------
    dict of str to int
        For each new file the ids that old files have, and how many rows of theirs have it.
    """
    name = f"substr(row_id, 1, {ID_LENGTH})" if by_content else "row_id"
    with _database(spill) as database:
        database.register("ids", _ids(new))
        database.execute(f"create table wanted as select distinct {name} as id from ids")
        database.register("ids", _ids(old))
        database.execute(
            f"create table seen as select {name} as id, count(*) as times from ids"
            f" where {name} in (select id from wanted) group by all"
        )
        for path in new:
            database.register("ids", _ids([path]))
            rows = database.execute(
                f"select id, times from seen where id in (select {name} from ids)"
            ).fetchall()
            yield {str(row_id): int(times) for row_id, times in rows}


@contextmanager
def _database(spill: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    settings = {"memory_limit": MEMORY, "temp_directory": str(spill)}
    database = duckdb.connect(config={**settings, "preserve_insertion_order": "false"})
    try:
        yield database
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        raise StoreError(f"row ids cannot be compared: {_first_line(error)}") from None
    except duckdb.Error as error:
        raise IntegrityError(f"row ids cannot be compared: {_first_line(error)}") from None
    finally:
        database.close()


# Files are read by pyarrow: DuckDB would take a bracket in a folder's name for a glob.
def _ids(files: Sequence[Path]) -> pa.RecordBatchReader:
    schema = pa.schema([pa.field(ROW_ID, pa.string())])
    return pa.RecordBatchReader.from_batches(schema, _batches(files, [ROW_ID], schema))


def _rows(files: Sequence[Path]) -> pa.RecordBatchReader:
    """Whole rows; columns are numbered, since their names are not ours and SQL folds case."""
    found = pq.read_schema(files[0])
    named = [f"c{i}" if name != ROW_ID else ROW_ID for i, name in enumerate(found.names)]
    schema = pa.schema([pa.field(name, f.type) for name, f in zip(named, found, strict=True)])
    return pa.RecordBatchReader.from_batches(schema, _batches(files, found.names, schema))


def _batches(
    files: Sequence[Path], columns: list[str], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=columns):
                    arrays = [
                        batch.column(n).cast(t) for n, t in zip(columns, schema.types, strict=True)
                    ]
                    yield pa.RecordBatch.from_arrays(arrays, schema=schema)
        except (OSError, pa.ArrowException) as error:
            raise IntegrityError(f"{path} cannot be read: {str(error)[:200]}") from None


def _first_line(error: duckdb.Error) -> str:
    return str(error).splitlines()[0][:300]
