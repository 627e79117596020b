"""Labels: the mixture against simulation, and that no row is judged by its own label."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from sanitizers.core.classes import CLASS_LEAST
from sanitizers.core.data import Batch, Dataset, MemoryShard, Roles
from sanitizers.core.errors import PlanError
from sanitizers.core.evidence import examine_batch
from sanitizers.core.label_noise import fit_mixture, label_null, sharpen, temperatures
from sanitizers.core.lines import ScoreSummary, draw
from sanitizers.core.policy import Policy
from sanitizers.labels import TRUSTED_LEAST, Labels, LabelScorer

ROLES = Roles(label="y", features=("a", "b"))
FAST = Labels(trees=20)


def simulated(
    seed: int, n: int, k: int, temperature: float, rate: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities of models, and labels drawn from them at a temperature and flipped."""
    rng = np.random.default_rng(seed)
    P = rng.dirichlet(np.full(k, 0.4), size=n)
    clean = sharpen(P, temperature)
    y = (rng.random(n)[:, None] > clean.cumsum(axis=1)).sum(axis=1).clip(0, k - 1)
    flipped = rng.random(n) < rate
    y[flipped] = (y[flipped] + rng.integers(1, k, flipped.sum())) % k
    return P, y


def table(seed: int, rows: int = 400, gap: float = 3.0) -> pa.Table:
    """Two features, three classes that overlap a little."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, rows)
    angle = 2 * np.pi * y / 3
    values = gap * np.column_stack([np.cos(angle), np.sin(angle)]) + rng.normal(size=(rows, 2))
    ids = pa.array([f"{seed}-{i}" for i in range(rows)])
    labels = pa.array(np.array(["x", "y", "z"])[y])
    return pa.table({"a": values[:, 0], "b": values[:, 1], "y": labels, "row_id": ids})


def relabelled(given: pa.Table, labels: object) -> pa.Table:
    return given.set_column(given.column_names.index("y"), "y", pa.array(labels))


def batch(given: Dataset) -> Batch:
    return next(given.batches())


# ---------------------------------------------------------------- the mixture


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.25])
@pytest.mark.parametrize("k", [2, 4])
def test_the_mixture_recovers_temperature_and_rate_of_flips(
    temperature: float, rate: float, k: int
) -> None:
    found = [fit_mixture(*simulated(s, 6000, k, temperature, rate)) for s in range(3)]
    temperatures, rates = np.array(found).T
    assert temperatures.mean() == pytest.approx(temperature, rel=0.25)
    # Zero where that is not ruled out, else the upper end of an interval.
    told = rates[rates > 0]
    assert (told > 0.8 * rate).all()
    assert rates.max() < rate + 0.05
    assert len(told) == 3 or rate < 0.1


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.1])
def test_the_rate_is_the_upper_end_of_its_likelihood_or_zero(rate: float) -> None:
    """Against a grid of the whole likelihood."""
    P, y = simulated(5, 1500, 3, 1.3, rate)
    rates = np.append(0.0, 1 / (1 + np.exp(-np.linspace(-9, -0.4, 400))))
    given = [sharpen(P, t)[np.arange(len(y)), y] for t in np.exp(np.linspace(-1.5, 3, 120))]
    log_likelihood = np.array(
        [[np.log((1 - r) * g + r * (1 - g) / 2).sum() for g in given] for r in rates]
    )
    profile = log_likelihood.max(axis=1)
    if profile.max() - profile[0] < 0.5:
        assert fit_mixture(P, y)[1] == 0.0
    else:
        inside = rates[profile >= profile.max() - 0.5]
        assert fit_mixture(P, y)[1] == pytest.approx(inside.max(), rel=0.08)


def test_clean_labels_show_hardly_any_flips() -> None:
    P, y = simulated(1, 6000, 3, 1.0, 0.0)
    assert fit_mixture(P, y)[1] < 0.01


def test_labels_that_are_as_doubtful_as_the_models_say_show_no_flips() -> None:
    """A few hundred rows whose classes overlap: their doubt must not be called noise."""
    found = [fit_mixture(*simulated(seed, 400, 2, 1.5, 0.0))[1] for seed in range(20)]
    assert sum(rate > 0 for rate in found) <= 7


@pytest.mark.parametrize("rate", [0.1, 0.2])
def test_where_nobody_vouches_a_rate_is_believed_that_the_data_say_beyond_doubt(
    rate: float,
) -> None:
    many, few = simulated(3, 6000, 3, 0.3, rate), simulated(3, 12, 3, 0.3, rate)
    assert fit_mixture(*many, alone=True) == fit_mixture(*many)
    assert fit_mixture(*many)[1] > 0
    assert fit_mixture(*few, alone=True)[1] == 0.0


def test_where_nobody_vouches_overlap_that_looks_like_a_third_of_the_labels_is_no_noise() -> None:
    """Models that are sure of rows whose classes hardly differ."""
    P, y = simulated(4, 6000, 2, 0.5, 0.35)
    assert fit_mixture(P, y)[1] > 0.3
    temperature, rate = fit_mixture(P, y, alone=True)
    assert rate == 0.0
    assert temperature > 1.0  # what is no noise is doubt


def test_where_nobody_vouches_models_that_know_few_of_the_rows_tell_no_noise() -> None:
    P, y = simulated(9, 6000, 6, 3.0, 0.15)
    noise = fit_mixture(P, y)
    assert noise[1] > 0
    assert sharpen(P, noise[0]).max(axis=1).mean() < 0.7
    assert fit_mixture(P, y, alone=True)[1] == 0.0


def test_the_temperatures_that_labels_allow_are_those_hardly_less_likely_than_the_best() -> None:
    """Against a grid of the whole likelihood."""
    P, y = simulated(6, 150, 3, 1.3, 0.0)
    logs = np.linspace(-3.0, 1.5, 901)
    given = [sharpen(P, t)[np.arange(len(y)), y] for t in np.exp(logs)]
    likelihood = np.array([np.log(g).sum() for g in given])
    inside = np.exp(logs[likelihood >= likelihood.max() - 2.0])
    told = temperatures(P, y)
    assert told.likeliest == pytest.approx(np.exp(logs[likelihood.argmax()]), rel=0.03)
    assert told.log_likelihood == pytest.approx(likelihood.max(), abs=0.01)
    # The edges are sought from the inside, to a twentieth of the logarithm.
    assert inside[0] - 0.01 <= told.low <= inside[0] * 1.06
    assert inside[-1] / 1.06 <= told.high <= inside[-1] + 0.01


def test_labels_that_are_all_as_expected_allow_every_lower_temperature() -> None:
    P, _ = simulated(7, 100, 3, 1.0, 0.0)
    told = temperatures(P, P.argmax(axis=1))
    assert told.low < 0.06
    assert told.likeliest < 0.2


def test_vouched_labels_join_the_mixture_and_are_never_noise() -> None:
    """They tell the temperature; doubt beyond it in the others is noise then."""
    P, y = simulated(8, 600, 2, 1.5, 0.2)
    vouched = simulated(9, 4_000, 2, 1.5, 0.0)
    temperature, rate = fit_mixture(P, y, vouched)
    assert temperature == pytest.approx(1.5, rel=0.1)
    assert 0.15 < rate < 0.3


def test_sharpening_is_powers_that_sum_to_one() -> None:
    P = np.random.default_rng(0).dirichlet(np.ones(4), size=50)
    for temperature in (0.3, 1.0, 2.5):
        powers = (P + 1e-4) ** (1 / temperature)
        assert sharpen(P, temperature) == pytest.approx(powers / powers.sum(1, keepdims=True))
    certain = np.eye(3)
    assert np.isfinite(sharpen(certain, 0.05)).all()
    assert np.array_equal(sharpen(P, 0.5).argmax(1), P.argmax(1))


# ---------------------------------------------------------------- the null


def test_the_null_is_what_labels_drawn_from_the_probabilities_score() -> None:
    P = np.random.default_rng(0).dirichlet(np.full(3, 0.3), size=300)
    rng = np.random.default_rng(1)
    drawn = (rng.random((2000, 300, 1)) > P.cumsum(axis=1)).sum(axis=2).clip(0, 2)
    scores = -np.log10(P[np.arange(300), drawn]).ravel()
    null = label_null(P)
    for line in (0.05, 0.3, 0.7, 1.0, 1.5, 2.0, 3.0):
        expected = (scores >= line).mean()
        a_step_below = (scores >= line - 0.0101).mean()  # the grid is this fine
        noise = 4 * np.sqrt(expected / len(scores)) + 1e-6
        found = float(null.p_value(np.array([line]))[0])
        assert expected - noise <= found <= a_step_below + noise


def test_p_values_of_labels_fall_and_end_above_zero() -> None:
    null = label_null(np.random.default_rng(0).dirichlet(np.ones(3), size=100))
    p = null.p_value(np.linspace(-1, 13, 500))
    assert np.all(np.diff(p) <= 0)
    assert p[0] == 1.0
    assert 0 < p[-1] < 1e-6


# ---------------------------------------------------------------- out of fold


@cache
def fitted() -> tuple[Dataset, LabelScorer]:
    given = Dataset.from_table(table(0), ROLES)
    return given, FAST.fit(given)


@pytest.mark.parametrize("row", [3, 200])
def test_a_rows_own_label_never_moves_its_own_probabilities(row: int) -> None:
    given, before = fitted()
    labels = given.shards[0].read().column("y").to_pylist()
    labels[row] = {"x": "y", "y": "z", "z": "x"}[labels[row]]
    changed = replace(given, shards=(MemoryShard(relabelled(table(0), labels)),))
    after = FAST.fit(changed)
    one = before.probabilities(batch(given))
    two = after.probabilities(batch(changed))
    fold = batch(given).buckets(5, "labels/fold")
    same = fold == fold[row]
    assert np.array_equal(one[same], two[same])  # nor those of any row of its fold
    assert not np.array_equal(one[~same], two[~same])


def test_probabilities_are_shares_and_the_same_for_every_row_alone() -> None:
    given, scorer = fitted()
    rows = batch(given)
    P = scorer.probabilities(rows)
    assert pytest.approx(1.0) == P.sum(axis=1)
    assert (P >= 0).all()
    for i in (0, 7, 399):
        assert scorer.probabilities(rows.take(np.array([i])))[0] == pytest.approx(P[i], abs=1e-12)


def test_a_score_is_minus_log10_of_the_labels_chance() -> None:
    given, scorer = fitted()
    rows = batch(given)
    P = sharpen(scorer.probabilities(rows), scorer.temperature)
    codes = [scorer.classes.index(str(v)) for v in rows.labels]
    chance = P[np.arange(len(rows)), codes]
    assert scorer.score(rows) == pytest.approx(-np.log10(chance), abs=1e-4)
    best = [scorer.classes[i] for i in P.argmax(axis=1)]
    assert list(scorer.hint(rows)) == best


# ---------------------------------------------------------------- labels of every kind


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2, 3], pa.int64()),
        ([0.5, 1.5, 2.5], pa.float64()),
        ([True, False, True], pa.bool_()),
        (["x", "y", "z"], pa.large_string()),
        (["x", "y", "z"], pa.dictionary(pa.int8(), pa.string())),
    ],
    ids=str,
)
def test_labels_of_every_type_are_judged(values: list[object], kind: pa.DataType) -> None:
    words = table(1).column("y").to_pylist()
    labels = [values["xyz".index(w)] for w in words]
    flips = np.arange(len(labels)) % 25 == 0
    moved = [
        values[("xyz".index(w) + 1) % 3] if f else v
        for w, v, f in zip(words, labels, flips, strict=True)
    ]
    given = Dataset.from_table(relabelled(table(1), pa.array(moved, kind)), ROLES)
    scores = FAST.fit(given).score(batch(given))
    wrong = np.array([m != v for m, v in zip(moved, labels, strict=True)])
    assert np.isfinite(scores).all()
    assert np.median(scores[wrong]) > np.quantile(scores[~wrong], 0.95)


def test_rare_classes_and_missing_labels_are_abstained_from() -> None:
    labels = table(2).column("y").to_pylist()
    labels[: CLASS_LEAST - 1] = ["rare"] * (CLASS_LEAST - 1)
    labels[50 : 50 + CLASS_LEAST] = ["few"] * CLASS_LEAST
    labels[100] = None
    given = Dataset.from_table(relabelled(table(2), labels), ROLES)
    scorer = FAST.fit(given)
    assert scorer.classes == ("few", "x", "y", "z")
    expected = [label in (None, "rare") for label in labels]
    assert np.isnan(scorer.score(batch(given))).tolist() == expected


@pytest.mark.parametrize("labels", [["x"] * 400, [None] * 400, [f"c{i}" for i in range(400)]])
def test_fewer_than_two_classes_are_abstained_from(labels: list[str | None]) -> None:
    given = Dataset.from_table(relabelled(table(0), pa.array(labels, pa.string())), ROLES)
    scorer = FAST.fit(given)
    assert np.isnan(scorer.score(batch(given))).all()
    assert scorer.null is None
    assert list(scorer.hint(batch(given))) == [None] * 400


# ---------------------------------------------------------------- trusted rows


def clustered_flips() -> tuple[Dataset, NDArray[np.bool_]]:
    """All rows of a region flipped together: models of the data believe them."""
    rows = table(3, 900)
    a, b = rows.column("a").to_numpy(), rows.column("b").to_numpy()
    labels = np.array(rows.column("y").to_pylist(), dtype=object)
    bad = (labels == "x") & (a > 3.3) & (b > -0.5)
    labels[bad] = "y"
    return Dataset.from_table(relabelled(rows, labels.tolist()), ROLES), bad


def test_trusted_rows_uncover_flips_that_agree_with_one_another() -> None:
    given, bad = clustered_flips()
    assert 60 < bad.sum() < 200
    trusted = Dataset.from_table(table(4, 300), ROLES)
    alone = FAST.fit(given).score(batch(given))
    helped_by = replace(given, trusted=trusted.shards)
    helped = FAST.fit(helped_by).score(batch(helped_by))
    line = -np.log10(0.05)
    assert np.mean(alone[bad] > line) < 0.4
    assert np.mean(helped[bad] > line) > 0.8
    assert np.mean(helped[~bad] > line) < 0.06


def flipped_at_random(seed: int, rows: int = 1_200) -> tuple[pa.Table, NDArray[np.bool_]]:
    """Classes that overlap, a tenth of the labels flipped."""
    given, rng = table(seed, rows, gap=2.0), np.random.default_rng(seed)
    bad = np.zeros(rows, dtype=bool)
    bad[rng.choice(rows, rows // 10, replace=False)] = True
    turned = [
        {"x": "yz", "y": "xz", "z": "xy"}[v][rng.integers(2)] if flipped else v
        for v, flipped in zip(given.column("y").to_pylist(), bad, strict=True)
    ]
    return relabelled(given, turned), bad


def quarantined(rows: pa.Table, trusted: pa.Table | None) -> NDArray[np.bool_]:
    """The rows over the default line."""
    vouched = () if trusted is None else (MemoryShard(trusted),)
    data = Dataset((MemoryShard(rows),), ROLES, b"salt", vouched)
    evidence = examine_batch("labels", FAST.fit(data), batch(data))
    scores, p_values = (evidence.column(c).to_numpy() for c in ("score", "p_value"))
    summary = ScoreSummary(len(scores))
    summary.add(scores, p_values, batch(data).keys)
    cut = draw("labels", Policy().rule("labels", trusted=trusted is not None), summary).quarantine
    assert cut is not None
    return np.asarray(scores > cut)


def rightness(rows: pa.Table) -> NDArray[np.float64]:
    """How far inside its own class each row lies."""
    angle = 2 * np.pi * np.array(["xyz".index(v) for v in rows.column("y").to_pylist()]) / 3
    a, b = rows.column("a").to_numpy(), rows.column("b").to_numpy()
    return np.asarray(a * np.cos(angle) + b * np.sin(angle))


def confused(went: str, rows: int = 1_500) -> tuple[pa.Table, NDArray[np.bool_]]:
    """Five classes on a ring; each goes over into the next, or one into another."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, rows)
    angle = 2 * np.pi * true / 5
    values = 4 * np.column_stack([np.cos(angle), np.sin(angle)]) + rng.normal(size=(rows, 2))
    bad = rng.random(rows) < (0.1 if went == "to the next" else 0.3 * (true == 1))
    given = np.where(bad, (true + 1) % 5 if went == "to the next" else 3, true)
    ids = pa.array([f"row-{i}" for i in range(rows)])
    labels = pa.array(given.astype(str))
    return pa.table({"a": values[:, 0], "b": values[:, 1], "y": labels, "row_id": ids}), bad


