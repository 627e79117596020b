"""Outliers: any lawful detector of PyOD by name, and p-values from trusted rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import faiss
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy.stats import kstest

from sanitizers.core.calibration import ConformalNull
from sanitizers.core.data import Dataset, MemoryShard, Roles
from sanitizers.core.errors import PlanError
from sanitizers.core.kernels import nearest_distances, robust_scale
from sanitizers.core.policy import default_rule
from sanitizers.outliers import LAWFUL, Outliers, detector_class
from sanitizers.testing import law_order, law_purity, law_sharding

COLUMNS = ("a", "b", "c")


def data(seed: int, rows: int = 300, far: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 3))
    values[:far] += 12
    ids = pa.array([f"{seed}-{i}" for i in range(rows)])
    table = pa.table({n: values[:, i] for i, n in enumerate(COLUMNS)} | {"row_id": ids})
    return Dataset.from_table(table, Roles(features=COLUMNS))


def threat(seed: int) -> tuple[Dataset, NDArray[np.bool_]]:
    return data(seed, 300, far=4), np.arange(300) < 4  # too few to be near to one another


def with_trusted(seed: int, rows: int = 300) -> Dataset:
    return replace(data(seed), trusted=data(seed + 500, rows).shards)


def scores(recipe: Outliers, given: Dataset) -> NDArray[np.float64]:
    scorer = recipe.fit(given)
    return np.concatenate([scorer.score(batch) for batch in given.batches()])


# ---------------------------------------------------------------- detectors by name


@pytest.mark.parametrize("law", [law_sharding, law_order, law_purity], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "name", [*sorted(LAWFUL), "HBOS", "LOF", "PCA", "LODA", "CBLOF", "GMM", "KDE"]
)
def test_a_lawful_detector_obeys_the_laws(name: str, law: Callable[..., None]) -> None:
    law(Outliers(detectors=(name,), sample=200), threat)


@pytest.mark.parametrize("name", ["KNN", "IForest", "HBOS", "LOF", "PCA", "CBLOF", "GMM", "KDE"])
def test_rows_far_out_score_highest(name: str) -> None:
    given, bad = threat(7)
    found = scores(Outliers(detectors=(name,)), given)
    assert found[bad].min() > np.quantile(found[~bad], 0.97)


@pytest.mark.parametrize("name", ["ECOD", "COPOD", "SOS", "COF"])
@pytest.mark.parametrize("make", [data, with_trusted])
def test_a_detector_that_looks_at_the_rows_beside_is_refused(
    name: str, make: Callable[[int], Dataset]
) -> None:
    with pytest.raises(PlanError, match=f"detector '{name}' gives a row another score when"):
        Outliers(detectors=("KNN", name)).fit(make(0))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("KNNN", "'KNNN' is not a PyOD detector; did you mean 'KNN'?"),
        ("iforest", "'iforest' is not a PyOD detector; did you mean 'IForest'?"),
        ("BaseDetector", "'BaseDetector' is not a PyOD detector; "),
        ("base", "'base' is not a PyOD detector; "),
        ("os.path", "'os.path' is not a PyOD detector; "),
        ("../knn", "'../knn' is not a PyOD detector; "),
        ("", "'' is not a PyOD detector; known: 'ABOD', "),
    ],
)
def test_an_unknown_detector_is_refused_with_the_nearest(name: str, message: str) -> None:
    for refuse in (lambda: Outliers(detectors=(name,)), lambda: detector_class(name)):
        with pytest.raises(PlanError) as raised:
            refuse()
        assert str(raised.value).startswith(message)


def test_a_detector_that_needs_another_package_names_it() -> None:
    with pytest.raises(PlanError, match=r"detector 'SUOD' needs the package '.+'; pip install .+"):
        Outliers(detectors=("SUOD",))


def test_a_detector_that_cannot_be_fitted_is_named() -> None:
    message = "detector 'MAD' cannot be fitted to these data: .*univariate.*; leave it out of"
    with pytest.raises(PlanError, match=message):
        Outliers(detectors=("MAD",)).fit(data(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"detectors": ()}, r"outliers.detectors is \(\); expected a list of names"),
        ({"detectors": "KNN"}, "outliers.detectors is 'KNN'; expected a list of names"),
        ({"sample": 0}, "outliers.sample is 0; expected at least 1"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Outliers(**settings)  # type: ignore[arg-type]


def test_a_list_of_detectors_is_the_same_recipe_as_a_tuple() -> None:
    listed: list[str] = ["KNN", "PCA"]
    assert Outliers(detectors=listed) == Outliers(detectors=("KNN", "PCA"))
    assert hash(Outliers(detectors=listed)) == hash(Outliers(detectors=("KNN", "PCA")))


# ---------------------------------------------------------------- scores


def test_the_worst_detector_counts() -> None:
    given, _ = threat(3)
    each = [scores(Outliers(detectors=(name,)), given) for name in ("KNN", "HBOS")]
    both = scores(Outliers(detectors=("KNN", "HBOS")), given)
    assert both.tolist() == np.maximum(*each).tolist()


def test_a_score_is_the_robust_z_score_of_the_other_halfs_detector() -> None:
    given = data(1)
    batch = next(given.batches())
    half = batch.buckets(2, "outliers/half")
    raw = np.empty(len(batch))
    for i in range(len(batch)):
        other = batch.X[half != half[i]].astype(float)
        distances = np.sqrt(((other - batch.X[i]) ** 2).sum(axis=1))
        raw[i] = np.sort(distances)[:5].mean()
    logs = np.log(raw + 0.1 * np.median(raw))
    middle, spread = np.median(logs), 1.4826 * np.median(np.abs(logs - np.median(logs)))
    spread = max(spread, (np.quantile(logs, 0.9) - middle) / 1.2816)
    found = scores(Outliers(detectors=("KNN",)), given)
    assert found == pytest.approx((logs - middle) / spread, abs=2e-3)


def rare(seed: int, rows: int = 1_000) -> Dataset:
    """Most rows are nearly alike; of a tenth, one value is another or is missing."""
    rng = np.random.default_rng(seed)
    values: dict[str, object] = {n: rng.normal(size=rows) * 0.05 for n in COLUMNS}
    values["kind"] = np.where(rng.random(rows) < 0.06, rng.choice([*"pqrst"], rows), "usual")
    values["sum"] = np.where(rng.random(rows) < 0.05, np.nan, rng.integers(0, 3, rows))
    values["row_id"] = [f"{seed}-{i}" for i in range(rows)]
    return Dataset.from_table(pa.table(values), Roles(features=(*COLUMNS, "kind", "sum")))


def test_rows_of_rare_categories_and_with_missing_values_are_no_outliers() -> None:
    line = default_rule("outliers", 0.01, trusted=False).quarantine
    assert line is not None
    lost = [np.mean(scores(Outliers(), rare(seed)) > line.conditions[0].value) for seed in range(4)]
    assert np.mean(lost) < 0.005


def test_a_copy_in_the_other_half_is_no_excuse_for_its_own_half() -> None:
    """A row is never its own neighbour: no score is that of distance zero."""
    given = data(2)
    found = scores(Outliers(detectors=("KNN",)), given)
    lowest = np.log(0.1) - np.log(1.1)  # of distance 0, before the division by the spread
    assert found.min() > lowest / 0.05
    assert len(np.unique(found)) > 250


@pytest.mark.parametrize("rows", [1, 5, 9])
def test_too_few_rows_are_abstained_from(rows: int) -> None:
    assert np.isnan(scores(Outliers(), data(0, rows))).all()


# ---------------------------------------------------------------- trusted rows


def test_trusted_rows_give_p_values_that_are_uniform_on_clean_rows() -> None:
    p = []
    for seed in range(4):
        scorer = Outliers(detectors=("KNN",)).fit(with_trusted(seed, 400))
        fresh = with_trusted(seed).batch(data(seed + 900, 500).shards[0].read())
        assert scorer.null is not None
        p.append(scorer.null.p_value(scorer.score(fresh)))
    pooled = np.concatenate(p)
    # Fresh rows and trusted ones are scored by the same models, each without its own part.
    assert kstest(pooled, "uniform").statistic < 0.04
    for level in (0.1, 0.05, 0.01):
        assert 0.7 * level < np.mean(pooled <= level) < 1.3 * level


def test_poison_among_the_data_does_not_move_trusted_scores() -> None:
    """The reference is the trusted rows alone, up to the encoding."""
    clean = with_trusted(1)
    spoiled = replace(clean, shards=(MemoryShard(_repeated(clean, 40)),))
    object.__setattr__(spoiled, "encoder", clean.encoder)
    fresh = clean.batch(data(77, 100).shards[0].read())
    one, two = (Outliers().fit(d) for d in (clean, spoiled))
    assert one.score(fresh).tolist() == two.score(fresh).tolist()
    assert isinstance(one.null, ConformalNull)


def _repeated(given: Dataset, copies: int) -> pa.Table:
    table = given.shards[0].read()
    flood = pa.concat_tables([table.slice(0, 1)] * copies)
    ids = pa.array([f"flood-{i}" for i in range(copies)])
    flood = flood.set_column(flood.column_names.index("row_id"), "row_id", ids)
    return pa.concat_tables([table, flood])


def test_too_few_trusted_rows_are_not_the_reference() -> None:
    scorer = Outliers(detectors=("KNN",)).fit(with_trusted(1, 60))
    assert scorer.null is None
    assert len(scorer.models) == 2


# ---------------------------------------------------------------- kernels


@pytest.mark.parametrize(("rows", "d", "k"), [(500, 7, 6), (1200, 33, 16), (40, 1, 40)])
def test_distances_are_bitwise_those_of_each_row_alone(rows: int, d: int, k: int) -> None:
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(rows, d)).astype(np.float32)
    reference = np.vstack([queries[:10], rng.normal(size=(rows, d)).astype(np.float32)])
    whole = nearest_distances(queries, reference, k)
    for size in (1, 19, 20, 21, 333):
        parts = [
            nearest_distances(queries[i : i + size], reference, k)
            for i in range(0, min(rows, 40 * size), size)
        ]
        together = np.vstack(parts)
        assert np.array_equal(together, whole[: len(together)])
    assert whole[:10, 0].tolist() == [0.0] * 10


def test_distances_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(1)
    queries, reference = rng.normal(size=(60, 5)), rng.normal(size=(80, 5))
    slow = np.sort(np.sqrt(((queries[:, None] - reference[None]) ** 2).sum(axis=2)), axis=1)[:, :9]
    found = nearest_distances(queries.astype(np.float32), reference.astype(np.float32), 9)
    assert found == pytest.approx(slow, rel=1e-5)
    assert np.all(np.diff(found, axis=1) >= 0)


def test_distances_do_not_depend_on_what_others_set_in_faiss() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(100, 4)).astype(np.float32)
    before = nearest_distances(rows, rows, 3)
    faiss.cvar.distance_compute_blas_threshold = 1
    assert np.array_equal(nearest_distances(rows, rows, 3), before)


@pytest.mark.parametrize(
    ("values", "middle", "spread"),
    [
        ([], 0.0, 1.0),
        ([np.nan, np.inf], 0.0, 1.0),
        ([3.0], 3.0, 1.0),
        ([3.0] * 9, 3.0, 1.0),
        ([1.0, 2.0, 3.0, 4.0, 100.0, np.nan], 3.0, 1.4826),
        ([0.0] * 8 + [4.0, 4.0], 0.0, 1.6),
    ],
)
def test_robust_scale(values: list[float], middle: float, spread: float) -> None:
    assert robust_scale(np.array(values, dtype=float)) == pytest.approx((middle, spread))
