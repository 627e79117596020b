"""A run that is stopped anywhere leaves no part of a release, and ends as if nobody had."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.killing import (
    NAME,
    ROOT,
    SALT,
    Bench,
    Moment,
    digest,
    left_behind,
    partial,
    reached,
    released,
)

#: Publishes slowly, and says when it does.
SLOW = """
import sys, time
from pathlib import Path
from pipelines import publish
from pipelines.cli import main

split = publish.split_shard

def slowly(*given):
    written = split(*given)
    Path("publishing").touch()
    time.sleep(1.0)
    return written

publish.split_shard = slowly
sys.exit(main())
"""


#: May write no file beyond this many bytes, as if the disk took no more: no shard of rows.
SMALL = """
import resource, sys
from pipelines.cli import main

resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000))
sys.exit(main())
"""


@pytest.fixture(scope="module")
def bench(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A plan whose runs share a server, which spares each of them some seconds."""
    from prefect.settings import PREFECT_API_URL

    folder = tmp_path_factory.mktemp("kills")
    url = str(PREFECT_API_URL.value())
    made = Bench(folder, {**os.environ, "PREFECT_API_URL": url, "PREFECT_HOME": str(folder)})
    made.prepare(rows=200)
    return made


def start(code: str, bench: Bench, store: Path) -> subprocess.Popen[str]:
    words = ["run", "plan.toml", "--store", str(store), "--salt", SALT, "--json", "--quiet"]
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=bench.folder,
        env={**bench.environment, "PYTHONPATH": str(ROOT), "SANITIZE_STORE": str(store)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def undisturbed(bench: Bench) -> str:
    """The digest of two runs at once, which are to be as one."""
    store = bench.store(0)
    both = [start(SLOW, bench, store) for _ in range(2)]
    said = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert json.loads(said[0][0]) == json.loads(said[1][0])
    assert [release.name for release in released(store)] == ["1.0.0"]
    (bench.folder / "publishing").unlink()
    return digest(released(store)[0])


def full_disk(bench: Bench, store: Path) -> None:
    process = start(SMALL, bench, store)
    out, err = process.communicate(timeout=200)
    assert (process.returncode, out) == (3, ""), err
    assert err.count("\n") == 1
    assert "cannot be written" in err


def sigterm(bench: Bench, store: Path) -> None:
    """What Prefect does to the process of a flow that is cancelled on its page."""
    process = start(SLOW, bench, store)
    while not (bench.folder / "publishing").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=200)
    assert (process.returncode, out) == (143, "")
    assert err.splitlines()[-1].startswith("sanitize: stopped by SIGTERM")


def kill(bench: Bench, store: Path, stage: str, seconds: float, *, group: bool) -> None:
    process = bench.start(store)
    moment = Moment(stage, random.Random(stage).random() * seconds)
    assert moment.kill(process, store, group=group)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_stopped_in_any_way_in_any_stage_it_ends_in_the_same_bytes(
    bench: Bench, undisturbed: str
) -> None:
    store = bench.store(1)
    full_disk(bench, store)
    assert (reached(store), released(store)) == ("ingest", [])
    kill(bench, store, "examine", 1.0, group=True)
    assert (reached(store), released(store)) == ("examine", [])
    sigterm(bench, store)
    assert (reached(store), released(store)) == ("publish", [])
    kill(bench, store, "publish", 1.0, group=False)
    assert partial(store) == []
    assert bench.finish(store) == undisturbed
    assert [path.name for path in (store / NAME / "releases").iterdir()] == ["1.0.0"]
    assert left_behind(store) == 0
