from __future__ import annotations

import errno
import multiprocessing
import os
import stat
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.disk import (
    STALE_SECONDS,
    canonical,
    pretty,
    read_json,
    temporary_of,
    write_json,
    write_table,
    writing,
)
from pipelines.names import name_from
from pipelines.salts import SALT_BYTES
from pipelines.store import Store, key_of
from sanitizers.core.errors import IntegrityError, PlanError, StoreError

SALT = bytes(range(32))
KEY = "0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", SALT)


class TestSalt:
    def test_is_made_with_the_store_and_stays(self, tmp_path: Path) -> None:
        first = Store.open(tmp_path / "deep" / "store")
        again = Store.open(tmp_path / "deep" / "store")
        assert first == again
        assert len(first.salt) == SALT_BYTES
        assert Store.open(tmp_path / "other").salt != first.salt

    def test_is_private_and_never_shown(self, store: Store) -> None:
        mode = stat.S_IMODE((store.root / "salt").stat().st_mode)
        assert mode == 0o600
        assert "salt" not in repr(store)
        assert SALT.hex()[:16] not in store.salt_digest

    def test_may_be_given(self, tmp_path: Path) -> None:
        Store.open(tmp_path, SALT)
        assert Store.open(tmp_path, SALT).salt == SALT
        assert Store.open(tmp_path).salt == SALT

    def test_another_one_is_refused(self, store: Store) -> None:
        with pytest.raises(PlanError, match="another salt"):
            Store.open(store.root, b"x" * 32)
        assert Store.open(store.root).salt == SALT

    @pytest.mark.parametrize("length", [0, 15, 65])
    def test_of_a_wrong_length_is_refused(self, tmp_path: Path, length: int) -> None:
        with pytest.raises(PlanError, match=f"{length} bytes"):
            Store.open(tmp_path / "store", b"x" * length)
        assert not (tmp_path / "store").exists()

    @pytest.mark.parametrize("text", ["", "zz", "abcd", "ä" * 64])
    def test_that_is_damaged_is_told(self, store: Store, text: str) -> None:
        (store.root / "salt").write_text(text)
        with pytest.raises(IntegrityError, match="damaged"):
            Store.open(store.root)

    def test_two_processes_agree(self, tmp_path: Path) -> None:
        with multiprocessing.get_context("fork").Pool(4) as pool:
            salts = pool.map(_open_salt, [tmp_path / "store"] * 8)
        assert len(set(salts)) == 1


def _open_salt(root: Path) -> bytes:
    return Store.open(root).salt


class TestRoot:
    @pytest.mark.parametrize("root", ["s4://bucket/x", "s3://key:secret@b", "s3:/b"])
    def test_an_address_that_cannot_be_is_refused(self, root: str) -> None:
        with pytest.raises(PlanError):
            Store.open(root)

    def test_an_empty_name_is_refused(self) -> None:
        with pytest.raises(PlanError, match="no name"):
            Store.open(" ")

    def test_is_not_made_when_it_must_exist(self, tmp_path: Path) -> None:
        with pytest.raises(PlanError, match="not a store"):
            Store.open(tmp_path / "store", create=False)
        assert not (tmp_path / "store").exists()

    def test_a_file_is_no_root(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StoreError):
            Store.open(tmp_path / "file" / "store")


class TestNames:
    @pytest.mark.parametrize("name", ["a", "a.b_c-d", "0", "x" * 64])
    def test_good_ones(self, store: Store, name: str) -> None:
        assert store.dataset(name) == store.root / name

    @pytest.mark.parametrize(
        "name", ["", ".", "..", "a/b", "../a", "A", "-a", ".a", "a\n", "x" * 65, "ä", "a b", "salt"]
    )
    def test_bad_ones(self, store: Store, name: str) -> None:
        with pytest.raises(PlanError, match="cannot name a dataset"):
            store.dataset(name)

    @pytest.mark.parametrize(
        ("source", "name"),
        [
            ("Mine.csv", "mine"),
            ("/data/My Table (2).csv.gz", "my-table-2"),
            ("data/*.csv", "data"),
            ("folder/", "folder"),
            ("folder/.", "folder"),
            ("../..", "data"),
            ("*.csv", "data"),
            ("salt.csv", "salt-data"),
            ("ÄÖ.csv", "data"),
            ("x" * 99, "x" * 64),
            ("C:\\data\\mine.csv", "mine"),
            ("v1.2.csv", "v1"),
        ],
    )
    def test_from_a_file(self, store: Store, source: str, name: str) -> None:
        assert name_from(source) == name
        assert store.dataset(name_from(source)).name == name

    @pytest.mark.parametrize("key", ["", "..", "../../etc/passwd", KEY.upper(), KEY + "0"])
    def test_keys_are_checked(self, store: Store, key: str) -> None:
        for place in (store.inputs, store.evidence, store.run, store.staging):
            with pytest.raises(IntegrityError):
                place("a", key)

    @pytest.mark.parametrize("version", ["1", "1.0", "1.0.0.0", "01.0.0", "../1.0.0", "1.0.0\n"])
    def test_versions_are_checked(self, store: Store, version: str) -> None:
        with pytest.raises(PlanError, match="not a version"):
            store.release("a", version)

    def test_an_unknown_dataset_gets_a_suggestion(self, store: Store) -> None:
        store.dataset("adult").mkdir()
        assert store.known("adult") == "adult"
        with pytest.raises(PlanError, match="did you mean 'adult'"):
            store.known("adlut")


