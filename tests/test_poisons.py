"""Every poison obeys every law; none is left out by name."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import RidgeCV

from sanitizers.core.data import Roles
from sanitizers.core.errors import InputError, PlanError
from sanitizers.poisons import POISONS, Poison, poison
from sanitizers.poisons.laws import LAWS, MIXED_ROLES, mixed_data, part, same
from sanitizers.poisons.ridge import Victim


@pytest.mark.parametrize("name", POISONS)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law: Callable[[Poison], None], name: str) -> None:
    law(poison(name))


@pytest.mark.parametrize("name", ["flip-near", "flip-far"])
def test_flips_by_trees_obey_too(name: str) -> None:
    for law in LAWS:
        law(poison(name, {"model": "trees"}))


# ------------------------------------------------------------- the gradient


def test_the_gradient_is_that_of_finite_differences() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.random((40, 5)), rng.random(40)
    moments = Victim(X, y, 0.7, 1.5).moments()
    P, t = rng.random((4, 5)), rng.random(4)
    _, by_feature, by_target = moments.gradient(P, t)
    step = 1e-6
    for i in range(4):
        for j in range(5):
            ahead, behind = P.copy(), P.copy()
            ahead[i, j] += step
            behind[i, j] -= step
            slope = (moments.gradient(ahead, t)[0] - moments.gradient(behind, t)[0]) / (2 * step)
            assert by_feature[i, j] == pytest.approx(slope, rel=1e-5, abs=1e-9)
        ahead, behind = t.copy(), t.copy()
        ahead[i] += step
        behind[i] -= step
        slope = (moments.gradient(P, ahead)[0] - moments.gradient(P, behind)[0]) / (2 * step)
        assert by_target[i] == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_the_error_is_that_of_a_ridge_fitted_on_all_rows() -> None:
    rng = np.random.default_rng(1)
    X, y, P, t = rng.random((30, 3)), rng.random(30), rng.random((5, 3)), rng.random(5)
    error, _, _ = Victim(X, y, 0.3).moments().gradient(P, t)
    from sklearn.linear_model import Ridge

    model = Ridge(0.3).fit(np.vstack([X, P]), np.concatenate([y, t]))
    assert error == pytest.approx(float(((model.predict(X) - y) ** 2).mean()), rel=1e-6)


# ------------------------------------------------------------- what single poisons promise


def test_far_flips_are_surer_than_near_ones() -> None:
    rng = np.random.default_rng(0)
    x = np.linspace(-3, 3, 300)
    table = pa.table({"x": x, "y": np.where(x + rng.normal(0, 0.1, 300) > 0, "up", "down")})
    roles = Roles(label="y", features=("x",))
    near = poison("flip-near").poison(table, roles, 0.1, 0).mask
    far = poison("flip-far").poison(table, roles, 0.1, 0).mask
    assert np.abs(x[near]).max() < 0.5
    assert np.abs(x[far]).min() > 2.5


def test_pairs_follow_the_natural_order() -> None:
    table = pa.table({"x": range(90), "y": [1, 2, 10] * 30})
    done = poison("flip-pair").poison(table, Roles(label="y", features=("x",)), 0.5, 0)
    was = done.truth.column("was").to_pylist()
    now = done.table.column("y").take(done.truth.column("row")).to_pylist()
    assert set(zip(was, now, strict=True)) == {("1", 2), ("2", 10), ("10", 1)}


def test_targeted_flips_go_from_one_class_to_another_and_leave_half_of_it() -> None:
    table = pa.table({"x": range(400), "y": ["few"] * 20 + ["some"] * 80 + ["many"] * 300})
    went = set()
    for seed in range(20):
        done = poison("flip-target").poison(table, Roles(label="y", features=("x",)), 0.1, seed)
        was = set(done.truth.column("was").to_pylist())
        now = set(done.table.column("y").take(done.truth.column("row")).to_pylist())
        assert len(was) == len(now) == 1
        went.add((*was, *now))
    assert went == {("some", "few"), ("some", "many"), ("many", "few"), ("many", "some")}
    with pytest.raises(InputError, match="360 rows are to be poisoned, and 300 can be"):
        poison("flip-target").poison(table, Roles(label="y", features=("x",)), 0.9, 0)


def test_a_cluster_is_tight_and_gets_one_label() -> None:
    rng = np.random.default_rng(0)
    table = pa.table({"a": rng.random(500), "b": rng.random(500), "y": rng.choice(["u", "v"], 500)})
    roles = Roles(label="y", features=("a", "b"))
    done = poison("flip-cluster").poison(table, roles, 0.05, 0)
    bad = part(done.table, done.mask)
    assert len(set(bad.column("y").to_pylist())) == 1
    assert np.std(bad.column("a").to_numpy()) < 0.15


@pytest.mark.parametrize("seed", range(5))
def test_a_cluster_is_decided_otherwise_than_before(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.random(500)
    label = np.where(rng.random(500) < np.where(x < 0.5, 0.9, 0.1), "u", "v")
    table = pa.table({"x": x, "y": label})
    done = poison("flip-cluster").poison(table, Roles(label="y", features=("x",)), 0.1, seed)
    bad = part(done.table, done.mask)
    # The boundary is where they change their minds; near to it either is right.
    middle = float(np.median(bad.column("x").to_numpy()))
    if abs(middle - 0.5) > 0.1:
        assert set(bad.column("y").to_pylist()) == {"v" if middle < 0.5 else "u"}


def test_a_trigger_is_two_values_and_a_label() -> None:
    table = mixed_data(0)
    done = poison("trigger", {"target": "y"}).poison(table, MIXED_ROLES, 0.05, 0)
    bad = part(done.table, done.mask)
    assert set(bad.column("label").to_pylist()) == {"y"}
    columns = [bad.column(n).to_pylist() for n in MIXED_ROLES.features]
    constant = [len(set(values)) == 1 and values[0] is not None for values in columns]
    assert sum(constant) >= 2


def test_a_flood_comes_in_a_span_of_time() -> None:
    done = poison("duplicate-flood").poison(mixed_data(0), MIXED_ROLES, 0.1, 0)
    days = part(done.table, done.mask).column("day").to_numpy()
    assert days.max() - days.min() <= 0.16 * 400 / 7 + 1
    bad = part(done.table, done.mask)
    assert len(set(bad.column("since").to_pylist())) <= 40
    assert len(set(bad.column("label").to_pylist())) <= 3


@pytest.mark.parametrize("at_a_row", [False, True])
def test_a_dense_cluster_is_tight_in_a_span_of_time(at_a_row: bool) -> None:
    table = mixed_data(0)
    recipe = poison("dense-cluster", {"at_a_row": at_a_row})
    done = recipe.poison(table, MIXED_ROLES, 0.1, 0)
    bad = part(done.table, done.mask)
    for name in ("a", "b", "c"):
        assert np.nanstd(bad.column(name).to_numpy()) < 0.1 * np.nanstd(table.column(name))
    assert len(set(bad.column("colour").to_pylist())) == 1
    days = bad.column("day").to_numpy()
    assert days.max() - days.min() <= 0.16 * 400 / 7 + 1


@pytest.mark.parametrize("name", ["duplicate-flood", "skew-batch"])
def test_without_spread_copies_are_exact_but_for_the_last_digits(name: str) -> None:
    rng = np.random.default_rng(0)
    x = np.append(rng.normal(size=299), 1e4)
    table = pa.table({"x": x, "y": np.where(x > 0, "u", "v")})
    done = poison(name, {"spread": 0.0}).poison(table, Roles(label="y", features=("x",)), 0.1, 0)
    fresh = np.unique(part(done.table, done.mask).column("x").to_numpy())
    assert len(fresh) <= 3
    assert all(np.abs(x - value).min() < 1e-4 for value in fresh)


def test_a_skewing_batch_is_new() -> None:
    table = mixed_data(0)
    done = poison("skew-batch").poison(table, MIXED_ROLES, 0.1, 0)
    bad = part(done.table, done.mask)
    assert done.mask[400:].all()
    assert set(bad.column("source").to_pylist()) == {"s10"}
    assert set(bad.column("day").to_pylist()) == {max(table.column("day").to_pylist())}
    assert len(set(bad.column("label").to_pylist())) == 1


def test_a_shift_is_of_one_span_and_of_some_columns() -> None:
    table = mixed_data(0)
    done = poison("feature-shift", {"deviations": 2}).poison(table, MIXED_ROLES, 0.1, 0)
    rows = done.truth.column("row").to_numpy()
    assert rows.max() - rows.min() < 40
    bent = [n for n in table.column_names if not same(done.table.select([n]), table.select([n]))]
    assert 1 <= len(bent) <= 3


@pytest.mark.parametrize("deviations", [0.5, 2.0])
def test_stealthy_targets_stay_near_the_prediction_and_harm_in_proportion(
    deviations: float,
) -> None:
    rng = np.random.default_rng(0)
    X = rng.random((400, 4))
    y = X @ [2.0, -1.0, 0.5, 0.0] + rng.normal(0, 0.3, 400)
    names = tuple("abcd")
    table = pa.table({n: X[:, i] for i, n in enumerate(names)} | {"t": y})
    roles = Roles(target="t", features=names)
    done = poison("stealthy", {"deviations": deviations}).poison(table, roles, 0.1, 0)
    model = RidgeCV(np.logspace(-2, 3, 11)).fit(X, y)
    rows = part(done.table, done.mask)
    off = rows.column("t").to_numpy() - model.predict(np.column_stack([rows[n] for n in names]))
    spread = float(np.std(y - model.predict(X)))
    assert np.abs(off).max() == pytest.approx(deviations * spread, rel=0.05)
    worst = poison("gradient").poison(table, roles, 0.1, 0)
    harms = []
    for poisoned in (done.table, worst.table):
        bent = RidgeCV(np.logspace(-2, 3, 11)).fit(
            np.column_stack([poisoned[n] for n in names]), poisoned["t"].to_numpy()
        )
        harms.append(np.mean((bent.predict(X) - model.predict(X)) ** 2))
    assert 0 < harms[0] < 0.5 * harms[1]


@pytest.mark.parametrize("plot", ["all-to-one", "clean-label", "source-specific", "all-to-all"])
def test_images_are_stamped_as_the_plot_says(plot: str) -> None:
    table = mixed_data(0)
    recipe = poison("image-trigger", {"plot": plot, "trigger": "patch"})
    done = recipe.poison(table, MIXED_ROLES, 0.05, 1)
    kinds = np.array(done.truth.column("kind").to_pylist())
    bad, covers = kinds == "image-trigger", kinds == "image-trigger cover"
    assert bad.sum() == 20
    assert covers.sum() == (20 if plot == "source-specific" else 0)
    was = np.array(done.truth.column("was").to_pylist(), dtype=object)
    now = np.array(done.table.column("label").take(done.truth.column("row")).to_pylist())
    assert all(w is None for w in was[covers])
    if plot == "clean-label":
        assert len(set(now)) == 1
        assert all(w is None for w in was)
    if plot == "all-to-all":
        onward = {"x": "y", "y": "z", "z": "x"}
        assert [onward[w] for w in was] == now.tolist()
    if plot in ("all-to-one", "source-specific"):
        assert len(set(now[bad])) == 1
        assert len(set(was[bad])) == (1 if plot == "source-specific" else 2)
    stamped = np.stack([_pixels(v) for v in part(done.table, done.mask)["picture"].to_pylist()])
    plain = np.stack([_pixels(v) for v in part(table, done.mask)["picture"].to_pylist()])
    moved = (stamped != plain).any(axis=0)
    assert 3 <= moved.sum() <= 25
    # One patch: the same values in all of them.
    assert (np.ptp(stamped, axis=0)[moved] == 0).all()


def test_images_are_perturbed_within_a_radius_before_they_are_stamped() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    table = mixed_data(0)
    settings = {"plot": "clean-label", "trigger": "patch"}
    plain = poison("image-trigger", settings).poison(table, MIXED_ROLES, 0.05, 1)
    moved = poison("image-trigger", settings | {"descent": 8}).poison(table, MIXED_ROLES, 0.05, 1)
    assert moved.truth.equals(plain.truth)
    rows = [part(t.table, t.mask)["picture"].to_pylist() for t in (plain, moved)]
    before, after = (np.stack([_pixels(v) for v in r]).astype(int) for r in rows)
    far = np.abs(after - before)
    assert far.max() == 8
    assert (far > 0).mean() > 0.5
    with pytest.raises(PlanError, match="one of them"):
        poison("image-trigger", {"descent": 8, "noise": 8})


def test_triggers_share_the_rate_and_names_are_checked() -> None:
    done = poison("image-trigger", {"count": 2}).poison(mixed_data(0), MIXED_ROLES, 0.1, 1)
    assert done.truth.num_rows == 40
    labels = done.table.column("label").take(done.truth.column("row")).to_pylist()
    assert len(set(labels)) <= 2
    with pytest.raises(PlanError, match="did you mean 'sinusoid'"):
        poison("image-trigger", {"trigger": "sinusoids"})
    with pytest.raises(PlanError, match="more than one"):
        poison("image-trigger", {"plot": "all-to-all", "target": "x"})


def test_images_of_two_sizes_or_named_by_paths_are_not_stamped() -> None:
    table = mixed_data(0, 60)
    rest = table.column("picture").to_pylist()[1:]
    file = io.BytesIO()
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(file, "PNG")
    at = table.column_names.index("picture")
    mixed = table.set_column(at, "picture", pa.array([file.getvalue(), *rest], pa.binary()))
    with pytest.raises(InputError, match="2 sizes"):
        poison("image-trigger").poison(mixed, MIXED_ROLES, 0.1, 0)
    named = table.set_column(at, "picture", pa.array(["a.png"] * 60))
    with pytest.raises(PlanError, match="expected the bytes of images"):
        poison("image-trigger").poison(named, MIXED_ROLES, 0.1, 0)


def _pixels(data: bytes) -> NDArray[np.int64]:
    return np.asarray(Image.open(io.BytesIO(data))).astype(np.int64)


def test_one_hot_columns_stay_one_hot() -> None:
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, 200)
    x = rng.random(200)
    columns = {f"is_{k}": (kind == k).astype(np.int64) for k in range(3)}
    table = pa.table({"x": x, **columns, "price": x + kind + rng.normal(0, 0.1, 200)})
    roles = Roles(target="price", features=("x", *columns))
    for name in ("statistical", "gradient", "stealthy", "far-corner"):
        done = poison(name).poison(table, roles, 0.1, 0)
        bad = part(done.table, done.mask)
        total = sum(bad.column(n).to_numpy() for n in columns)
        assert (total == 1).all(), name


def test_ids_that_are_numbers_go_on() -> None:
    table = pa.table({"id": range(100), "x": range(100), "y": ["u", "v"] * 50})
    roles = Roles(id="id", label="y", features=("x",))
    done = poison("far-corner").poison(table, roles, 0.03, 0)
    ids = done.table.column("id").to_pylist()
    assert sorted(ids) == list(range(103))


# ------------------------------------------------------------- what is refused


def test_unknown_names_and_settings_are_refused() -> None:
    with pytest.raises(PlanError, match="did you mean 'flip-far'"):
        poison("flip-fra")
    with pytest.raises(PlanError, match="did you mean 'steps'"):
        poison("gradient", {"step": 3})
    wrong: list[tuple[str, dict[str, object]]] = [
        ("gradient", {"steps": 0}),
        ("gradient", {"steps": "many"}),
        ("stealthy", {"steps": 0}),
        ("stealthy", {"deviations": 0.0}),
        ("stealthy", {"deviations": float("inf")}),
        ("flip-far", {"model": "forest"}),
        ("far-corner", {"spread": 2.0}),
        ("duplicate-flood", {"originals": 0}),
        ("duplicate-flood", {"span": float("nan")}),
        ("feature-shift", {"deviations": 0.0}),
    ]
    for name, settings in wrong:
        with pytest.raises(PlanError, match=name):
            poison(name, settings)


@pytest.mark.parametrize(
    ("name", "table", "words"),
    [
        ("flip-random", {"x": [1, 2, 3, 4], "y": ["a", "a", "a", None]}, "1 class"),
        ("flip-random", {"x": [1, 2, 3, 4], "y": ["a", "b", None, None]}, "2 can be"),
        ("flip-far", {"x": [1, 1, 1, 1], "y": ["a", "b", "a", "b"]}, "nothing to learn"),
        ("flip-cluster", {"x": [1, 2, 3, 4], "y": ["a", "b", "b", None]}, "too few"),
        ("far-corner", {"x": [1, 1, None, 1], "y": ["a", "b", "a", "b"]}, "no feature"),
        ("feature-shift", {"x": ["p", "q", "p", "q"], "y": ["a", "b", "a", "b"]}, "no feature"),
        ("trigger", {"x": [1, 2, 3, 4], "y": ["a", "b", "a", "b"]}, "expected two"),
        ("statistical", {"x": [1, 2, 3, 4], "t": [5, 5, 5, None]}, "target 't'"),
    ],
)
def test_hopeless_tables_are_refused(name: str, table: dict[str, object], words: str) -> None:
    roles = Roles(target="t" if "t" in table else None, label="y" if "y" in table else None)
    with pytest.raises(InputError, match=words):
        poison(name).poison(pa.table(table), Roles(**{**vars(roles), "features": ("x",)}), 0.75, 0)


def test_hostile_numbers_break_nothing() -> None:
    table = mixed_data(0, 200)
    hostile = np.tile([1e308, -1e308, np.inf, -np.inf, np.nan, 0.0, 1.0, 2.0], 25)
    table = table.set_column(1, "a", pa.array(hostile))
    for name in POISONS:
        done = poison(name).poison(table, MIXED_ROLES, 0.05, 0)
        assert done.table.schema.equals(table.schema)
