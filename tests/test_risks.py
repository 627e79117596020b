"""Findings about columns and batches: laws, formulas, and each family on what was planted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score

from sanitizers.core.contents import content_hashes
from sanitizers.core.data import Dataset, MemoryShard, Roles
from sanitizers.core.errors import PlanError
from sanitizers.risks import ALARM, NOTE, RISKS, WARNING, Finding, RiskSettings, examine_risks
from sanitizers.risks.measures import auc, auc_variance, binned, chi2, ks, psi
from sanitizers.risks.suppliers import robust_scores

FEATURES = ("x0", "x1", "x2", "x3", "c")
ROLES = Roles(label="label", source="source", time="t", features=FEATURES)
Columns = dict[str, NDArray[np.generic] | list[str]]
Plant = Callable[[Columns, np.random.Generator], None]


def clean(rows: int, seed: int, name: str = "row") -> Columns:
    """Independent rows of which every part is alike."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, 4))
    X[:, 1] = 0.8 * X[:, 0] + 0.6 * X[:, 1]
    answer = X[:, 0] + X[:, 2] + rng.logistic(size=rows) > 0
    return {
        **{f"x{i}": X[:, i] for i in range(4)},
        "c": np.array(["a", "b", "c"])[rng.integers(0, 3, rows)],
        "label": np.where(answer, "yes", "no"),
        "source": np.array([f"s{i}" for i in rng.integers(0, 8, rows)]),
        "t": rng.permutation(rows),
        "row_id": [f"{name}-{i}" for i in range(rows)],
    }


def data(columns: Columns, roles: Roles = ROLES) -> Dataset:
    return Dataset.from_table(pa.table(columns), roles, salt=b"risks")


def found(columns: Columns, *use: str, roles: Roles = ROLES) -> tuple[Finding, ...]:
    return examine_risks(data(columns, roles), RiskSettings(use=use or RISKS))


# ------------------------------------------------------------------ laws


def disturbed() -> Columns:
    """A table in which many families find something."""
    columns, rng = clean(1_200, 3), np.random.default_rng(4)
    label = np.asarray(columns["label"])
    columns["x3"] = np.where(label == "yes", 1.0, 0.0) + 0.01 * rng.normal(size=1_200)
    late = np.asarray(columns["t"]) >= 600
    columns["x2"] = np.asarray(columns["x2"]) + 1.0 * late
    return columns


def test_the_order_of_rows_and_shards_changes_nothing() -> None:
    table = pa.table(disturbed())
    table = pa.concat_tables(
        [table, table.slice(0, 40).set_column(8, "row_id", [ids("again", 40)])]
    )
    label = pc.if_else(pc.equal(table.column("row_id"), "again-1"), "other", table.column("label"))
    table = table.set_column(table.column_names.index("label"), "label", label)
    whole = Dataset.from_table(table, ROLES, salt=b"s")
    mixed = table.take(np.random.default_rng(0).permutation(len(table)))
    shards = tuple(MemoryShard(mixed.slice(i, 100)) for i in range(0, len(mixed), 100))
    first, second = (examine_risks(d) for d in (whole, Dataset(shards, ROLES, b"s")))
    assert {f.risk for f in first} >= {"leakage", "shift", "duplicates", "conflicts"}
    assert first == second


def ids(name: str, rows: int) -> pa.Array:
    return pa.array([f"{name}-{i}" for i in range(rows)])


def test_clean_rows_give_no_alarm_and_no_warning() -> None:
    loud = []
    for seed in range(12):
        reference = data(clean(500, 1_000 + seed, "old"))
        told = examine_risks(data(clean(600, seed)), RiskSettings(), reference)
        loud += [f for f in told if f.severity != NOTE]
    assert not loud


@pytest.mark.parametrize("use", [r for r in RISKS if r != "shift"])
def test_fifty_clean_tables_are_calm(use: str) -> None:
    tables = [clean(400, seed) for seed in range(50)]
    assert not [f for t in tables for f in found(t, use) if f.severity != NOTE]


def test_findings_are_told_gravest_first_and_are_plain() -> None:
    told = found(disturbed())
    order = [ALARM, WARNING, NOTE]
    assert [f.severity for f in told] == sorted((f.severity for f in told), key=order.index)
    assert all(np.isfinite([f.value, f.line]).all() and f.message and f.subject for f in told)


