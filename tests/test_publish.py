from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import split
from pipelines.decide import verdicts_file
from pipelines.disk import digest_of, write_table
from pipelines.manifest import MANIFEST, Manifest
from pipelines.proofs import CROISSANT, LINEAGE
from pipelines.publish import find_release, publish
from pipelines.row_ids import repeated
from pipelines.shards import ParquetShard
from pipelines.split import INTERNAL, SPLITS
from pipelines.verify import verify
from sanitizers.core.data import ROW_ID
from sanitizers.core.errors import IntegrityError, StoreError
from sanitizers.core.verdicts import KEEP, QUARANTINE, REVIEW, VERDICTS
from tests.spine import Stage, mixed, stage, verdict_table

SOME = [KEEP, KEEP, REVIEW, KEEP, QUARANTINE]


def contents(release: Path) -> dict[str, str]:
    """The digest of every file of a release but those that carry a date."""
    dated = {MANIFEST, CROISSANT, LINEAGE}
    files = (p for p in release.rglob("*") if p.is_file() and p.name not in dated)
    return {str(p.relative_to(release)): digest_of(p) for p in files}


def rows_of(release: Path, folder: str) -> pa.Table:
    """All rows of a split, in order."""
    parts = [ParquetShard(p).read() for p in sorted((release / folder).glob("part-*.parquet"))]
    return pa.concat_tables(parts)


def same_bytes(one: pa.Table, two: pa.Table) -> bool:
    """Whether two tables hold the same values to the bit (NaN equals itself)."""

    def bits(column: pa.ChunkedArray) -> object:
        if pa.types.is_float64(column.type):
            return column.to_numpy().view(np.int64).tolist()
        return repr(column.to_pylist())

    same = [bits(a) == bits(b) for a, b in zip(one.columns, two.columns, strict=True)]
    return bool(one.schema.equals(two.schema)) and all(same)


def folder_of(made: Stage) -> Path:
    found = made.publish().folder
    assert found is not None
    return found


class TestRows:
    @settings(
        max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        verdicts=st.lists(st.sampled_from(VERDICTS), min_size=1, max_size=40),
        shard_rows=st.integers(1, 50),
        seed=st.integers(0, 1000),
    )
    def test_are_conserved_to_the_byte(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        verdicts: list[str],
        shard_rows: int,
        seed: int,
    ) -> None:
        table = mixed(len(verdicts), seed)
        made = stage(tmp_path_factory.mktemp("s"), table, verdicts, shard_rows=shard_rows)
        release = folder_of(made)
        for verdict, folder in SPLITS.items():
            expected = table.filter(pa.array([v == verdict for v in verdicts]))
            found = rows_of(release, folder).select(table.column_names)
            assert same_bytes(found, expected), folder
        assert verify(release).ok

    def test_have_the_columns_of_the_input_and_an_id(self, tmp_path: Path) -> None:
        made = stage(tmp_path, mixed(5), SOME)
        release = folder_of(made)
        names = made.table.column_names
        assert rows_of(release, "clean").column_names == [*names, ROW_ID]
        # The data has a column named "verdict" already; it stays as it is.
        assert rows_of(release, "review").column_names == [*names, ROW_ID, "verdict_", "reasons"]
        assert not INTERNAL & set(pq.read_schema(release / "clean/part-00000.parquet").names)

    def test_outside_clean_carry_their_reasons(self, tmp_path: Path) -> None:
        release = folder_of(stage(tmp_path, mixed(5).select(["x"]), SOME))
        bad = rows_of(release, "quarantine").to_pylist()[0]
        assert bad["verdict"] == QUARANTINE
        assert bad["reasons"][0]["message"] == "it"

    def test_that_are_none_still_have_columns(self, tmp_path: Path) -> None:
        release = folder_of(stage(tmp_path, mixed(5), [KEEP] * 5))
        for folder in ("review", "quarantine"):
            assert rows_of(release, folder).num_rows == 0
            assert "reasons" in rows_of(release, folder).column_names

    def test_all_in_quarantine_leave_an_empty_clean(self, tmp_path: Path) -> None:
        release = folder_of(stage(tmp_path, mixed(5), [QUARANTINE] * 5))
        assert rows_of(release, "clean").num_rows == 0
        assert verify(release).ok

    def test_come_with_a_report_that_knows_its_release(self, tmp_path: Path) -> None:
        release = folder_of(stage(tmp_path, mixed(5), SOME))
        assert (release / "report.html").read_text().endswith("release 1.0.0")
        assert any(f.path == "report.html" for f in Manifest.load(release).files)

    def test_that_could_not_be_read_are_kept_as_they_came(self, tmp_path: Path) -> None:
        made = stage(tmp_path, mixed(5), SOME, unreadable=3)
        release = folder_of(made)
        found = ParquetShard(release / "quarantine/unreadable.parquet").read()
        assert found.column_names == [ROW_ID, "file", "row", "raw", "verdict", "reasons"]
        assert found.column("raw").to_pylist() == [f"1,2,\\xff{i}" for i in range(3)]
        assert found.to_pylist()[0]["reasons"][0]["sanitizer"] == "ingest"
        manifest = Manifest.load(release)
        assert (manifest.counts.unreadable, manifest.counts.quarantine) == (3, 4)
        assert verify(release).ok

    def test_give_the_same_bytes_every_time(self, tmp_path: Path) -> None:
        one = folder_of(stage(tmp_path / "a", mixed(50), SOME * 10, shard_rows=7))
        two = folder_of(stage(tmp_path / "b", mixed(50), SOME * 10, shard_rows=7))
        assert contents(one) == contents(two)


