"""Rows seen through their roles: keys, samples and batches depend on the rows alone."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanitizers.core import data as core_data
from sanitizers.core.data import ROW_ID, ROW_KEY, Dataset, MemoryShard, Roles, mix, row_keys
from sanitizers.core.errors import InputError, PlanError

ROLES = Roles(label="y", time="t", source="s", features=("a",))


def table(rows: int) -> pa.Table:
    return pa.table(
        {
            "a": pa.array(np.arange(rows, dtype=float)),
            "y": pa.array([None if i % 5 == 0 else f"c{i % 3}" for i in range(rows)]),
            "t": pa.array([None if i % 7 == 0 else i for i in range(rows)]),
            "s": pa.array([None if i % 4 == 0 else i % 2 for i in range(rows)]),
            "spare": pa.array(["never read"] * rows),
        }
    )


def dataset(rows: int, salt: bytes = b"salt") -> Dataset:
    return Dataset.from_table(table(rows), ROLES, salt=salt)


def cut(data: Dataset, order: Sequence[int], sizes: Sequence[int]) -> Dataset:
    """The same rows in another order and in other shards."""
    whole = data.shards[0].read().take(pa.array(order))
    ends = np.cumsum([0, *sizes])
    ends = np.append(ends[ends < len(whole)], len(whole))
    parts = [whole.slice(a, b - a) for a, b in pairwise(ends)]
    return replace(data, shards=tuple(MemoryShard(part) for part in parts))


# ---------------------------------------------------------------- keys


@settings(deadline=None, derandomize=True)
@given(st.lists(st.text(max_size=12), max_size=8), st.binary(min_size=1, max_size=64))
def test_a_row_key_is_the_keyed_hash_of_the_id(ids: list[str], salt: bytes) -> None:
    ids = [i.encode("utf-8", "ignore").decode() for i in ids]
    expected = [
        int.from_bytes(hashlib.blake2b(i.encode(), digest_size=8, key=salt).digest(), "little")
        for i in ids
    ]
    assert row_keys(ids, salt).tolist() == expected


def test_mix_is_splitmix64_of_the_key_and_the_purpose() -> None:
    def slow(key: int, purpose: str) -> int:
        whole = 2**64 - 1
        seed = int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), "little")
        z = ((key ^ seed) + 0x9E3779B97F4A7C15) & whole
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & whole
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & whole
        return z ^ (z >> 31)

    keys = np.array([0, 1, 2**63, 2**64 - 1], dtype=np.uint64)
    assert mix(keys, "labels/fold").tolist() == [slow(int(k), "labels/fold") for k in keys]


def test_keys_for_two_purposes_know_nothing_of_each_other() -> None:
    keys = row_keys([str(i) for i in range(10_000)], b"salt")
    one, two = mix(keys, "labels/fold"), mix(keys, "outliers/half")
    cells = np.bincount((one % np.uint64(5) * np.uint64(4) + two % np.uint64(4)).astype(int))
    chi_square = float(((cells - 500) ** 2 / 500).sum())  # 19 degrees of freedom
    assert chi_square < 43.8  # the 0.1 % level
    assert len(np.unique(one)) == len(keys)  # no two rows are merged
    assert abs(np.corrcoef(one.astype(float), two.astype(float))[0, 1]) < 0.04


def test_buckets_are_even_and_of_the_rows_own_id() -> None:
    batch = next(dataset(6000).batches())
    buckets = batch.buckets(6, "x")
    assert buckets.tolist() == (mix(batch.keys, "x") % np.uint64(6)).tolist()
    counts = np.bincount(buckets, minlength=6)
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 20.5  # 5 degrees of freedom, 0.1 %
    some = np.array([5, 17, 4000])
    assert batch.take(some).buckets(6, "x").tolist() == buckets[some].tolist()


def test_keys_in_the_store_are_used_as_they_are() -> None:
    data = dataset(5)
    stored = data.shards[0].read().append_column(ROW_KEY, pa.array(range(5), pa.uint64()))
    batch = next(replace(data, shards=(MemoryShard(stored),)).batches())
    assert batch.keys.tolist() == [0, 1, 2, 3, 4]


# ---------------------------------------------------------------- samples


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.randoms(use_true_random=False), st.lists(st.integers(1, 120), max_size=6))
def test_a_sample_depends_on_the_set_of_rows_only(random: object, sizes: list[int]) -> None:
    data = dataset(300)
    order = list(range(300))
    random.shuffle(order)  # type: ignore[attr-defined]
    other = cut(data, order, sizes)
    for rows in (40, 300, 1000):
        one, two = data.sample(rows, "p"), other.sample(rows, "p")
        assert one.table.equals(two.table.combine_chunks()) or (
            one.table.to_pylist() == two.table.to_pylist()
        )


def test_a_sample_is_the_rows_whose_mixed_keys_are_lowest() -> None:
    data = dataset(2000)
    batch = next(data.batches())
    mixed = mix(batch.keys, "p")
    line = 2**64 * 300 // 2000
    chosen = [int(i) for i in np.argsort(mixed) if int(mixed[i]) < line]
    assert data.sample(300, "p").row_ids.to_pylist() == [batch.row_ids[i].as_py() for i in chosen]


def test_a_sample_has_about_the_size_asked_for() -> None:
    data = dataset(20_000)
    sizes = [len(data.sample(2000, f"purpose {i}")) for i in range(10)]
    deviation = np.sqrt(2000 * 0.9)
    assert np.all(np.abs(np.array(sizes) - 2000) < 4.5 * deviation)
    assert abs(np.mean(sizes) - 2000) < 4 * deviation / np.sqrt(10)


def test_all_rows_are_taken_where_there_are_no_more() -> None:
    data = dataset(50)
    for rows in (50, 51, 10**9):
        assert sorted(data.sample(rows, "p").row_ids.to_pylist()) == sorted(
            next(data.batches()).row_ids.to_pylist()
        )


def test_another_salt_or_purpose_gives_another_sample() -> None:
    ids = [
        set(dataset(4000, salt).sample(1000, purpose).row_ids.to_pylist())
        for salt, purpose in ((b"one", "p"), (b"two", "p"), (b"one", "q"))
    ]
    for i in (1, 2):  # two independent quarters have a sixteenth of the rows in common
        assert 150 < len(ids[0] & ids[i]) < 350


def test_the_encoder_is_fitted_on_a_sample_that_no_order_changes() -> None:
    data = dataset(500)
    shuffled = cut(data, list(reversed(range(500))), [123, 77])
    assert data.encoder == shuffled.encoder


# ---------------------------------------------------------------- shards


def test_a_shard_in_memory_gives_what_is_asked_for() -> None:
    shard = MemoryShard(table(6))
    assert (shard.rows, shard.schema) == (6, table(6).schema)
    assert shard.read() is shard.table
    assert shard.read(["t", "a"]).column_names == ["t", "a"]
    assert shard.read([]).num_columns == 0


def test_batches_give_every_row_once_in_order_and_no_column_without_a_role() -> None:
    data = dataset(100)
    other = cut(data, list(range(100)), [10, 1, 50])
    assert [len(b) for b in other.batches()] == [10, 1, 50, 39]
    assert other.rows == 100
    seen = [i for b in other.batches() for i in b.row_ids.to_pylist()]
    assert seen == next(data.batches()).row_ids.to_pylist()
    assert all("spare" not in b.table.column_names for b in other.batches())


def test_a_missing_column_is_named_with_the_nearest_one() -> None:
    data = Dataset.from_table(table(5), replace(ROLES, label="Y_"))
    with pytest.raises(InputError, match=r"no column 'Y_' in the data; did you mean 'y'\?"):
        next(data.batches())


def test_rows_without_an_id_are_numbered_and_others_keep_theirs() -> None:
    assert dataset(2).shards[0].read().column(ROW_ID).to_pylist() == [
        "row-00000000",
        "row-00000001",
    ]
    named = table(2).append_column(ROW_ID, pa.array(["x", "y"]))
    assert Dataset.from_table(named, ROLES).shards[0].read().column(ROW_ID).to_pylist() == [
        "x",
        "y",
    ]


# ---------------------------------------------------------------- batches


def test_take_agrees_with_positions_and_masks_in_everything() -> None:
    batch = next(dataset(40).batches())
    mask = np.arange(40) % 3 == 1
    where = np.flatnonzero(mask)
    for part in (batch.take(mask), batch.take(where)):
        assert len(part) == len(where)
        assert part.row_ids.to_pylist() == [batch.row_ids[int(i)].as_py() for i in where]
        assert part.keys.tolist() == batch.keys[where].tolist()
        assert part.labels.tolist() == batch.labels[where].tolist()
        assert part.sources.tolist() == batch.sources[where].tolist()
        assert np.array_equal(part.times, batch.times[where], equal_nan=True)
        assert np.array_equal(part.X, batch.X[where])
    assert len(batch.take(np.zeros(40, dtype=bool))) == 0
    backwards = batch.take(np.array([3, 1, 3]))
    assert backwards.row_ids.to_pylist() == [batch.row_ids[i].as_py() for i in (3, 1, 3)]


def test_missing_labels_sources_and_times_are_none_and_nan() -> None:
    batch = next(dataset(30).batches())
    for i in range(30):
        assert batch.labels[i] == (None if i % 5 == 0 else f"c{i % 3}")
        assert batch.sources[i] == (None if i % 4 == 0 else str(i % 2))
        assert np.isnan(batch.times[i]) == (i % 7 == 0)
        assert i % 7 == 0 or batch.times[i] == i


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pa.array([1, None, 2]), ["1", None, "2"]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array([1.5, float("nan"), None]), ["1.5", None, None]),
        (pa.array([1.5, float("nan"), None], pa.float32()), ["1.5", None, None]),
        (pa.array(["a", None, ""], pa.large_string()), ["a", None, ""]),
        (pa.array(["a", None, "b"], pa.string_view()), ["a", None, "b"]),
        (pa.array(["a", None, "b"]).dictionary_encode(), ["a", None, "b"]),
        (pa.array([dt.date(2024, 2, 29)] * 3), ["2024-02-29"] * 3),
        (pa.nulls(3), [None] * 3),
    ],
    ids=str,
)
def test_labels_of_every_type_are_texts(labels: pa.Array, expected: list[str | None]) -> None:
    data = Dataset.from_table(table(3).set_column(1, "y", labels), ROLES)
    assert next(data.batches()).labels.tolist() == expected


def test_a_role_without_a_column_says_how_to_name_one() -> None:
    batch = next(Dataset.from_table(table(3), Roles(features=("a",))).batches())
    with pytest.raises(PlanError, match="no column has the role 'time'; name one with --time"):
        _ = batch.times


def test_times_that_are_texts_are_refused_in_one_line() -> None:
    data = Dataset.from_table(table(3), replace(ROLES, time="spare"))
    with pytest.raises(PlanError, match="column 'spare' has the role 'time' and values of type"):
        _ = next(data.batches()).times


def test_the_farthest_column_is_the_one_with_the_largest_encoded_value() -> None:
    values = {"a": [0.0] * 9 + [9.0], "b": [float(i) for i in range(10)]}
    data = Dataset.from_table(pa.table(values), Roles(features=("a", "b")))
    batch = next(data.batches())
    names = batch.encoder.names
    slow = [names[max(range(len(names)), key=lambda d: abs(row[d]))] for row in batch.X.tolist()]
    assert batch.farthest_columns() == slow
    assert slow[-1] == "a"


def test_without_a_feature_no_column_is_farthest() -> None:
    data = Dataset.from_table(pa.table({"a": [1.0, 1.0]}), Roles(features=("a",)))
    batch = next(data.batches())
    assert batch.X.shape == (2, 0)
    assert batch.farthest_columns() == [None, None]


def test_roles_know_which_are_present_and_which_columns_they_need() -> None:
    roles = Roles(id="i", label="y", time="y", features=("a", "y", "b"))
    assert roles.present == {"id", "label", "time", "features"}
    assert roles.columns == ("i", "y", "a", "b")
    assert Roles().present == frozenset()


# ---------------------------------------------------------------- trusted rows


def test_trusted_rows_come_from_the_column_and_from_files() -> None:
    vouched = table(20).append_column("ok", pa.array([None, True, False, True] * 5))
    data = Dataset.from_table(vouched, replace(ROLES, trusted="ok"))
    more = Dataset.from_table(
        vouched.slice(0, 2).append_column(ROW_ID, pa.array(["new-1", "new-2"])), ROLES
    )
    both = replace(data, trusted=more.shards)
    own = {f"row-{i:08d}" for i in range(1, 20, 2)}
    for given_, expected in ((data, own), (both, own | {"new-1", "new-2"})):
        assert given_.trusted_rows is not None
        assert set(given_.trusted_rows.row_ids.to_pylist()) == expected
    assert dataset(5).trusted_rows is None
    nobody = vouched.set_column(5, "ok", pa.array([False] * 20))
    assert Dataset.from_table(nobody, replace(ROLES, trusted="ok")).trusted_rows is None


def test_too_many_trusted_rows_are_drawn_by_their_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_data, "TRUSTED_ROWS", 7)
    data = dataset(50)
    picks = []
    for order in (list(range(50)), list(reversed(range(50)))):
        given_ = replace(data, trusted=cut(data, order, [20]).shards)
        assert given_.trusted_rows is not None
        picks.append(Counter(given_.trusted_rows.row_ids.to_pylist()))
    assert picks[0] == picks[1]
    assert picks[0].total() == 7
