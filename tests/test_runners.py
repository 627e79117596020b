"""Where shards are worked on: never decides what comes out, and fails as one process would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from pipelines import steps
from pipelines.cli import command
from pipelines.embed import embed
from pipelines.examine import examine
from pipelines.examined import MARKER, evidence_file
from pipelines.ingest import ingest
from pipelines.job import Job
from pipelines.plan import Plan
from pipelines.progress import SILENT
from pipelines.runners import LOCAL, RUNNER_VARIABLE, Local, Runner, find_runner, opened
from pipelines.runners.processes import Processes
from pipelines.runners.runner import MAX_GROUPS, do, groups
from pipelines.store import Store
from sanitizers.core.data import Batch, Dataset, Roles
from sanitizers.core.errors import EvidenceError, PlanError, SanitizeError, StoreError
from sanitizers.encoders import Pixels
from tests.pictures import encoded
from tests.spine import SALT, Toy, ToyScorer, hand_in

ROOT = Path(__file__).resolve().parent.parent
RAY = pytest.param(
    "ray:2", marks=pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
)


@pytest.fixture(scope="module", params=["processes:2", RAY])
def two(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """Two workers that all tests of this module share: they take seconds to start."""
    with opened(request.param) as runner:
        yield runner


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ("proceses", "no runner 'proceses'; did you mean 'processes'?"),
        ("processes:0", "N from 1"),
        ("processes:", "N from 1"),
        ("processes:many", "N from 1"),
        ("processes:9999999999999", "N from 1"),
        ("local:2", "no runner 'local:2'"),
        ("ray://", "names no host"),
        ("ray:x", "ray"),
    ],
)
def test_a_runner_that_is_not_there_is_refused(
    said: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PlanError) as caught:
        find_runner(said)
    assert says in str(caught.value)


def test_the_environment_names_a_runner_where_nothing_else_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(RUNNER_VARIABLE, raising=False)
    assert find_runner() == LOCAL
    monkeypatch.setenv(RUNNER_VARIABLE, "processes:3")
    found = find_runner()
    assert isinstance(found, Processes)
    assert found.workers == 3
    assert find_runner("local") == LOCAL
    monkeypatch.setenv(RUNNER_VARIABLE, "proceses")
    with pytest.raises(PlanError, match=f"{RUNNER_VARIABLE}: no runner"):
        find_runner()


def test_ray_that_is_not_installed_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PlanError, match=r"pip install 'dataset-sanitizer\[ray\]'"):
        find_runner("ray://head:10001")


def test_a_command_refuses_a_runner_before_any_data_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(["run", "nothing.csv", "--runner", "processors"]) == 2
    assert "did you mean 'processes'?" in capsys.readouterr().err
    assert not (tmp_path / "sanitized").exists()


# ---------------------------------------------------------------- groups


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100, 5_000])
@pytest.mark.parametrize("workers", [1, 2, 16, 512])
def test_groups_hold_every_shard_once_and_are_few(count: int, workers: int) -> None:
    made = groups(count, workers)
    assert [number for group in made for number in group] == list(range(count))
    assert len(made) <= MAX_GROUPS
    sizes = [len(group) for group in made]
    assert not sizes or max(sizes) - min(sizes) <= 1


# ---------------------------------------------------------------- the same release


def table(rows: int = 900) -> pa.Table:
    """Two classes, some flipped; a cluster from one source; rows without values."""
    rng = np.random.default_rng(5)
    y = rng.integers(0, 2, rows)
    X = rng.normal(size=(rows, 4)) + 2.5 * y[:, None]
    X[:20] = 9 + 0.01 * rng.normal(size=(20, 4))
    shown = np.where(rng.random(rows) < 0.05, 1 - y, y)
    columns = {f"x{i}": pa.array(X[:, i], mask=rng.random(rows) < 0.01) for i in range(4)}
    source = ["s9"] * 20 + [f"s{i % 9}" for i in range(rows - 20)]
    return pa.table({**columns, "where": source, "y": [f"class {c}" for c in shown]})


def released(folder: Path, runner: Runner) -> dict[str, bytes]:
    """Every file of a run that says something of rows: evidence, verdicts, and the release."""
    folder.mkdir()
    pq.write_table(table(), folder / "rows.parquet")
    plan = {"dataset": {"name": "rows", "source": str(folder / "rows.parquet")}}
    roles = {"roles": {"label": "y", "source": "where"}}
    job = Job(Plan.make(plan | roles), Store.open(folder / "store", SALT))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "ingest", partial(ingest, shard_rows=150))
        work = job.ingested(steps.ingest_inputs(job, SILENT))
    assert len(work.data.shards) == 6
    for name in work.chosen.run:
        steps.examine_with(work, name, SILENT, runner)
    steps.look_for_risks(work, SILENT)
    steps.decide_all(work, SILENT)
    assert steps.publish_rows(work, SILENT).release is not None
    found = sorted((folder / "store" / "rows").rglob("*.parquet"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run whose shards were scored in this process."""
    return released(tmp_path_factory.mktemp("here") / "run", LOCAL)


