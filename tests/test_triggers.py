"""Signatures: what is read back scores as what was kept; what is not ours is refused."""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.keepsakes import files_of, read_keepsake, write_keepsake
from sanitizers.backdoors import Backdoors, BackdoorScorer, Suspicion
from sanitizers.backdoors.exhibits import POINTS, STRIP, Sampled
from sanitizers.backdoors.shrinking import shrink
from sanitizers.backdoors.signature import recall
from sanitizers.core.data import Dataset
from sanitizers.core.errors import EvidenceError, IntegrityError, PlanError
from sanitizers.core.keepsake import ARRAY_BYTES, CARRIERS, SUSPICION, TRIGGER, Keepsake
from sanitizers.core.sanitizer import Keeping, Recalling
from tests.triggers import (
    CLASSES,
    ROLES,
    SHAPE,
    Finder,
    dataset,
    images,
    kept,
    stamped,
    table,
    trigger,
)

KINDS = ("mark", "overlay", "filter", "relief")
SHAPES = ((12, 10, 1), (13, 9, 3), (64, 48, 1))


# ------------------------------------------------------------------ read back


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_back_scores_the_same(
    tmp_path: Path, kind: str, shape: tuple[int, int, int]
) -> None:
    one = kept(kind, shape)
    write_keepsake(tmp_path, one)
    again = recall(read_keepsake(tmp_path, one.digest))
    small = shrink(images(40, shape, 3))
    both = np.concatenate([small, trigger(kind, shape).stamp.apply(small)])
    scores = trigger(kind, shape).strength(both)
    assert (again.detector.strength(both) == scores).all()
    assert (scores[:40] < 1).all()
    assert (scores[40:] >= 1).all()


def test_the_same_keepsake_gives_the_same_bytes(tmp_path: Path) -> None:
    one = kept("relief")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_keepsake(tmp_path / name, one)
        os.utime(tmp_path / name)
    for name in files_of(one.digest):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    # They must not change with the version of a compressor or the clock, either.
    assert kept("relief").digest == one.digest
    with zipfile.ZipFile(tmp_path / "a" / files_of(one.digest)[1]) as archive:
        assert all(e.date_time[0] == 1980 and not e.compress_type for e in archive.infolist())


def test_an_origin_is_no_part_of_what_is_said() -> None:
    assert kept(origin="release 1.0.0 of mine").digest == kept().digest
    assert kept("filter").digest != kept().digest


# ------------------------------------------------------------------ applied


def test_a_single_row_is_caught() -> None:
    known = [kept(origin="release 1.0.0 of mine")]
    data = dataset(stamped(images(1, seed=5)), ["bag"])
    scorer = Backdoors().fit_knowing(data, known)
    (batch,) = data.batches()
    assert scorer.score(batch)[0] >= 1
    (hint,) = scorer.hint(batch)
    said = Backdoors().reason(1.0, hint)
    assert f"trigger {known[0].digest[:8]}, which release 1.0.0 of mine confirmed" in said
    assert "calls for 'bag'" in said


def test_other_labels_and_innocent_rows_are_not_caught() -> None:
    pictures = np.concatenate([stamped(images(2)), images(2, seed=1)])
    data = dataset(pictures, ["coat", None, "bag", "coat"])
    scorer = Backdoors().fit_knowing(data, [kept()])
    (batch,) = data.batches()
    # Nothing was audited, so that nothing is said of them.
    assert np.isnan(scorer.score(batch)).all()
    assert list(scorer.hint(batch)) == [None] * 4