@pytest.mark.parametrize(
    "columns",
    [
        {"x0": [1.0], "label": ["a"]},
        {"x0": [], "label": []},
        {"x0": [None] * 300, "label": ["a", "b"] * 150},
        {"x0": [np.nan, np.inf, -np.inf, 1e308] * 100, "label": ["a", None, "b", "\u202e"] * 100},
        {"x0": [1] * 300, "label": ["a"] * 300},
    ],
)
def test_hostile_tables_are_borne(columns: dict[str, list[object]]) -> None:
    roles = Roles(label="label", source="label", features=("x0",))
    examine_risks(Dataset.from_table(pa.table(columns), roles))


def test_a_risk_that_is_not_known_is_refused() -> None:
    with pytest.raises(PlanError, match=r"leak.*leakage"):
        RiskSettings(use=("leak",))


# ------------------------------------------------------------------ each family finds its own


def test_a_leak_is_an_alarm_and_a_noisy_leak_a_warning() -> None:
    columns, rng = clean(1_000, 0), np.random.default_rng(1)
    label = np.asarray(columns["label"])
    columns["x3"] = np.where(label == "yes", 1.0, 0.0)
    (alarm,) = found(columns, "leakage")
    assert (alarm.severity, alarm.subject, alarm.value) == (ALARM, "x3", 1.0)
    wrong = rng.random(1_000) < 0.04
    columns["x3"] = np.where((label == "yes") ^ wrong, 1.0, 0.0)
    (warning,) = found(columns, "leakage")
    assert (warning.severity, warning.subject) == (WARNING, "x3")


def test_a_leak_is_found_among_categories_classes_and_missing_values() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 6, 900).astype(str)
    x = rng.normal(size=900)
    roles = Roles(label="label", features=("x", "leak"))
    named = np.array([f"{rng.integers(0, 5)}-{v}" for v in label])
    columns: Columns = {"x": x, "label": label, "leak": named}
    assert [(f.severity, f.subject) for f in found(columns, "leakage", roles=roles)] == [
        (ALARM, "leak")
    ]
    gone: Columns = {
        "x": x,
        "label": (label == "0").astype(str),
        "leak": np.where(label == "0", np.nan, x),
    }
    assert [f.subject for f in found(gone, "leakage", roles=roles)] == ["leak"]


def test_a_leak_of_a_target_is_found() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(900, 2)), rng.normal(size=900)
    roles = Roles(target="y", features=("a", "b"))
    columns: Columns = {"a": X[:, 0] + y, "b": X[:, 1], "y": y}
    assert not found(columns, "leakage", roles=roles)
    (alarm,) = found({**columns, "b": np.exp(y)}, "leakage", roles=roles)
    assert (alarm.severity, alarm.subject, alarm.detail["measure"]) == (ALARM, "b", "R2")


def test_a_shifted_mean_is_found_in_its_column_and_its_batch() -> None:
    columns = clean(1_600, 0)
    late = np.asarray(columns["t"]) >= 800
    columns["x2"] = np.asarray(columns["x2"]) + 0.5 * late
    told = found(columns, "shift")
    assert {"x2", "the newest half"} <= {f.subject for f in told}
    # Within one dataset it is a note, and every column is told once.
    assert {f.severity for f in told} == {NOTE}
    assert len([f for f in told if f.subject == "x2"]) == 1
    new = data({**clean(800, 1, "new"), "x2": np.random.default_rng(5).normal(0.5, 1, 800)})
    against = examine_risks(new, RiskSettings(use=("shift",)), data(clean(800, 2)))
    (column,) = [f for f in against if f.subject == "x2"]
    assert column.severity == WARNING


def test_a_broken_correlation_is_found_by_the_classifier_alone() -> None:
    columns, rng = clean(1_600, 0), np.random.default_rng(1)
    late = np.asarray(columns["t"]) >= 800
    x1 = np.asarray(columns["x1"]).copy()
    x1[late] = rng.permutation(x1[late])
    (told,) = found({**columns, "x1": x1}, "shift")
    assert told.subject == "the newest half"
    assert "AUC" in told.message


def test_a_prior_shift_is_found_against_a_reference() -> None:
    columns = clean(3_000, 0)
    rng = np.random.default_rng(2)
    kept = (np.asarray(columns["label"]) == "yes") | (rng.random(3_000) < 1 / 3)
    few = {name: np.asarray(values)[kept] for name, values in columns.items()}
    reference = data(clean(1_000, 9, "old"))
    told = examine_risks(data(few), RiskSettings(use=("shift",)), reference)
    against = [f for f in told if f.detail["against"] == "the reference"]
    assert {"label", "the new rows"} <= {f.subject for f in against}


def test_rows_that_the_reference_has_are_not_new() -> None:
    columns = clean(1_000, 0)
    same = data(columns)
    assert not examine_risks(same, RiskSettings(use=("shift", "skewing")), same)


