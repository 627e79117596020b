"""Ingest: rows are conserved, ids are stable, formats agree, and bad input is told."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
import os
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.ingest import MARKER, Ingested, ingest
from pipelines.progress import SilentStage
from pipelines.readers.sources import find_sources
from pipelines.shards import ParquetShard, ShardWriter, write_shard
from sanitizers.core.data import ROW_KEY, Roles, row_keys
from sanitizers.core.errors import InputError, IntegrityError, PlanError, StoreError

SALT = b"s" * 32
OURS = ["row_id", "__row_key", "__file", "__row"]


def rows_of(ingested: Ingested) -> pa.Table:
    return pa.concat_tables([shard.read() for shard in ingested.shard_files()])


def simple(rows: int = 20, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "x": rng.normal(size=rows),
            "n": rng.integers(-9, 9, rows),
            "name": [f"name {i % 5}" for i in range(rows)],
            "when": pa.array([datetime(2020, 1, 1) + timedelta(hours=i) for i in range(rows)]),
            "flag": rng.random(rows) < 0.5,
            "label": pa.array([None if i % 7 == 0 else "ab"[i % 2] for i in range(rows)]),
        }
    )


def write(table: pa.Table, path: Path) -> Path:
    """Write a table in the format that the name asks for."""
    buffer = io.BytesIO()
    name = path.name.removesuffix(".gz")
    if name.endswith(".csv"):
        pacsv.write_csv(table, buffer)
    elif name.endswith(".tsv"):
        pacsv.write_csv(table, buffer, pacsv.WriteOptions(delimiter="\t"))
    elif name.endswith(".jsonl"):
        lines = (json.dumps(row, default=str) for row in table.to_pylist())
        buffer.write("\n".join(lines).encode())
    elif name.endswith(".parquet"):
        pq.write_table(table, buffer, row_group_size=7)
    elif name.endswith(".feather"):
        feather.write_feather(table, buffer, chunksize=6)
    elif name.endswith(".arrow"):
        with pa.ipc.new_file(buffer, table.schema) as writer:
            writer.write_table(table, max_chunksize=5)
    else:
        with pa.ipc.new_stream(buffer, table.schema) as writer:
            writer.write_table(table, max_chunksize=5)
    data = buffer.getvalue()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


# ---------------------------------------------------------------- the laws


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet", "feather", "arrow", "arrows"])
def test_every_format_gives_the_same_rows_and_ids(tmp_path: Path, ending: str, packed: str) -> None:
    table = simple()
    expected = ingest(write(table, tmp_path / "a.parquet"), tmp_path / "expected", salt=SALT)
    path = write(table, tmp_path / f"b.{ending}{packed}")
    found = ingest(path, tmp_path / "found", salt=SALT)
    assert rows_of(found).equals(rows_of(expected))
    assert rows_of(found).select(table.column_names).equals(table)
    assert found.files[0].rows == table.num_rows
    assert found.columns == expected.columns


def test_npz_gives_the_same_rows_and_ids(tmp_path: Path) -> None:
    X, y = np.random.default_rng(0).normal(size=(50, 3)), np.arange(50) % 2
    np.savez_compressed(tmp_path / "a.npz", X=X, y=y)
    table = pa.table({f"x{i}": X[:, i] for i in range(3)} | {"y": y})
    found = ingest(tmp_path / "a.npz", tmp_path / "found", salt=SALT)
    expected = ingest(write(table, tmp_path / "b.parquet"), tmp_path / "expected", salt=SALT)
    assert rows_of(found).equals(rows_of(expected))


def test_every_type_comes_back_unchanged(tmp_path: Path) -> None:
    texts = pa.array(["a", None, "a", "b"])
    table = pa.table(
        {
            **{str(t): pa.array([1, None, 0, 3], t) for t in (pa.int8(), pa.uint64(), pa.int64())},
            "f2": pa.array([1.5, None, 0.0, -0.0], pa.float16()),
            "f4": pa.array([1.5, None, float("inf"), float("nan")], pa.float32()),
            "bool": pa.array([True, None, False, True]),
            "large": texts.cast(pa.large_string()),
            "category": texts.dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string())),
            "number category": pa.array([5, None, 5, 6]).dictionary_encode(),
            "bytes": pa.array([b"", None, b"\0\xff", b"x"]),
            "fixed": pa.array([b"ab", None, b"cd", b"ab"], pa.binary(2)),
            "date": pa.array([date(2020, 1, 1), None, date(1900, 1, 1), date(2020, 1, 1)]),
            "date64": pa.array([date(2020, 1, 1)] * 4, pa.date64()),
            "second": pa.array([1, None, 2, 3], pa.timestamp("s")),
            "zone": pa.array([1, None, 2, 3], pa.timestamp("ns", "Europe/Berlin")),
            "clock": pa.array([1, None, 2, 3], pa.time32("s")),
            "span": pa.array([1, None, 2, 3], pa.duration("ms")),
            "decimal": pa.array([Decimal("1.50"), None, Decimal("0.25"), Decimal("9.99")]),
            "list": pa.array([[1], None, [], [None]], pa.list_(pa.int32())),
            "vector": pa.array([[1.0, 2.0]] * 4, pa.list_(pa.float32(), 2)),
            "struct": pa.array([{"a": 1}, None, {"a": None}, {"a": 2}]),
            "map": pa.array([[("k", 1)], None, [], [("l", 2)]], pa.map_(pa.string(), pa.int8())),
            "nothing": pa.nulls(4),
        }
    )
    path = write(table, tmp_path / "t.arrow")
    found = ingest(path, tmp_path / "found", salt=SALT, shard_rows=3)
    back = rows_of(found).select(table.column_names)
    assert back.schema.equals(table.schema)
    # NaN is not equal to itself, so that column is compared by its bytes.
    assert back.drop_columns(["f4"]).to_pylist() == table.drop_columns(["f4"]).to_pylist()
    assert back["f4"].to_numpy().tobytes() == table["f4"].to_numpy().tobytes()


def test_ids_do_not_depend_on_sharding_or_the_order_of_files(tmp_path: Path) -> None:
    parts = [simple(15, seed) for seed in (1, 2, 3)]
    for folder, order in (("a", (0, 1, 2)), ("b", (2, 0, 1))):
        (tmp_path / folder).mkdir()
        for place, part in enumerate(order):
            write(parts[part], tmp_path / folder / f"{place}.csv")
    found = [
        ingest(tmp_path / "a", tmp_path / f"out-{shard_rows}", salt=SALT, shard_rows=shard_rows)
        for shard_rows in (4, 7, 100)
    ]
    assert [len(f.shards) for f in found] == [12, 7, 1]
    tables = [rows_of(f) for f in found]
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
    turned = rows_of(ingest(tmp_path / "b", tmp_path / "turned", salt=SALT))
    assert set(turned["row_id"].to_pylist()) == set(tables[0]["row_id"].to_pylist())


def test_ids_do_not_depend_on_the_order_of_columns(tmp_path: Path) -> None:
    table = simple()
    a = ingest(write(table, tmp_path / "a.csv"), tmp_path / "a", salt=SALT)
    turned = table.select(table.column_names[::-1])
    b = ingest(write(turned, tmp_path / "b.csv"), tmp_path / "b", salt=SALT)
    assert rows_of(a)["row_id"].equals(rows_of(b)["row_id"])


@pytest.mark.parametrize("shard_rows", [3, 10, 1000])
def test_repeated_rows_are_numbered(tmp_path: Path, shard_rows: int) -> None:
    values = np.random.default_rng(0).integers(0, 6, 60)
    path = write(pa.table({"v": values, "w": values * 2}), tmp_path / "t.parquet")
    found = ingest(path, tmp_path / "out", salt=SALT, shard_rows=shard_rows)
    rows = rows_of(found)
    ids = rows["row_id"].to_pylist()
    assert len(set(ids)) == 60
    seen: dict[int, list[str]] = {}
    for value, row_id in zip(values.tolist(), ids, strict=True):
        seen.setdefault(value, []).append(row_id)
    for several in seen.values():
        assert len(several[0]) == 32
        assert several[1:] == [f"{several[0]}-{n}" for n in range(1, len(several))]
    assert np.array_equal(rows[ROW_KEY].to_numpy(), row_keys(ids, SALT))
    assert rows["v"].to_pylist() == values.tolist()


def test_rows_are_conserved_with_their_places(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("x,y\n1,a\n2\n3,b\n4,c,d\n5,e\n")
    (tmp_path / "in" / "b.jsonl").write_text('{"y": "f", "x": 6}\nnot json\n{"x": 7, "y": null}')
    found = ingest(tmp_path / "in", tmp_path / "out", salt=SALT, shard_rows=2)
    assert (found.rows, found.unreadable) == (5, 3)
    assert [(f.path, f.rows, f.unreadable) for f in found.files] == [
        ("a.csv", 3, 2),
        ("b.jsonl", 2, 1),
    ]
    rows = rows_of(found)
    assert rows.column_names == ["x", "y", *OURS]
    assert rows["x"].to_pylist() == [1, 3, 5, 6, 7]
    assert rows["__file"].to_pylist() == [0, 0, 0, 1, 1]
    assert rows["__row"].to_pylist() == [0, 2, 4, 0, 2]
    path = found.unreadable_file()
    assert path is not None
    bad = ParquetShard(path).read().to_pylist()
    assert [(b["file"], b["row"], b["raw"]) for b in bad] == [
        ("a.csv", 1, "2"),
        ("a.csv", 3, "4,c,d"),
        ("b.jsonl", 1, "not json"),
    ]
    assert all(b["row_id"].startswith("unreadable-") and b["reason"] for b in bad)


def test_unreadable_rows_of_equal_files_have_ids_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / "in" / f"{name}.csv").write_text("x,y\n1,2\n3\n")
    found = ingest(tmp_path / "in", tmp_path / "out", salt=SALT)
    path = found.unreadable_file()
    assert path is not None
    assert len(set(ParquetShard(path).read()["row_id"].to_pylist())) == 2
    assert len(set(rows_of(found)["row_id"].to_pylist())) == 2


@given(data=st.binary(max_size=150), shard_rows=st.integers(1, 9))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_csv_is_conserved_or_refused(tmp_path: Path, data: bytes, shard_rows: int) -> None:
    body = data.replace(b"\x01", b"\n").replace(b"\x02", b",").replace(b"\x03", b'"')
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b\n0,0\n" + body)
    try:
        found = ingest(path, tmp_path / "out", salt=SALT, shard_rows=shard_rows)
    except InputError:
        return
    unreadable = found.unreadable_file()
    bad = ParquetShard(unreadable).read() if unreadable else pa.table({"row": [], "row_id": []})
    rows = rows_of(found)
    places = sorted(rows["__row"].to_pylist() + bad["row"].to_pylist())
    assert places == list(range(found.rows + found.unreadable))
    ids = rows["row_id"].to_pylist() + bad["row_id"].to_pylist()
    assert len(set(ids)) == len(ids)


# --------------------------------------------------------------------- ids


def test_the_id_column_names_the_rows(tmp_path: Path) -> None:
    path = write(pa.table({"key": ["c", "a", "b"], "v": [1, 1, 1]}), tmp_path / "t.parquet")
    found = ingest(path, tmp_path / "out", salt=SALT, id_column="key")
    assert rows_of(found)["row_id"].to_pylist() == ["c", "a", "b"]
    assert rows_of(found)["key"].to_pylist() == ["c", "a", "b"]
    assert found.id_column == "key"


def test_a_column_called_row_id_is_the_id(tmp_path: Path) -> None:
    path = write(pa.table({"row_id": [7, 8], "v": [1, 1]}), tmp_path / "t.csv")
    found = ingest(path, tmp_path / "out", salt=SALT)
    assert rows_of(found).column_names == ["v", *OURS]
    assert rows_of(found)["row_id"].to_pylist() == ["7", "8"]


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["a", "b", "a", "a"], "'key' repeats in 2 of 4 rows, for instance 'a'"),
        (["a", None, "b", None], "'key' has no value in 2 of 4 rows"),
        ([1.5, 2.5, 3.5, 4.5], "is of type double"),
        (["x" * 1001, "a", "b", "c"], "1,001 characters"),
    ],
)
def test_ids_that_are_none(tmp_path: Path, ids: list[Any], said: str) -> None:
    path = write(pa.table({"key": ids, "v": [1, 2, 3, 4]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=said):
        ingest(path, tmp_path / "out", salt=SALT, id_column="key", shard_rows=2)
    assert not (tmp_path / "out").exists()


def test_an_unknown_id_column_is_told(tmp_path: Path) -> None:
    path = write(simple(), tmp_path / "t.csv")
    with pytest.raises(PlanError, match="did you mean 'name'"):
        ingest(path, tmp_path / "out", salt=SALT, id_column="nam")


# -------------------------------------------------------------- many files


def test_types_of_files_are_unified(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("n,c,t,m\n1,5,x,\n2,6,y,\n")
    categories = pa.array(["z"]).dictionary_encode()
    table = pa.table({"t": categories, "c": ["7"], "n": [2.5], "m": [True]})
    write(table, tmp_path / "in" / "b.parquet")
    (tmp_path / "in" / "sub").mkdir()
    (tmp_path / "in" / "sub" / "c.jsonl").write_text('{"n": 4, "c": "8", "t": null, "m": null}')
    for ignored in ("_SUCCESS", ".hidden.csv", "a.csv.done", "README.md", "_metadata"):
        (tmp_path / "in" / ignored).write_text("x")
    found = ingest(tmp_path / "in", tmp_path / "out", salt=SALT)
    rows = rows_of(found)
    assert [f.path for f in found.files] == ["a.csv", "b.parquet", "sub/c.jsonl"]
    assert rows["n"].to_pylist() == [1.0, 2.0, 2.5, 4.0]
    assert rows["c"].to_pylist() == ["5", "6", "7", "8"]
    assert rows["t"].to_pylist() == ["x", "y", "z", None]
    assert rows["m"].to_pylist() == [None, None, True, None]


def test_a_glob_and_a_list_of_files(tmp_path: Path) -> None:
    paths = [write(simple(5, i), tmp_path / f"{i}.csv") for i in range(3)]
    by_glob = ingest(str(tmp_path / "[01].csv"), tmp_path / "glob", salt=SALT)
    by_list = ingest(paths[:2], tmp_path / "list", salt=SALT)
    assert rows_of(by_glob).equals(rows_of(by_list))
    assert find_sources(tmp_path / "*.csv") == paths


# --------------------------------------------------------------- bad input

BAD = {
    "empty": ({"t.csv": b""}, "t.csv is empty"),
    "header only": ({"t.csv": b"a,b\n"}, "t.csv has columns but no rows"),
    "blank": ({"t.csv": b"\n\n"}, "has no header"),
    "repeated names": ({"t.csv": b"a,b,a\n1,2,3\n"}, "2 columns called 'a'"),
    "no header": ({"t.csv": b"5.1,3.5,1.4\n4.9,3.0,1.4\n"}, "looks like data"),
    "no header, mixed": ({"t.csv": b"tcp,0,0,x\nudp,1,0,y\n"}, "looks like data"),
    "header not utf-8": ({"t.csv": b"a,\xff\n1,2\n"}, "not UTF-8"),
    "utf-16": ({"t.csv": "a,b\n1,2\n".encode("utf-16")}, "UTF-16"),
    "nothing readable": ({"t.csv": b"a,b\n1\n2\n"}, "none of the 2 rows could be read"),
    "binary": ({"t.csv": b"a,b\0\1\2\3"}, "no known format"),
    "unknown": ({"t.xyz": b"hello"}, "no known format"),
    "json array": ({"t.json": b'[{"a": 1}]'}, "one JSON array"),
    "spreadsheet": ({"t.xlsx": b"PK\3\4...."}, "spreadsheet"),
    "zstd": ({"t.csv.zst": b"\x28\xb5\x2f\xfd...."}, "zstd"),
    "npy": ({"t.npy": b"\x93NUMPY"}, "single NumPy array"),
    "truncated gzip": ({"t.csv.gz": gzip.compress(b"a,b\n1,2\n" * 999)[:40]}, "truncated gzip"),
    "damaged gzip": ({"t.csv.gz": b"\x1f\x8b\x08" + b"\0" * 30}, "damaged gzip"),
    "gzip twice": ({"t.csv.gz": gzip.compress(gzip.compress(b"a,b\n1,2\n"))}, "gzipped twice"),
    "corrupt parquet": ({"t.parquet": b"PAR1" + b"x" * 50 + b"PAR1"}, "cannot be read as Parquet"),
    "not parquet": ({"t.parquet": b"a,b\n1,2\n"}, "is not a parquet file"),
    "corrupt arrow": ({"t.arrow": b"ARROW1\0\0" + b"x" * 50}, "cannot be read as Arrow"),
    "corrupt npz": ({"t.npz": b"PK\3\4" + b"x" * 50}, "cannot be read as NPZ"),
    "our name": ({"t.csv": b"a,__row\n1,2\n"}, "a column is called '__row'"),
    "no data": ({"README": b"hello"}, "no data in the folder"),
    "missing column": ({"a.csv": b"x,y\n1,2\n", "b.csv": b"x\n1\n"}, "b.csv has no column 'y'"),
    "extra column": ({"a.csv": b"x\n1\n", "b.csv": b"x,y\n1,2\n"}, "a.csv has no column 'y'"),
    "repeated row_id": ({"t.csv": b"row_id,a\n1,2\n1,3\n"}, "rename that column"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_one_line(tmp_path: Path, case: str) -> None:
    files, said = BAD[case]
    source = tmp_path / "in"
    source.mkdir()
    for name, data in files.items():
        (source / name).write_bytes(data)
    alone = len(files) == 1 and case != "no data"
    with pytest.raises(InputError, match=said) as error:
        ingest(source / next(iter(files)) if alone else source, tmp_path / "out", salt=SALT)
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("ending", ["arrow", "arrows", "feather", "parquet", "jsonl", "csv"])
def test_damaged_files_are_read_or_refused(tmp_path: Path, ending: str) -> None:
    path = write(simple(), tmp_path / f"t.{ending}")
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(15):
        data = bytearray(good)
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(256)
        path.write_bytes(bytes(data))
        try:
            said = str(ingest(path, tmp_path / "out", salt=SALT).rows)
        except InputError as error:
            said = str(error)
        assert said
        assert "\n" not in said


def test_names_that_no_tool_can_write_are_told(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a\\u0000b": 1}')
    with pytest.raises(InputError, match="without a NUL"):
        ingest(tmp_path / "t.jsonl", tmp_path / "out", salt=SALT)
    path = write(simple(), tmp_path / "t.arrow")
    path.write_bytes(path.read_bytes().replace(b"flag", b"fl\xffg"))
    with pytest.raises(InputError, match="cannot be read as Arrow"):
        ingest(path, tmp_path / "out", salt=SALT)


def test_values_that_parquet_cannot_keep_are_told(tmp_path: Path) -> None:
    table = pa.table({"t": pa.array([2**62], pa.timestamp("s"))})
    with pytest.raises(InputError, match="Parquet cannot keep a value"):
        ingest(write(table, tmp_path / "t.arrow"), tmp_path / "out", salt=SALT)


def test_types_that_conflict_are_told(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(pa.table({"v": [1]}), tmp_path / "in" / "a.parquet")
    write(pa.table({"v": ["x"]}), tmp_path / "in" / "b.parquet")
    with pytest.raises(InputError, match=r"'v' is int64 in a.parquet and string in b.parquet"):
        ingest(tmp_path / "in", tmp_path / "out", salt=SALT)


def test_a_missing_file_is_told_with_a_near_one(tmp_path: Path) -> None:
    write(simple(), tmp_path / "adults.csv")
    with pytest.raises(InputError, match=r"did you mean 'adults.csv'"):
        find_sources(tmp_path / "adult.csv")
    with pytest.raises(InputError, match="no file matches"):
        find_sources(tmp_path / "*.parquet")


def test_a_truncated_parquet_leaves_nothing(tmp_path: Path) -> None:
    path = write(simple(5000), tmp_path / "t.parquet")
    data = bytearray(path.read_bytes())
    data[200:400] = os.urandom(200)
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"t.parquet cannot be read as Parquet"):
        ingest(path, tmp_path / "out", salt=SALT)
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


# ------------------------------------------------------ again, crash, disk


class Notes:
    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, name: str, total: int | None = None, shards: int | None = None) -> SilentStage:
        return SilentStage()

    def note(self, text: str) -> None:
        self.said.append(text)


def test_the_same_input_is_not_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(simple(), tmp_path / "t.csv")
    first = ingest(path, tmp_path / "out", salt=SALT)
    notes = Notes()
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.ingest.read_files", lambda *_: pytest.fail("read again"))
        assert ingest(path, tmp_path / "out", salt=SALT, progress=notes) == first
    assert "unchanged" in notes.said[0]
    assert Ingested.load(tmp_path / "out") == first
    with path.open("a") as file:
        file.write("0.5,1,new,2020-01-01 00:00:00.000000,true,a\n")
    again = ingest(path, tmp_path / "out", salt=SALT)
    assert again.rows == first.rows + 1
    assert again.digest != first.digest
    renamed = ingest(path.rename(tmp_path / "u.csv"), tmp_path / "out", salt=SALT)
    assert renamed.files[0].path == "u.csv"
    path = tmp_path / "u.csv"
    keys = rows_of(again)[ROW_KEY]
    other = ingest(path, tmp_path / "out", salt=b"t" * 32)
    assert not rows_of(other)[ROW_KEY].equals(keys)


def test_a_crash_leaves_no_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(simple(), tmp_path / "t.csv")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.rows.find_repeats", crash)
        with pytest.raises(KeyboardInterrupt):
            ingest(path, tmp_path / "out", salt=SALT)
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "rows-00000.parquet").write_bytes(b"left behind")
    assert ingest(path, tmp_path / "out", salt=SALT).rows == 20


def test_damage_is_found_and_mended(tmp_path: Path) -> None:
    path = write(simple(), tmp_path / "t.csv")
    found = ingest(path, tmp_path / "out", salt=SALT)
    shard = tmp_path / "out" / found.shards[0].name
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="not what was written"):
        Ingested.load(tmp_path / "out")
    assert ingest(path, tmp_path / "out", salt=SALT) == found
    (tmp_path / "out" / MARKER).write_text("{}")
    with pytest.raises(IntegrityError, match="is damaged"):
        Ingested.load(tmp_path / "out")


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(simple(), tmp_path / "t.csv")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
        with pytest.raises(StoreError, match="no space left on the disk"):
            ingest(path, tmp_path / "out", salt=SALT)
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


def test_a_file_that_changes_meanwhile_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(simple(), tmp_path / "t.csv")
    stamps = iter([[(1, 1)], [(1, 2)]])
    monkeypatch.setattr("pipelines.ingest._stamps", lambda *_: next(stamps))
    with pytest.raises(InputError, match="changed while it was read"):
        ingest(path, tmp_path / "out", salt=SALT)


def test_unreadable_rows_are_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3\n")
    notes = Notes()
    ingest(tmp_path / "t.csv", tmp_path / "out", salt=SALT, progress=notes)
    assert notes.said == [
        "1 rows could not be read; the first: t.csv, row 1: 1 values where the header has 2"
    ]


# --------------------------------------------------------- shards, profiles


def test_a_writer_that_fails_leaves_no_file(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "t", simple().schema)
    with contextlib.suppress(ValueError), writer:
        writer.write(simple())
        raise ValueError("stop")
    assert not list(tmp_path.iterdir())


def test_views_become_plain_strings(tmp_path: Path) -> None:
    texts = pa.array(["a", None, "b"])
    path = write(pa.table({"t": texts.cast(pa.string_view())}), tmp_path / "t.arrow")
    rows = rows_of(ingest(path, tmp_path / "out", salt=SALT))
    assert rows["t"].combine_chunks().equals(texts)


def test_a_shard_reads_what_was_asked_in_that_order(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "t.parquet", simple())
    assert shard.rows == 20
    assert shard.read(["name", "x"]).equals(simple().select(["name", "x"]))


def test_the_dataset_sees_the_shards(tmp_path: Path) -> None:
    path = write(simple(), tmp_path / "t.csv")
    found = ingest(path, tmp_path / "out", salt=SALT, shard_rows=6)
    data = found.dataset(Roles(label="label", features=("x", "n")), SALT, trusted=found)
    assert data.rows == 20
    assert [len(b) for b in data.batches()] == [6, 6, 6, 2]
    assert data.trusted_rows is not None


def test_profiles_count_what_is_there(tmp_path: Path) -> None:
    rows = 12_000
    table = pa.table(
        {
            "id": np.arange(rows),
            "f": np.arange(rows) / 2,
            "whole": np.arange(rows) % 7 * 1.0,
            "s": pa.array([None if i % 3 == 0 else "ab" * (i % 5) for i in range(rows)]),
            "c": pa.array(["u", "v", "w"] * (rows // 3)).dictionary_encode(),
            "file": [f"{i}.png" for i in range(rows)],
            "nan": pa.array([float("nan"), 1.0] * (rows // 2)),
            "list": [[1]] * rows,
        }
    )
    path = write(table, tmp_path / "t.arrow")
    found = {c.name: c for c in ingest(path, tmp_path / "out", salt=SALT, shard_rows=5000).columns}
    distinct = {name: c.distinct for name, c in found.items()}
    assert distinct == {
        "id": 10_001, "f": 10_001, "whole": 7, "s": 5, "c": 3, "file": 10_001, "nan": 2, "list": 0,
    }  # fmt: skip
    assert [name for name, c in found.items() if c.row_numbers] == ["id"]
    assert [name for name, c in found.items() if c.integers] == ["id", "whole", "nan"]
    assert found["s"].nulls == 4000
    assert found["s"].mean_length == pytest.approx(4.0)
    assert found["file"].image_names == rows