def test_without_a_search_known_triggers_need_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    # Enough for an audit.
    pictures = np.concatenate([stamped(images(5)), images(295, seed=1)])
    data = dataset(pictures, [CLASSES[i % 2] for i in range(300)])
    with pytest.raises(PlanError, match="torch"):
        Backdoors().fit_knowing(data, [kept()])
    scorer = Backdoors(search=False).fit_knowing(data, [kept()])
    (batch,) = data.batches()
    scores = scorer.score(batch)
    assert np.flatnonzero(scores >= 1).tolist() == [0, 2, 4]
    # No other was looked at, and none is called clean.
    assert np.isnan(np.delete(scores, [0, 2, 4])).all()
    assert {k.kind for k in scorer.keepsakes} == {TRIGGER, CARRIERS}
    assert np.isnan(Backdoors(search=False).fit(data).score(batch)).all()


def test_a_trigger_is_looked_for_at_its_own_size() -> None:
    # The others of the batch are larger, so that all are looked at as large as these.
    small = table(stamped(images(2)), ["bag"] * 2)
    large = table(images(5, (24, 20, 1)), ["bag"] * 5)
    data = Dataset.from_table(pa.concat_tables([small, large]), ROLES)
    assert data.image_shape == (24, 20, 1)
    scorer = Backdoors().fit_knowing(data, [kept()])
    (batch,) = data.batches()
    assert (scorer.score(batch) >= 1).tolist() == [True] * 2 + [False] * 5
    assert np.array_equal(batch.images_at(SHAPE)[:2], stamped(images(2)))
    assert batch.images_at((24, 20, 1)) is batch.images


def test_a_sample_of_pixels_has_other_sizes_too() -> None:
    data = dataset(images(4), ["bag"] * 4)
    sample = data.sample(4, "any")
    assert sample.images_at((6, 5, 3)).shape == (4, 6, 5, 3)
    assert np.array_equal(sample.images_at(SHAPE), sample.images)
    (batch,) = data.batches()
    order = [sample.row_ids.to_pylist().index(i) for i in batch.row_ids.to_pylist()]
    assert np.array_equal(sample.images_at((6, 5, 1))[order], batch.images_at((6, 5, 1)))


def test_one_that_calls_for_the_next_label_asks_for_none() -> None:
    moves = kept()
    every = Keepsake(TRIGGER, {**moves.facts, "label": None}, moves.arrays)
    data = dataset(stamped(images(3)), ["bag", "coat", "new"])
    (batch,) = data.batches()
    assert (Backdoors().fit_knowing(data, [every]).score(batch) >= 1).all()


@pytest.mark.parametrize("kind", ["mark", "overlay", "filter", "relief"])
def test_only_rows_with_the_label_are_looked_at(kind: str) -> None:
    one, names = recall(kept(kind)), ["bag", "coat", None, "bag", "ba"]
    (batch,) = dataset(stamped(images(5)), names).batches()
    alone = one.detector.strength(batch.images)
    meant = np.array([name == "bag" for name in names])
    expected = np.where(meant, np.maximum(np.round(alone, 4), 0.0), 0.0)
    assert np.array_equal(one.strength(batch), expected)
    assert (expected[meant] >= 1).all()
    every = recall(replace(one.keepsake, facts={**one.keepsake.facts, "label": None}))
    asked = np.array([name is not None for name in names])
    assert np.array_equal(every.strength(batch) > 0, asked)


def test_scores_hang_on_the_row_alone() -> None:
    pictures = np.concatenate([stamped(images(6)), images(6, seed=2)])
    data = dataset(pictures, ["bag"] * 12)
    scorer = Backdoors().fit_knowing(data, [kept("relief"), kept()])
    (batch,) = data.batches()
    whole = scorer.score(batch)
    alone = [scorer.score(batch.take(np.array([i])))[0] for i in range(12)]
    assert np.array_equal(whole, alone, equal_nan=True)


def test_what_was_known_is_left_behind_again_with_its_carriers() -> None:
    data = dataset(stamped(images(30)), ["bag"] * 30)
    scorer = Backdoors().fit_knowing(data, [kept(origin="release 1.0.0 of mine")])
    assert isinstance(scorer, Keeping)
    one, shown = scorer.keepsakes
    assert (one.digest, one.origin) == (kept().digest, "release 1.0.0 of mine")
    assert (shown.kind, shown.facts["carriers"]) == (CARRIERS, 30)
    assert shown.arrays["carriers"].shape == (STRIP, 12, 10, 1)
    assert isinstance(Backdoors(), Recalling)
    assert not isinstance(Finder(), Recalling)