class TestVersion:
    def published(self, root: Path, keep: str, **more: Any) -> str | None:
        """Publish the rows of a table; each letter of `keep` is a row, capitals are kept."""
        table = pa.table({"letter": list(keep.lower())})
        return (
            stage(root, table, [KEEP if c.isupper() else QUARANTINE for c in keep], **more)
            .publish()
            .version
        )

    def test_counts_removed_added_and_neither(self, tmp_path: Path) -> None:
        assert self.published(tmp_path, "ABCd") == "1.0.0"
        assert self.published(tmp_path, "ABCd", plan="other") == "1.0.1"
        assert self.published(tmp_path, "ABCDd") == "1.1.0"
        assert self.published(tmp_path, "ABCDde") == "1.1.1"
        assert self.published(tmp_path, "AbCDEf") == "2.0.0"
        assert self.published(tmp_path, "CDEAf") == "2.0.1"

    def test_of_other_columns(self, tmp_path: Path) -> None:
        base = pa.table({"id": ["1", "2"], "a": [1, 2]})
        more = base.append_column("b", pa.array([1, 2]))
        typed = base.set_column(1, "a", pa.array([1.0, 2.0]))
        tables = [(base, "1.0.0"), (more, "1.1.0"), (base, "2.0.0"), (typed, "3.0.0")]
        for number, (table, version) in enumerate(tables):
            made = stage(tmp_path, table, [KEEP] * 2, ids=["1", "2"], plan=str(number))
            assert made.publish().version == version

    def test_of_other_values_under_the_same_ids(self, tmp_path: Path) -> None:
        ids = [str(i) for i in range(10)]
        one = mixed(10, seed=1)
        two = one.set_column(0, "x", pa.array([1.0, *one.column("x").to_pylist()[1:]]))
        versions = [
            stage(tmp_path, table, [KEEP] * 10, ids=ids, shard_rows=rows).publish().version
            for table, rows in ((one, 10), (two, 10), (two, 3))
        ]
        assert versions == ["1.0.0", "2.0.0", "2.0.1"]


