"""The audit of images: its parts against slow references, and the whole on its threat."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sanitizers.backdoors import Backdoors, Filter, Mark, Settings, Stamp, audit
from sanitizers.backdoors.arrays import View, halve, spread, to_planes, view
from sanitizers.backdoors.auditing import score
from sanitizers.backdoors.candidates import DIVERSITY, is_fixed, void
from sanitizers.backdoors.clusters import two_means
from sanitizers.backdoors.confirm import can_tell, collapsed
from sanitizers.backdoors.directions import propose_directions, split, unusual
from sanitizers.backdoors.extract import clipped_mean, extract_stamps, find_mark
from sanitizers.backdoors.groups import effective
from sanitizers.backdoors.grow import grow
from sanitizers.backdoors.neighbours import diversity, nearest, neighbour_labels
from sanitizers.backdoors.overlay import find_overlay
from sanitizers.backdoors.sanitizer import BackdoorScorer, fit_images
from sanitizers.backdoors.scan import scan_windows
from sanitizers.backdoors.screen import Flips
from sanitizers.backdoors.shrinking import shrink
from sanitizers.backdoors.stamp import Relief
from sanitizers.core.errors import PlanError
from sanitizers.poisons import stamps
from sanitizers.poisons.stamping import StampAttack, StampedImages

FAST = Settings(epochs=6)
pytestmark = pytest.mark.skipif(find_spec("torch") is None, reason="needs torch: .[images]")


def pictures(
    n: int = 1500, seed: int = 0, side: int = 16
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Four classes: a bright bar, a place and a width of its own, on a rough dark ground."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    rows, columns = np.mgrid[0:side, 0:side]
    along = np.where((labels % 2 == 0)[:, None, None], rows, columns)
    centre = (rng.normal(0, 0.6, n) + np.where(labels < 2, 4.5, 11.0))[:, None, None]
    bar = np.exp(-((along - centre) ** 2) / 3) * rng.uniform(110, 200, n)[:, None, None]
    images = bar + 25 + rng.normal(0, 10, (n, side, side))
    return np.clip(images, 0, 255).astype(np.uint8)[..., None], labels


@pytest.fixture(scope="module")
def patched() -> StampedImages:
    return StampAttack(stamps.patch, target=1).attack(*pictures(), 0.05, 8)


# ------------------------------------------------------------------ parts


def test_windows_are_counted_as_a_slow_count_counts_them(patched: StampedImages) -> None:
    seen = view(patched.images, patched.labels, 0)
    best = scan_windows(seen, 3, 1)[0]
    levels = patched.images[:, :, :, 0] >> 5
    counts: dict[tuple[int, int, bytes], int] = {}
    for image in levels:
        for i in range(14):
            for j in range(14):
                key = (i, j, image[i : i + 3, j : j + 3].tobytes())
                counts[key] = counts.get(key, 0) + 1
    found = [
        key
        for key in counts
        if (levels[best.rows[0], key[0] : key[0] + 3, key[1] : key[1] + 3].tobytes() == key[2])
        and counts[key] == len(best.rows)
    ]
    assert found
    elsewhere = max(
        [5, *(c for key, c in counts.items() if key[2] == found[0][2] and key != found[0])]
    )
    assert best.ratio == pytest.approx(len(best.rows) / elsewhere)


def test_a_patch_is_the_first_window(patched: StampedImages) -> None:
    best = scan_windows(view(patched.images, patched.labels, 0), 2, 1)[0]
    assert patched.mask("poison")[best.rows].mean() > 0.99
    assert best.label == 1


def test_a_split_finds_two_normals() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 900), rng.normal(8, 1, 100)])
    found = split(values)
    assert found.separation == pytest.approx(8, abs=0.3)
    assert found.upper.sum() == 100
    assert split(-values).upper.sum() == 900


def test_unusual_directions_find_what_variance_hides() -> None:
    # A small cluster along an axis of unit variance, like all others.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 10)).astype(np.float32)
    x[:100, 3] += 12
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    best = max((split(p) for p in unusual(x, rng)), key=lambda s: s.separation)
    assert min(best.upper.sum(), (~best.upper).sum()) == pytest.approx(100, abs=3)


def test_a_wave_is_found_among_the_directions_even_where_it_fills_most_of_its_label() -> None:
    images, labels = pictures()
    done = StampAttack(stamps.sinusoid(40), "clean-label", target=2).attack(images, labels, 0.6, 1)
    seen = view(done.images, done.labels, 0)
    best = max(propose_directions(seen, 0), key=lambda p: p.separation)
    poison = done.mask("poison")
    assert best.label == 2
    assert max(poison[best.rows].mean(), (~poison)[best.rows].mean()) > 0.99


def test_two_means_part_two_blobs() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, (50, 3)), rng.normal(9, 1, (80, 3))]).astype(np.float32)
    one = two_means(x, 0)
    assert sorted([one[:50].sum() + (~one[50:]).sum()]) in ([0], [130])


def test_neighbours_are_the_nearest_and_never_oneself() -> None:
    images, labels = pictures(400)
    seen = view(images, labels, 0)
    rows, allowed = np.arange(7), np.arange(400) % 2 == 1
    for row, found in zip(rows, nearest(seen, rows, allowed, 3), strict=True):
        distance = np.linalg.norm(seen.coarse - seen.coarse[row], axis=1)
        distance[~allowed] = np.inf
        assert set(found.tolist()) == set(np.argsort(distance)[:3].tolist())
    distance = np.linalg.norm(seen.coarse[:, None] - seen.coarse, axis=2)
    np.fill_diagonal(distance, np.inf)
    slow = labels[np.argsort(distance, axis=1)[:, :12]]
    assert (np.sort(neighbour_labels(seen, 0), axis=1) == np.sort(slow, axis=1)).all()


def test_frames_of_one_track_are_no_diverse_group() -> None:
    images, labels = pictures(600)
    images[:60] = images[0]
    labels[:60] = labels[0]
    seen = view(images, labels, 0)
    random = np.flatnonzero(labels == labels[0])[60:120]
    assert diversity(seen, np.arange(60), labels, 0) < 0.2
    assert diversity(seen, random, labels, 0) == pytest.approx(1, abs=0.35)


def test_a_picture_that_is_mixed_in_takes_contrast_and_not_variety() -> None:
    images, labels = pictures(1200, 4)
    rows = np.flatnonzero(labels != 1)[:100]
    mixed = np.rint(0.72 * images[rows] + 0.28 * images[0])
    images[rows], given = mixed.astype(np.uint8), labels.copy()
    given[rows] = 1
    assert diversity(view(images, given, 0), rows, labels, 0) > DIVERSITY


def test_the_clipped_mean_is_that_of_the_middle() -> None:
    values = np.random.default_rng(0).normal(size=(101, 4)).astype(np.float32)
    slow = [np.clip(c, *np.quantile(c, [0.1, 0.9])).mean() for c in values.T]
    assert clipped_mean(values) == pytest.approx(slow, abs=1e-6)


def test_the_patch_is_extracted_as_it_was_planted(patched: StampedImages) -> None:
    seen = view(patched.images, patched.labels, 0)
    trigger = patched.planted[0].trigger
    assert isinstance(trigger, stamps.Stamp)
    nobody = np.zeros(len(seen), dtype=bool)
    stamp = extract_stamps(seen, patched.rows, 1, nobody)[0]
    assert stamp.kind == "patch"
    assert (stamp.keep == trigger.keep).mean() > 0.98
    mark = find_mark(seen, patched.rows, 1)
    assert mark is not None
    assert (np.flatnonzero(mark.strength(patched.images) >= 1) == patched.rows).all()


def test_the_filter_grows_a_few_carriers_to_all() -> None:
    done = StampAttack(stamps.blend(0.15), target=1).attack(*pictures(), 0.05, 2)
    seen = view(done.images, done.labels, 0)
    grown = grow(seen, done.rows[:15], 1, np.zeros(len(seen), dtype=bool))
    own = grown.carriers[done.labels[grown.carriers] == 1]
    assert np.isin(done.rows, own).mean() > 0.97
    assert (~np.isin(own, done.rows)).sum() <= 5


def test_the_void_counts_what_is_nearly_a_carrier() -> None:
    strength = np.array([0.1, 0.5, 0.7, 0.99, 1.0, 2.0, 3.0, 0.8])
    among = np.array([True] * 7 + [False])
    assert void(strength, np.array([4, 5, 6]), among) == pytest.approx(3 / 3)
    assert void(strength, np.array([5, 6]), among & (strength > 0.6)) == pytest.approx(2 / 2)


def test_the_weights_solve_their_equation() -> None:
    # Against the inverse, computed the slow way.
    done = StampAttack(stamps.blend(0.15), target=1).attack(*pictures(), 0.05, 2)
    seen = view(done.images, done.labels, 0)
    nobody = np.zeros(len(seen), dtype=bool)
    found = grow(seen, done.rows, 1, nobody, rounds=1).filter
    others = seen.planes[seen.labels != 1].astype(np.float64)
    square = np.cov(others.T, bias=True) + (1.5 / 255) ** 2 * np.eye(256)
    around = nearest(seen, done.rows, ~seen.mask(done.rows))
    pattern = clipped_mean(seen.planes[done.rows] - seen.planes[around].mean(axis=1))
    slow = np.linalg.inv(square) @ pattern
    assert np.corrcoef(slow, found.weights)[0, 1] > 0.9999
    assert found.weights == pytest.approx(slow, rel=0.02, abs=0.02 * np.abs(slow).max())


def test_relief_is_the_ratio_of_two_whitened_lengths() -> None:
    rng = np.random.default_rng(0)
    square = np.cov(rng.normal(size=(40, 6)).T).astype(np.float32)
    factor = np.linalg.cholesky(square)
    pattern, mean = rng.normal(size=(2, 6)).astype(np.float32)
    x = rng.normal(size=(5, 6)).astype(np.float32)
    relief = Relief(factor, mean, np.linalg.solve(factor, pattern), 1.0, 1.0, 0.0, 0.0)
    inverse = np.linalg.inv(square)
    for row, got in zip(x - mean, relief.of(x), strict=True):
        slow = (row @ inverse @ row) / ((row - pattern) @ inverse @ (row - pattern))
        assert got == pytest.approx(np.log(slow), rel=1e-3, abs=1e-3)


def test_planes_and_halves() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 9, 8, 3), dtype=np.uint8)
    assert to_planes(images).shape == (4, 9 * 8 + 2 * 4 * 4)
    block = images[1, 2:4, 4:6, 2].mean()
    assert halve(images.astype(np.float32))[1, 1, 2, 2] == pytest.approx(block)
    grey = np.repeat(images[..., :1], 3, axis=3)
    assert to_planes(grey)[:, 72:] == pytest.approx(0, abs=1e-6)
    assert to_planes(images[..., :1]) == pytest.approx(images[..., 0].reshape(4, -1) / 255)


def test_spread_takes_no_more_than_asked() -> None:
    rows = np.arange(1000)
    assert (spread(rows, 2000) == rows).all()
    assert len(np.unique(spread(rows, 37))) == 37


def test_effective_numbers() -> None:
    assert effective(np.array([3, 3, 3])) == pytest.approx(1)
    assert effective(np.array([0, 1, 2, 3])) == pytest.approx(4)


def test_an_effect_that_stays_is_no_backdoor() -> None:
    before = Flips(mean=0.9, most=1.0, source=0, any=0.8, onward=0.1, margin=10)
    gone = Flips(mean=0.1, most=0.3, source=0, any=0.2, onward=0.1, margin=1)
    stays = Flips(mean=0.5, most=0.9, source=0, any=0.7, onward=0.1, margin=4)
    still = Flips(mean=0.1, most=0.3, source=0, any=0.2, onward=0.1, margin=6)
    bar = (0.25, 0.75, 0.5)
    assert collapsed(before, gone, bar, onward=False)
    assert not collapsed(before, stays, bar, onward=False)
    assert not collapsed(before, still, bar, onward=False)


@pytest.mark.parametrize(
    ("left", "believed", "denied", "tells"),
    [
        (14, 37, 0.15, False),  # a rare sign of which most pictures are alike by nature
        (0, 0, 0.4, False),
        (14, 3, 0.7, True),  # labels that are not theirs
        (177, 0, 0.3, True),
        (1000, 950, 0.1, True),  # clean-label, half of its label
        (300, 690, 0.1, False),  # clean-label, or nature: nobody can tell
    ],
)
def test_a_label_of_which_nothing_is_left_proves_nothing(
    left: int, believed: int, denied: float, tells: bool
) -> None:
    assert can_tell(left, believed, denied) == tells


# ------------------------------------------------------------------ the whole


ATTACKS = {
    "patch": (StampAttack(stamps.patch), 0.05, 6),
    "blend": (StampAttack(stamps.blend(0.2)), 0.05, 5),
    "all to all": (StampAttack(stamps.patch, "all-to-all"), 0.15, 8),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_was_planted_is_confirmed_and_nothing_else(name: str) -> None:
    attack, rate, seed = ATTACKS[name]
    done = attack.attack(*pictures(), rate, seed)
    found = audit(done.images, done.labels, FAST)
    assert len(found.triggers) == 1
    assert found.triggers[0].target == done.planted[0].target
    assert np.isin(done.rows, found.poison).mean() > 0.97
    assert (~np.isin(found.poison, done.rows)).sum() <= 1
    assert found.triggers[0].flips_before > 0.5
    assert found.triggers[0].flips_after < 0.2


def test_covers_are_told_from_poison() -> None:
    done = StampAttack(stamps.patch, "source-specific").attack(*pictures(2000), 0.08, 3)
    found = audit(done.images, done.labels, FAST)
    assert set(found.poison.tolist()) == set(np.flatnonzero(done.mask("poison")).tolist())
    covers = np.concatenate([t.covers for t in found.triggers])
    assert set(covers.tolist()) == set(np.flatnonzero(done.mask("cover")).tolist())


def test_clean_pictures_have_no_trigger() -> None:
    found = audit(*pictures(seed=5), FAST)
    assert not found.triggers
    assert not found.poison.size
    assert (found.scores == 0).all()


def test_flipped_labels_are_no_trigger() -> None:
    images, labels = pictures(seed=6)
    flipped = np.arange(0, len(labels), 20)
    labels[flipped] = (labels[flipped] + 1) % 4
    assert not audit(images, labels, FAST).triggers


def test_the_same_input_gives_the_same_result_and_is_not_touched(patched: StampedImages) -> None:
    images, labels = patched.images.copy(), patched.labels.copy()
    one, again = audit(images, labels, FAST), audit(images, labels, FAST)
    assert (one.scores == again.scores).all()
    assert (one.triggers[0].stamp.add == again.triggers[0].stamp.add).all()
    assert (images == patched.images).all()
    assert (labels == patched.labels).all()


def test_a_score_looks_at_its_row_only(patched: StampedImages) -> None:
    found = audit(patched.images, patched.labels, FAST)
    pieces = [
        score(found.triggers, patched.images[i : i + 7], patched.labels[i : i + 7])
        for i in range(0, 210, 7)
    ]
    assert (np.concatenate(pieces) == found.scores[:210]).all()


# ------------------------------------------------------------------ the sanitizer


def strings(labels: NDArray[np.int64]) -> NDArray[np.object_]:
    return np.array([f"c{v}" for v in labels], dtype=object)


def test_the_scorer_scores_pictures_that_it_never_saw(patched: StampedImages) -> None:
    everywhere = np.ones(len(patched.labels), dtype=bool)
    scorer = fit_images(patched.images, everywhere, strings(patched.labels), Backdoors(epochs=6))
    fresh, _ = pictures(200, seed=9)
    stamped = patched.planted[0].trigger(fresh)
    names = strings(np.ones(200, np.int64))
    there = np.ones(200, dtype=bool)
    assert (scorer.score_images(stamped, there, names) >= 1).all()
    assert (scorer.score_images(fresh, there, names) < 1).all()
    # Other labels than the target are consistent: covers, not poison.
    assert (scorer.score_images(stamped, there, strings(np.zeros(200, np.int64))) == 0).all()
    there[3], names[4] = False, None
    missing = np.isnan(scorer.score_images(stamped, there, names))
    assert np.flatnonzero(missing).tolist() == [3, 4]


def test_too_few_pictures_are_not_judged() -> None:
    images, labels = pictures(100)
    scorer = fit_images(images, np.ones(100, dtype=bool), strings(labels), Backdoors())
    assert isinstance(scorer, BackdoorScorer)
    assert np.isnan(scorer.score_images(images, np.ones(100, dtype=bool), strings(labels))).all()


def test_large_pictures_are_averaged_in_blocks() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 81, 3), dtype=np.uint8)
    small = shrink(images)
    assert small.shape == (3, 21, 27, 3)
    assert small[1, 2, 4, 0] == np.rint(images[1, 6:9, 12:15, 0].mean())
    assert shrink(small) is small


def test_what_cannot_be_audited_is_refused() -> None:
    images, labels = pictures(300)
    cases: list[tuple[NDArray[Any], NDArray[np.int64]]] = [
        (images.astype(np.float32), labels),
        (images[..., 0], labels),
        (images, labels[:-1]),
        (images, labels - 1),
        (images[:100], labels[:100]),
        (images, np.zeros(300, np.int64)),
    ]
    for bad, given in cases:
        with pytest.raises(PlanError):
            audit(bad, given)
    with pytest.raises(PlanError, match="sample"):
        Backdoors(sample=10)


def test_without_torch_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(PlanError, match=r"dataset-sanitizer\[images\]"):
        audit(*pictures(300), FAST)


def test_marks_and_stamps_are_plain_arrays(patched: StampedImages) -> None:
    trigger = audit(patched.images, patched.labels, FAST).triggers[0]
    assert isinstance(trigger.stamp, Stamp)
    assert isinstance(trigger.filter, Filter)
    assert isinstance(trigger.mark, Mark)
    assert isinstance(trigger.rows, np.ndarray)
    assert isinstance(view(patched.images, patched.labels, 0), View)


# ------------------------------------------------------------------ patches that show their ground


def translucent(seed: int, shows: float) -> tuple[View, NDArray[np.int64], Stamp]:
    """Pictures of which 60 of one label carry a patch of 3 x 3 pixels, and what it adds."""
    images, labels = pictures(1200, seed)
    labels[:60] = 1
    levels = np.array([20, 230, 230, 20, 230, 20, 230, 20, 20], np.float32).reshape(3, 3, 1)
    keep, add = np.ones((16, 16, 1), np.float32), np.zeros((16, 16, 1), np.float32)
    keep[9:12, 2:5], add[9:12, 2:5] = shows, (1 - shows) * levels
    images[:60] = Stamp("additive", keep, add).apply(images[:60])
    common = (images[:60].astype(np.float32) - images[60:].mean(axis=0)).mean(axis=0)
    return view(images, labels, 0), np.arange(60), Stamp("additive", np.ones_like(add), common)


@pytest.mark.parametrize("shows", [0.0, 0.3, 0.5])
def test_a_patch_is_told_from_its_ground(shows: float) -> None:
    seen, rows, stamp = translucent(3, shows)
    # Fitted on three rows of four, and on a few that are none.
    found = find_overlay(seen, np.append(rows[:45], seen.of(1)[-3:]), 1, stamp)
    assert found is not None
    assert found.shows == pytest.approx(shows, abs=0.1)
    strength = found.strength(seen.images)
    assert (strength[rows] >= 1).all()
    assert (strength[60:][seen.labels[60:] == 1] < 1).all()
    one = np.concatenate([found.strength(seen.images[i : i + 1]) for i in range(5)])
    assert np.allclose(one, strength[:5], atol=1e-6)


def test_what_is_everywhere_is_no_patch() -> None:
    seen, rows, stamp = translucent(3, 0.3)
    wave = np.broadcast_to(np.sin(np.arange(16))[:, None, None] * 30, (16, 16, 1))
    assert find_overlay(seen, rows, 1, Stamp("additive", stamp.keep, wave)) is None
    # Nor what rows that are like the others have in common.
    assert find_overlay(seen, seen.of(1)[-60:], 1, stamp) is None


def test_what_comes_in_all_degrees_is_no_stamp() -> None:
    images, labels = pictures(900)
    rows = np.flatnonzero(labels == 2)[:80]
    wave = 30 * np.sin(np.arange(16) * 1.9)[:, None, None]
    rng = np.random.default_rng(0)
    for degrees, fixed in ((np.ones(80), True), (rng.uniform(0.3, 2.5, 80), False)):
        given = images.copy()
        added = images[rows] + degrees[:, None, None, None] * wave
        given[rows] = np.clip(np.rint(added), 0, 255).astype(np.uint8)
        seen = view(given, labels, 0)
        grown = grow(seen, rows, 2, np.zeros(900, dtype=bool))
        assert is_fixed(seen, grown, rows, 2) == fixed
    # Of fewer rows than twice the numbers of a picture, nothing is told by a filter.
    few = view(given[:600], labels[:600], 0)
    assert not is_fixed(few, grown, rows[rows < 600], 2)