def test_releases_are_in_the_order_of_their_numbers(store: Store) -> None:
    assert store.releases("a") == ()
    for name in ("10.0.0", "2.0.0", "2.10.0", "2.9.0", ".staging-x", "1.0", "notes"):
        (store.dataset("a") / "releases" / name).mkdir(parents=True)
    assert [p.name for p in store.releases("a")] == ["2.0.0", "2.9.0", "2.10.0", "10.0.0"]


def test_keys_depend_on_every_part_and_on_nothing_else() -> None:
    assert key_of("a", {"x": 1, "y": 2}) == key_of("a", {"y": 2, "x": 1})
    assert key_of("a", 1) == key_of("a", 1)
    assert len({key_of("a", 1), key_of("a", "1"), key_of("a", [1]), key_of("a1"), key_of()}) == 5


class TestJson:
    def test_round_trip(self, tmp_path: Path) -> None:
        value = {"ä": [1, 2.5, None, True, "\u202e"], "b": {}}
        write_json(tmp_path / "x.json", value)
        assert read_json(tmp_path / "x.json") == value
        assert pretty(value).isascii()
        assert canonical(value).isascii()
        assert [p.name for p in tmp_path.iterdir()] == ["x.json"]

    def test_a_number_that_json_has_not_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="JSON"):
            write_json(tmp_path / "x.json", {"a": float("nan")})
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100_000, "\x00"])
    def test_damage_is_told(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(IntegrityError, match=r"x\.json"):
            read_json(tmp_path / "x.json")

    def test_missing_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(IntegrityError, match="missing"):
            read_json(tmp_path / "x.json")

    def test_the_old_text_stays_when_the_disk_is_full(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_json(tmp_path / "x.json", {"a": 1})

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="no space left"):
            write_json(tmp_path / "x.json", {"a": 2})
        assert read_json(tmp_path / "x.json") == {"a": 1}


def test_a_table_is_written_whole(tmp_path: Path) -> None:
    table = pa.table({"a": [1, None]})
    write_table(table, tmp_path / "x.parquet")
    assert pq.read_table(tmp_path / "x.parquet").equals(table)
    assert [p.name for p in tmp_path.iterdir()] == ["x.parquet"]


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "no space left"),
        (errno.EACCES, "permission denied"),
        (errno.EPERM, "permission denied"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_faults_of_a_disk_become_one_line(number: int, says: str) -> None:
    with pytest.raises(StoreError, match=says) as caught, writing(Path("there/x")):
        raise OSError(number, os.strerror(number))
    assert "there/x" in str(caught.value)
    assert "\n" not in str(caught.value)


class TestLock:
    def test_waits_and_then_gives_up(self, store: Store) -> None:
        with (
            store.lock("a"),
            pytest.raises(StoreError, match="another run"),
            store.lock("a", wait=0.2),
        ):
            pytest.fail("two hold the lock")
        with store.lock("a", wait=0):
            pass

    def test_datasets_do_not_wait_for_each_other(self, store: Store) -> None:
        with store.lock("a"), store.lock("b", wait=0):
            pass

    def test_dies_with_its_process(self, store: Store) -> None:
        child = os.fork()
        if not child:
            with store.lock("a"):
                os.kill(os.getpid(), 9)
        os.waitpid(child, 0)
        with store.lock("a", wait=0):
            pass


class TestSweep:
    def test_takes_what_dead_processes_left(self, store: Store) -> None:
        dead = _dead()
        folder = store.dataset("a")
        left = [
            folder / "releases" / f".staging-{KEY}",
            folder / "inputs" / f".{KEY}.tmp-{dead}",
            folder / "evidence" / KEY / f".evidence-00000.parquet.tmp-{dead}",
            folder / "runs" / KEY / f".spill.tmp-{dead}",
        ]
        kept = [
            folder / "inputs" / KEY,
            folder / "releases" / "1.0.0",
            folder / "inputs" / f".other.tmp-{os.getpid()}",
            folder / "inputs" / f".young.tmp-{dead}",
        ]
        for path in left + kept:
            path.mkdir(parents=True)
            (path / "x").touch()
            if "young" not in path.name:
                os.utime(path, (time.time() - 2 * STALE_SECONDS,) * 2)
        store.sweep("a")
        assert not any(path.exists() for path in left)
        assert all((path / "x").exists() for path in kept)

    def test_of_an_empty_store_does_nothing(self, store: Store) -> None:
        store.sweep("a")

    def test_never_follows_a_link(self, store: Store, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "x").touch()
        releases = store.dataset("a") / "releases"
        releases.mkdir(parents=True)
        (releases / f".staging-{KEY}").symlink_to(outside)
        store.sweep("a")
        assert (outside / "x").exists()
        assert not list(releases.iterdir())


def _dead() -> int:
    """The id of a process that has ended."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def test_temporary_names_are_hidden_and_say_whose_they_are() -> None:
    assert temporary_of(Path("a/x.json")).name == f".x.json.tmp-{os.getpid()}"
