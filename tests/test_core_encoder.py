"""The encoder: every type in, finite numbers out, whatever the units and the order."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sanitizers.core.encoder import (
    LIMIT,
    MAX_CATEGORIES,
    STRAIGHT,
    CategoryColumn,
    NumberColumn,
    as_numbers,
    fit_encoder,
    is_category,
    is_number,
)

MOMENTS = [dt.datetime(2024, 1, 1) + dt.timedelta(days=3 * i, seconds=i) for i in range(40)]
#: The same forty numbers in every type that is a number.
NUMBERS = {
    "int8": pa.array(range(40), pa.int8()),
    "int64": pa.array(range(40)),
    "uint64": pa.array(range(40), pa.uint64()),
    "half": pa.array(np.arange(40, dtype=np.float16)),
    "float": pa.array(np.arange(40, dtype=np.float32)),
    "double": pa.array(np.arange(40.0)),
    "decimal128": pa.array([Decimal(i) for i in range(40)], pa.decimal128(20, 3)),
    "decimal256": pa.array([Decimal(i) for i in range(40)], pa.decimal256(60, 3)),
    "date32": pa.array(range(40), pa.int32()).cast(pa.date32()),
    "date64": pa.array([i * 86_400_000 for i in range(40)]).cast(pa.date64()),
    "duration": pa.array(range(40)).cast(pa.duration("ms")),
    "time32": pa.array(range(40), pa.int32()).cast(pa.time32("s")),
    "time64": pa.array(range(40)).cast(pa.time64("ns")),
    "timestamp": pa.array(range(40)).cast(pa.timestamp("s")),
    "zoned": pa.array(range(40)).cast(pa.timestamp("ms", "Asia/Tokyo")),
}
#: The same texts in every type that is a category.
TEXTS = ["red", "green", "red", None, "blue", "red", "green", "blue"] * 4
CATEGORIES = {
    "string": pa.array(TEXTS),
    "large_string": pa.array(TEXTS, pa.large_string()),
    "string_view": pa.array(TEXTS, pa.string_view()),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "large dictionary": pa.array(TEXTS, pa.large_string()).dictionary_encode(),
}


def encoded(column: pa.Array) -> NDArray[np.float32]:
    table = pa.table({"x": column})
    return fit_encoder(table, ["x"]).transform(table)


def by_hand(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre, scale without the tails, and bend beyond three deviations."""
    inner = np.clip(values, *np.quantile(values, [0.001, 0.999]))
    z = (values - np.median(values)) / inner.std()
    bent = [abs(v) if abs(v) <= STRAIGHT else STRAIGHT + np.log(1 + abs(v) - STRAIGHT) for v in z]
    return np.asarray(np.sign(z) * np.minimum(bent, LIMIT))


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("name", NUMBERS)
def test_equal_numbers_of_every_type_are_encoded_alike(name: str) -> None:
    assert is_number(NUMBERS[name].type)
    assert encoded(NUMBERS[name])[:, 0] == pytest.approx(by_hand(np.arange(40.0)), abs=1e-6)


def test_values_far_out_bend_like_logarithms_and_end() -> None:
    rng = np.random.default_rng(0)
    values = np.append(rng.normal(5, 2, 3000), [60.0, -900.0, 1e300])
    found = encoded(pa.array(values))[:, 0]
    assert found == pytest.approx(by_hand(values), rel=1e-5, abs=1e-6)
    assert found.max() == LIMIT
    order = np.argsort(values)
    assert np.all(np.diff(found[order]) >= 0)  # no value overtakes a larger one


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "America/New_York"])
def test_a_moment_is_its_seconds_since_1970_in_every_unit(unit: str, zone: str | None) -> None:
    column = pa.chunked_array(
        [pa.array(MOMENTS, pa.timestamp(unit)).cast(pa.timestamp(unit, zone))]
    )
    seconds = [(m - dt.datetime(1970, 1, 1)).total_seconds() for m in MOMENTS]
    assert as_numbers(column).tolist() == seconds


