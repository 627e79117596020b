"""Readers: every record is a row or an unreadable one, at its place, with its type."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.readers import open_reader
from pipelines.readers.blocks import Unreadable
from pipelines.readers.delimited import sniff_delimiter
from pipelines.readers.objects import parse_object
from pipelines.readers.records import CsvRecords, Lost, whole_records
from pipelines.readers.sources import identify
from pipelines.readers.unify import common_type, unify
from sanitizers.core.errors import InputError


def read(path: Path, work: Path | None = None) -> tuple[pa.Table, list[int], list[Unreadable]]:
    reader = open_reader(identify(path, path.name), work or path.parent)
    schema = unify([(path.name, reader.survey())])
    blocks = list(reader.read(schema))
    tables = [b.table for b in blocks] or [schema.empty_table()]
    positions = [p for b in blocks for p in b.positions.tolist()]
    return pa.concat_tables(tables), positions, [u for b in blocks for u in b.unreadable]


def read_text(
    tmp_path: Path, text: str | bytes, name: str = "t.csv"
) -> tuple[pa.Table, list[int], list[Unreadable]]:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read(path)


@contextmanager
def block_bytes(size: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.readers.records.BLOCK_BYTES", size)
        yield


# ------------------------------------------------------------------ records


def slow_records(text: str) -> list[str]:
    """The obvious way: one character after the other."""
    found, record, state = [], "", "start"
    for c in text + "\n":
        if state == "quoted":
            record += c
            if c == '"':
                state = "maybe closed"
            continue
        if state == "maybe closed":
            state = "quoted" if c == '"' else "plain"
            if c == '"':
                record += c
                continue
        if c in "\r\n":
            if record:
                found.append(record)
            record, state = "", "start"
        elif c == ",":
            record, state = record + c, "start"
        else:
            state = "quoted" if c == '"' and state == "start" else "plain"
            record += c
    return found if state == "start" and not record else [*found, "(open)"]


@given(st.text('ab,"\n\r', max_size=40), st.sampled_from([1, 3, 7, 1000]))
@settings(max_examples=300, deadline=None)
def test_records_are_those_of_the_obvious_parser(text: str, size: int) -> None:
    expected = slow_records(text)
    cutter = CsvRecords(b",")
    with block_bytes(size):
        parts = list(whole_records(io.BytesIO(text.encode()), cutter))
    if "(open)" in expected:
        assert any(isinstance(p, Lost) for p in parts)
        return
    found = [r.decode() for p in parts if isinstance(p, bytes) for r in cutter.split(p)]
    assert found == expected


def test_an_open_quote_costs_one_line(tmp_path: Path) -> None:
    table, positions, bad = read_text(tmp_path, 'a,b\n1,x\n"2,y\n3,z\n')
    assert table.column("a").to_pylist() == [1, 3]
    assert positions == [0, 2]
    assert bad == [Unreadable(1, '"2,y', "a quote is opened and never closed")]


@pytest.mark.parametrize("before", [0, 8 * 2**20 - 10])
def test_a_line_without_end_costs_one_line(tmp_path: Path, before: int) -> None:
    start = b"a,b\n1," + b" " * before + b"2\n"
    text = start + b"x" * (17 * 2**20) + b"\n3,4\n"
    table, positions, bad = read_text(tmp_path, text)
    assert table.column(1).to_pylist() == [2, 4]
    assert positions == [0, 2]
    assert bad[0].row == 1
    assert "over the limit" in bad[0].reason
    assert f"{17 * 2**20:,} bytes" in bad[0].reason
    assert len(bad[0].raw) == 2**20


# ---------------------------------------------------------------------- CSV


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["1", "-2", ""], pa.int64(), [1, -2, None]),
        (["1", "2.5", "1e3"], pa.float64(), [1.0, 2.5, 1000.0]),
        (["1", "NA", "?", "None"], pa.int64(), [1, None, None, None]),
        ([" 1", "2 "], pa.int64(), [1, 2]),
        (["00123", "1"], pa.string(), ["00123", "1"]),
        (["0", "0.5", "-0.5"], pa.float64(), [0.0, 0.5, -0.5]),
        (["0x10", "1"], pa.string(), ["0x10", "1"]),
        (["99999999999999999999", "1"], pa.string(), ["99999999999999999999", "1"]),
        (["9007199254740993", "0.5"], pa.string(), ["9007199254740993", "0.5"]),
        (["9007199254740993", "1"], pa.int64(), [9007199254740993, 1]),
        (["1e999", "1"], pa.string(), ["1e999", "1"]),
        (["inf", "1.5"], pa.float64(), [float("inf"), 1.5]),
        (["true", "False", ""], pa.bool_(), [True, False, None]),
        (["true", "1"], pa.string(), ["true", "1"]),
        (["2020-01-31", "NA"], pa.date32(), [date(2020, 1, 31), None]),
        (["2020-02-31"], pa.string(), ["2020-02-31"]),
        (["2020-01-01", "2020-01-01 10:30"], pa.timestamp("us"), None),
        (["2020-01-01T10:30:00.123456789"], pa.timestamp("ns"), None),
        (["2020-01-01T10:30:00Z"], pa.timestamp("us", "UTC"), None),
        (["None", "?", "x"], pa.string(), ["None", "?", "x"]),
        (["NA", "null", "x"], pa.string(), [None, None, "x"]),
        (['"NA"', '""', "x"], pa.string(), ["NA", "", "x"]),
        (['"1"', '""', '"3"'], pa.int64(), [1, None, 3]),
        (["NA", "", "?"], pa.null(), [None, None, None]),
    ],
)
def test_csv_types(tmp_path: Path, values: list[str], kind: Any, expected: list[Any]) -> None:
    table, _, bad = read_text(tmp_path, "a,b\n" + "".join(f"{v},x\n" for v in values))
    assert not bad
    assert table.schema.field("a").type == kind
    if expected is not None:
        assert table.column("a").to_pylist() == expected


@pytest.mark.parametrize("size", [200, 10_000])
def test_few_misfits_are_unreadable_and_many_make_text(tmp_path: Path, size: int) -> None:
    lines = [f"{i},row {i}" for i in range(400)]
    lines[7], lines[200], lines[399] = "abc,x", '"d ""e""",y', "007,z"
    with block_bytes(size):
        table, positions, bad = read_text(tmp_path, "age,name\n" + "\n".join(lines) + "\n")
    assert table.schema.field("age").type == pa.int64()
    assert [(u.row, u.raw) for u in bad] == [(7, "abc,x"), (200, '"d ""e""",y'), (399, "007,z")]
    assert bad[0].reason == "column 'age': 'abc' is not a number"
    assert positions == [i for i in range(400) if i not in {7, 200, 399}]
    assert table.column("age").to_pylist() == positions
    lines[8:12] = ["u,u"] * 4
    table, _, bad = read_text(tmp_path, "age,name\n" + "\n".join(lines) + "\n")
    assert table.schema.field("age").type == pa.string()
    assert not bad


