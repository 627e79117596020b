"""Held: every row that waits for people, in an index that is made once for a run.

Rows are read shard by shard, so that a million of them need no more memory than a shard.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path

import duckdb
import pyarrow as pa
from pyarrow.types import is_temporal

from pipelines.base import runs_until
from pipelines.charts import Histogram
from pipelines.decide import Decision
from pipelines.disk import make_folder, remove, temporary_of, writing
from pipelines.examined import evidence_file
from pipelines.ingested import Ingested
from pipelines.manifest import Manifest, Run
from pipelines.progress import SILENT, Progress
from pipelines.report_scan import histogram, scan_scores
from pipelines.review.reading import HELD_SCHEMA, held_rows, unreadable_rows
from pipelines.review.sampling import write_sample
from pipelines.store import Store, key_of
from sanitizers.core.data import Roles
from sanitizers.core.errors import PlanError

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


@dataclass(frozen=True)
class Part:
    """One run whose rows a release holds; there are several where it has grown.

    Parameters
    ----------
    run : Run
    ingested : Ingested
    decision : Decision
    version : str or None
        The release in which its rows first appeared; None where it published nothing.
    """

    run: Run
    ingested: Ingested
    decision: Decision
    version: str | None

    @property
    def roles(self) -> Roles:
        """The roles of the columns, as the run took them."""
        known = dict(self.run.plan.get("roles") or {})
        given = {f.name: known[f.name] for f in fields(Roles) if known.get(f.name)}
        return Roles(**given | {"features": tuple(given.get("features", ()))})


@dataclass(frozen=True)
class Held:
    """The held rows of a release, or of a run that was held as a whole.

    Parameters
    ----------
    store : Store
    dataset : str
    parts : tuple of Part
        The latest first.
    version : str or None
        The last release; None where there is none.
    created : str
        When that release, or else the run, was made.
    obeys : str
        The digest of the last ruling that the release obeys; empty where it obeys none.
    """

    store: Store
    dataset: str
    parts: tuple[Part, ...]
    version: str | None
    created: str
    obeys: str = ""

    @classmethod
    def of(cls, store: Store, dataset: str, *, held: bool = False) -> Held:
        """Look at the last release of a dataset, or at its last run where there is none.

        Parameters
        ----------
        store : Store
        dataset : str
        held : bool
            Look at the last run that published nothing.

        Raises
        ------
        PlanError
            If there is no such dataset, release or run.
        IntegrityError
            If what the store knows of it is not as it was written.
        """
        releases = store.releases(store.known(dataset))
        version, obeys = None, ""
        if releases and not held:
            manifest = Manifest.load(releases[-1])
            run, version, created = manifest.run, manifest.version, manifest.created
            obeys = manifest.ruled.head if manifest.ruled else ""
        else:
            run, created = _last_held(store, dataset)
        chain = runs_until(store, Run.load(store.run(dataset, run)))
        parts = tuple(_part(store, one, version is not None) for one in chain)
        return cls(store, dataset, parts, version, created, obeys)

    @cached_property
    def key(self) -> str:
        """Names the rows that are held, and the index of them."""
        return key_of("held", FORMAT, [part.run.key for part in self.parts])

    @property
    def folder(self) -> Path:
        """Where the index lies."""
        return self.store.review(self.dataset, self.key)

    @property
    def counts(self) -> tuple[int, int]:
        """Rows that wait, and all rows."""
        held = sum(p.decision.review + p.decision.quarantine for p in self.parts)
        return held, sum(p.decision.rows for p in self.parts)

    @cached_property
    def dates(self) -> bool:
        """Whether the time column holds dates, not plain numbers."""
        part = self.parts[0]
        if part.roles.time is None:
            return False
        return bool(is_temporal(part.ingested.shard_files()[0].schema.field(part.roles.time).type))

    def index(self, progress: Progress = SILENT) -> Path:
        """Make the index where there is none yet.

        Returns
        -------
        Path
            Its file.
        """
        path = self.folder / INDEX
        if not path.is_file():
            make_folder(self.folder)
            self._write(path, progress)
        return path

    def histogram(self, part: int, sanitizer: str) -> Histogram | None:
        """The scores of a sanitizer in a part, as they were counted for the index."""
        path = self.folder / f"scores-{part}.json"
        known = json.loads(path.read_bytes()) if path.is_file() else {}
        chart = known.get(sanitizer)
        if chart is None:
            return None
        return Histogram(
            tuple(chart["edges"]), tuple(chart["counts"]), chart["centre"], chart["unit"]
        )

    def _write(self, path: Path, progress: Progress) -> None:
        temporary = temporary_of(path)
        spill = temporary.with_suffix(".spill")
        with writing(path):
            temporary.unlink(missing_ok=True)
            base = duckdb.connect(str(temporary), config={"memory_limit": _MEMORY})
            try:
                base.execute("set enable_progress_bar = false")
                base.execute(f"set temp_directory = '{_quoted(str(spill))}'")
                self._fill(base, progress)
            finally:
                base.close()
                remove(spill)
            for number, part in enumerate(self.parts):
                write_scores(self.store, part, self.folder / f"scores-{number}.json")
            write_sample(self.store, self.parts[0].run, self.parts[0].roles, self.folder / SAMPLE)
            os.replace(temporary, path)
            # Of runs before this one; whoever looks at one has it open, and goes on.
            for other in self.folder.parent.iterdir():
                if other != self.folder:
                    remove(other)

    def _fill(self, base: duckdb.DuckDBPyConnection, progress: Progress) -> None:
        empty = HELD_SCHEMA.empty_table()
        base.register("empty_rows", empty)
        base.execute("create table raw as select * from empty_rows")
        shards = sum(len(part.ingested.shards) for part in self.parts)
        with progress.stage("review", self.counts[0], max(shards, 1)) as stage:
            for table in self._tables():
                base.register("some_rows", table)
                base.execute("insert into raw select * from some_rows")
                base.unregister("some_rows")
                stage.advance(table.num_rows)
        base.unregister("empty_rows")
        base.execute(_ORDER)
        base.execute("drop table raw")
        base.execute(_GROUPS)
        base.execute(_FACETS)
        base.execute("create index by_id on held(row_id)")

    def _tables(self) -> Iterator[pa.Table]:
        for number, part in enumerate(self.parts):
            folder = self.store.run(part.run.dataset, part.run.key)
            evidence, grave = self._evidence(part), _grave(part.decision)
            for shard in range(len(part.ingested.shards)):
                at = (number, shard)
                yield held_rows(part.ingested, part.roles, folder, evidence, grave, at)
            path = part.ingested.unreadable_file()
            if path is not None:
                yield from unreadable_rows(path, number)

    def _evidence(self, part: Part) -> dict[str, Path]:
        """For each sanitizer of a run the folder of its evidence."""
        return {
            name: self.store.evidence(part.run.dataset, key)
            for name, key in part.run.evidence.items()
        }


def write_scores(store: Store, part: Part, path: Path) -> None:
    """Count the scores of every sanitizer of a run, for the charts of its rows."""
    rows = [shard.rows for shard in part.ingested.shards]
    lines = {line.sanitizer: line for line in part.decision.thresholds}
    found = {}
    for name, key in part.run.evidence.items():
        folder = store.evidence(part.run.dataset, key)
        files = [evidence_file(folder, number) for number in range(len(rows))]
        line = lines.get(name)
        drawn = [v for v in (line.review, line.quarantine) if v is not None] if line else []
        chart = histogram(files, rows, scan_scores(files, rows), drawn)
        if chart is not None:
            found[name] = asdict(chart)
    path.write_text(json.dumps(found), encoding="utf-8")


def _last_held(store: Store, dataset: str) -> tuple[str, str]:
    """The last run that published nothing, and when it was made."""
    published = {Manifest.load(release).run for release in store.releases(dataset)}
    runs = [Run.load(folder) for folder in store.runs(dataset) if folder.name not in published]
    if not runs:
        why = "every run of" if published else "no run has ended yet of"
        raise PlanError(
            f"nothing is held back: {why} {dataset!r}" + (" was published" if published else ""),
            do="leave out --held" if published else "run 'sanitize run' first",
        )
    last = max(runs, key=lambda run: run.created)
    return last.key, last.created


def _part(store: Store, run: Run, published: bool) -> Part:
    folder = store.run(run.dataset, run.key)
    version = _version(store, run) if published else None
    ingested = Ingested.load(store.inputs(run.dataset, run.input))
    return Part(run, ingested, Decision.load(folder), version)


def _grave(decision: Decision) -> dict[str, float | None]:
    return {line.sanitizer: line.quarantine for line in decision.thresholds}


def _version(store: Store, run: Run) -> str | None:
    """The release in which the rows of a run first appeared."""
    for release in store.releases(run.dataset):
        if Manifest.load(release).run == run.key:
            return release.name
    return None


def _quoted(text: str) -> str:
    return text.replace("'", "''")