def test_dates_times_and_durations_are_seconds() -> None:
    days = [dt.date(1969, 12, 31), dt.date(2024, 2, 29), None]
    for kind in (pa.date32(), pa.date64()):
        seconds = as_numbers(pa.chunked_array([pa.array(days, kind)]))
        assert seconds[:2].tolist() == [-86_400.0, 1_709_164_800.0]
        assert np.isnan(seconds[2])
    clock = [dt.time(0, 0, 1), dt.time(23, 59, 59), None]
    kinds = (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"))
    for kind in kinds:
        assert as_numbers(pa.chunked_array([pa.array(clock, kind)]))[:2].tolist() == [1.0, 86_399.0]
    spans = [dt.timedelta(hours=-3), dt.timedelta(days=9), None]
    for unit in ("s", "ms", "us", "ns"):
        column = pa.chunked_array([pa.array(spans, pa.duration(unit))])
        assert as_numbers(column)[:2].tolist() == [-10_800.0, 777_600.0]


def test_no_moment_overflows() -> None:
    far = pa.array([2**62, 0, -(2**62)])
    for unit in ("s", "ms", "us", "ns"):
        seconds = as_numbers(pa.chunked_array([far.cast(pa.timestamp(unit))]))
        assert np.all(np.diff(seconds) < 0)
    days = pa.array([2**31 - 1, 0, -(2**31)], pa.int32()).cast(pa.date32())
    assert np.all(np.diff(as_numbers(pa.chunked_array([days]))) < 0)


def test_short_spans_keep_their_nanoseconds() -> None:
    column = pa.chunked_array([pa.array([1, 2, 5]).cast(pa.duration("ns"))])
    assert as_numbers(column) == pytest.approx([1e-9, 2e-9, 5e-9], rel=1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(st.none(), st.floats(width=64), st.sampled_from([1e308, -1e308, 5e-324])),
        max_size=30,
    )
)
def test_no_value_makes_the_encoding_infinite(values: list[float | None]) -> None:
    X = encoded(pa.array(values, pa.float64()))
    assert X.dtype == np.float32
    assert X.shape[0] == len(values)
    assert np.isfinite(X).all()
    assert (np.abs(X) <= LIMIT).all()


def test_missing_and_infinite_numbers_are_the_median_with_a_sign_beside() -> None:
    X = encoded(pa.array([1.0, None, 3.0, float("nan"), 5.0, float("inf"), float("-inf")]))
    assert X[:, 1].tolist() == [0, 1, 0, 1, 0, 1, 1]
    assert X[[1, 3, 5, 6], 0].tolist() == [0.0] * 4  # the median is the centre
    assert X[2, 0] == 0.0
    assert X[0, 0] == -X[4, 0] < 0


def test_a_constant_column_with_gaps_tells_only_of_the_gaps() -> None:
    X = encoded(pa.array([7.0, None, 7.0]))
    assert X.tolist() == [[0, 0], [0, 1], [0, 0]]


def test_one_absurd_value_does_not_flatten_the_rest() -> None:
    values = np.random.default_rng(0).normal(size=5000)
    spoiled = np.append(values, 1e12)
    before, after = encoded(pa.array(values))[:, 0], encoded(pa.array(spoiled))[:-1, 0]
    assert after == pytest.approx(before, abs=0.05)


def test_a_nearly_constant_column_keeps_what_varies() -> None:
    X = encoded(pa.array([0.0] * 4999 + [1.0]))
    assert X[-1, 0] > 10 * np.abs(X[:-1]).max()


# ---------------------------------------------------------------- categories


@pytest.mark.parametrize("name", CATEGORIES)
def test_equal_texts_of_every_type_are_encoded_alike(name: str) -> None:
    assert is_category(CATEGORIES[name].type)
    assert np.array_equal(encoded(CATEGORIES[name]), encoded(CATEGORIES["string"]))


def test_a_category_has_one_number_and_all_others_share_one() -> None:
    X = encoded(pa.array(TEXTS))
    places = {
        value: {int(np.flatnonzero(X[i])[0]) for i, v in enumerate(TEXTS) if v == value}
        for value in set(TEXTS)
    }
    assert (np.count_nonzero(X, axis=1) == 1).all()
    assert all(len(p) == 1 for p in places.values())
    assert len(set.union(*places.values())) == 4  # missing is a category
    one, other = X[0], X[1]
    assert np.linalg.norm(one - other) == pytest.approx(1.0)


def test_an_unseen_category_joins_the_rare_ones() -> None:
    seen = pa.table({"x": ["a"] * 5 + ["b"] * 5 + ["rare"]})
    encoder = fit_encoder(seen, ["x"])
    X = encoder.transform(pa.table({"x": ["rare", "never seen", "a"]}))
    assert X[0].tolist() == X[1].tolist() == [0.0, 0.0, pytest.approx(np.sqrt(0.5))]
    assert X[2, 0] == pytest.approx(np.sqrt(0.5))


