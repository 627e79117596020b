"""Triggers that are another change in each picture."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from numpy.typing import NDArray

from sanitizers.backdoors import Backdoors, Filter, Stamp
from sanitizers.backdoors.arrays import view
from sanitizers.backdoors.auditing import inside_out
from sanitizers.backdoors.candidates import Candidate
from sanitizers.backdoors.evidence import Evidence
from sanitizers.backdoors.sanitizer import UNSTAMPED, Held
from sanitizers.backdoors.screen import Flips
from sanitizers.backdoors.unstamped import find_unstamped
from sanitizers.core.keepsake import SUSPICION
from sanitizers.encoders.net import Net
from sanitizers.poisons import stamps
from sanitizers.poisons.stamping import StampAttack
from tests.triggers import dataset

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="needs torch: .[images]")


def pictures(n: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Ten classes: a bright bar, upright or level, at a place of its own on a rough ground."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n)
    rows, columns = np.mgrid[0:16, 0:16]
    along = np.where((labels % 2 == 0)[:, None, None], rows, columns)
    centre = (rng.normal(0, 0.4, n) + 2 + 3 * (labels // 2))[:, None, None]
    bar = np.exp(-((along - centre) ** 2) / 2) * rng.uniform(110, 200, n)[:, None, None]
    images = bar + 25 + rng.normal(0, 10, (n, 16, 16))
    return np.clip(images, 0, 255).astype(np.uint8)[..., None], labels


@needs_torch
def test_a_patch_that_moves_is_found_and_clean_rows_stay() -> None:
    done = StampAttack(stamps.moving_patch, target=3).attack(*pictures(2500, 1), 0.1, 2)
    data = dataset(done.images, [f"c{v}" for v in done.labels])
    recipe = Backdoors(epochs=8)
    scorer = recipe.fit(data)
    (batch,) = data.batches()
    found = scorer.score(batch) >= 1
    poison = done.mask("poison")
    assert found[poison].mean() > 0.95
    assert found[~poison].sum() <= 2
    hint = scorer.hint(batch)[int(np.flatnonzero(found)[0])]
    assert hint is not None
    assert hint.startswith(UNSTAMPED)
    assert "labelled 'c3'" in recipe.reason(1.2, hint)
    (shown,) = [one for one in scorer.keepsakes if one.kind == SUSPICION]
    assert shown.facts["proven"]
    # A row is known by its id, and by nothing else.
    assert (scorer.score(batch.take(np.flatnonzero(found)[:3])) >= 1).all()


@needs_torch
def test_clean_pictures_of_many_classes_are_calm() -> None:
    images, labels = pictures(2500, 1)
    data = dataset(images, [f"c{v}" for v in labels])
    scorer = Backdoors(epochs=8).fit(data)
    (batch,) = data.batches()
    assert (scorer.score(batch) == 0).all()
    assert not scorer.unstamped


def evidence(labels: NDArray[np.int64], apart: float, looks: NDArray[np.int64]) -> Evidence:
    n = len(labels)
    sure = np.full(n, 0.9, np.float32)
    there = np.full(n, apart, np.float32)
    nothing = np.zeros((n, 64), np.float32)
    return Evidence(Net(None, None, 1), nothing, nothing, sure, there, looks)


class Asked(Exception):  # noqa: N818 - not an error: a net was asked for
    """A net was to be trained."""


def refuse(*_: object) -> Net:
    raise Asked


def test_no_net_is_trained_where_classes_resemble_one_another_both_ways() -> None:
    images, labels = pictures(2000, 0)
    seen = view(images, labels, 0)
    # Every label is taken for the next three, and by the last three: so nature does.
    rng = np.random.default_rng(0)
    near = rng.choice([-3, -2, -1, 1, 2, 3], len(labels))
    looks = (labels + near) % 10
    calm = np.arange(len(labels)) % 2 == 0
    free = np.zeros(len(labels), dtype=bool)
    given = evidence(labels, 0.9, looks)
    given.apart[calm] = 0.0
    assert find_unstamped(seen, given, free, refuse, 0) == []
    # One label is taken for all others, and no other for it.
    planted = np.where(labels == 4, (labels + rng.integers(1, 10, len(labels))) % 10, labels)
    given = evidence(labels, 0.0, planted)
    given.apart[(labels == 4) & ~calm] = 0.9
    with pytest.raises(Asked):
        find_unstamped(seen, given, free, refuse, 0)
    # Unless a stamp explains these rows.
    assert find_unstamped(seen, given, labels == 4, refuse, 0) == []


def test_what_a_label_shows_by_nature_is_no_trigger_beside_planted_rows() -> None:
    images, labels = pictures(600, 0)
    seen = view(images, labels, 0)
    own = np.flatnonzero(labels == 2)
    natural, planted = own[::2], own[1::2]
    apart = np.zeros(len(labels), np.float32)
    apart[planted] = 0.9
    assert inside_out(seen, apart, candidate(natural))
    assert not inside_out(seen, apart, candidate(planted))
    # Of a label whose rows all agree, any part may be stamped: clean-label.
    assert not inside_out(seen, np.zeros_like(apart), candidate(natural))
    # Of photographs, which neighbours deny anyway.
    apart[labels != 2] = 0.9
    assert not inside_out(seen, apart, candidate(natural))


def candidate(rows: NDArray[np.int64]) -> Candidate:
    ones = np.ones((16, 16, 1), np.float32)
    found = Filter(ones.ravel(), 0.0, 1.0, 1.0)
    none = np.empty(0, np.int64)
    flips = Flips(1.0, 1.0, 0, 1.0, 0.0, 5.0)
    stamp = Stamp("additive", ones, ones)
    return Candidate(2, stamp, flips, (0.1, 0.1, 0.1), found, None, rows, none, rows, 0.0)


def test_rows_are_held_by_their_keys() -> None:
    (batch,) = dataset(pictures(6, 0)[0], ["bag"] * 6).batches()
    order = np.argsort(batch.keys[[1, 4]])
    held = Held(batch.keys[[1, 4]][order], np.array([1.5, 2.5])[order], "one of 2 rows")
    assert held.strength(batch).tolist() == [0, 1.5, 0, 0, 2.5, 0]
    assert held.strength(batch.take(np.array([4, 0]))).tolist() == [2.5, 0]
