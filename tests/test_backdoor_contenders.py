"""The benchmark beside ART: all get the same arrays and net, and are judged by the truth."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from benchmarks import backdoors
from benchmarks.answers import Answer, Cost
from benchmarks.backdoor_contenders import Measured, attacked, grid, rate_of
from benchmarks.backdoors import HELD_OUT, Case
from benchmarks.measure import in_own_process
from sanitizers.backdoors import Audit

torch = pytest.importorskip("torch")

from benchmarks.backdoor_tools import TRUE_RATE, Given  # noqa: E402
from sanitizers.encoders.net import train  # noqa: E402

ROWS = 300


def pictures(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes that differ in how bright they are."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, rows)
    noise = rng.integers(0, 60, (rows, 12, 12, 1))
    return (noise + 80 * labels[:, None, None, None]).astype(np.uint8), labels.astype(np.int64)


@pytest.fixture(scope="module")
def given() -> Given:
    images, labels = pictures(ROWS)
    return Given.of(images, labels, train(images, labels, 3, 1, 0), 0.2)


def test_a_tool_gets_the_very_net(given: Given, tmp_path: Path) -> None:
    net = train(given.images, given.labels, 3, 1, 0)
    given.save(tmp_path / "given.npz")
    read = Given.load(tmp_path / "given.npz")
    x = torch.from_numpy(read.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        features = read.layers()(x).numpy()
    np.testing.assert_allclose(features, net.look(given.images)[1], atol=1e-5)
    assert (read.rate, read.labels.tolist()) == (0.2, given.labels.tolist())


@pytest.mark.skipif(find_spec("art") is None, reason="ART is in the extra bench")
def test_signatures_take_half_as_much_again_as_the_rate_from_every_class(
    given: Given, tmp_path: Path
) -> None:
    file = tmp_path / "given.npz"
    given.save(file)
    told = in_own_process("backdoor_tools", TRUE_RATE, str(file))
    assert told is not None
    assert Cost(**told).peak_mb > 1
    flags = Answer.load(file.with_suffix(".answer.npz")).flags
    for label in range(3):
        assert flags[given.labels == label].mean() == pytest.approx(1.5 * 0.2, abs=0.02)


def test_the_rate_is_that_of_the_rows_with_the_targets_label() -> None:
    images, labels = pictures(ROWS + HELD_OUT)
    done = attacked(Case("fashion", "patch", 0.1), 3, ROWS, images, labels)
    target = done.planted[0].target
    assert done.mask("poison").sum() == 30
    assert rate_of(done) == 30 / (done.labels == target).sum()
    clean = attacked(Case("fashion", "clean", 0.0), 3, ROWS, images, labels)
    assert rate_of(clean) == 0


def test_the_table_has_means_over_seeds_and_no_recall_where_nothing_is_poisoned() -> None:
    cost = Cost(2.0, 1.0, 100.0)
    rows = [
        Measured("a", 1, "x", 10, 0.5, 0.2, 2, 0.02, cost),
        Measured("a", 2, "x", 10, 1.0, None, 4, 0.04, cost),
        Measured("clean", 1, "x", 0, None, None, 6, 0.06, cost),
    ]
    made = grid(rows)
    assert made.title == "mean over 2 seeds"
    first, second = made.rows
    assert list(first[:6]) == ["a", "x", 0.75, 0.2, pytest.approx(0.03), 3]
    assert (second[2], second[3]) == (None, None)


def test_success_by_nature_is_that_of_a_net_that_saw_no_poison(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backdoors, "epochs", lambda rows, classes: 30)
    monkeypatch.setattr(backdoors, "audit", lambda *_: Audit((), (), np.zeros(ROWS)))
    images, labels = pictures(ROWS + HELD_OUT)
    case = Case("fashion", "patch", 0.1)
    run = backdoors.measure(case, 3, ROWS, images, labels)
    assert run.success_before == run.success_after
    assert run.success_before is not None
    assert run.success_natural is not None
    assert run.success_natural < run.success_before / 2
    # An earlier run that lacks it gets the very figure, and keeps all others.
    old = replace(run, success_natural=None)
    assert backdoors.with_nature(old, case, ROWS, images, labels) == run
    with pytest.raises(ValueError, match="now draws"):
        backdoors.with_nature(replace(old, poison=31), case, ROWS, images, labels)
    clean = backdoors.measure(Case("fashion", "clean", 0.0), 3, ROWS, images, labels)
    assert clean.success_natural is None


def run_of(after: float, natural: float | None) -> backdoors.Measured:
    found = ("2", 10, 1.0, 0, 0.0, 1, 0)
    return backdoors.Measured(
        "fashion-patch-0.01", 1, *found, 0.9, after, 0.8, 0.8, 1.0, success_natural=natural
    )


def test_what_a_trigger_does_by_nature_is_no_backdoor_that_is_left() -> None:
    given = [(0.05, None), (0.06, None), (0.09, 0.08), (0.11, 0.08), (0.05, 0.01)]
    runs = [run_of(after, natural) for after, natural in given]
    held = {str(what): count for what, count, _ in backdoors.summary(runs)}
    assert held["fixed stamps: success after at most .05"] == 2
    assert held["fixed stamps: the same, or .02 above that by nature"] == 3
    # Runs of before it was measured are printed all the same.
    table, _ = backdoors.grids(runs)
    shown = [row[list(table.columns).index("by nature")] for row in table.rows]
    assert shown == [None, None, "0.080", "0.080", "0.010"]