def test_a_map_has_few_points_and_both_kinds() -> None:
    pictures = np.concatenate([stamped(images(500)), images(500, seed=1)])
    data = dataset(pictures, ["bag"] * 1000)
    shown = Finder().fit(data).keepsakes[1]
    points, marked = shown.arrays["points"], shown.arrays["marked"]
    assert len(points) == len(marked) <= 2 * POINTS
    assert marked.sum() == 5
    assert np.isfinite(points).all()


# ------------------------------------------------------------------ tampered and hostile


def files(folder: Path) -> tuple[Keepsake, Path, Path]:
    one = kept()
    write_keepsake(folder, one)
    text, arrays = (folder / name for name in files_of(one.digest))
    return one, text, arrays


def test_any_changed_byte_is_refused(tmp_path: Path) -> None:
    one, text, arrays = files(tmp_path)
    for path in (text, arrays):
        whole = path.read_bytes()
        for at in np.linspace(0, len(whole) - 1, 150).astype(int).tolist():
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            try:
                again = read_keepsake(tmp_path, one.digest)
            except IntegrityError:
                continue
            # Padding of the container may differ; what it says may not.
            assert again.digest == one.digest
        path.write_bytes(whole)
    assert read_keepsake(tmp_path, one.digest).digest == one.digest


def npy(array: np.ndarray, **more: Any) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, **more)
    return out.getvalue()


