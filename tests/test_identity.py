"""Row ids: equal to a slow, obvious reference, and blind to what does not matter."""

from __future__ import annotations

import hashlib
import json
import struct
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.identity import (
    DIGEST_SCHEMA,
    content_digests,
    digest_table,
    find_repeats,
    hex_ids,
    type_name,
)

FORMATS = {"int8": "b", "int64": "q", "uint16": "H", "float": "f", "double": "d", "bool": "B"}


def blake(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=16).digest()


def slow_value(value: Any, kind: pa.DataType) -> bytes:
    missing = b"\x01" if value is None else b"\x00"
    if pa.types.is_struct(kind):
        fields = sorted(kind, key=lambda f: f.name)
        parts = [slow_value(None if value is None else value[f.name], f.type) for f in fields]
        return missing + b"".join(parts)
    if pa.types.is_list(kind):
        if value is None:
            return missing + blake(b"")
        return missing + blake(b"".join(slow_value(v, kind.value_type) for v in value))
    if pa.types.is_string(kind):
        return missing + (b"\0" * 16 if value is None else blake(value.encode()))
    if pa.types.is_binary(kind):
        return missing + (b"\0" * 16 if value is None else blake(value))
    if pa.types.is_date32(kind):
        days = 0 if value is None else (value - date(1970, 1, 1)).days
        return missing + struct.pack("<i", days)
    if pa.types.is_timestamp(kind):
        ticks = 0 if value is None else (value - datetime(1970, 1, 1)) // timedelta(microseconds=1)
        return missing + struct.pack("<q", ticks)
    number = 0 if value is None else value
    if isinstance(number, float) and number == 0:
        number = 0.0
    if isinstance(number, float) and number != number:
        number = np.nan
    return missing + struct.pack("<" + FORMATS[str(kind)], number)


def slow_digest(table: pa.Table, row: int) -> bytes:
    names = sorted(table.column_names)
    head = json.dumps([[n, type_name(table.schema.field(n).type)] for n in names]).encode()
    values = [slow_value(table[n][row].as_py(), table.schema.field(n).type) for n in names]
    return blake(head + b"".join(values))


def everything() -> pa.Table:
    point = pa.struct([("y", pa.float64()), ("x", pa.string())])
    return pa.table(
        {
            "int": pa.array([1, None, -5, 1], pa.int64()),
            "small": pa.array([1, 0, None, 1], pa.int8()),
            "unsigned": pa.array([1, 0, None, 1], pa.uint16()),
            "double": pa.array([0.0, -0.0, None, float("nan")]),
            "float": pa.array([1.5, None, 2.5, float("inf")], pa.float32()),
            "bool": pa.array([True, False, None, True]),
            "text": pa.array(["", None, "b", "é"]),
            "bytes": pa.array([b"", None, b"\0", b"x"]),
            "date": pa.array([date(2020, 1, 1), None, date(1960, 5, 5), date(2020, 1, 1)]),
            "when": pa.array([datetime(2020, 1, 1), None] * 2, pa.timestamp("us")),
            "list": pa.array([[1, 2], None, [], [None]], pa.list_(pa.int64())),
            "deep": pa.array([[["a"], []], None, [], [None]], pa.list_(pa.list_(pa.string()))),
            "point": pa.array([{"y": 1.0, "x": "a"}, None, {"y": None, "x": "b"}, None], point),
        }
    )


def test_equals_the_slow_reference() -> None:
    table = everything()
    fast = content_digests(table)
    assert [bytes(row) for row in fast] == [slow_digest(table, i) for i in range(4)]


@pytest.mark.parametrize("start", [0, 1, 3])
def test_slices_and_chunks_do_not_matter(start: int) -> None:
    table = everything()
    whole = content_digests(table)
    cut = pa.concat_tables([table.slice(0, start), table.slice(start)])
    assert (content_digests(cut) == whole).all()
    assert (content_digests(table.slice(start)) == whole[start:]).all()


def test_the_order_of_columns_does_not_matter() -> None:
    table = everything()
    turned = table.select(table.column_names[::-1])
    assert (content_digests(turned) == content_digests(table)).all()


def test_containers_do_not_matter_and_types_do() -> None:
    texts = pa.array(["a", None, "b"])
    plain = content_digests(pa.table({"c": texts}))
    dictionary = texts.dictionary_encode()
    for same in (texts.cast(pa.large_string()), texts.cast(pa.string_view()), dictionary):
        assert (content_digests(pa.table({"c": same})) == plain).all()
    numbers = pa.array([1, 2])
    a, b = (content_digests(pa.table({"c": numbers.cast(t)})) for t in (pa.int64(), pa.float64()))
    assert (a != b).any(axis=1).all()
    renamed = content_digests(pa.table({"d": numbers}))
    assert (renamed != a).any(axis=1).all()


def test_zero_is_zero_and_nan_is_nan_and_missing_is_neither() -> None:
    other_nan = np.array([0x7FF8000000000001], np.uint64).view(np.float64)[0]
    values = pa.array([0.0, -0.0, np.nan, other_nan, None], from_pandas=False)
    ids = hex_ids(content_digests(pa.table({"x": values}))).to_pylist()
    assert ids[0] == ids[1]
    assert ids[2] == ids[3]
    assert len(set(ids)) == 3


def test_values_do_not_run_into_each_other() -> None:
    table = pa.table({"a": ["ab", "a"], "b": ["c", "bc"]})
    lists = pa.table({"a": [[["x"], ["y"]], [["x", "y"]]]})
    for rows in (table, lists):
        first, second = content_digests(rows)
        assert bytes(first) != bytes(second)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([Decimal("1.50"), None]),
        pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)),
        pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        pa.nulls(2),
        pa.array([b"ab", None], pa.binary(2)),
        pa.array([1, None]).dictionary_encode(),
        pa.array([b"0" * 16, None], pa.uuid()),
        pa.array([timedelta(seconds=1), None]),
    ],
    ids=lambda c: str(c.type),
)
def test_every_type_has_a_hash(column: pa.Array) -> None:
    ids = hex_ids(content_digests(pa.table({"c": pa.concat_arrays([column, column])})))
    assert ids[:2].equals(ids[2:])
    assert len(set(ids.to_pylist())) == (1 if pa.types.is_null(column.type) else 2)


def test_repeats_are_numbered_in_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 300, 2000)
    digests = content_digests(pa.table({"v": values}))
    path = tmp_path / "digests.parquet"
    pq.write_table(digest_table(digests), path)
    found = list(find_repeats(path, tmp_path))
    rows = np.concatenate([f.rows for f in found]).tolist()
    nth = np.concatenate([f.nth for f in found]).tolist()
    seen: dict[int, int] = {}
    expected = []
    for i, v in enumerate(values.tolist()):
        if v in seen:
            expected.append((i, seen[v]))
        seen[v] = seen.get(v, 0) + 1
    assert list(zip(rows, nth, strict=True)) == expected


def test_no_rows_no_repeats(tmp_path: Path) -> None:
    path = tmp_path / "digests.parquet"
    pq.write_table(DIGEST_SCHEMA.empty_table(), path)
    assert not [f for f in find_repeats(path, tmp_path) if len(f.rows)]
