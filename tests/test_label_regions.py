"""Label regions: what is found against counting by hand, and when the rule is silent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy.stats import hypergeom

from pipelines.plan import Plan
from pipelines.recipes import choose
from sanitizers.core.data import Batch, Dataset, MemoryShard, Roles
from sanitizers.core.errors import PlanError
from sanitizers.label_regions import (
    COMPARED_LEAST,
    TRUSTED_LEAST,
    LabelRegions,
    Region,
    RegionScorer,
)

ROLES = Roles(label="y", features=("a", "b"))
#: Where the labels are changed, and how far around.
MIDST, REACH = np.array([1.0, 1.0]), 0.6

Values = NDArray[np.float64]


def points(seed: int, rows: int, prefix: str = "r") -> pa.Table:
    """Two features, evenly spread, and two classes that meet at ``b = 0``, 5 % of them swapped."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-2, 2, (rows, 2))
    y = (X[:, 1] > 0) ^ (rng.random(rows) < 0.05)
    ids = pa.array([f"{prefix}-{i}" for i in range(rows)])
    return labelled(pa.table({"a": X[:, 0], "b": X[:, 1], "row_id": ids}), y)


def labelled(table: pa.Table, y: NDArray[np.bool_]) -> pa.Table:
    names = pa.array(np.array(["down", "up"])[y.astype(int)])
    if "y" in table.column_names:
        return table.set_column(table.column_names.index("y"), "y", names)
    return table.append_column("y", names)


def classes(table: pa.Table) -> NDArray[np.bool_]:
    return np.array([v == "up" for v in table.column("y").to_pylist()])


def matrix(table: pa.Table) -> Values:
    return np.column_stack([table.column(n).to_numpy() for n in "ab"])


def within(table: pa.Table) -> NDArray[np.bool_]:
    return np.asarray(((matrix(table) - MIDST) ** 2).sum(axis=1) < REACH**2)


def relabelled(table: pa.Table) -> tuple[pa.Table, NDArray[np.bool_]]:
    """All rows near to one point are ``down``; and which of them were not."""
    y = classes(table)
    return labelled(table, y & ~within(table)), y & within(table)


def dataset(table: pa.Table, trusted: pa.Table | None) -> Dataset:
    whole = Dataset.from_table(table, ROLES, salt=b"regions")
    return whole if trusted is None else replace(whole, trusted=(MemoryShard(trusted),))


def judged(data: Dataset, recipe: LabelRegions | None = None) -> tuple[RegionScorer, Batch, Values]:
    scorer = (recipe or LabelRegions()).fit(data)
    (batch,) = data.batches()
    return scorer, batch, scorer.score(batch)


def test_a_relabelled_region_is_found_and_the_rest_is_not() -> None:
    for seed in range(3):
        table, bad = relabelled(points(seed, 2000))
        _, _, scores = judged(dataset(table, points(seed + 50, 300, "t")))
        assert (scores[bad] > 0.6).mean() > 0.9
        assert (scores[~bad] > 0.6).mean() < 0.02


def test_the_counts_and_the_chance_of_a_region_are_those_that_are_there() -> None:
    table, _ = relabelled(points(0, 2000))
    trusted = points(50, 300, "t")
    data = dataset(table, trusted)
    scorer, batch, _ = judged(data)
    vouched = data.trusted_rows
    assert vouched is not None
    assert scorer.regions
    for region in scorer.regions[:5]:
        name, centre = scorer.classes[region.label], vouched.X[region.centre]
        counts = []
        for rows in (batch, vouched):
            away = np.sqrt(((rows.X.astype(float) - centre) ** 2).sum(axis=1))
            inside = away <= region.radius + 1e-9
            counts += [inside.sum(), (inside & (rows.labels == name)).sum()]
        assert counts == [region.rows, region.having, region.trusted, region.vouched]
        # Classes are alike outside: what is expected is near to what the data have.
        n, x, m, v = counts
        assert np.log10(region.chance) == pytest.approx(
            np.log10(hypergeom.cdf(v, n + m, x + v, m)), abs=0.35 * -np.log10(region.chance)
        )
        assert region.chance <= 0.5 / (300 * len(scorer.classes))
    chances = [region.chance for region in scorer.regions]
    assert chances == sorted(chances)