@pytest.mark.parametrize("went", ["to the next", "to one"])
def test_flips_from_class_to_class_are_found_without_trusted_rows(went: str) -> None:
    rows, bad = confused(went)
    over = quarantined(rows, None)
    assert over[bad].mean() >= 0.75
    assert over[~bad].mean() <= 0.005


def test_trusted_rows_do_not_lower_recall_and_cost_hardly_a_clean_row() -> None:
    found: dict[int, list[float]] = {0: [], 150: [], 300: []}
    for seed in range(2):
        rows, bad = flipped_at_random(seed)
        vouched = table(100 + seed, 300, gap=2.0)
        for count, shares in found.items():
            over = quarantined(rows, vouched.slice(0, count) if count else None)
            shares.append(float(over[bad].mean()))
            assert over[~bad].mean() <= 0.01
    assert np.mean(found[150]) >= np.mean(found[0]) > 0.3
    assert np.mean(found[300]) >= np.mean(found[0])


def test_trusted_rows_without_a_doubtful_one_do_not_make_clean_rows_suspect() -> None:
    """A person vouches for what is plain: the models' doubt of the others stays doubt."""
    pool = table(200, 2_000, gap=2.0)
    plain = pool.take(pa.array(np.argsort(-rightness(pool), kind="stable")[:150]))
    assert quarantined(table(0, 1_200, gap=2.0), plain).mean() <= 0.01