class TestAgain:
    def test_is_a_no_op_that_says_so(self, tmp_path: Path) -> None:
        made = stage(tmp_path, mixed(5), SOME)
        first = made.publish()
        again = made.publish()
        assert (first.already, again.already) == (False, True)
        assert again.manifest == first.manifest
        assert len(made.store.releases("toys")) == 1

    def test_finds_an_older_release_too(self, tmp_path: Path) -> None:
        made = stage(tmp_path, mixed(5), SOME)
        made.publish()
        stage(tmp_path, mixed(6), [KEEP] * 6).publish()
        assert made.publish().version == "1.0.0"

    def test_refuses_a_release_that_lost_a_file(self, tmp_path: Path) -> None:
        made = stage(tmp_path, mixed(5), SOME)
        (folder_of(made) / "report.html").unlink()
        with pytest.raises(IntegrityError, match="sanitize verify"):
            find_release(made.store, "toys", made.run.key)


def test_two_that_publish_at_once_take_turns(tmp_path: Path) -> None:
    runs = [stage(tmp_path, mixed(9), SOME + [KEEP] * 4, plan=str(i)) for i in range(4)]
    children = []
    for made in runs:
        child = os.fork()
        if not child:
            try:
                made.publish()
                os._exit(0)
            except BaseException:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    releases = runs[0].store.releases("toys")
    assert [r.name for r in releases] == ["1.0.0", "1.0.1", "1.0.2", "1.0.3"]
    assert {Manifest.load(r).run for r in releases} == {made.run.key for made in runs}
    assert all(verify(r).ok for r in releases)


def test_a_held_run_publishes_nothing(tmp_path: Path) -> None:
    made = stage(tmp_path, mixed(5), SOME)
    held = made.decision.failing_on(["quarantine"])
    assert held.held
    assert "1 rows" in held.held_because
    out = publish(made.store, made.run, made.ingested, held, made.write_report)
    assert out.held
    assert out.version is None
    assert not (made.store.dataset("toys") / "releases").exists()


