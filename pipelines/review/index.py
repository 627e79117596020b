"""The index of held rows: made once for a run, shard by shard, and read by the queue.

A million rows need no more memory for it than a shard and what DuckDB is allowed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import duckdb
import pyarrow as pa

from pipelines.charts import Histogram
from pipelines.disk import remove, temporary_of, writing
from pipelines.examined import evidence_file
from pipelines.progress import Progress
from pipelines.report_scan import histogram, scan_scores
from pipelines.review.part import Part
from pipelines.review.reading import HELD_SCHEMA, held_rows, unreadable_rows
from pipelines.review.sampling import write_sample
from pipelines.store import Store

#: Counts up when the index changes its meaning.
FORMAT = 1
INDEX = "held.duckdb"
SAMPLE = "sample.parquet"

_MEMORY = "1GB"
# Worst first: what is surest, what most sanitizers agree on, and then the worst of each in
# turn, since their scores cannot be compared.
_ORDER = """
create table held as
select row_number() over (
    order by verdict <> 'quarantine', opinions desc, rank, sanitizer, row_id
  )::integer as place, * exclude (rank)
from (
  select *, row_number() over (
    partition by sanitizer, verdict, opinions order by excess desc nulls last, row_id
  ) as rank from raw
);
"""
_GROUPS = """
create table groups as
select shared, any_value(grouped_by) as sanitizer, count(*) as rows, min(place) as first
from held where shared is not null group by shared having count(*) > 1;
update held set shared = null
where shared is not null and shared not in (select shared from groups);
"""
_FACETS = """
create table facets as
select 'sanitizer' as what, unnest(sanitizers) as value, count(*) as rows from held group by 2
union all select 'label', label, count(*) from held where label is not null group by 2
union all select 'source', source, count(*) from held where source is not null group by 2;
"""


def write_index(store: Store, parts: Sequence[Part], path: Path, progress: Progress) -> None:
    """Write the index, and beside it the charts of all scores and a sample of rows.

    Parameters
    ----------
    store : Store
    parts : sequence of Part
    path : Path
        It appears last: what lies beside it is whole.
    progress : Progress

    Raises
    ------
    IntegrityError
        If what the store knows of a run is not as it was written.
    """
    folder, temporary = path.parent, temporary_of(path)
    with writing(path):
        temporary.unlink(missing_ok=True)
        _write_held(store, parts, temporary, progress)
        for number, part in enumerate(parts):
            _write_scores(store, part, scores_file(folder, number))
        write_sample(store, parts[0].run, parts[0].roles, folder / SAMPLE)
        os.replace(temporary, path)
        # Of runs before this one; whoever looks at one has it open, and goes on.
        for other in folder.parent.iterdir():
            if other != folder:
                remove(other)


def read_scores(folder: Path, part: int, sanitizer: str) -> Histogram | None:
    """Read the chart of all scores of a sanitizer; None where there is none."""
    path = scores_file(folder, part)
    chart = json.loads(path.read_bytes()).get(sanitizer) if path.is_file() else None
    if chart is None:
        return None
    return Histogram(tuple(chart["edges"]), tuple(chart["counts"]), chart["centre"], chart["unit"])


def scores_file(folder: Path, part: int) -> Path:
    """Where the charts of the scores of a part lie."""
    return folder / f"scores-{part}.json"


def _write_held(store: Store, parts: Sequence[Part], path: Path, progress: Progress) -> None:
    spill = path.with_suffix(".spill")
    base = duckdb.connect(str(path), config={"memory_limit": _MEMORY})
    try:
        base.execute("set enable_progress_bar = false")
        base.execute(f"set temp_directory = '{_quoted(str(spill))}'")
        base.register("rows", HELD_SCHEMA.empty_table())
        base.execute("create table raw as select * from rows")
        held = sum(part.decision.review + part.decision.quarantine for part in parts)
        shards = sum(len(part.ingested.shards) for part in parts)
        with progress.stage("review", held, max(shards, 1)) as stage:
            for table in _tables(store, parts):
                base.register("rows", table)
                base.execute("insert into raw select * from rows")
                stage.advance(table.num_rows)
        base.unregister("rows")
        for step in (_ORDER, "drop table raw", _GROUPS, _FACETS):
            base.execute(step)
        base.execute("create index by_id on held(row_id)")
    finally:
        base.close()
        remove(spill)


def _tables(store: Store, parts: Sequence[Part]) -> Iterator[pa.Table]:
    for number, part in enumerate(parts):
        folder, evidence = store.run(part.run.dataset, part.run.key), part.evidence(store)
        for shard in range(len(part.ingested.shards)):
            at = (number, shard)
            yield held_rows(part.ingested, part.roles, folder, evidence, part.grave, at)
        path = part.ingested.unreadable_file()
        if path is not None:
            yield from unreadable_rows(path, number)


def _write_scores(store: Store, part: Part, path: Path) -> None:
    rows = [shard.rows for shard in part.ingested.shards]
    lines = {line.sanitizer: line for line in part.decision.thresholds}
    found = {}
    for name, folder in part.evidence(store).items():
        files = [evidence_file(folder, number) for number in range(len(rows))]
        line = lines.get(name)
        drawn = [v for v in (line.review, line.quarantine) if v is not None] if line else []
        chart = histogram(files, rows, scan_scores(files, rows), drawn)
        if chart is not None:
            found[name] = asdict(chart)
    path.write_text(json.dumps(found), encoding="utf-8")


def _quoted(text: str) -> str:
    return text.replace("'", "''")