def test_the_score_is_one_less_what_trusted_rows_tell_by_the_share_in_the_region() -> None:
    table, _ = relabelled(points(1, 2000))
    data = dataset(table, points(51, 300, "t"))
    scorer, batch, scores = judged(data)
    vouched = data.trusted_rows
    assert vouched is not None
    for row in np.flatnonzero(scores > 0)[::29]:
        # Of all that the trusted rows' models may say: the mean of three, without the data.
        point = batch.X[[row]].astype(float)
        said = [m.predict_proba(point)[0] for m in scorer.models]
        assert len(said) == 3
        told = np.mean(said, axis=0)[scorer.classes.index(batch.labels[row])]
        holding = [
            region
            for region in scorer.regions
            if np.linalg.norm(batch.X[row] - vouched.X[region.centre]) <= region.radius + 1e-6
            and scorer.classes[region.label] == batch.labels[row]
        ]
        assert scorer.hint(batch)[row] == str(holding[0])
        region = min(holding, key=lambda r: r.rows)
        expected = 1 - told / (region.having / region.rows)
        assert scores[row] == pytest.approx(expected, abs=6e-4)


def test_clean_rows_make_no_region_and_scattered_flips_lose_no_clean_row() -> None:
    for seed in range(4):
        table, trusted = points(seed, 2000), points(seed + 60, 300, "t")
        assert judged(dataset(table, trusted))[0].regions == ()
        flips = np.random.default_rng(seed).random(2000) < 0.1
        noisy = labelled(table, classes(table) ^ flips)
        _, _, scores = judged(dataset(noisy, trusted))
        # Of the labels that are swapped by nature some are held where flips are too many.
        right = classes(table) == (matrix(table)[:, 1] > 0)
        assert not (scores[~flips & right] > 0.6).any()


def test_trusted_rows_in_other_shares_of_the_classes_contradict_nothing() -> None:
    for seed in range(3):
        pool = points(seed + 70, 1200, "t")
        chance = np.random.default_rng(seed).random(1200)
        for share in (0.1, 0.3):
            kept = ~classes(pool) | (chance < share)
            scorer, _, _ = judged(dataset(points(seed, 2000), pool.filter(pa.array(kept))))
            assert scorer == RegionScorer()
        kept = ~classes(pool) | (chance < 0.7)
        scorer, _, scores = judged(dataset(points(seed, 2000), pool.filter(pa.array(kept))))
        assert scorer.classes
        assert not scores.any()


def test_rows_that_were_vouched_for_because_their_labels_are_doubtful_silence_the_rule() -> None:
    for seed in range(3):
        pool = points(seed + 80, 9000, "t")
        doubtful = classes(pool) != (matrix(pool)[:, 1] > 0)
        scorer, _, scores = judged(dataset(points(seed, 2000), pool.filter(pa.array(doubtful))))
        assert scorer == RegionScorer()
        assert np.isnan(scores).all()


def wide(
    seed: int, rows: int, prefix: str, share: float = 0.0
) -> tuple[pa.Table, NDArray[np.bool_]]:
    """Twelve features, classes that meet at ``c0 = 0``; the share around a point is relabelled."""
    X = np.random.default_rng(seed).normal(size=(rows, 12))
    y = X[:, 0] > 0
    away = np.where(y, ((X - np.eye(12)[0]) ** 2).sum(axis=1), np.inf)
    bad = np.zeros(rows, dtype=bool)
    bad[np.argsort(away)[: int(share * rows)]] = True
    columns = {f"c{i}": X[:, i] for i in range(12)}
    ids = [f"{prefix}-{i}" for i in range(rows)]
    return labelled(pa.table({**columns, "row_id": ids}), y & ~bad), bad


