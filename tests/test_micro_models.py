"""Micro-models: slices by their rules, distances by brute force, the median as a majority."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from sanitizers.core.data import Batch, Dataset, Roles
from sanitizers.core.errors import PlanError
from sanitizers.core.slices import (
    LEAST_ROWS,
    LEAST_SLICES,
    HashSlices,
    SliceModels,
    SourceSlices,
    TimeSlices,
    chance_of_crowding,
    crowding,
)
from sanitizers.micro_models import BY_CHANCE, CHANCE, NEAREST, MicroConcentration, MicroVotes

ROLES = Roles(time="t", source="s", features=("a", "b", "c"))


def data(seed: int, rows: int = 900, roles: Roles = ROLES, **columns: Any) -> Dataset:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 3))
    table = pa.table(
        {n: values[:, i] for i, n in enumerate("abc")}
        | {"t": pa.array(range(rows)), "s": pa.array(rng.choice(list("uvwxyz"), rows))}
    )
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(column))
    return Dataset.from_table(table, roles)


def batch(given: Dataset) -> Batch:
    return next(given.batches())


# ---------------------------------------------------------------- slices


def test_time_slices_are_of_equal_size_and_in_the_order_of_time() -> None:
    rows = batch(data(0))
    slices = TimeSlices.fit(rows, 9)
    found = slices.assign(rows)
    assert Counter(found.tolist()) == dict.fromkeys(range(9), 100)
    assert np.all(np.diff(found[np.argsort(rows.times, kind="stable")]) >= 0)
    assert slices.names[0] == "time slice 1 of 9"
    assert len(slices.names) == 9


def test_equal_times_are_in_one_slice() -> None:
    times = np.repeat([1, 2, 3, 4, 5], [600, 50, 50, 100, 100])
    rows = batch(data(0, t=times))
    slices = TimeSlices.fit(rows, 9)
    found = slices.assign(rows)
    for time in range(1, 6):
        assert len(set(found[times == time])) == 1
    assert found.max() < len(slices.names) <= 9


def test_rows_without_a_time_or_source_are_in_no_slice() -> None:
    times = np.where(np.arange(900) % 9 == 0, np.nan, np.arange(900.0))
    times[1] = np.inf
    sources = [None if i % 10 == 0 else "x" if i % 2 else "y" for i in range(900)]
    rows = batch(data(0, t=times, s=sources))
    by_time = TimeSlices.fit(rows, 5).assign(rows)
    by_source = SourceSlices.fit(rows, 5).assign(rows)
    assert np.array_equal(by_time == -1, ~np.isfinite(times))
    assert np.array_equal(by_source == -1, [s is None for s in sources])


def test_without_any_time_every_row_is_in_no_slice() -> None:
    rows = batch(data(0, t=pa.nulls(900, pa.float64())))
    assert set(TimeSlices.fit(rows, 5).assign(rows).tolist()) == {-1}


def test_the_largest_sources_have_a_slice_each_and_ties_go_by_name() -> None:
    sources = ["big"] * 300 + ["mid"] * 200 + ["d", "c", "b", "a"] * 100
    rows = batch(data(0, s=sources))
    slices = SourceSlices.fit(rows, 4)
    assert slices.names == ("a", "b", "big", "mid")
    index = {name: i for i, name in enumerate(slices.names)}
    assert slices.assign(rows).tolist() == [index.get(s, -1) for s in sources]


def test_hash_slices_are_the_buckets_of_salted_ids() -> None:
    given = data(0)
    slices = HashSlices.fit(6)
    found = slices.assign(batch(given))
    assert found.tolist() == batch(given).buckets(6, "micro-models/slice").tolist()
    other = batch(replace(given, salt=b"another"))
    assert np.mean(slices.assign(other) == found) == pytest.approx(1 / 6, abs=0.06)


# ---------------------------------------------------------------- distances


def brute(models: SliceModels, sample: Batch, rows: Batch) -> NDArray[np.float64]:
    """Mean distance to the nearest rows of every slice, a row never its own neighbour."""
    assigned = models.slicing.assign(sample)
    out = np.full((len(rows), len(models.slicing.names)), np.nan)
    ids, X = sample.row_ids.to_pylist(), sample.X.astype(float)
    for s, reference in enumerate(models.references):
        mine = [i for i in range(len(sample)) if assigned[i] == s][: len(reference)]
        for row, row_id in enumerate(rows.row_ids.to_pylist()):
            others = [i for i in mine if ids[i] != row_id]
            if not others:
                continue
            gaps = np.sqrt(((X[others] - rows.X[row].astype(float)) ** 2).sum(axis=1))
            out[row, s] = np.sort(gaps)[: models.neighbours].mean()
    return out


@pytest.mark.parametrize("neighbours", [1, 5])
def test_distances_are_those_of_brute_force(neighbours: int) -> None:
    given = data(1, 400)
    sample = given.sample(10_000, "micro-models")
    models = SliceModels.fit(sample, TimeSlices.fit(sample, 5), 60, neighbours)
    assert models is not None
    rows = batch(given).take(np.arange(0, 400, 3))
    assert models.distances(rows) == pytest.approx(brute(models, sample, rows), rel=1e-4, abs=1e-6)
    everything = models.distances(batch(given))
    parts = np.vstack([models.distances(batch(given).take(np.array([i]))) for i in range(40)])
    assert np.array_equal(parts, everything[:40])


def test_an_own_copy_elsewhere_is_a_neighbour_but_the_row_itself_is_not() -> None:
    given = data(2, 400)
    table = given.shards[0].read()
    twin = table.slice(0, 1).set_column(
        table.column_names.index("row_id"), "row_id", pa.array(["twin"])
    )
    both = Dataset.from_table(pa.concat_tables([table, twin]), ROLES)
    sample = both.sample(10_000, "micro-models")
    models = SliceModels.fit(sample, TimeSlices.fit(sample, 4), 500, 1)
    assert models is not None
    first = batch(both).take(np.array([0, 1]))
    distances = models.distances(first)
    assert distances[0, 0] == 0  # the twin is in the same slice
    assert distances[1].min() > 0  # a row without a twin has no neighbour at distance zero


def test_a_slice_with_too_few_rows_has_no_model_and_too_few_slices_none_at_all() -> None:
    sizes = [200, 200, 200, 200, LEAST_ROWS - 1, LEAST_ROWS]
    sources = np.repeat(list("abcdef"), sizes)
    given = data(0, len(sources), s=sources)
    sample = given.sample(10_000, "p")
    models = SliceModels.fit(sample, SourceSlices.fit(sample, 10), 100, 5)
    assert models is not None
    assert [len(r) for r in models.references] == [100, 100, 100, 100, 0, LEAST_ROWS]
    assert np.isnan(models.distances(sample)).all(axis=0).tolist() == [False] * 4 + [True, False]
    few = data(0, 900, s=np.repeat(list("abc"), 300))
    sample = few.sample(10_000, "p")
    assert SliceModels.fit(sample, SourceSlices.fit(sample, 10), 100, 5) is None


def test_split_tells_the_own_slice_from_the_foreign_ones() -> None:
    given = data(3, 400)
    sample = given.sample(10_000, "p")
    models = SliceModels.fit(sample, TimeSlices.fit(sample, 4), 100, 5)
    assert models is not None
    foreign, home, own = models.split(sample)
    logs = models.logs(sample)
    for row in range(len(sample)):
        assert home[row] == logs[row, own[row]]
        assert np.isnan(foreign[row, own[row]])
        others = [s for s in range(4) if s != own[row]]
        assert foreign[row, others].tolist() == logs[row, others].tolist()


# ---------------------------------------------------------------- votes


def test_the_median_vote_is_a_majority_vote_at_every_line() -> None:
    given = data(4, 1200, replace(ROLES, source=None))
    scorer = MicroVotes(slices=6, rows=100).fit(given)  # a row has five foreign slices
    rows = batch(given)
    assert scorer.models is not None
    foreign, _, own = scorer.models.split(rows)
    votes = (foreign - scorer.scales[:, 0]) / scorer.scales[:, 1]
    assert (np.sum(~np.isnan(votes), axis=1) == 5).all()
    assert set(own.tolist()) == set(range(6))
    scores = scorer.score(rows)
    for line in np.linspace(-2, 4, 61):
        for_it = np.nansum(votes > line, axis=1)
        assert ((scores > line) == (for_it > 2.5)).all()


@pytest.mark.parametrize(
    ("roles", "kind"),
    [
        (ROLES, TimeSlices),
        (replace(ROLES, time=None), SourceSlices),
        (replace(ROLES, time=None, source=None), HashSlices),
    ],
)
def test_votes_slice_by_time_else_by_source_else_by_id(roles: Roles, kind: type) -> None:
    scorer = MicroVotes().fit(data(0, roles=roles))
    assert scorer.models is not None
    assert type(scorer.models.slicing) is kind


def test_rows_without_a_time_are_judged_by_every_slice() -> None:
    times = np.where(np.arange(900) % 9 == 0, np.nan, np.arange(900.0))
    scores = MicroVotes().fit(given := data(0, t=times)).score(batch(given))
    assert np.isfinite(scores).all()


def test_a_poisoned_slice_has_one_vote_only() -> None:
    """Rows at home in one slice of ten are still outvoted by the other nine."""
    given = data(5, 1000, replace(ROLES, source=None))
    table = given.shards[0].read()
    values = table.column("a").to_numpy().copy()
    values[100:150] = 9.0
    spoiled = Dataset.from_table(
        table.set_column(0, "a", pa.array(values)), replace(ROLES, source=None)
    )
    scores = MicroVotes(slices=10).fit(spoiled).score(batch(spoiled))
    bad = np.zeros(1000, dtype=bool)
    bad[100:150] = True
    assert scores[bad].min() > np.quantile(scores[~bad], 0.99)


def test_trusted_rows_give_votes_p_values() -> None:
    given = data(6)
    ids = pa.array([f"vouched-{i}" for i in range(200)])
    table = data(7, 200).shards[0].read()
    vouched = table.set_column(table.column_names.index("row_id"), "row_id", ids)
    extra = Dataset.from_table(vouched, ROLES)
    scorer = MicroVotes().fit(replace(given, trusted=extra.shards))
    assert scorer.null is not None
    p = scorer.null.p_value(scorer.score(batch(data(8, 600))))
    assert np.mean(p <= 0.1) == pytest.approx(0.1, abs=0.06)
    few = Dataset.from_table(vouched.slice(0, 99), ROLES)
    assert MicroVotes().fit(replace(given, trusted=few.shards)).null is None


# ---------------------------------------------------------------- concentration


def flooded(slices: int) -> tuple[Dataset, NDArray[np.bool_]]:
    """A tight cluster in the first `slices` of ten time slices, 200 rows each."""
    given = data(9, 2000, replace(ROLES, source=None))
    table = given.shards[0].read()
    rng = np.random.default_rng(1)
    bad = (np.arange(2000) < 200 * slices) & (rng.random(2000) < 0.4)
    for i, name in enumerate("abc"):
        values = table.column(name).to_numpy().copy()
        values[bad] = 1.0 + rng.normal(0, 0.05, bad.sum())
        table = table.set_column(i, name, pa.array(values))
    return Dataset.from_table(table, replace(ROLES, source=None)), bad


@pytest.mark.parametrize(("slices", "found"), [(1, True), (5, True), (6, True), (7, False)])
def test_concentration_holds_up_to_two_thirds_of_the_slices_and_breaks_beyond(
    slices: int, found: bool
) -> None:
    given, bad = flooded(slices)
    scores = MicroConcentration(slices=10, rows=200).fit(given).score(batch(given))
    caught = np.mean(scores[bad] > np.quantile(scores[~bad], 0.99))
    assert caught > 0.9 if found else caught < 0.4


def test_concentration_is_the_log_ratio_of_far_foreign_to_own_distance() -> None:
    given, _ = flooded(2)
    scorer = MicroConcentration(slices=10, rows=100, neighbours=5).fit(given)
    (view,) = scorer.views
    models, middle, spread = view.models, view.middle, view.spread
    rows = batch(given).take(np.arange(0, 2000, 41))
    sample = given.sample(2 * 10 * 100, "micro-models")
    logs = np.log(brute(models, sample, rows) + models.offset)
    own = models.slicing.assign(rows)
    # The sixth nearest of nine: two thirds of them are not farther.
    slow = [np.sort(np.delete(logs[i], own[i]))[5] - logs[i, own[i]] for i in range(len(rows))]
    assert scorer.score(rows) == pytest.approx((np.array(slow) - middle) / spread, abs=1e-3)


@pytest.mark.parametrize("shares", [[0.25] * 4, [0.7, 0.1, 0.1, 0.1, 0.0]])
@pytest.mark.parametrize("draws", [1, 5, 12])
def test_the_chance_of_crowding_is_that_of_draws(shares: list[float], draws: int) -> None:
    drawn = np.random.default_rng(0).multinomial(draws, shares, 100_000)
    seen = np.bincount((drawn**2).sum(axis=1), minlength=draws**2 + 1) / 100_000
    for most in (draws, 12):  # fewer draws are known from the chances of more
        chance = chance_of_crowding(np.array(shares), most)[draws]
        assert chance.sum() == pytest.approx(1.0)
        assert chance[: draws**2 + 1] == pytest.approx(seen, abs=0.008)


def test_crowding_is_the_sum_of_squares_of_how_many_come_from_each_slice() -> None:
    origins = np.array([[0, 1, 2, 3], [2, 2, 2, 2], [0, 0, 3, -1]])
    assert crowding(origins, 4).tolist() == [4, 16, 5]


def test_origins_are_the_slices_of_the_nearest_rows_of_all() -> None:
    given = data(13, 400, replace(ROLES, source=None))
    sample = given.sample(10_000, "p")
    models = SliceModels.fit(sample, TimeSlices.fit(sample, 5), 60, 3)
    assert models is not None
    rows = batch(given).take(np.arange(0, 400, 7))
    found = models.origins(rows, 12)
    references = np.vstack(models.references)
    slices = np.repeat(np.arange(5), [len(r) for r in models.references])
    for i in range(len(rows)):
        gaps = np.sqrt(((references - rows.wide[i]) ** 2).sum(axis=1))
        near = [s for gap, s in sorted(zip(gaps.tolist(), slices.tolist(), strict=True)) if gap > 0]
        assert found[i].tolist() == near[:12]
    assert (models.origins(rows, 400)[:, -101:] == -1).all()  # 300 are known, less itself


def test_of_many_copies_not_all_come_from_the_first_slices() -> None:
    given = data(14, 1000, replace(ROLES, source=None))
    table = given.shards[0].read()
    for i, name in enumerate("abc"):
        values = np.where(np.arange(1000) % 10 < 7, 1.0, table.column(name).to_numpy())
        table = table.set_column(i, name, pa.array(values))
    same = Dataset.from_table(table, replace(ROLES, source=None))
    sample = same.sample(10_000, "p")
    models = SliceModels.fit(sample, TimeSlices.fit(sample, 10), 100, 5)
    assert models is not None
    copies = batch(same).take(np.flatnonzero(np.arange(1000) % 10 < 7))
    distinct = [len(set(row.tolist())) for row in models.origins(copies, 30)]
    assert min(distinct) >= 8


def kinds(seed: int) -> tuple[Dataset, NDArray[np.bool_]]:
    """Twenty dense kinds of some twenty rows each, which came at any time, and a cluster."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(2000, 3))
    rows[:400] = np.repeat(rng.normal(size=(20, 3)), 20, axis=0) + 0.003 * rng.normal(size=(400, 3))
    rows = rows[rng.permutation(2000)]
    came = np.zeros(2000, dtype=bool)
    came[300:340] = True
    rows[came] = 1.5 + 0.003 * rng.normal(size=(40, 3))
    given = data(seed, 2000, replace(ROLES, source=None))
    table = given.shards[0].read()
    for i, name in enumerate("abc"):
        table = table.set_column(i, name, pa.array(rows[:, i]))
    return Dataset.from_table(table, replace(ROLES, source=None)), came