def test_trusted_rows_chosen_near_the_boundary_do_not_hide_flips() -> None:
    """No random sample: what they cost is bounded, and is more than the promise, 1 %."""
    rows, bad = flipped_at_random(0)
    pool = table(201, 2_000, gap=2.0)
    near = pool.take(pa.array(np.argsort(rightness(pool), kind="stable")[300:450]))
    over = quarantined(rows, near)
    assert over[bad].mean() >= quarantined(rows, None)[bad].mean()
    assert over[~bad].mean() <= 0.02


def test_trusted_rows_of_one_class_do_not_make_the_others_suspect() -> None:
    """As where people have looked at what was held, and kept it: odd rows, most of one class."""
    pool = table(202, 6_000, gap=2.0)
    odd = np.argsort(rightness(pool), kind="stable")
    mine = np.array(pool.column("y").to_pylist())[odd] == "x"
    kept = pool.take(pa.array(np.concatenate([odd[mine][:140], odd[~mine][:10]])))
    assert quarantined(table(0, 1_200, gap=2.0), kept).mean() <= 0.01


def test_too_few_trusted_rows_change_nothing() -> None:
    given, before = fitted()
    trusted = Dataset.from_table(table(4, TRUSTED_LEAST - 1), ROLES)
    with_few = replace(given, trusted=trusted.shards)
    after = FAST.fit(with_few)
    assert np.array_equal(before.score(batch(given)), after.score(batch(given)))


