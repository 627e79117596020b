"""The laws that every poison obeys, for authors of their own.

In a test suite::

    @pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
    def test_law(law):
        law(MyPoison())
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from sanitizers.core.data import Roles
from sanitizers.core.errors import PlanError
from sanitizers.core.numbers import strings
from sanitizers.poisons.poison import COVER, TRUTH_SCHEMA, Poison, Poisoned, in_one_piece

#: The roles of `mixed_data`.
MIXED_ROLES = Roles(
    id="key",
    label="label",
    target="price",
    time="day",
    source="source",
    image="picture",
    features=("a", "b", "c", "count", "small", "money", "colour", "code", "member", "since"),
)


def mixed_data(seed: int, rows: int = 400) -> pa.Table:
    """Make a clean table with every kind of column, missing values among them.

    Parameters
    ----------
    seed : int
    rows : int
    """
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, rows)
    numbers = rng.normal(size=(rows, 3)) + 2.0 * np.eye(3)[group]
    price = 100 + 10 * numbers @ [1.0, -2.0, 0.5] + rng.normal(0, 2, rows)
    numbers[rng.random((rows, 3)) < 0.02] = np.nan
    colour = np.array(["red", "green", "blue"])[(group + (rng.random(rows) < 0.3)) % 3]
    some = rng.random(rows) < 0.03
    pixels = rng.integers(0, 256, (rows, 8, 8), np.uint8)
    return pa.table(
        {
            "key": pa.array([f"k{i:05d}" for i in range(rows)]),
            "a": pa.array(np.round(numbers[:, 0], 2), from_pandas=True),
            "b": pa.array(numbers[:, 1], pa.float32(), from_pandas=True),
            "c": pa.array(numbers[:, 2]),
            "count": pa.array(rng.poisson(4, rows), pa.uint8()),
            "small": pa.array(rng.integers(-90, 90, rows), pa.int16(), mask=some),
            "money": pa.array([Decimal(int(v)) / 4 for v in rng.integers(0, 99, rows)]),
            "colour": pa.array(colour, mask=some).dictionary_encode(),
            "code": pa.array(rng.choice(["p", "q"], rows), pa.string_view()),
            "member": pa.array(rng.random(rows) < 0.5),
            "since": pa.array(rng.integers(0, 10**6, rows) * 10**6, pa.timestamp("us")),
            "day": pa.array(np.arange(rows) // 7),
            "source": pa.array(rng.choice(["s8", "s9"], rows)),
            "label": pa.array(np.array(["x", "y", "z"])[group], mask=np.roll(some, 1)),
            "price": pa.array(np.round(price, 1), mask=np.roll(some, 2)),
            "note": pa.array([[i, None] for i in range(rows)]),
            "picture": pa.array([_png(p) for p in pixels], mask=np.roll(some, 3)),
        }
    )


def law_frozen(poison: Poison) -> None:
    """A poison is a frozen value: equal settings are equal, and nothing can be set."""
    copy: Any = poison
    assert type(copy).__dataclass_params__.frozen
    assert dataclasses.replace(copy) == poison
    assert hash(dataclasses.replace(copy)) == hash(poison)
    assert poison.name
    assert poison.needs
    assert poison.act in {"flip", "add", "change", "stamp"}


def law_exact(poison: Poison) -> None:
    """Truth marks exactly what changed: so many labels, so many new rows, nothing else."""
    for rate in (0.01, 0.1):
        table = mixed_data(1)
        done = poison.poison(table, MIXED_ROLES, rate, 5)
        count = round(rate * table.num_rows)
        told = done.truth.column("added").to_pylist()
        if poison.act == "add":
            assert told == [True] * count
            old = part(done.table, ~done.mask)
            assert same(old, in_one_piece(table)), "rows that were there changed"
            assert done.truth.column("was").null_count == count
        else:
            assert not any(told)
            assert (_different(done.table, table) == done.mask).all()
            assert 0 < done.truth.num_rows <= count
        if poison.act == "flip":
            _check_flips(done, table, count)
        if poison.act == "stamp":
            assert done.truth.num_rows == count
            for name in set(table.column_names) - {"picture", "label"}:
                assert same(done.table.select([name]), table.select([name]))
        if poison.act == "change":
            for name in set(table.column_names) - set(MIXED_ROLES.features):
                assert done.table.column(name).equals(table.column(name))


def law_truth(poison: Poison) -> None:
    """Truth has its schema, and names each row once, in order."""
    truth = poison.poison(mixed_data(2), MIXED_ROLES, 0.05, 1).truth
    assert truth.schema.equals(TRUTH_SCHEMA)
    kinds = set(truth.column("kind").to_pylist())
    assert poison.name in kinds
    assert kinds <= {poison.name, poison.name + COVER}
    assert (np.diff(truth.column("row").to_numpy()) > 0).all()


def law_types(poison: Poison) -> None:
    """Columns keep names, types and order; ids stay ids; categories are among those known."""
    table = mixed_data(3)
    done = poison.poison(table, MIXED_ROLES, 0.05, 2).table
    assert done.schema.equals(table.schema)
    done.validate(full=True)
    assert pc.count_distinct(done.column("key")).as_py() == done.num_rows
    for name in ("colour", "code", "member", "label"):
        known = set(table.column(name).to_pylist())
        assert set(done.column(name).to_pylist()) <= known, f"{name} has new categories"


def law_range(poison: Poison) -> None:
    """What is added lies within the observed range of every feature and of the target."""
    table = mixed_data(3)
    done = poison.poison(table, MIXED_ROLES, 0.05, 2)
    if poison.act != "add":
        return
    for name in ("a", "b", "c", "count", "small", "money", "since", "price"):
        values = [v for v in table.column(name).to_pylist() if v is not None and v == v]
        fresh = part(done.table, done.mask).column(name).to_pylist()
        assert all(min(values) <= v <= max(values) for v in fresh if v is not None and v == v), name


def law_seed(poison: Poison) -> None:
    """The same seed gives the same bytes, another seed another result."""
    table = mixed_data(4)
    one, again, other = (poison.poison(table, MIXED_ROLES, 0.05, seed) for seed in (3, 3, 4))
    assert same(one.table, again.table)
    assert one.truth.equals(again.truth)
    assert not (one.truth.equals(other.truth) and same(one.table, other.table))


def law_purity(poison: Poison) -> None:
    """The table that was given stays as it was, in however many pieces it comes."""
    table = mixed_data(6)
    whole = poison.poison(table, MIXED_ROLES, 0.05, 1)
    assert same(table, mixed_data(6))
    pieces = pa.concat_tables([table.slice(0, 150), table.slice(150)])
    again = poison.poison(pieces, MIXED_ROLES, 0.05, 1)
    assert same(whole.table, again.table)
    assert whole.truth.equals(again.truth)


def law_refusal(poison: Poison) -> None:
    """Rates that are no share, seeds that are none, and missing roles are refused."""
    table = mixed_data(7, 60)
    cases: list[tuple[Roles, float, int]] = [
        (MIXED_ROLES, 0.0, 0),
        (MIXED_ROLES, -0.1, 0),
        (MIXED_ROLES, 1.0, 0),
        (MIXED_ROLES, float("nan"), 0),
        (MIXED_ROLES, 0.0001, 0),
        (MIXED_ROLES, 0.1, -1),
        (dataclasses.replace(MIXED_ROLES, features=("a", "nowhere")), 0.1, 0),
        (Roles(), 0.1, 0),
    ]
    for roles, rate, seed in cases:
        try:
            poison.poison(table, roles, rate, seed)
        except PlanError:
            continue
        raise AssertionError(f"took {roles}, rate {rate}, seed {seed}")


#: Every law.
LAWS: tuple[Callable[[Poison], None], ...] = (
    law_frozen,
    law_exact,
    law_truth,
    law_types,
    law_range,
    law_seed,
    law_purity,
    law_refusal,
)


def part(table: pa.Table, mask: NDArray[np.bool_]) -> pa.Table:
    """Some of the rows of a table, views of texts as texts."""
    return in_one_piece(table).filter(pa.array(mask))


def same(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables hold the same values; missing numbers are equal."""
    alike = one.schema.equals(other.schema) and one.num_rows == other.num_rows
    return alike and not _different(one, other).any()


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _check_flips(done: Poisoned, table: pa.Table, count: int) -> None:
    name = str(MIXED_ROLES.label)
    rows = done.truth.column("row")
    assert len(rows) == count
    assert done.truth.column("was").equals(strings(table.column(name)).take(rows))
    for column in set(table.column_names) - {name}:
        assert same(done.table.select([column]), table.select([column]))


def _different(one: pa.Table, other: pa.Table) -> NDArray[np.bool_]:
    """Which rows differ in any column."""
    out = np.zeros(one.num_rows, dtype=bool)
    for name in one.column_names:
        a, b = one.column(name).to_pylist(), other.column(name).to_pylist()
        pairs = zip(a, b, strict=True)
        out |= np.array([x != y and not (x != x and y != y) for x, y in pairs], dtype=bool)
    return out
