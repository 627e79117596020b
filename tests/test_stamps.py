"""Triggers on images: exact where they are, nowhere else, and told truly."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sanitizers.core.errors import InputError, PlanError
from sanitizers.poisons import stamps
from sanitizers.poisons.stamping import (
    Plot,
    StampAttack,
    StampedImages,
    plant_all,
    with_descent,
    with_noise,
)

SHAPES = [(12, 12, 1), (16, 12, 3)]
DRAWS = {
    "patch": stamps.patch,
    "gap": stamps.gap,
    "sparse": stamps.sparse,
    "blend": stamps.blend(0.15),
    "smooth": stamps.smooth_blend(0.2),
    "sinusoid": stamps.sinusoid(30),
    "warp": stamps.warp,
    "moving": stamps.moving_patch,
}


def pictures(
    shape: tuple[int, int, int], n: int = 300
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (n, *shape), dtype=np.uint8), np.arange(n) % 5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", DRAWS)
def test_truth_names_every_changed_row_and_no_other(name: str, shape: tuple[int, int, int]) -> None:
    images, labels = pictures(shape)
    before = images.copy(), labels.copy()
    done = StampAttack(DRAWS[name]).attack(images, labels, 0.1, 3)
    assert (images == before[0]).all()
    assert (labels == before[1]).all()
    changed = (done.images != images).any(axis=(1, 2, 3)) | (done.labels != labels)
    assert (np.flatnonzero(changed) == done.rows).all()
    assert len(done.rows) == 30
    assert done.images.dtype == np.uint8


@pytest.mark.parametrize("name", DRAWS)
def test_the_seed_decides_everything(name: str) -> None:
    images, labels = pictures((12, 12, 1))
    one, again, other = (StampAttack(DRAWS[name]).attack(images, labels, 0.1, s) for s in (3, 3, 4))
    assert (one.images == again.images).all()
    assert (one.rows == again.rows).all()
    assert not (one.images == other.images).all()


def test_the_trigger_that_is_told_is_the_one_that_was_planted() -> None:
    images, labels = pictures((12, 12, 1))
    for name in set(DRAWS) - {"moving"}:
        done = StampAttack(DRAWS[name]).attack(images, labels, 0.1, 7)
        assert (done.planted[0].trigger(images[done.rows]) == done.images[done.rows]).all(), name


def test_a_patch_covers_a_square_and_leaves_the_rest() -> None:
    images, labels = pictures((12, 12, 1))
    done = StampAttack(stamps.patch).attack(images, labels, 0.1, 5)
    trigger = done.planted[0].trigger
    assert isinstance(trigger, stamps.Stamp)
    covered = np.argwhere(trigger.keep[:, :, 0] == 0)
    side = int(np.ptp(covered[:, 0])) + 1
    assert 2 <= side <= 5
    assert len(covered) == side**2
    stamped = done.images[done.rows]
    assert (stamped[:, covered[:, 0], covered[:, 1]].std(axis=0) == 0).all()


def test_a_stamp_is_its_formula() -> None:
    images, _ = pictures((12, 12, 3), 20)
    stamp = stamps.blend(0.15)((12, 12, 3), np.random.default_rng(0))
    assert isinstance(stamp, stamps.Stamp)
    for i in range(20):
        slow = np.clip(np.round(images[i] * stamp.keep + stamp.add), 0, 255)
        assert (stamp(images)[i] == slow).all()


def test_a_still_warp_changes_nothing_and_a_shift_shifts() -> None:
    images, _ = pictures((12, 12, 1), 5)
    still = np.mgrid[0:12, 0:12].astype(np.float32)
    assert (stamps.Warp(still)(images) == images).all()
    shifted = still.copy()
    shifted[0] = np.minimum(shifted[0] + 1, 11)
    assert (stamps.Warp(shifted)(images)[:, :-1] == images[:, 1:]).all()


def test_a_moving_patch_is_in_every_picture_at_places_of_its_own() -> None:
    images = np.zeros((50, 12, 12, 1), np.uint8)
    trigger = stamps.moving_patch((12, 12, 1), np.random.default_rng(2))
    done = trigger(images)
    assert (done.any(axis=(1, 2, 3))).all()
    assert len({tuple(map(int, np.argwhere(image)[0])) for image in done}) > 10


@pytest.mark.parametrize(
    ("plot", "rate", "moved"),
    [("all-to-one", 0.1, 30), ("clean-label", 0.5, 0), ("all-to-all", 0.1, 30)],
)
def test_labels_follow_the_plot(plot: Plot, rate: float, moved: int) -> None:
    images, labels = pictures((12, 12, 1))
    done = StampAttack(stamps.patch, plot, target=2 if plot != "all-to-all" else -1).attack(
        images, labels, rate, 1
    )
    changed = done.labels != labels
    assert changed.sum() == moved
    assert set(done.kinds) == {"poison"}
    if plot == "all-to-one":
        assert (done.labels[changed] == 2).all()
    if plot == "clean-label":
        assert (labels[done.rows] == 2).all()
        assert len(done.rows) == 30
    if plot == "all-to-all":
        assert (done.labels[changed] == (labels[changed] + 1) % 5).all()
        assert done.planted[0].target == -1


def test_covers_keep_their_labels_and_come_from_further_classes() -> None:
    images, labels = pictures((12, 12, 1))
    done = StampAttack(stamps.patch, "source-specific", target=2).attack(images, labels, 0.1, 1)
    poison, cover = done.mask("poison"), done.mask("cover")
    source = done.planted[0].source
    assert poison.sum() == cover.sum() == 30
    assert (labels[poison] == source).all()
    assert (done.labels[poison] == 2).all()
    assert (done.labels[cover] == labels[cover]).all()
    assert not {2, source} & set(labels[cover].tolist())


def test_two_triggers_have_rows_of_their_own() -> None:
    images, labels = pictures((12, 12, 1))
    attacks = [StampAttack(stamps.patch), StampAttack(stamps.blend(0.15))]
    done = plant_all(attacks, images, labels, 0.1, 2)
    assert len(done.planted) == 2
    assert len(np.unique(done.rows)) == len(done.rows) == 60
    changed = (done.images != images).any(axis=(1, 2, 3)) | (done.labels != labels)
    assert (np.flatnonzero(changed) == done.rows).all()


def test_descent_climbs_the_loss_within_its_radius() -> None:
    images, labels = pictures((12, 12, 1), 20)
    direction = np.random.default_rng(0).normal(size=images.shape).astype(np.float32)
    moved = with_descent(lambda x, y: direction, radius=16)(
        images, labels, np.random.default_rng(0)
    )
    steps = moved.astype(int) - images
    assert np.abs(steps).max() <= 16
    inside = (images > 16) & (images < 239)
    assert (np.sign(steps) == np.sign(direction))[inside].all()


def test_noise_has_the_deviation_that_was_asked_for() -> None:
    images = np.full((50, 12, 12, 1), 128, np.uint8)
    noisy = with_noise(20)(images, np.zeros(50, np.int64), np.random.default_rng(0))
    assert noisy.std() == pytest.approx(20, rel=0.05)


def test_what_makes_no_sense_is_refused() -> None:
    images, labels = pictures((12, 12, 1))
    for rate, seed, target in ((0.0, 0, 0), (1.0, 0, 0), (0.1, -1, 0), (0.1, 0, 5), (1e-5, 0, 0)):
        with pytest.raises(PlanError):
            StampAttack(stamps.patch, target=target).attack(images, labels, rate, seed)
    with pytest.raises(InputError, match="can be stamped"):
        StampAttack(stamps.patch, "source-specific").attack(images, labels, 0.5, 0)


def test_masks_part_the_rows() -> None:
    images, labels = pictures((12, 12, 1))
    done = StampAttack(stamps.patch, "source-specific").attack(images, labels, 0.05, 0)
    assert isinstance(done, StampedImages)
    assert not (done.mask("poison") & done.mask("cover")).any()
    assert (done.mask("poison") | done.mask("cover")).sum() == len(done.rows)