@pytest.mark.parametrize("size", [30, 100, 10_000])
def test_bad_rows_keep_their_place_and_text(tmp_path: Path, size: int) -> None:
    text = (
        b"\xef\xbb\xbfa,b\n1,x\n\n2\n3,\xff\n4,y,z\r\n"
        b'"5","two\nlines, and a comma"\n6,"say ""hi"""\n7'
    )
    with block_bytes(size):
        table, positions, bad = read_text(tmp_path, text)
    assert table.to_pylist() == [
        {"a": 1, "b": "x"},
        {"a": 5, "b": "two\nlines, and a comma"},
        {"a": 6, "b": 'say "hi"'},
    ]
    assert positions == [0, 4, 5]
    assert [(u.row, u.raw) for u in bad] == [(1, "2"), (2, "3,\\xff"), (3, "4,y,z"), (6, "7")]
    assert bad[0].reason == "1 values where the header has 2"
    assert bad[1].reason == "byte 2 is not valid UTF-8"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_found(delimiter: str) -> None:
    lines = [["name", "price", "text"], ["a", "1.5", "x"], ["b", "2,5", "y; z"]]
    quoted = [[f'"{v}"' if "," in v or ";" in v else v for v in line] for line in lines]
    head = "\n".join(delimiter.join(line) for line in quoted).encode()
    assert sniff_delimiter(head) == delimiter


@pytest.mark.parametrize("size", [20, 1000])
def test_quotes_in_tsv_are_characters_where_no_writer_quoted(tmp_path: Path, size: int) -> None:
    lines = ['ham\t"Hi" she said', 'spam\t"open', "ham\tplain", 'ham\t"closed"', "ham", 'x\t"']
    with block_bytes(size):
        table, positions, bad = read_text(tmp_path, "kind\ttext\n" + "\n".join(lines), "t.tsv")
    assert table["text"].to_pylist() == ['"Hi" she said', '"open', "plain", '"closed"', '"']
    assert positions == [0, 1, 2, 3, 5]
    assert [(u.row, u.raw) for u in bad] == [(4, "ham")]
    quoted = 'kind\ttext\nham\t"a\tb\nc ""d"""\n'
    assert read_text(tmp_path, quoted, "q.tsv")[0]["text"].to_pylist() == ['a\tb\nc "d"']


