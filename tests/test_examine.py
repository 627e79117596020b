from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from pipelines import examine as module
from pipelines.examine import evidence_key, examine, settings_of
from pipelines.examined import (
    MARKER,
    Examined,
    evidence_file,
    read_evidence,
    read_trusted,
    trusted_file,
)
from pipelines.ingest import Ingested
from pipelines.quiet import quiet
from sanitizers.core.data import ROW_ID, Batch, Dataset, Roles
from sanitizers.core.errors import EvidenceError, InputError, IntegrityError, PlanError
from sanitizers.core.sanitizer import Influence
from tests.spine import SALT, Toy, ToyScorer, hand_in

ROLES = Roles(features=("x", "flat"))
SHARDS = 3


@pytest.fixture
def ingested(tmp_path: Path) -> Ingested:
    table = pa.table({"x": [0.5, None, 3.0, -1.0, 2.0, None, 9.0], "flat": [1] * 7})
    return hand_in(tmp_path / "in", table, shard_rows=3)


@pytest.fixture
def dataset(ingested: Ingested) -> Dataset:
    return ingested.dataset(ROLES, SALT)


def scores(folder: Path) -> list[float | None]:
    tables = [pq.read_table(evidence_file(folder, i)) for i in range(SHARDS)]
    return list(pa.concat_tables(tables, promote_options="permissive").column("score").to_pylist())


@dataclass(frozen=True)
class Counted(Toy):
    """Counts how often it is fitted and how many batches it scores."""

    name: ClassVar[str] = "counted"
    fits: ClassVar[list[str]] = []
    batches: ClassVar[list[int]] = []
    fail_at: int = -1

    def fit(self, data: Dataset) -> ToyScorer:
        self.fits.append(self.name)
        return CountedScorer(self.column, fail_at=self.fail_at)


@dataclass(frozen=True)
class CountedScorer(ToyScorer):
    fail_at: int = -1

    def score(self, batch: Batch) -> NDArray[np.float64]:
        if len(Counted.batches) == self.fail_at:
            raise KeyboardInterrupt
        Counted.batches.append(len(batch))
        return super().score(batch)

    def hint(self, batch: Batch) -> list[str | None]:
        return [None] * len(batch)


@pytest.fixture
def counted() -> type[Counted]:
    Counted.fits.clear()
    Counted.batches.clear()
    return Counted


def test_evidence_is_in_the_order_of_the_rows(
    dataset: Dataset, ingested: Ingested, tmp_path: Path
) -> None:
    done = examine(Toy(), dataset, tmp_path / "e")
    assert (done.name, done.rows, done.abstained) == ("toy", 7, 2)
    assert scores(tmp_path / "e") == [0.5, None, 3.0, -1.0, 2.0, None, 9.0]
    for number, shard in enumerate(ingested.shard_files()):
        ids = shard.read([ROW_ID]).column(ROW_ID)
        assert read_evidence(tmp_path / "e", number, ids).num_rows == shard.rows


def test_columns_that_could_not_be_used_are_written_down(dataset: Dataset, tmp_path: Path) -> None:
    done = examine(Toy(), dataset, tmp_path / "e")
    assert done.skipped == (("flat", "every value is the same"),)
    assert Examined.load(tmp_path / "e") == done


class TestResume:
    def test_finished_work_is_not_done_again(
        self, dataset: Dataset, tmp_path: Path, counted: type[Counted]
    ) -> None:
        first = examine(counted(), dataset, tmp_path / "e")
        assert examine(counted(), dataset, tmp_path / "e") == first
        assert counted.fits == ["counted"]

    def test_shards_that_are_there_are_kept(
        self, dataset: Dataset, tmp_path: Path, counted: type[Counted]
    ) -> None:
        with pytest.raises(KeyboardInterrupt):
            examine(counted(fail_at=2), dataset, tmp_path / "e")
        assert not (tmp_path / "e" / MARKER).exists()
        kept = evidence_file(tmp_path / "e", 0).stat().st_mtime_ns
        examine(counted(), dataset, tmp_path / "e")
        assert counted.batches == [3, 3, 1]
        assert evidence_file(tmp_path / "e", 0).stat().st_mtime_ns == kept
        assert scores(tmp_path / "e") == [0.5, None, 3.0, -1.0, 2.0, None, 9.0]

    @pytest.mark.parametrize("damage", [b"", b"PAR1", b"x" * 99])
    def test_damaged_shards_are_done_anew(
        self, dataset: Dataset, tmp_path: Path, damage: bytes
    ) -> None:
        examine(Toy(), dataset, tmp_path / "e")
        (tmp_path / "e" / MARKER).unlink()
        evidence_file(tmp_path / "e", 1).write_bytes(damage)
        examine(Toy(), dataset, tmp_path / "e")
        assert scores(tmp_path / "e")[3:6] == [-1.0, 2.0, None]

    def test_a_lost_shard_is_done_anew(self, dataset: Dataset, tmp_path: Path) -> None:
        first = examine(Toy(), dataset, tmp_path / "e")
        evidence_file(tmp_path / "e", 1).unlink()
        assert replace(examine(Toy(), dataset, tmp_path / "e"), seconds=first.seconds) == first
        assert scores(tmp_path / "e")[3:6] == [-1.0, 2.0, None]

    def test_a_damaged_marker_is_told(self, dataset: Dataset, tmp_path: Path) -> None:
        examine(Toy(), dataset, tmp_path / "e")
        (tmp_path / "e" / MARKER).write_text('{"rows": 7}')
        with pytest.raises(IntegrityError, match="malformed"):
            examine(Toy(), dataset, tmp_path / "e")