def test_what_chance_explains_is_not_unusual_and_what_came_together_is() -> None:
    """Of a kind of twenty rows a slice has four and others none: a high score, by chance."""
    explained = 0
    for seed in range(3):
        given, came = kinds(seed)
        scorer = MicroConcentration(neighbours=3).fit(given)
        (view,) = scorer.views
        rows = batch(given)
        foreign, home, _ = view.models.split(rows)
        place = 2 * (foreign.shape[1] - 2) // 3
        plain = (np.sort(foreign, axis=1)[:, place] - home - view.middle) / view.spread
        scores = scorer.score(rows)
        assert (scores[came] > 8).mean() > 0.9
        high = (plain > 8) & ~came
        assert (scores[high] <= BY_CHANCE).mean() > 0.95
        explained += int(high.sum())
        low = plain <= BY_CHANCE
        assert scores[low] == pytest.approx(plain[low], abs=1e-6)
    assert explained >= 10


def test_rows_that_came_in_any_order_have_the_chance_that_is_said_and_nothing_is_found() -> None:
    rows, likely = 0, 0
    for seed in range(4):
        given = data(20 + seed, 4000, replace(ROLES, source=None))
        (view,) = MicroConcentration().fit(given).views
        assert view.chances.shape[0] == len(NEAREST)
        chance = view.chance(batch(given))
        assert chance[:9].tolist() == view.chance(batch(given).take(np.arange(9))).tolist()
        rows, likely = rows + len(chance), likely + int((chance <= 0.01).sum())
        assert view.level == CHANCE
        assert (view.score(batch(given)) > BY_CHANCE).sum() <= 4
    # Rows beside one another share their neighbours: what happens once happens to several.
    assert 0.002 < likely / rows < 0.015


