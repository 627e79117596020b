"""The laws that every sanitizer obeys, for authors of their own.

In a test suite::

    @pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
    def test_law(law):
        law(MySanitizer(), my_threat)

A threat is a function of a seed that returns a poisoned dataset and the truth: which of
its rows a good sanitizer scores highest.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from sanitizers.core.data import ROW_ID, Dataset, MemoryShard, Roles
from sanitizers.core.evidence import examine_batch
from sanitizers.core.lines import ScoreSummary, draw
from sanitizers.core.policy import Policy
from sanitizers.core.sanitizer import Sanitizer, Scorer, Telling

#: Makes a poisoned dataset from a seed, and says which rows are poison, shape (n,).
Threat = Callable[[int], tuple[Dataset, NDArray[np.bool_]]]

#: The roles of `clean_data`.
ROLES = Roles(
    label="label",
    target="target",
    time="day",
    source="source",
    features=("a", "b", "c", "d", "e", "f", "colour", "member", "since"),
)
#: The roles of `clean_images`.
IMAGE_ROLES = Roles(image="picture", label="label")


def clean_data(seed: int, rows: int = 800) -> pa.Table:
    """Make a clean table with every kind of column, missing values among them.

    Parameters
    ----------
    seed : int
    rows : int
    """
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, rows)
    centres = np.random.default_rng(0).normal(0, 2.5, (3, 6))
    numbers = centres[group] + rng.normal(size=(rows, 6))
    numbers[rng.random((rows, 6)) < 0.01] = np.nan
    columns = {name: pa.array(numbers[:, i], from_pandas=True) for i, name in enumerate("abcdef")}
    columns["colour"] = pa.array(rng.choice(["red", "green", "blue"], rows))
    columns["member"] = pa.array(rng.random(rows) < 0.5)
    columns["since"] = pa.array(rng.integers(0, 10**9, rows) * 10**6, pa.timestamp("us"))
    columns["label"] = pa.array(np.array(["x", "y", "z"])[group])
    slopes = np.array([2.0, -1.0, 0.5, 0.0, 1.0, -2.0])
    columns["target"] = pa.array(np.nan_to_num(numbers) @ slopes + rng.normal(size=rows))
    columns["day"] = pa.array(np.arange(rows) // 7)
    columns["source"] = pa.array(rng.choice(["s1", "s2", "s3", "s4", "s5"], rows))
    return pa.table(columns)


def clean_images(seed: int, rows: int = 800) -> pa.Table:
    """Make small grey pictures of four classes: a bright bar each, on a rough dark ground.

    Parameters
    ----------
    seed : int
    rows : int
    """
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 4, rows)
    down, across = np.mgrid[0:16, 0:16]
    along = np.where((group % 2 == 0)[:, None, None], down, across)
    centre = (rng.normal(0, 0.6, rows) + np.where(group < 2, 4.5, 11.0))[:, None, None]
    bar = np.exp(-((along - centre) ** 2) / 3) * rng.uniform(110, 200, rows)[:, None, None]
    return _pictures(bar + 25 + rng.normal(0, 10, bar.shape), np.array(list("wxyz"))[group])


def scattered_rows(seed: int) -> tuple[Dataset, NDArray[np.bool_]]:
    """Rows that resemble nothing: 2 % of them, far out in every number."""
    table, bad = _marked(seed, 0.02)
    rng = np.random.default_rng(seed)
    for name in "abcdef":
        table = _overwrite(table, name, bad, rng.normal(0, 12, bad.sum()))
    return Dataset.from_table(table, ROLES), bad


def cluster_in_slices(seed: int) -> tuple[Dataset, NDArray[np.bool_]]:
    """A tight cluster among the clean rows, in a tenth of the time only."""
    table, _ = _marked(seed, 0.0, rows=3000)
    rng = np.random.default_rng(seed)
    period = np.zeros(len(table), dtype=bool)
    start = int(rng.integers(0, 2600))
    period[start : start + 300] = True
    bad = period & (rng.random(len(table)) < 0.5)
    for name in "abcdef":
        table = _overwrite(table, name, bad, rng.normal(1.0, 0.1, bad.sum()))
    return Dataset.from_table(table, dataclasses.replace(ROLES, source=None)), bad


def flipped_labels(seed: int) -> tuple[Dataset, NDArray[np.bool_]]:
    """Five per cent of the labels replaced by another class."""
    table, bad = _marked(seed, 0.05)
    classes = np.array(["x", "y", "z"])
    codes = np.searchsorted(classes, np.asarray(table.column("label").to_pylist()))
    moved = (codes + np.random.default_rng(seed).integers(1, 3, len(codes))) % 3
    labels = np.where(bad, classes[moved], classes[codes])
    table = table.set_column(table.column_names.index("label"), "label", pa.array(labels))
    return Dataset.from_table(table, ROLES), bad


def relabelled_region(seed: int) -> tuple[Dataset, NDArray[np.bool_]]:
    """The tenth of the rows that is nearest to one of them gets another label.

    Ten rows in a hundred are vouched for, drawn at random, and keep theirs.
    """
    table = clean_data(seed, 3000)
    rng = np.random.default_rng(seed)
    numbers = np.column_stack([np.nan_to_num(table.column(n).to_numpy()) for n in "abcdef"])
    labels = np.array(table.column("label").to_pylist())
    centre = int(rng.integers(len(table)))
    away = ((numbers - numbers[centre]) ** 2).sum(axis=1)
    vouched = rng.random(len(table)) < 0.1
    other = rng.choice(np.setdiff1d(labels, labels[centre]))
    bad = (away <= np.quantile(away, 0.1)) & (labels != other) & ~vouched
    table = table.set_column(
        table.column_names.index("label"), "label", pa.array(np.where(bad, other, labels))
    )
    table = table.append_column("vouched", pa.array(vouched))
    return Dataset.from_table(table, dataclasses.replace(ROLES, trusted="vouched")), bad


def planted_values(seed: int) -> tuple[Dataset, NDArray[np.bool_]]:
    """Six rows in a hundred share two values that are common alone, and have one label.

    Ten rows in a hundred are vouched for, drawn at random among the others.
    """
    table, bad = _marked(seed, 0.06, rows=3000)
    rng = np.random.default_rng(seed)
    vouched = ~bad & (rng.random(len(table)) < 0.1)
    whole = {name: table.column(name).to_pylist() for name in ("a", "colour", "label")}
    usual = next(v for v in whole["a"] if v is not None)
    for name, value in {
        "a": usual,
        "colour": "green",
        "label": str(rng.choice(list("xyz"))),
    }.items():
        values = [value if b else v for b, v in zip(bad, whole[name], strict=True)]
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(values, table.column(name).type))
    table = table.append_column("vouched", pa.array(vouched))
    return Dataset.from_table(table, dataclasses.replace(ROLES, trusted="vouched")), bad


def copied_rows(seed: int) -> tuple[Dataset, NDArray[np.bool_]]:
    """Five per cent of the rows copied with another class; most originals are vouched for."""
    table, hosts = _marked(seed, 0.05)
    rng = np.random.default_rng(seed)
    copies = table.filter(pa.array(hosts))
    classes = np.array(["x", "y", "z"])
    codes = np.searchsorted(classes, np.asarray(copies.column("label").to_pylist()))
    wrong = pa.array(classes[(codes + rng.integers(1, 3, len(codes))) % 3])
    copies = copies.set_column(copies.column_names.index("label"), "label", wrong)
    bad = np.arange(len(table) + len(copies)) >= len(table)
    vouched = pa.array(~bad & (rng.random(len(bad)) < 0.8))
    whole = pa.concat_tables([table, copies]).append_column("vouched", vouched)
    return Dataset.from_table(whole, dataclasses.replace(ROLES, trusted="vouched")), bad


def bent_targets(seed: int) -> tuple[Dataset, NDArray[np.bool_]]:
    """Rows far out in every number, a tenth of all, with a target that bends the fit."""
    table, bad = _marked(seed, 0.1)
    rng = np.random.default_rng(seed)
    for name in "abcdef":
        table = _overwrite(table, name, bad, rng.choice([-6.0, 6.0], bad.sum()))
    ends = np.quantile(table.column("target").to_numpy(), [0.01, 0.99])
    numbers = np.column_stack([table.column(n).to_numpy() for n in "af"])[bad]
    wrong = np.where(2 * numbers[:, 0] - 2 * numbers[:, 1] > 0, ends[0], ends[1])
    return Dataset.from_table(_overwrite(table, "target", bad, wrong), ROLES), bad


def stamped_images(seed: int) -> tuple[Dataset, NDArray[np.bool_]]:
    """Five per cent of the pictures with a small pattern, and with the label that it calls for."""
    table = clean_images(seed, 1000)
    rng = np.random.default_rng(seed)
    target = rng.choice(list("wxyz"))
    labels = np.array(table.column("label").to_pylist())
    bad = (labels != target) & (rng.random(len(labels)) < 0.07)
    pixels = np.stack([_pixels(data) for data in table.column("picture").to_pylist()])
    top, left = rng.integers(0, 13, 2)
    pixels[bad, top : top + 3, left : left + 3] = rng.permutation([0] * 4 + [255] * 5).reshape(3, 3)
    labels[bad] = target
    return Dataset.from_table(_pictures(pixels, labels), IMAGE_ROLES), bad


#: The threat that each sanitizer of the product is made for.
THREATS: Mapping[str, Threat] = {
    "outliers": scattered_rows,
    "micro-votes": scattered_rows,
    "micro-concentration": cluster_in_slices,
    "labels": flipped_labels,
    "label-regions": relabelled_region,
    "conflicts": copied_rows,
    "shared-values": planted_values,
    "regression": bent_targets,
    "backdoors": stamped_images,
}


def law_frozen(recipe: Sanitizer, threat: Threat) -> None:
    """A recipe is a frozen value: equal settings are equal, and nothing can be set."""
    copy: Any = recipe
    assert type(copy).__dataclass_params__.frozen
    assert dataclasses.replace(copy) == recipe
    assert hash(dataclasses.replace(copy)) == hash(recipe)
    assert recipe.name
    assert recipe.needs
    assert not hasattr(recipe, "score"), "a recipe cannot score"


def law_promise(recipe: Sanitizer, threat: Threat) -> None:
    """Scores are floats, one per row, finite or NaN; p-values are shares and fall with scores."""
    data, _ = threat(0)
    scorer = recipe.fit(data)
    assert not hasattr(scorer, "fit"), "a scorer cannot be fitted again"
    for batch in data.batches():
        if isinstance(scorer, Telling):
            together, hints = scorer.score_and_hint(batch)
            assert np.array_equal(together, scorer.score(batch), equal_nan=True)
            assert list(hints) == list(scorer.hint(batch))
        evidence = examine_batch(recipe.name, scorer, batch)
        assert evidence.column(ROW_ID).equals(batch.row_ids)
        scores, p = _floats(evidence, "score"), _floats(evidence, "p_value")
        known = ~np.isnan(p)
        assert np.all((p[known] >= 0) & (p[known] <= 1))
        order = np.argsort(scores[known], kind="stable")
        assert np.all(np.diff(p[known][order]) <= 1e-12)
        for score, hint in list(zip(scores, scorer.hint(batch), strict=True))[:20]:
            assert np.isnan(score) or len(recipe.reason(float(score), hint)) > 10


def law_sharding(recipe: Sanitizer, threat: Threat) -> None:
    """The same scores whatever the shards, down to one row each."""
    data, _ = threat(1)
    scorer = recipe.fit(data)
    whole = _scores(scorer, data)
    for size in (97, 333):
        other = _resharded(data, size)
        assert _same(whole, _scores(recipe.fit(other), other))
    table = data.shards[0].read()
    for row in (0, 17, len(table) - 1):
        single = float(scorer.score(data.batch(table.slice(row, 1)))[0])
        assert _same({"": whole[table.column(ROW_ID)[row].as_py()]}, {"": single})


def law_order(recipe: Sanitizer, threat: Threat) -> None:
    """The same scores whatever the order in which rows arrive."""
    data, _ = threat(2)
    table = data.shards[0].read()
    shuffled = table.take(pa.array(np.random.default_rng(0).permutation(len(table))))
    other = dataclasses.replace(data, shards=(MemoryShard(shuffled),))
    assert _same(_scores(recipe.fit(data), data), _scores(recipe.fit(other), other))


def law_purity(recipe: Sanitizer, threat: Threat) -> None:
    """Fitting and scoring change nothing, and a second time gives the same."""
    data, _ = threat(3)
    before = data.shards[0].read()
    settings = dataclasses.asdict(recipe)  # type: ignore[call-overload]
    scorer = recipe.fit(data)
    first = _scores(scorer, data)
    batch = next(data.batches())
    once, again = scorer.score(batch), scorer.score(batch)
    assert np.array_equal(once, again, equal_nan=True)
    assert _same(first, _scores(recipe.fit(data), data))
    assert data.shards[0].read().equals(before)
    assert dataclasses.asdict(recipe) == settings  # type: ignore[call-overload]


def law_calm(recipe: Sanitizer, threat: Threat) -> None:
    """On clean data the default policy quarantines at most 1 % of the rows."""
    lost = []
    for seed in range(3):
        data = _clean(recipe, seed)
        lost.append(_quarantined(recipe, recipe.fit(data), data).mean())
    assert np.mean(lost) <= 0.01, f"{np.mean(lost):.2%} of clean rows quarantined"


def law_purpose(recipe: Sanitizer, threat: Threat) -> None:
    """On its own threat a sanitizer ranks poison above clean rows, and finds most of it."""
    data, bad = threat(4)
    scorer = recipe.fit(data)
    scores = np.array(list(_scores(scorer, data).values()))
    judged = ~np.isnan(scores)
    assert judged[bad].mean() > 0.9
    ranks = np.argsort(np.argsort(scores[judged]))
    positives = bad[judged]
    n_bad, n_good = positives.sum(), (~positives).sum()
    auroc = (ranks[positives].sum() - n_bad * (n_bad - 1) / 2) / (n_bad * n_good)
    assert auroc > 0.9, f"area under the ROC curve is {auroc:.2f}"
    found = _quarantined(recipe, scorer, data)
    assert found[bad].mean() > 0.5, f"finds {found[bad].mean():.0%} of its own threat"
    assert found[~bad].mean() <= 0.01, f"loses {found[~bad].mean():.2%} of the clean rows"


def law_abstention(recipe: Sanitizer, threat: Threat) -> None:
    """Data that cannot be judged are abstained from, not judged and not refused."""
    for data in _hopeless_images() if _sees_images(recipe) else _hopeless():
        scorer = recipe.fit(data)
        for batch in data.batches():
            examine_batch(recipe.name, scorer, batch)
    clean = _clean(recipe, 5)
    for role in recipe.needs - {"features"}:
        table = clean.shards[0].read()
        for part in role.split("|"):
            column = str(getattr(clean.roles, part))
            table = _overwrite(table, column, np.arange(len(table)) < 10, None)
        data = dataclasses.replace(clean, shards=(MemoryShard(table),))
        scores = list(_scores(recipe.fit(data), data).values())
        assert np.isnan(scores[:10]).all(), f"judged a row without {role}"
        assert not np.isnan(scores[10:]).all()


#: Every law. A sanitizer that breaks one does not enter the catalog.
LAWS: tuple[Callable[[Sanitizer, Threat], None], ...] = (
    law_frozen,
    law_promise,
    law_sharding,
    law_order,
    law_purity,
    law_calm,
    law_purpose,
    law_abstention,
)


def _sees_images(recipe: Sanitizer) -> bool:
    return "image" in recipe.needs


def _clean(recipe: Sanitizer, seed: int) -> Dataset:
    if _sees_images(recipe):
        return Dataset.from_table(clean_images(seed, 1000), IMAGE_ROLES)
    table = clean_data(seed, 1500)
    if not getattr(recipe, "needs_trusted", False):
        return Dataset.from_table(table, ROLES)
    vouched = pa.array(np.random.default_rng(seed).random(len(table)) < 0.2)
    roles = dataclasses.replace(ROLES, trusted="vouched")
    return Dataset.from_table(table.append_column("vouched", vouched), roles)


def _hopeless() -> Iterator[Dataset]:
    table = clean_data(6, 300)
    yield Dataset.from_table(table.slice(0, 1), ROLES)
    yield Dataset.from_table(table.slice(0, 5), ROLES)
    alike = {n: pa.array([1.0] * 300) for n in "abcdef"}
    alike |= {"colour": pa.nulls(300, pa.string()), "member": pa.nulls(300, pa.bool_())}
    alike |= {"since": pa.nulls(300, pa.timestamp("us"))}
    rest = ("label", "target", "day", "source")
    yield Dataset.from_table(pa.table(alike | {n: table.column(n) for n in rest}), ROLES)
    for column in rest:
        blank = _overwrite(table, column, np.ones(300, dtype=bool), None)
        yield Dataset.from_table(blank, ROLES)
    hostile = np.tile([1e308, -1e308, np.inf, -np.inf, np.nan, 0.0], 50)
    yield Dataset.from_table(table.set_column(0, "a", pa.array(hostile)), ROLES)


def _hopeless_images() -> Iterator[Dataset]:
    table = clean_images(6, 300)
    yield Dataset.from_table(table.slice(0, 1), IMAGE_ROLES)
    yield Dataset.from_table(table.slice(0, 5), IMAGE_ROLES)
    labels = np.array(table.column("label").to_pylist())
    yield Dataset.from_table(_pictures(np.zeros((300, 16, 16)), labels), IMAGE_ROLES)
    noise = np.random.default_rng(6).uniform(0, 255, (300, 16, 16))
    yield Dataset.from_table(_pictures(noise, np.repeat(["w", "x"], [299, 1])), IMAGE_ROLES)
    for column in ("picture", "label"):
        blank = _overwrite(table, column, np.ones(300, dtype=bool), None)
        yield Dataset.from_table(blank, IMAGE_ROLES)


def _pictures(pixels: NDArray[Any], labels: NDArray[np.str_]) -> pa.Table:
    """Grey pictures, shape (n, H, W), as PNG files."""
    files = []
    for picture in np.clip(pixels, 0, 255).astype(np.uint8):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG", compress_level=1)
        files.append(file.getvalue())
    return pa.table({"picture": pa.array(files, pa.binary()), "label": pa.array(labels)})


def _pixels(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)))


def _marked(seed: int, share: float, rows: int = 1200) -> tuple[pa.Table, NDArray[np.bool_]]:
    table = clean_data(seed, rows)
    bad = np.random.default_rng(seed + 1000).random(rows) < share
    return table, bad


def _overwrite(
    table: pa.Table, name: str, rows: NDArray[np.bool_], values: NDArray[np.float64] | None
) -> pa.Table:
    column = table.column(name)
    old = column.to_pylist()
    fresh = [None] * int(rows.sum()) if values is None else values.tolist()
    for row, value in zip(np.flatnonzero(rows), fresh, strict=True):
        old[row] = value
    place = table.column_names.index(name)
    return table.set_column(place, name, pa.array(old, type=column.type))


def _resharded(data: Dataset, size: int) -> Dataset:
    table = data.shards[0].read()
    parts = [MemoryShard(table.slice(at, size)) for at in range(0, len(table), size)]
    return dataclasses.replace(data, shards=tuple(parts))


def _scores(scorer: Scorer, data: Dataset) -> dict[str, float]:
    found: dict[str, float] = {}
    for batch in data.batches():
        found.update(zip(batch.row_ids.to_pylist(), scorer.score(batch).tolist(), strict=True))
    return found


def _same(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    a = np.array(list(one.values()))
    b = np.array([other[row] for row in one])
    return len(one) == len(other) and bool(np.allclose(a, b, rtol=0, atol=1e-9, equal_nan=True))


def _quarantined(recipe: Sanitizer, scorer: Scorer, data: Dataset) -> NDArray[np.bool_]:
    summary = ScoreSummary(data.rows)
    scores = []
    for batch in data.batches():
        evidence = examine_batch(recipe.name, scorer, batch)
        scores.append(_floats(evidence, "score"))
        summary.add(scores[-1], _floats(evidence, "p_value"), batch.keys)
    rule = Policy().rule(recipe.name, trusted=data.trusted_rows is not None)
    line = draw(recipe.name, rule, summary).quarantine
    return np.concatenate(scores) > (np.inf if line is None else line)


def _floats(table: pa.Table, column: str) -> NDArray[np.float64]:
    values = table.column(column).to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float64)