@dataclass(frozen=True)
class Bad(Toy):
    """Breaks a promise of a sanitizer."""

    how: str = "fit"
    name: ClassVar[str] = "bad"

    def fit(self, data: Dataset) -> ToyScorer:
        if self.how == "fit":
            raise ValueError("line one\nline two")
        if self.how == "input":
            raise InputError("the column is odd")
        return BadScorer(self.column, how=self.how)


@dataclass(frozen=True)
class BadScorer(ToyScorer):
    how: str = ""

    def score(self, batch: Batch) -> NDArray[np.float64]:
        if self.how == "score":
            raise ZeroDivisionError("no rows")
        if self.how == "shape":
            return np.zeros(len(batch) + 1)
        if self.how == "infinite":
            return np.full(len(batch), np.inf)
        warnings.warn("a library speaks", stacklevel=1)
        return np.zeros(len(batch))


class TestFaults:
    @pytest.mark.parametrize(
        ("how", "says"),
        [
            ("fit", "'bad' failed while fitting: ValueError: line one line two"),
            ("score", "'bad' failed while scoring: ZeroDivisionError: no rows"),
            ("shape", "shape"),
            ("infinite", "infinite"),
        ],
    )
    def test_fail_the_run_with_one_line(
        self, dataset: Dataset, tmp_path: Path, how: str, says: str
    ) -> None:
        with pytest.raises(EvidenceError, match=says) as caught:
            examine(Bad(how=how), dataset, tmp_path / "e")
        assert "\n" not in str(caught.value)
        assert caught.value.exit_status == 4
        assert not (tmp_path / "e" / MARKER).exists()

    def test_keep_their_cause(self, dataset: Dataset, tmp_path: Path) -> None:
        with pytest.raises(EvidenceError) as caught:
            examine(Bad(), dataset, tmp_path / "e")
        assert isinstance(caught.value.__cause__, ValueError)

    def test_that_are_ours_pass_as_they_are(self, dataset: Dataset, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="the column is odd"):
            examine(Bad(how="input"), dataset, tmp_path / "e")

    def test_warnings_of_libraries_stay_inside(self, dataset: Dataset, tmp_path: Path) -> None:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            examine(Bad(how="warn"), dataset, tmp_path / "e")
        assert not heard


def test_silence_ends_with_the_last_thread() -> None:
    before = list(warnings.filters)
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with quiet():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with quiet():
        thread.start()
        inside.wait()
    assert warnings.filters != before
    leave.set()
    thread.join()
    assert warnings.filters == before


class TestReading:
    def test_evidence_about_other_rows_is_refused(self, dataset: Dataset, tmp_path: Path) -> None:
        examine(Toy(), dataset, tmp_path / "e")
        with pytest.raises(IntegrityError, match="other rows"):
            read_evidence(tmp_path / "e", 0, pa.chunked_array([["a", "b", "c"]]))

    def test_missing_evidence_is_refused(self, dataset: Dataset, tmp_path: Path) -> None:
        examine(Toy(), dataset, tmp_path / "e")
        with pytest.raises(IntegrityError, match="missing or damaged"):
            read_evidence(tmp_path / "e", 9, pa.chunked_array([["a"]]))