def test_with_a_time_and_a_source_the_larger_score_counts_and_both_places_are_named() -> None:
    given = data(10, 1200)
    recipe = MicroConcentration(rows=100)
    rows = batch(given)
    each = []
    for roles in (replace(ROLES, source=None), replace(ROLES, time=None)):
        only = Dataset.from_table(given.shards[0].read(), roles)
        each.append(recipe.fit(only).score(batch(only)))
    both = recipe.fit(given)
    assert both.score(rows) == pytest.approx(np.maximum(*each))
    hint = both.hint(rows)[0]
    assert hint == f"time slice 1 of 20 or {rows.sources[0]}"
    assert "near neighbours in time slice 1 of 20 or" in recipe.reason(5.0, hint)


def test_a_row_of_a_slice_without_a_model_is_abstained_from() -> None:
    sources = np.repeat(list("abcdef"), [200, 200, 200, 200, 90, 10])
    given = data(0, 900, replace(ROLES, time=None), s=sources)
    scores = MicroConcentration(rows=100).fit(given).score(batch(given))
    assert np.array_equal(np.isnan(scores), sources == "f")


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize("kind", [MicroVotes, MicroConcentration])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slices": LEAST_SLICES - 1}, "3 slices cannot vote; expected at least 4"),
        ({"neighbours": 0}, "neighbours=0, rows=500; expected neighbours >= 1, rows >= 30"),
        ({"rows": LEAST_ROWS - 1}, "rows=29; expected neighbours >= 1, rows >= 30"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    kind: type, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        kind(**settings)


@pytest.mark.parametrize("rows", [1, 20, 119])
@pytest.mark.parametrize("recipe", [MicroVotes(), MicroConcentration()], ids=lambda r: r.name)
def test_too_few_rows_are_abstained_from(
    recipe: MicroVotes | MicroConcentration, rows: int
) -> None:
    given = data(0, rows)
    assert np.isnan(recipe.fit(given).score(batch(given))).all()
    assert len(list(recipe.fit(given).hint(batch(given)))) == rows