def test_missing_is_rare_unless_it_was_seen_often() -> None:
    encoder = fit_encoder(pa.table({"x": ["a", "b"] * 5}), ["x"])
    X = encoder.transform(pa.table({"x": pa.array([None, "", "zzz"], pa.string())}))
    assert np.array_equal(X[0], X[1])
    assert np.array_equal(X[0], X[2])


def test_only_frequent_categories_have_a_number_of_their_own() -> None:
    texts = [f"c{i:02d}" for i in range(40) for _ in range(40 - i)] + ["once"]
    encoder = fit_encoder(pa.table({"x": texts}), ["x"])
    (column,) = encoder.columns
    assert isinstance(column, CategoryColumn)
    assert column.categories == tuple(f"c{i:02d}" for i in range(MAX_CATEGORIES))
    few = fit_encoder(pa.table({"x": ["a"] * 995 + ["b"] * 5 + ["c"] * 4}), ["x"])
    (column,) = few.columns
    assert isinstance(column, CategoryColumn)
    assert column.categories == ("a",)  # 5 of 1004 are less than one in 200


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (pa.array([1.0, 1.0, 1.0]), "every value is the same"),
        (pa.array([0.1, 0.1, 0.1]), "every value is the same"),
        (pa.array([1e308, 1e308, 1e308]), "every value is the same"),
        (pa.array([True, True, True]), "every value is the same"),
        (pa.array(["a", "a", "a"]), "every value is the same"),
        (pa.nulls(3, pa.float64()), "every value is missing"),
        (pa.nulls(3, pa.timestamp("s")), "every value is missing"),
        (pa.nulls(3, pa.string()), "every value is missing"),
        (pa.array(["", None, ""]), "every value is missing"),
        (pa.array([np.inf, np.nan, -np.inf]), "every value is missing"),
        (pa.nulls(3), "every value is missing"),
        (pa.array(["a", "b", "c"]), "no value is frequent"),
        (pa.array([["1"], ["2"]] * 2)[:3], "values of type list<item: string> are not encoded"),
        (
            pa.array([(1, 2, 3)] * 3, pa.month_day_nano_interval()),
            "values of type month_day_nano_interval are not encoded",
        ),
        (
            pa.array([1, 2, 1]).dictionary_encode(),
            "values of type dictionary<values=int64, indices=int32, ordered=0> are not encoded",
        ),
    ],
)
def test_columns_that_carry_nothing_are_skipped_with_the_reason(column: pa.Array, why: str) -> None:
    table = pa.table({"x": column, "y": [1.0, 2.0, 3.0]})
    encoder = fit_encoder(table, ["x", "y"])
    assert encoder.skipped == (("x", why),)
    assert encoder.names == ("y",)
    assert encoder.transform(table).shape == (3, 1)


@pytest.mark.parametrize("kind", [pa.float64(), pa.string(), pa.timestamp("us"), pa.bool_()])
def test_an_empty_table_is_encoded_as_no_rows(kind: pa.DataType) -> None:
    table = pa.table({"x": pa.array([], kind)})
    encoder = fit_encoder(table, ["x"])
    assert encoder.skipped == (("x", "every value is missing"),)
    assert encoder.transform(table).shape == (0, 0)


def test_names_say_of_every_number_which_column_it_is_from() -> None:
    table = pa.table({"n": [1.0, None, 3.0], "c": ["a", "a", "b"], "b": [True, False, True]})
    encoder = fit_encoder(table, ["n", "c", "b"])
    assert encoder.names == ("n", "n", "c", "c", "b")
    kinds = [type(c) for c in encoder.columns]
    assert kinds == [NumberColumn, CategoryColumn, NumberColumn]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.permutations(list(range(24))), st.lists(st.integers(0, 24), max_size=4))
def test_neither_order_nor_chunks_change_an_encoding(order: list[int], ends: list[int]) -> None:
    values = np.random.default_rng(0).normal(size=24) * 10
    table = pa.table({"n": values, "c": TEXTS[:24], "t": MOMENTS[:24]})
    moved = table.take(pa.array(order))
    edges = [0, *sorted(ends), 24]
    chunked = pa.concat_tables([moved.slice(a, b - a) for a, b in pairwise(edges)])
    one, two = fit_encoder(table, table.column_names), fit_encoder(chunked, table.column_names)
    assert np.allclose(one.transform(table)[order], two.transform(chunked), rtol=0, atol=1e-6)
    parts = np.vstack([one.transform(moved.slice(i, 1)) for i in range(24)])
    assert np.array_equal(parts, one.transform(moved))  # a row is encoded by itself