# ---------------------------------------------------------------- settings and words


@pytest.mark.parametrize("settings", [{"folds": 1}, {"rows": 0}, {"trees": 0}])
def test_settings_that_cannot_work_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(PlanError, match=r"labels: folds=\d, .*; expected folds >= 2, rows >= 1"):
        Labels(**settings)


def test_a_reason_says_the_chance_and_the_other_class() -> None:
    assert Labels().reason(3.0, "spam") == (
        "models of the other rows give its label a chance of 0.001, and would say 'spam'"
    )
    assert Labels().reason(0.0, None) == ("models of the other rows give its label a chance of 1")


def test_labels_that_are_vouched_for_carry_no_noise() -> None:
    rng = np.random.default_rng(3)
    P = rng.dirichlet([0.6, 0.6, 0.6], 4_000)
    y = np.array([rng.choice(3, p=row) for row in P])
    told = temperatures(P, y)
    assert told.likeliest == pytest.approx(1.0, abs=0.1)
    assert fit_mixture(P, y)[0] <= told.likeliest + 0.02


def test_what_is_rare_among_clean_rows_is_not_made_to_look_wrong() -> None:
    """Labels that trusted rows cannot explain, as rarely among them as among the others."""
    given = table(5, rows=1_200, gap=4.0)
    rng = np.random.default_rng(0)
    labels = np.array(given.column("y").to_pylist(), dtype=object)
    far = np.argsort(given.column("a").to_numpy())[-36:]
    labels[far] = "z"
    clean = relabelled(given, labels.tolist())
    order = rng.permutation(len(labels))
    trusted, rows = clean.take(pa.array(order[:200])), clean.take(pa.array(order[200:]))
    data = Dataset((MemoryShard(rows),), ROLES, b"salt", (MemoryShard(trusted),))
    scorer = FAST.fit(data)
    rare = np.isin(order[200:], far)
    alone = FAST.fit(Dataset((MemoryShard(rows),), ROLES, b"salt"))
    assert np.median(scorer.score(batch(data))[rare]) <= (
        np.median(alone.score(batch(data))[rare]) + 0.3
    )