class TestKey:
    @pytest.fixture
    def key(self, ingested: Ingested) -> Callable[..., str]:
        def make(
            recipe: Toy | None = None,
            roles: Roles = ROLES,
            salt: bytes = SALT,
            data: Ingested = ingested,
            trusted: Ingested | None = None,
        ) -> str:
            return evidence_key(recipe or Toy(), data, roles, salt, trusted)

        return make

    def test_stays_for_the_same_work(self, key: Callable[..., str], tmp_path: Path) -> None:
        table = pa.table({"x": [0.5, None, 3.0, -1.0, 2.0, None, 9.0], "flat": [1] * 7})
        assert key() == key(Toy(column="x"))
        assert key() == key(data=hand_in(tmp_path / "elsewhere", table, shard_rows=3))

    def test_changes_with_all_that_decides_the_scores(
        self, key: Callable[..., str], ingested: Ingested, tmp_path: Path
    ) -> None:
        table = pa.table({"x": [0.5, None, 3.0, -1.0, 2.0, None, 9.1], "flat": [1] * 7})
        other = hand_in(tmp_path / "other", table, shard_rows=3)
        keys = {
            key(),
            key(Toy(column="flat")),
            key(Bad()),
            key(roles=Roles(features=("x",))),
            key(salt=b"y" * 32),
            key(data=other),
            key(trusted=ingested),
            key(trusted=other),
        }
        assert len(keys) == 8

    def test_changes_with_the_version(
        self, key: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = key()
        monkeypatch.setattr(module, "EVIDENCE_FORMAT", module.EVIDENCE_FORMAT + 1)
        assert key() != before


@dataclass(frozen=True)
class Odd(Toy):
    setting: object = None


class TestSettings:
    def test_are_what_json_can_hold(self) -> None:
        odd = Odd(setting={"a": (1, 2.0, None), "b": frozenset({"y", "x"})})
        assert settings_of(odd) == {
            "column": "x",
            "setting": {"a": [1, 2.0, None], "b": ["x", "y"]},
        }

    def test_others_are_refused(self) -> None:
        with pytest.raises(PlanError, match="'setting' of sanitizer 'toy' is of type object"):
            settings_of(Odd(setting=object()))

    def test_a_recipe_that_is_no_dataclass_is_refused(self) -> None:
        class Loose:
            name: ClassVar[str] = "loose"
            needs: ClassVar[frozenset[str]] = frozenset()
            fit = Toy.fit
            reason = Toy.reason

        with pytest.raises(PlanError, match="not a dataclass"):
            settings_of(Loose())


class TestTrusted:
    """Trusted rows are scored too, in a file of their own, whoever vouches for them."""

    @pytest.fixture
    def vouched(self, tmp_path: Path) -> Dataset:
        table = pa.table({"x": [0.5, 3.0, 7.0], "flat": [1] * 3, "ok": [True, False, None]})
        beside = hand_in(tmp_path / "beside", pa.table({"x": [2.0], "flat": [1], "ok": [None]}))
        roles = replace(ROLES, trusted="ok")
        return hand_in(tmp_path / "own", table).dataset(roles, SALT, beside)

    def test_rows_of_a_column_and_of_a_file_are_in_one(
        self, vouched: Dataset, tmp_path: Path
    ) -> None:
        done = examine(Toy(), vouched, tmp_path / "e")
        table, rows = read_trusted(tmp_path / "e"), vouched.trusted_rows
        assert rows is not None
        assert table.column(ROW_ID).to_pylist() == rows.row_ids.to_pylist()
        assert sorted(table.column("score").to_pylist()) == [0.5, 2.0]
        assert (done.trusted, done.conformal, done.rows) == (2, False, 3)

    def test_there_is_no_file_where_nobody_vouches(self, dataset: Dataset, tmp_path: Path) -> None:
        assert examine(Toy(), dataset, tmp_path / "e").trusted == 0
        assert not trusted_file(tmp_path / "e").exists()

    def test_a_lost_or_damaged_one_is_done_anew(self, vouched: Dataset, tmp_path: Path) -> None:
        first = examine(Toy(), vouched, tmp_path / "e")
        before = read_trusted(tmp_path / "e")
        kept = evidence_file(tmp_path / "e", 0).stat().st_mtime_ns
        trusted_file(tmp_path / "e").unlink()
        assert replace(examine(Toy(), vouched, tmp_path / "e"), seconds=first.seconds) == first
        assert evidence_file(tmp_path / "e", 0).stat().st_mtime_ns == kept
        (tmp_path / "e" / MARKER).unlink()
        trusted_file(tmp_path / "e").write_bytes(b"PAR1")
        examine(Toy(), vouched, tmp_path / "e")
        assert read_trusted(tmp_path / "e").equals(before)


@pytest.mark.parametrize(
    "influence", [None, Influence(1.5), Influence(1.5, 21.3), Influence(2, np.inf)]
)
def test_what_finds_do_is_read_as_it_was_written(
    tmp_path: Path, influence: Influence | None
) -> None:
    written = Examined("toy", tmp_path, 3, 0, 0.1, influence=influence).write({})
    assert Examined.load(tmp_path) == written