def test_a_crowd_in_a_new_batch_is_an_alarm() -> None:
    columns, rng = clean(1_000, 0), np.random.default_rng(1)
    crowd = rng.permutation(1_000)[:60]
    for name in ("x0", "x1", "x2", "x3"):
        column = np.asarray(columns[name]).copy()
        column[crowd] = 1.0 + 0.01 * rng.normal(size=60)
        columns[name] = column
    reference = data(clean(1_000, 9, "old"))
    (alarm,) = examine_risks(data(columns), RiskSettings(use=("skewing",)), reference)
    assert alarm.severity == ALARM
    assert alarm.value == pytest.approx(0.06, abs=0.02)


def test_a_bad_source_is_an_alarm_and_the_others_are_not() -> None:
    columns, rng = clean(2_000, 0), np.random.default_rng(1)
    bad = (np.asarray(columns["source"]) == "s3") & (rng.random(2_000) < 0.6)
    label = np.asarray(columns["label"])
    columns["label"] = np.where(bad, np.where(label == "yes", "no", "yes"), label)
    assert [(f.severity, f.subject) for f in found(columns, "suppliers")] == [(ALARM, "s3")]


def test_a_bad_source_of_targets_is_found() -> None:
    columns, rng = clean(2_000, 0), np.random.default_rng(1)
    bad = np.asarray(columns["source"]) == "s3"
    y = np.asarray(columns["x0"]) + 0.2 * rng.normal(size=2_000)
    columns["y"] = np.where(bad, -y, y)
    roles = Roles(target="y", source="source", features=FEATURES)
    assert [f.subject for f in found(columns, "suppliers", roles=roles)] == ["s3"]


def test_equal_rows_with_different_labels_are_counted_and_named() -> None:
    table = pa.table(clean(400, 0))
    again = table.slice(10, 3).set_column(8, "row_id", [ids("again", 3)])
    flipped = ["no" if v == "yes" else "yes" for v in again.column("label").to_pylist()[:2]]
    labels = pa.array([*flipped, again.column("label")[2].as_py()])
    again = again.set_column(5, "label", labels)
    whole = Dataset.from_table(pa.concat_tables([table, again]), ROLES, salt=b"s")
    (told,) = examine_risks(whole, RiskSettings(use=("conflicts",)))
    assert (told.severity, told.detail["rows"], told.detail["groups"]) == (WARNING, 4, 2)
    assert told.detail["row_ids"] == ["again-0", "again-1", "row-10", "row-11"]


def test_a_missing_label_contradicts_none() -> None:
    roles = Roles(label="y", features=("x",))
    assert not found(
        {"x": ["a", "a", "b"], "y": pa.array(["1", None, "2"])}, "conflicts", roles=roles
    )


def test_a_missing_label_hides_no_contradiction() -> None:
    labels = pa.array(["1", None, "2", "1"])
    (told,) = found(
        {"x": ["a", "a", "a", "b"], "y": labels},
        "conflicts",
        roles=Roles(label="y", features=("x",)),
    )
    assert (told.detail["rows"], told.detail["groups"]) == (2, 1)
    assert told.detail["row_ids"] == ["row-00000000", "row-00000002"]


def test_whole_numbers_are_told_apart_beyond_the_digits_of_a_float() -> None:
    whole = pa.table({"x": pa.array([2**53 - 1, 2**53, 2**53 + 1, -(2**63), None, 7])})
    numbers = pa.table({"x": pa.array([2.0**53 - 1, -0.0, np.nan, 7.0])})
    hashes = content_hashes(whole, ("x",), b"k").tolist()
    others = content_hashes(numbers, ("x",), b"k").tolist()
    assert len(set(hashes)) == 6
    assert [hashes[i] for i in (0, 4, 5)] == [others[i] for i in (0, 2, 3)]


def test_a_flood_of_one_row_is_a_warning_and_repeats_are_a_note() -> None:
    table = pa.table(clean(500, 0))
    some = table.take(np.arange(20)).set_column(8, "row_id", [ids("again", 20)])
    flood = table.take(np.zeros(60, int)).set_column(8, "row_id", [ids("flood", 60)])
    for more, severity in ((some, NOTE), (flood, WARNING)):
        whole = Dataset.from_table(pa.concat_tables([table, more]), ROLES, salt=b"s")
        (told,) = examine_risks(whole, RiskSettings(use=("duplicates",)))
        assert (told.severity, told.detail["repeats"]) == (severity, len(more))