def test_a_release_is_the_same_byte_for_byte_wherever_its_shards_are_scored(
    two: Runner, here: dict[str, bytes], tmp_path: Path
) -> None:
    there = released(tmp_path / "run", two)
    assert here.keys() == there.keys()
    assert {name for name in here if here[name] != there[name]} == set()
    parts = ("evidence", "runs", "clean", "quarantine")
    assert all(any(f"/{part}" in name for name in here) for part in parts)


def test_embeddings_are_the_same_wherever_they_are_made(two: Runner, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [encoded(image) for image in rng.integers(0, 256, (40, 6, 6), dtype=np.uint8)]
    rows = pa.table({"image": pa.array([*images[:7], None, *images[8:]], pa.binary())})
    pq.write_table(rows, tmp_path / "rows.parquet")
    read = ingest(tmp_path / "rows.parquet", tmp_path / "in", salt=SALT, shard_rows=9)
    data = read.dataset(Roles(image="image"), SALT)
    (here,) = embed(Pixels(), data, [tmp_path / "here"])
    (there,) = embed(Pixels(), data, [tmp_path / "there"], runner=two)
    assert (there.rows, there.missing) == (here.rows, here.missing) == (40, 1)
    for file in sorted((tmp_path / "here").glob("*.parquet")):
        assert file.read_bytes() == (tmp_path / "there" / file.name).read_bytes()


# ---------------------------------------------------------------- faults


def failing(bad: float) -> Toy:
    """A sanitizer that fails on rows of a value; of classes that travel as they are."""

    @dataclass(frozen=True)
    class Scorer(ToyScorer):
        def score(self, batch: Batch) -> NDArray[np.float64]:
            scores = super().score(batch)
            if (scores == bad).any():
                raise ZeroDivisionError("a bad row")
            return scores

    @dataclass(frozen=True)
    class Failing(Toy):
        name: ClassVar[str] = "failing"

        def fit(self, data: Dataset) -> Scorer:
            return Scorer(self.column)

    return Failing()


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    rows = pa.table({"x": [float(i) for i in range(12)], "flat": [1] * 12})
    return hand_in(tmp_path / "in", rows, shard_rows=3).dataset(Roles(features=("x",)), SALT)


def test_a_sanitizer_that_fails_elsewhere_fails_the_run_as_it_would_here(
    two: Runner, dataset: Dataset, tmp_path: Path
) -> None:
    said = []
    for name, runner in (("here", LOCAL), ("there", two)):
        with pytest.raises(EvidenceError) as caught:
            examine(failing(7.0), dataset, tmp_path / name, runner=runner)
        said.append(str(caught.value))
        assert not (tmp_path / name / MARKER).exists()
    assert said[0] == said[1]
    # The workers live on, and what was finished is kept.
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "there").glob("evidence-*")}
    examine(failing(-1.0), dataset, tmp_path / "there", runner=two)
    assert before
    for name, at in before.items():
        assert (tmp_path / "there" / name).stat().st_mtime_ns == at


def test_a_folder_that_is_not_at_hand_is_told(dataset: Dataset, tmp_path: Path) -> None:
    class Elsewhere(Local):
        """As on a machine that does not have the folder, or has another under its name."""

        def map(self, work, count, *, device="cpu"):  # type: ignore[no-untyped-def]
            (tmp_path / "e").rename(tmp_path / "gone")
            yield from super().map(work, count)

    class Claims(Local):
        def map(self, work, count, *, device="cpu"):  # type: ignore[no-untyped-def]
            done = list(super().map(work, count))
            evidence_file(tmp_path / "f", 1).unlink()
            return iter(done)

    with pytest.raises(StoreError, match="finds no folder"):
        examine(Toy(), dataset, tmp_path / "e", runner=Elsewhere())
    with pytest.raises(StoreError, match="1 files that workers have written are not here"):
        examine(Toy(), dataset, tmp_path / "f", runner=Claims())
    assert not (tmp_path / "f" / MARKER).exists()


def test_a_lost_worker_is_made_up_for_once(tmp_path: Path) -> None:
    def dying(times: int) -> Callable[[int], int]:
        def work(number: int) -> int:
            if number == 2 and len(list(tmp_path.iterdir())) < times:
                (tmp_path / str(os.getpid())).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return number

        return work

    with opened("processes:2") as runner:
        assert sorted(runner.map(dying(1), 5)) == [0, 1, 2, 3, 4]
        with pytest.raises(SanitizeError, match="workers were lost 2 times") as caught:
            list(runner.map(dying(9), 5))
        assert "\n" not in str(caught.value)


def test_work_that_cannot_travel_is_told(two: Runner) -> None:
    lock = pytest.importorskip("_thread").allocate_lock()

    def work(number: int) -> bool:
        return bool(lock.locked())

    with pytest.raises(SanitizeError, match="cannot be handed to a worker") as caught:
        list(two.map(work, 3))
    assert caught.value.do == "run it with --runner local"


def test_warnings_of_libraries_stay_with_the_workers() -> None:
    def work(number: int) -> int:
        import warnings

        warnings.warn("a library speaks", stacklevel=1)
        return number

    assert do(work, range(2)) == [0, 1]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from pipelines.runners import find_runner\n"
        "def work(number): time.sleep(0.2); return os.getpid()\n"
        "print(*set(find_runner('processes:2').map(work, 4)), flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert workers
    process.kill()
    process.communicate()
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