def test_flips_far_from_the_boundary_are_found_with_trusted_rows_and_not_without() -> None:
    given = table(6, rows=1_500, gap=4.0)
    labels = np.array(given.column("y").to_pylist(), dtype=object)
    distance = np.hypot(given.column("a").to_numpy(), given.column("b").to_numpy())
    trusted = np.zeros(len(labels), dtype=bool)
    trusted[np.random.default_rng(0).permutation(len(labels))[:200]] = True
    flipped = np.zeros(len(labels), dtype=bool)
    flipped[[i for i in np.argsort(-distance) if labels[i] == "x" and not trusted[i]][:130]] = True
    labels[flipped] = "y"
    poisoned = relabelled(given, labels.tolist())
    rows = poisoned.filter(pa.array(~trusted))
    shards = (MemoryShard(rows),), (MemoryShard(poisoned.filter(pa.array(trusted))),)
    found = []
    for vouched in (shards[1], ()):
        data = Dataset(shards[0], ROLES, b"salt", vouched)
        scorer = FAST.fit(data)
        assert scorer.null is not None
        p_values = scorer.null.p_value(scorer.score(batch(data)))
        found.append((p_values <= 0.004)[flipped[~trusted]].mean())
    assert found[0] > 0.9
    assert found[1] < 0.5