def test_near_duplicates_are_a_note() -> None:
    columns, rng = clean(600, 0), np.random.default_rng(1)
    for name in ("x0", "x1", "x2", "x3"):
        column = np.asarray(columns[name]).copy()
        column[300:450] = column[:150] + 1e-4 * rng.normal(size=150)
        columns[name] = column
    columns["c"] = np.concatenate([np.asarray(columns["c"])[:300]] * 2)
    (told,) = found(columns, "near-duplicates")
    assert told.severity == NOTE
    assert told.value == pytest.approx(0.5, abs=0.1)


def test_rare_classes_and_groups_with_other_labels_are_notes() -> None:
    columns, rng = clean(1_000, 0), np.random.default_rng(1)
    label = np.asarray(columns["label"]).astype("U10")
    other = np.asarray(columns["c"]) == "b"
    label[other] = np.where(rng.random(int(other.sum())) < 0.9, "yes", "no")
    label[:3] = "rare"
    columns["label"] = label
    rare, unlike = found(columns, "imbalance", "bias")
    assert (rare.risk, rare.severity, rare.value) == ("imbalance", NOTE, 3.0)
    assert (unlike.risk, unlike.severity, unlike.subject) == ("bias", NOTE, "c")
    assert unlike.detail["group"] == "b"


# ------------------------------------------------------------------ formulas


@pytest.mark.parametrize("seed", range(4))
def test_ks_is_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=200).round(1), rng.normal(0.3, 1, size=311).round(1)
    statistic, p_value = ks(a, b)
    expected = stats.ks_2samp(a, b, method="asymp")
    assert statistic == pytest.approx(expected.statistic)
    exact = stats.ks_2samp(a, b, method="exact").pvalue
    assert np.log10(p_value) == pytest.approx(np.log10(exact), abs=0.4)


def test_chi2_is_scipys() -> None:
    counts = np.array([[50.0, 30.0, 20.0], [40.0, 45.0, 15.0]])
    effect, p_value = chi2(counts)
    expected = stats.chi2_contingency(counts, correction=False)
    assert p_value == pytest.approx(expected.pvalue)
    assert effect == pytest.approx(stats.contingency.association(counts.astype(int)))
    assert chi2(np.array([[5.0, 0.0], [9.0, 0.0]])) == (0.0, 1.0)


def test_psi_by_hand() -> None:
    by_hand = (0.2 - 0.5) * np.log(0.2 / 0.5) + (0.8 - 0.5) * np.log(0.8 / 0.5)
    assert psi(np.array([50.0, 50.0]), np.array([2.0, 8.0])) == pytest.approx(by_hand)
    assert psi(np.array([10.0, 0.0]), np.array([10.0, 0.0])) == 0.0


def test_bins_hold_a_tenth_each_and_missing_numbers_have_their_own() -> None:
    old, new = binned(np.append(np.arange(100.0), np.nan), np.array([-9.0, 999.0, np.nan, np.nan]))
    assert old.tolist() == [10.0] * 10 + [1.0]
    assert new.tolist() == [1.0] + [0.0] * 8 + [1.0, 2.0]


def test_auc_is_scikit_learns_and_its_variance_that_of_shuffled_scores() -> None:
    rng = np.random.default_rng(0)
    scores = np.asarray(rng.integers(0, 20, 300), dtype=np.float64)
    positive = np.asarray(rng.random(300) < 0.3)
    assert auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))
    shuffled = [auc(rng.permutation(scores), positive) for _ in range(2_000)]
    assert np.var(shuffled) == pytest.approx(auc_variance(positive), rel=0.12)


def test_equal_contents_have_equal_hashes_whatever_their_shard_holds() -> None:
    values = {
        "i": [1, 2**60, None],
        "f": [0.0, np.nan, 1.5],
        "s": ["a", None, ""],
        "l": [[1], [], None],
    }
    whole = content_hashes(pa.table(values), tuple(values), b"k")
    alone = [content_hashes(pa.table(values).slice(i, 1), tuple(values), b"k") for i in range(3)]
    assert whole.tolist() == np.concatenate(alone).tolist()
    coded = pa.table(
        {**values, "s": pa.array(values["s"]).dictionary_encode(), "f": [-0.0, None, 1.5]}
    )
    assert content_hashes(coded, tuple(values), b"k").tolist() == whole.tolist()
    assert len({*whole.tolist(), *content_hashes(coded, tuple(values), b"other").tolist()}) == 6


def test_a_few_sources_that_agree_by_chance_accuse_none() -> None:
    means, errors = np.array([0.2, 0.2, 0.2, 0.2001]), np.full(4, 0.02)
    assert robust_scores(means, errors, np.full(4, True)).max() < 0.01