def test_unnamed_columns_are_called_by_their_place(tmp_path: Path) -> None:
    table, _, _ = read_text(tmp_path, ",a,\n0,1,2\n")
    assert table.column_names == ["Unnamed: 0", "a", "Unnamed: 2"]


def test_numbered_columns_are_a_header(tmp_path: Path) -> None:
    table, _, _ = read_text(tmp_path, "0,1,2\n5,6,7\n")
    assert table.column_names == ["0", "1", "2"]


@given(data=st.binary(max_size=120), size=st.sampled_from([5, 50, 5000]))
@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_are_conserved(tmp_path: Path, data: bytes, size: int) -> None:
    body = data.replace(b"\0", b'"').replace(b"\x01", b"\n").replace(b"\x02", b",")
    text = b"a,b\n" + body
    with block_bytes(size):
        table, positions, bad = read_text(tmp_path, text)
    rows = sorted(positions + [u.row for u in bad])
    assert rows == list(range(len(rows)))
    assert table.num_rows == len(positions)
    expected = slow_records(body.decode("latin-1"))
    if "(open)" not in expected:
        assert len(rows) == len(expected)


# -------------------------------------------------------------------- JSONL


def test_jsonl_types(tmp_path: Path) -> None:
    lines = [
        '{"i": 1, "f": 1, "s": "00123", "b": true, "d": "2020-01-31", "l": [1], "o": {"x": 1}}',
        '{"i": null, "f": 2.5, "s": "x", "d": "2020-02-01", "l": [0.5], "o": {"y": "z"}, "n": 1}',
    ]
    table, _, bad = read_text(tmp_path, "\n".join(lines), "t.jsonl")
    assert not bad
    assert table.to_pylist() == [
        {"i": 1, "f": 1.0, "s": "00123", "b": True, "d": date(2020, 1, 31), "l": [1.0],
         "o": {"x": 1, "y": None}, "n": None},
        {"i": None, "f": 2.5, "s": "x", "b": None, "d": date(2020, 2, 1), "l": [0.5],
         "o": {"x": None, "y": "z"}, "n": 1},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", '"a"'], ["1", '"a"']),
        (["1", "[1]"], ["1", "[1]"]),
        (["true", "1"], ["true", "1"]),
        (['[1, "a"]', "[2]"], ['[1, "a"]', "[2]"]),
        (["{}", "{}"], ["{}", "{}"]),
        (["[{}]", "[]"], ["[{}]", "[]"]),
        (["12345678901234567890", "1"], ["12345678901234567890", "1"]),
        (["9007199254740993", "0.5"], ["9007199254740993", "0.5"]),
    ],
)
@pytest.mark.parametrize("size", [12, 1000])
def test_mixed_json_values_become_json_text(
    tmp_path: Path, values: list[str], expected: list[str], size: int
) -> None:
    with block_bytes(size):
        table, _, bad = read_text(tmp_path, "".join(f'{{"k": {v}}}\n' for v in values), "t.jsonl")
    assert not bad
    assert table.column("k").to_pylist() == expected


@pytest.mark.parametrize("size", [12, 1000])
def test_an_object_without_keys_lacks_them_all(tmp_path: Path, size: int) -> None:
    with block_bytes(size):
        table, _, _ = read_text(tmp_path, '{"k": {}}\n{"k": {"a": 1}}', "t.jsonl")
    assert table.column("k").to_pylist() == [{"a": None}, {"a": 1}]