class TestRefuses:
    def check(self, made: Stage, match: str) -> None:
        with pytest.raises(IntegrityError, match=match):
            made.publish()
        releases = made.store.dataset("toys") / "releases"
        assert not list(releases.iterdir())

    def test_a_shard_that_was_changed(self, tmp_path: Path) -> None:
        made = stage(tmp_path, mixed(5), SOME)
        path = made.ingested.shard_files()[0].path
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        self.check(made, "was changed")

    def test_verdicts_about_other_rows(self, tmp_path: Path) -> None:
        made = stage(tmp_path, mixed(5), SOME)
        path = verdicts_file(made.store.run("toys", made.run.key), 0)
        ids = ParquetShard(path).read().column(ROW_ID).take([1, 0, 2, 3, 4])
        write_table(verdict_table(ids, SOME), path)
        self.check(made, "other rows")

    def test_counts_that_are_not_the_decision_s(self, tmp_path: Path) -> None:
        made = stage(tmp_path, mixed(5), SOME)
        path = verdicts_file(made.store.run("toys", made.run.key), 0)
        ids = ParquetShard(path).read().column(ROW_ID)
        write_table(verdict_table(ids, [KEEP] * 5), path)
        self.check(made, "clean has 5 rows; expected 3")

    def test_a_missing_shard(self, tmp_path: Path) -> None:
        made = stage(tmp_path, mixed(5), SOME)
        made.ingested.shard_files()[0].path.unlink()
        self.check(made, "cannot be read")

    def test_a_disk_that_lies(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = stage(tmp_path, mixed(5), SOME)
        monkeypatch.setattr(
            split, "digest_of", lambda p: "0" * 64 if "clean" in str(p) else digest_of(p)
        )
        self.check(made, "does not hold what was written")


class TestFaults:
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
    def test_of_the_disk_leave_no_trace(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        made = stage(tmp_path, mixed(300), SOME * 60)
        write, written = split._Sink.write, 0

        def full(sink: split._Sink, data: bytes) -> int:
            nonlocal written
            written += len(data)
            if written > 20_000:
                raise OSError(number, os.strerror(number))
            return write(sink, data)

        monkeypatch.setattr(split._Sink, "write", full)
        with pytest.raises(StoreError) as caught:
            made.publish()
        assert "\n" not in str(caught.value)
        releases = made.store.dataset("toys") / "releases"
        assert not list(releases.iterdir())
        monkeypatch.undo()
        assert made.publish().version == "1.0.0"

    def test_ctrl_c_leaves_no_trace(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = stage(tmp_path, mixed(5), SOME)

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "rename", stop)
        with pytest.raises(KeyboardInterrupt):
            made.publish()
        assert not list((made.store.dataset("toys") / "releases").iterdir())


class Killer:
    """Kills the process before the step with this number; a step changes the disk."""

    def __init__(self, at: int) -> None:
        self.at, self.steps = at, 0

    def before(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            if self.steps == self.at:
                os.kill(os.getpid(), signal.SIGKILL)
            self.steps += 1
            return act(*args, **kwargs)

        return step

    def arm(self) -> None:
        for name in ("fsync", "rename", "replace", "mkdir", "open", "unlink", "rmdir"):
            setattr(os, name, self.before(getattr(os, name)))
        write, start = split._Sink.write, self.before(split._Sink.write)

        def first(sink: split._Sink, data: bytes) -> int:
            # Of the many writes of a file the first two stand for all: none of it, a part.
            return int(start(sink, data)) if sink.size <= 4 else write(sink, data)

        setattr(split._Sink, "write", first)  # noqa: B010  mypy knows no methods that change


def killed(made: Stage, at: int) -> bool:
    """Publish in a child that is killed before a step; False when it ended by itself."""
    child = os.fork()
    if not child:
        # Whatever happens in here, no test may go on twice.
        try:
            Killer(at).arm()
            made.publish()
            os._exit(0)
        except BaseException:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"step {at}: {status}"
    return os.WIFSIGNALED(status)


def test_a_crash_at_any_step_leaves_the_old_state_or_the_new(tmp_path: Path) -> None:
    table, verdicts = mixed(8).select(["x", "list"]), [*SOME, KEEP, KEEP, REVIEW]
    root, before = tmp_path / "store", tmp_path / "before"
    old = folder_of(stage(root, table.slice(0, 4), [KEEP] * 4, shard_rows=4))
    made = stage(root, table, verdicts, shard_rows=4, unreadable=1)
    shutil.copytree(root, before)
    whole, kept = contents(folder_of(made)), contents(old)
    seen, at, ended = list[bool](), 0, False
    while not ended:
        shutil.rmtree(root)
        shutil.copytree(before, root)
        ended = not killed(made, at)
        releases = made.store.releases("toys")
        assert releases[0] == old
        assert contents(old) == kept
        assert len(releases) <= 2
        assert all(verify(release).ok for release in releases[1:])
        seen.append(len(releases) == 2)
        if at % 4 == 0 or len(releases) == 2:
            again = made.publish()
            assert again.already == seen[-1]
            assert contents(folder_of(made)) == whole
            assert {p.name for p in old.parent.iterdir()} == {old.name, again.version}
        at += 1
    assert at > 40
    # Before the one rename there is no release, from then on there is.
    assert seen == sorted(seen)
    assert 1 < seen.count(True) < 6
    assert verify(old).ok


def test_ids_are_counted_beyond_one_file(tmp_path: Path) -> None:
    for name, ids in (("a[1]", ["x", "y"]), ("b", ["z", "x"])):
        pq.write_table(pa.table({ROW_ID: ids}), tmp_path / f"{name}.parquet")
    assert repeated(sorted(tmp_path.glob("*.parquet")), tmp_path) == (1, "x")
    assert repeated([tmp_path / "b.parquet"], tmp_path) == (0, "")


def test_verdict_vectors_need_not_be_plain(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    verdicts = [str(v) for v in rng.choice(VERDICTS, 500)]
    made = stage(tmp_path, mixed(500), verdicts, shard_rows=64, unreadable=2)
    manifest = Manifest.load(folder_of(made))
    assert manifest.counts.rows == 502
    assert manifest.counts.keep == verdicts.count(KEEP)
