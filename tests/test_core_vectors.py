"""Vectors as features: any list of numbers in, the same components whatever the batch."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from sanitizers.core.contents import value_hashes
from sanitizers.core.data import Dataset, Roles
from sanitizers.core.encoder import LIMIT, fit_encoder
from sanitizers.core.errors import InputError, PlanError
from sanitizers.core.vectors import COMPONENTS, MAX_LENGTH, as_vectors, is_vector

RNG = np.random.default_rng(0)
#: Ten places, of which three carry nearly all.
VECTORS = np.round(RNG.normal(size=(300, 3)) @ RNG.normal(size=(3, 10)), 3)
VECTORS += np.round(0.01 * RNG.normal(size=VECTORS.shape), 3)
TYPES = {
    "list of float": pa.list_(pa.float32()),
    "list of double": pa.list_(pa.float64()),
    "large list": pa.large_list(pa.float64()),
    "fixed list": pa.list_(pa.float64(), 10),
    "fixed list of half": pa.list_(pa.float16(), 10),
}


def column(values: object, kind: pa.DataType = TYPES["list of double"]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


def features(values: object, kind: pa.DataType = TYPES["list of double"]) -> NDArray[np.float32]:
    table = pa.table({"e": column(values, kind)})
    return fit_encoder(table, ["e"]).transform(table)


@pytest.mark.parametrize("name", TYPES)
def test_equal_vectors_of_every_type_are_encoded_alike(name: str) -> None:
    given = list(VECTORS.astype(np.float16)) if "half" in name else VECTORS.tolist()
    assert is_vector(TYPES[name])
    assert features(given, TYPES[name]) == pytest.approx(features(VECTORS.tolist()), abs=0.01)


def test_distances_stay_what_they_are_up_to_one_scale() -> None:
    tame = np.clip(VECTORS, *np.quantile(VECTORS, [0.001, 0.999], axis=0))
    widest = np.sqrt(np.linalg.eigvalsh(np.cov(tame.T, bias=True))[-1])
    X = features(VECTORS.tolist()).astype(np.float64)
    near = np.flatnonzero((np.abs(X) < 3).all(axis=1))
    apart = np.linalg.norm(X[near[0]] - X[near], axis=1)
    assert apart == pytest.approx(
        np.linalg.norm(VECTORS[near[0]] - VECTORS[near], axis=1) / widest, rel=1e-4, abs=1e-5
    )


def test_long_vectors_keep_their_widest_components() -> None:
    long = RNG.normal(size=(400, 200)) * np.linspace(5, 0.1, 200)
    X = features(long.tolist())
    assert X.shape == (400, COMPONENTS)
    data = Dataset.from_table(pa.table({"e": column(long.tolist())}), Roles(embedding="e"))
    (batch,) = data.batches()
    assert np.allclose(batch.X, X)
    assert batch.wide.shape == (400, 200)
    spread = X.std(axis=0)
    assert spread[0] == spread.max() == pytest.approx(1, abs=0.05)


def test_features_do_not_hang_on_the_rows_beside_them() -> None:
    table = pa.table({"e": column(RNG.normal(size=(700, 90)).tolist())})
    encoder = fit_encoder(table, ["e"])
    whole = encoder.transform(table)
    for start, rows in ((0, 1), (3, 255), (100, 600), (699, 1)):
        part = encoder.transform(table.slice(start, rows))
        assert np.array_equal(part, whole[start : start + rows])
    wide = encoder.transform(table, wide=True)
    assert np.allclose(wide[:, :COMPONENTS], whole, atol=1e-6)
    assert np.array_equal(encoder.transform(table.slice(3, 70), wide=True), wide[3:73])
    order = RNG.permutation(700)
    assert np.array_equal(encoder.transform(table.take(pa.array(order))), whole[order])


def test_a_few_absurd_vectors_turn_no_component() -> None:
    rows = VECTORS.copy()
    rows = np.vstack([rows] * 5)
    hostile = rows.copy()
    hostile[0] = 1e300
    tame, bent = features(rows.tolist()), features(hostile.tolist())
    # Components may change their sign.
    assert np.abs(bent[1:, 0]) == pytest.approx(np.abs(tame[1:, 0]), abs=0.1)
    assert np.isfinite(bent).all()
    assert np.abs(bent[0]).max() == LIMIT


@pytest.mark.parametrize("absent", [None, [np.nan] * 10, [np.inf] + [0.0] * 9, [None] * 10])
def test_a_vector_that_is_not_all_numbers_is_missing(absent: list[float] | None) -> None:
    rows = VECTORS.tolist()
    rows[7] = absent
    X = features(rows)
    assert X[:, -1].tolist() == [row == 7 for row in range(300)]
    assert not X[7, :-1].any()
    assert not np.isnan(X).any()


def test_vectors_of_two_lengths_are_refused() -> None:
    rows = VECTORS.tolist()
    rows[5] = [1.0, 2.0]
    table = pa.table({"e": column(rows)})
    with pytest.raises(InputError, match=r"vectors of 10 numbers, and 1 .* of 2; expected"):
        _ = Dataset.from_table(table, Roles(embedding="e")).encoder
    assert fit_encoder(table, ["e"]).skipped == (("e", "its vectors differ in length"),)
    encoder = fit_encoder(pa.table({"e": column(VECTORS.tolist())}), ["e"])
    with pytest.raises(InputError, match="another length"):
        encoder.transform(pa.table({"e": column(rows)}))


@pytest.mark.parametrize(
    ("values", "kind", "why"),
    [
        ([None, None], TYPES["list of float"], "missing"),
        ([[], []], TYPES["list of float"], "missing"),
        ([[np.nan], [np.inf]], TYPES["list of float"], "missing"),
        ([[1.0, 2.0]] * 5, TYPES["list of float"], "the same"),
        ([[0.0] * (MAX_LENGTH + 1)], TYPES["list of float"], "more than"),
        ([["a"]], pa.list_(pa.string()), "not encoded"),
        ([[[1.0]]], pa.list_(pa.list_(pa.float32())), "not encoded"),
    ],
)
def test_what_carries_nothing_is_skipped_with_the_reason(
    values: object, kind: pa.DataType, why: str
) -> None:
    encoder = fit_encoder(pa.table({"e": column(values, kind)}), ["e"])
    assert encoder.names == ()
    assert why in encoder.skipped[0][1]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.float64(), pa.list_(pa.string()), pa.list_(pa.list_(pa.float32()))]
)
def test_an_embedding_that_is_no_vector_is_refused(kind: pa.DataType) -> None:
    data = Dataset.from_table(pa.table({"e": pa.nulls(3, kind)}), Roles(embedding="e"))
    with pytest.raises(PlanError, match=r"'e' has the role 'embedding' .* lists of numbers"):
        _ = data.encoder


def test_an_embedding_makes_features_beside_others_and_alone() -> None:
    rows = VECTORS.tolist()
    rows[3] = None
    table = pa.table({"e": column(rows), "n": np.arange(300.0)})
    alone = Dataset.from_table(table, Roles(embedding="e"))
    assert "features" in alone.roles.present
    (batch,) = alone.batches()
    assert batch.X.shape == (300, 11)
    assert np.flatnonzero(batch.blank).tolist() == [3]
    both = Dataset.from_table(table, Roles(embedding="e", features=("n",)))
    (batch,) = both.batches()
    assert batch.X.shape == (300, 12)
    assert not batch.blank.any()


def test_equal_vectors_have_equal_contents() -> None:
    rows = [[1.0, 2.0], [1.0, 2.5], None, [1.0, 2.0], [np.nan, 0.0], [0.0, -0.0], [-0.0, 0.0]]
    hashes = value_hashes(column(rows), b"salt")
    same = [[bool(a == b) for a in hashes] for b in hashes]
    expected = [[(i == j) or {i, j} in ({0, 3}, {5, 6}) for j in range(7)] for i in range(7)]
    assert same == expected
    fixed = value_hashes(column(rows, pa.list_(pa.float32(), 2)), b"salt")
    assert np.array_equal(fixed, hashes)


def test_vectors_are_read_from_any_part_of_a_column() -> None:
    whole = column([[1.0, 2.0], None, [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32(), 2))
    assert as_vectors("e", whole.slice(2, 2), 2).tolist() == [[3, 4], [5, 6]]
    parts = pa.chunked_array([whole.slice(3).chunk(0), whole.slice(0, 2).chunk(0)])
    assert as_vectors("e", parts, 2)[:2].tolist() == [[5, 6], [1, 2]]
    assert np.isnan(as_vectors("e", parts, 2)[2]).all()
    assert as_vectors("e", whole.slice(0, 0), 2).shape == (0, 2)