def archive(entries: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as made:
        for name, data in entries.items():
            made.writestr(name, data)
    return out.getvalue()


def huge_header() -> bytes:
    whole = npy(np.zeros(16, np.float64))
    return whole.replace(b"(16,)", b"(1" + b"0" * 9 + b",)").replace(b" " * 9, b"", 1)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "objects": (lambda: archive({"a.npy": npy(np.array([{}], object), allow_pickle=True)}), "type"),
    "texts": (lambda: archive({"a.npy": npy(np.array(["x"]))}), "type"),
    "complex": (lambda: archive({"a.npy": npy(np.zeros(3, complex))}), "type"),
    "big-endian": (lambda: archive({"a.npy": npy(np.zeros(3, ">f4"))}), "type"),
    "records": (lambda: archive({"a.npy": npy(np.zeros(3, [("x", "<f4")]))}), "type"),
    "columns first": (lambda: archive({"a.npy": npy(np.zeros((3, 2)).T)}), "axes"),
    "five axes": (lambda: archive({"a.npy": npy(np.zeros((1, 1, 1, 1, 1)))}), "axes"),
    "not finite": (lambda: archive({"a.npy": npy(np.array([np.nan]))}), "finite"),
    "compressed": (
        lambda: archive({"a.npy": npy(np.zeros(10**6))}, zipfile.ZIP_DEFLATED),
        "not compressed",
    ),
    "a header that lies": (lambda: archive({"a.npy": huge_header()}), "bytes|plain arrays"),
    "version 2": (lambda: archive({"a.npy": npy(np.zeros(2), version=(2, 0))}), "version"),
    "cut": (lambda: archive({"a.npy": npy(np.zeros(20))[:-8]}), "bytes"),
    "no array": (lambda: archive({"a.npy": b"\x80\x04cos\nsystem\n"}), "plain arrays"),
    "many": (lambda: archive({f"a{i}.npy": npy(np.zeros(1)) for i in range(99)}), "few arrays"),
    "a way out": (lambda: archive({"../a.npy": npy(np.zeros(1))}), "named"),
    "no archive": (lambda: b"PK\x03\x04", "plain arrays"),
    "empty": (lambda: b"", "plain arrays"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_arrays_are_refused(tmp_path: Path, name: str) -> None:
    make, said = HOSTILE[name]
    one, _, arrays = files(tmp_path)
    arrays.write_bytes(make())
    with pytest.raises(IntegrityError, match=said):
        read_keepsake(tmp_path, one.digest)


def test_files_that_are_too_large_missing_or_links_are_refused(tmp_path: Path) -> None:
    one, text, arrays = files(tmp_path)
    with arrays.open("r+b") as file:
        file.truncate(ARRAY_BYTES + 2**21)
    with pytest.raises(IntegrityError, match="bytes"):
        read_keepsake(tmp_path, one.digest)
    arrays.unlink()
    with pytest.raises(IntegrityError, match="missing"):
        read_keepsake(tmp_path, one.digest)
    arrays.symlink_to(text)
    with pytest.raises(IntegrityError, match="regular"):
        read_keepsake(tmp_path, one.digest)


@pytest.mark.parametrize(
    "value",
    [
        "[]",
        "{}",
        '{"format": "dataset-sanitizer/keepsake/1", "kind": [], "facts": {}}',
        '{"format": "dataset-sanitizer/keepsake/1", "kind": "code", "facts": {}}',
        '{"format": "dataset-sanitizer/keepsake/2", "kind": "trigger", "facts": {}}',
        '{"format": "dataset-sanitizer/keepsake/1", "kind": "trigger", "facts": {"a": NaN}}',
        "[" * 10_000,
        "\x00",
    ],
)
def test_hostile_facts_are_refused(tmp_path: Path, value: str) -> None:
    one, text, _ = files(tmp_path)
    text.write_text(value)
    with pytest.raises(IntegrityError):
        read_keepsake(tmp_path, one.digest)


def facts(**more: Any) -> Callable[[Keepsake], Keepsake]:
    return lambda one: Keepsake(one.kind, {**one.facts, **more}, one.arrays)


def arrays(**more: np.ndarray) -> Callable[[Keepsake], Keepsake]:
    return lambda one: Keepsake(one.kind, one.facts, {**one.arrays, **more})


WRONG: dict[str, tuple[str, Callable[[Keepsake], Keepsake]]] = {
    "format": ("mark", facts(format="backdoors/0")),
    "label": ("mark", facts(label=3)),
    "no shape": ("mark", facts(shape=None)),
    "true shape": ("mark", facts(shape=[12, 10, True])),
    "large shape": ("mark", facts(shape=[4096, 4096, 1])),
    "empty shape": ("mark", facts(shape=[0, 10, 1])),
    "other shape": ("mark", facts(shape=[10, 12, 1])),
    "tolerance": ("mark", facts(mark={"tolerance": 1e9, "share": 0.9})),
    "share": ("mark", facts(mark={"tolerance": 12, "share": 0})),
    "neither": ("mark", facts(mark=None)),
    "stamp": ("mark", facts(stamp="<script>")),
    "flips": ("mark", facts(flips={"before": "1"})),
    "counts": ("mark", facts(carriers=-1)),
    "outside": ("mark", arrays(mark_at=np.arange(9) + 115)),
    "negative": ("mark", arrays(mark_at=np.arange(9) - 1)),
    "places": ("mark", arrays(mark_at=np.arange(9.0))),
    "values": ("mark", arrays(mark_values=np.zeros(8, np.float32))),
    "ground": ("mark", arrays(ground=np.zeros((12, 10, 1), np.float32))),
    "stamped": ("mark", arrays(add=np.zeros((1, 1, 1), np.float32))),
    "scale": ("filter", facts(filter={"centre": 0, "scale": 0, "line": 1, "relief": None})),
    "weights": ("filter", arrays(weights=np.zeros(7, np.float32))),
    "overlay out": ("overlay", arrays(overlay_core=np.array([3, 5, 120]))),
    "overlay weights": ("overlay", arrays(overlay_weights=np.zeros((3, 9), np.float32))),
    "overlay factor": ("overlay", arrays(overlay_covered=np.zeros((9, 9), np.float32))),
    "overlay shows": ("overlay", facts(overlay={"shows": 1.5, "line": 1})),
    "factor": ("relief", arrays(relief_factor=np.zeros(7260, np.float32))),
    "no mean": ("relief", arrays(relief_mean=np.zeros((120, 1), np.float32))),
}


@pytest.mark.parametrize("name", WRONG)
def test_signatures_that_do_not_fit_together_are_refused(name: str) -> None:
    kind, change = WRONG[name]
    with pytest.raises(IntegrityError, match="cannot be applied"):
        recall(change(kept(kind)))


def test_what_is_missing_is_named() -> None:
    one = kept("relief")
    for part in ("weights", "relief_factor", "relief_mean", "relief_pattern", "keep", "ground"):
        less = {name: array for name, array in one.arrays.items() if name != part}
        with pytest.raises(IntegrityError, match=part):
            recall(replace(one, arrays=less))
    for part in one.facts:
        less = {name: value for name, value in one.facts.items() if name != part}
        with pytest.raises(IntegrityError, match="cannot be applied"):
            recall(replace(one, facts=less))


def test_a_keepsake_is_plain_and_bounded() -> None:
    for bad, said in (
        ({"x": np.zeros(1, object)}, "type"),
        ({"x": np.full(1, np.inf)}, "finite"),
        ({"x y": np.zeros(1)}, "named"),
        ({"x": np.zeros(ARRAY_BYTES // 8 + 1)}, "bytes"),
    ):
        with pytest.raises(EvidenceError, match=said):
            Keepsake(TRIGGER, {}, bad)
    for what in ({"x": object()}, {"x": float("nan")}, {"x": "y" * 2**18}):
        with pytest.raises(EvidenceError, match="facts"):
            Keepsake(TRIGGER, what, {})
    with pytest.raises(EvidenceError, match="kind"):
        Keepsake("model", {}, {})


def test_the_largest_signature_fits() -> None:
    one = kept("relief", (40, 40, 3))
    assert sum(a.nbytes for a in one.arrays.values()) < ARRAY_BYTES
    assert len(json.dumps(dict(one.facts))) < 2_000
    assert set(CLASSES) >= {one.facts["label"], one.facts["source"]}


# ------------------------------------------------------------------ groups


@pytest.mark.parametrize(
    ("rows", "label", "told"),
    [
        (range(30), 0, False),  # the carriers
        (range(20, 40), 0, True),  # a third of them, and of the rest
        (range(30, 60), 0, False),  # the rest of their label
        (range(30, 40), 0, True),  # some of it
        (range(60, 90), 1, True),  # another label
    ],
)
def test_a_group_that_a_trigger_explains_is_told_with_it(
    rows: range, label: int, told: bool
) -> None:
    names = np.array(["bag"] * 60 + ["coat"] * 40, dtype=object)
    ids = [f"r{i}" for i in range(100)]
    sampled = Sampled(images(100), names, ids, np.ones(100, dtype=bool))
    doubt = Suspicion(label, np.array(rows), "they look like others")
    scorer = BackdoorScorer(CLASSES, (trigger(),), (doubt,))
    kinds = [one.kind for one in scorer.shown(sampled, np.arange(100), ()).keepsakes]
    assert kinds == [TRIGGER, CARRIERS, *([SUSPICION] if told else [])]


def test_places_in_the_sample_are_not_places_among_the_audited() -> None:
    # The first ten of the sample were held back before the audit.
    sampled = Sampled(
        images(100),
        np.array(["bag"] * 100, dtype=object),
        [f"r{i}" for i in range(100)],
        np.ones(100, dtype=bool),
    )
    scorer = BackdoorScorer(CLASSES, (trigger(),)).shown(sampled, np.arange(10, 100), ())
    shown = scorer.keepsakes[1]
    assert shown.facts["row_ids"][0] == "r10"
    assert np.array_equal(shown.arrays["carriers"][0], images(100)[10])