def test_regions_that_cover_nearly_all_do_not_silence_the_rule() -> None:
    """In many columns balls are wide: there is hardly a row outside of all of them."""
    roles = Roles(label="y", features=tuple(f"c{i}" for i in range(12)))
    for seed in (0, 2):
        table, bad = wide(seed, 2000, "r", 0.1)
        trusted, _ = wide(seed + 50, 150, "t")
        data = replace(Dataset.from_table(table, roles, salt=b"x"), trusted=(MemoryShard(trusted),))
        scorer, _, scores = judged(data)
        assert scorer.vouched is not None
        centres = scorer.vouched.X[[region.centre for region in scorer.regions]]
        away = np.linalg.norm(scorer.vouched.X[:, None] - centres, axis=2)
        within = away <= [region.radius for region in scorer.regions]
        assert (~within.any(axis=1)).sum() < COMPARED_LEAST
        assert (scores[bad] > 0.6).mean() > 0.9
        assert (scores[~bad] > 0.6).mean() < 0.01


def test_trusted_rows_of_one_class_contradict_a_rare_label() -> None:
    """A class that is nearly all planted: of a hundred trusted rows none may have it."""
    table = labelled(points(4, 2000), np.ones(2000, dtype=bool))
    bad = within(table)
    trusted = labelled(points(54, 300, "t"), np.ones(300, dtype=bool))
    scorer, _, scores = judged(dataset(labelled(table, ~bad), trusted))
    assert scorer.regions
    assert (scores[bad] > 0.6).all()
    assert not scores[~bad].any()


def test_without_enough_trusted_rows_it_abstains() -> None:
    table, _ = relabelled(points(2, 2000))
    few = points(52, TRUSTED_LEAST - 1, "t")
    for trusted in (None, few):
        scorer, batch, scores = judged(dataset(table, trusted))
        assert scorer == RegionScorer()
        assert np.isnan(scores).all()
        assert scorer.hint(batch) == [None] * 2000


def test_trusted_rows_of_a_column_are_no_rows_of_the_data_besides() -> None:
    """So they find as many regions, with the same counts, as from a file of their own."""
    table, _ = relabelled(points(3, 2000))
    trusted = points(53, 300, "t")
    apart = judged(dataset(table, trusted))[0]
    marks = pa.array([False] * 2000 + [True] * 300)
    whole = pa.concat_tables([table, trusted]).append_column("v", marks)
    roles = replace(ROLES, trusted="v")
    beside = judged(Dataset.from_table(whole, roles, salt=b"regions"))[0]
    # Features are scaled by all rows, so distances differ a little.
    assert abs(len(beside.regions) - len(apart.regions)) <= 0.2 * len(apart.regions)
    assert max(r.trusted + r.rows for r in beside.regions) < 2300


def test_the_reason_says_what_can_be_counted() -> None:
    region = Region(0, 1.0, 0, 1e-9, 1296, 1143, 30, 1)
    hint = str(region)
    assert hint == "1,143 of 1,296 rows and 1 of 30 trusted ones"
    said = (
        "1,143 of 1,296 rows and 1 of 30 trusted ones around it have its label, which models of "
        "the trusted rows call wrong with a chance of "
    )
    assert LabelRegions().reason(0.93, hint) == f"{said}93%"
    assert LabelRegions().reason(1.0, hint) == f"{said}more than 99%"
    assert "do not contradict" in LabelRegions().reason(0.0, None)


def test_it_runs_where_somebody_vouches_for_rows_and_nowhere_else() -> None:
    plan = Plan.model_validate({"dataset": {"name": "d", "source": "d.csv"}})
    chosen = choose(plan, ROLES)
    assert "label-regions" not in chosen.run
    assert dict(chosen.not_run)["label-regions"] == "nobody vouches for any row"
    assert "label-regions" in choose(plan, ROLES, trusted=True).run
    assert "label-regions" in choose(plan, replace(ROLES, trusted="v")).run
    asked = {"sanitizers": {"use": ["label-regions"]}}
    named = Plan.model_validate({"dataset": {"name": "d", "source": "d.csv"}, **asked})
    with pytest.raises(PlanError, match=r"'label-regions' is to run, and nobody vouches"):
        choose(named, ROLES)


@pytest.mark.parametrize("settings", [{"rows": 0}, {"trees": 0}, {"chance": 0.0}, {"chance": 1.0}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(PlanError, match=r"label-regions: rows=.*; expected rows >= 1"):
        LabelRegions(**settings)  # type: ignore[arg-type]