def test_few_json_misfits_are_unreadable(tmp_path: Path) -> None:
    lines = [f'{{"age": {i}}}' for i in range(300)]
    lines[5], lines[100] = '{"age": "old"}', '{"age": true}'
    table, positions, bad = read_text(tmp_path, "\n".join(lines), "t.jsonl")
    assert table.column("age").to_pylist() == positions
    assert [(u.row, u.raw) for u in bad] == [(5, lines[5]), (100, lines[100])]
    assert "column 'age': \"old\" is not int64" in bad[0].reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not valid JSON"),
        (b"[1]", "not a JSON object"),
        (b"5", "not a JSON object"),
        (b'{"a": 1, "a": 2}', "the key 'a' is there twice"),
        (b'{"a": "\xff"}', "not valid UTF-8"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "nested deeper"),
        (b'{"a": ' + b"[" * 100_000, "nested deeper"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
    ],
)
def test_lines_that_are_no_objects(tmp_path: Path, line: bytes, reason: str) -> None:
    text = b'{"a": 1}\n\n' + line + b'\n{"a": 2}'
    table, positions, bad = read_text(tmp_path, text, "t.jsonl")
    assert table.column("a").to_pylist() == [1, 2]
    assert positions == [0, 2]
    assert (bad[0].row, bad[0].raw) == (1, line.decode("utf-8", "backslashreplace"))
    assert reason in bad[0].reason


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_line_is_an_object_or_a_value_error(line: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(parse_object(line), dict)


# ---------------------------------------------------------------------- NPZ


def test_npz_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    X = np.arange(12.0).reshape(4, 3)
    when = np.array(["2020-01-01"] * 4, "datetime64[s]")
    np.savez_compressed(
        path, X=np.asfortranarray(X), y=np.array([0, 1, 0, 1], ">i4"), name=np.array(list("abcd")),
        when=when, vector=X.astype("f4"),
    )  # fmt: skip
    table, positions, _ = read(path)
    assert positions == [0, 1, 2, 3]
    assert np.array_equal(np.column_stack([table[f"x{i}"] for i in range(3)]), X)
    assert table["y"].type == pa.int32()
    assert table["y"].to_pylist() == [0, 1, 0, 1]
    assert table["name"].to_pylist() == list("abcd")
    assert table["when"].to_pylist() == [datetime(2020, 1, 1)] * 4
    assert table["vector"].to_pylist() == X.tolist()


def test_npz_of_objects_is_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    np.savez(path, X=np.array([{"a": 1}, None], dtype=object))
    with pytest.raises(InputError, match="holds Python objects"):
        read(path)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"X": np.zeros((2, 2)), "y": np.zeros(3)}, "3 rows"),
        ({"X": np.zeros((2, 2, 2))}, "the shape"),
        ({"X": np.zeros((2, 2), complex)}, "complex128"),
        ({"X": np.float64(1)}, "the shape"),
        ({"X": np.zeros((1, 10_001))}, "10,001 columns"),
        ({"X": np.zeros((2, 1)), "x0": np.zeros(2)}, "2 columns called 'x0'"),
    ],
)
def test_npz_that_is_no_table(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    path = tmp_path / "t.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=said):
        read(path)


def test_npz_header_that_lies(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    np.savez(path, X=np.zeros((4, 2)))
    member = zipfile.ZipFile(path).read("X.npy").replace(b"(4, 2)", b"(9, 2)")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.npy", member)
    with pytest.raises(InputError, match="cut short"):
        read(path)


# ------------------------------------------------------------- gzip, sources


def test_a_truncated_gzip_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 5000)[:-20])
    with pytest.raises(InputError, match="truncated gzip"):
        read(path)


def test_a_gzip_bomb_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.readers.sources.FREE_BYTES", 2**20)
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 2_000_000))
    with pytest.raises(InputError, match="unpacks to more than"):
        read(path)


def test_gzip_is_known_by_its_bytes(tmp_path: Path) -> None:
    table, _, _ = read_text(tmp_path, gzip.compress(b"a,b\n1,2\n"), "t.csv")
    assert table.to_pylist() == [{"a": 1, "b": 2}]


# ------------------------------------------------------------------- unify


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (pa.int8(), pa.int64(), pa.int64()),
        (pa.int64(), pa.float32(), pa.float64()),
        (pa.null(), pa.string(), pa.string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.string(), pa.string()),
        (pa.date32(), pa.timestamp("us"), pa.timestamp("us")),
        (pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("ns")),
        (pa.list_(pa.int8()), pa.list_(pa.float64()), pa.list_(pa.float64())),
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.date32(), pa.timestamp("us", "UTC"), None),
        (pa.string(), pa.binary(), None),
        (pa.string(), pa.int64(), None),
        (pa.bool_(), pa.int64(), None),
    ],
)
def test_common_types(a: pa.DataType, b: pa.DataType, expected: pa.DataType | None) -> None:
    for one, other in ((a, b), (b, a)):
        found = common_type(one, other)
        assert found == expected or (found is None and expected is None)


def test_clean_csv_is_what_arrow_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    whole = pa.table(
        {
            "x": rng.normal(size=500),
            "n": rng.integers(-5, 5, 500),
            "t": pa.array([f"v {i % 7}, \n{i}" for i in range(500)]),
        }
    )
    pacsv.write_csv(whole, tmp_path / "t.csv")
    for size in (100, 2000, 10**6):
        with block_bytes(size):
            table, positions, bad = read(tmp_path / "t.csv")
        assert table.equals(whole)
        assert positions == list(range(500))
        assert not bad
