from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from pipelines import publish as publishing
from pipelines.cli import command
from pipelines.job import Job
from pipelines.manifest import Manifest
from pipelines.metrics import Metrics
from pipelines.plan import Plan
from pipelines.progress import SILENT
from pipelines.store import Store
from pipelines.terminal import StderrConsole
from pipelines.timing import WAIT
from pipelines.verify import verify

ROWS = 300
ROOT = str(Path(__file__).resolve().parent.parent)
#: A job in the background of a shell inherits that Ctrl-C is ignored; here it is heard.
MAIN = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from pipelines.cli import main; sys.exit(main())"
)


def table(rows: int = ROWS, seed: int = 0) -> str:
    """A small table with two classes that a model can tell apart, as CSV."""
    rng = np.random.default_rng(seed)
    lines = ["name,a,b,kind,y"]
    for i in range(rows):
        y = i % 2
        a, b = rng.normal(2.0 * y), rng.normal()
        lines.append(f"r{i},{a:.4f},{b:.4f},{'uvw'[i % 3]},{'no' if y else 'yes'}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SANITIZE_STORE", raising=False)
    (tmp_path / "a.csv").write_text(table())
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = command(["run", *words])
    said = capsys.readouterr()
    return status, said.out, said.err


def releases(folder: Path) -> list[str]:
    found = folder.glob("sanitized/*/releases/*")
    return sorted(f"{p.parent.parent.name}/{p.name}" for p in found)


# ------------------------------------------------------------- the main job


def test_a_table_is_sanitized_and_the_same_again_is_nothing_to_do(
    flow_runs: None,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status, out, err = run(capsys, "a.csv", "--label", "y", "--json")
    assert status == 0, err
    said = json.loads(out)
    assert list(said) == [
        *("dataset", "version", "rows", "keep", "review", "quarantine", "held"),
        *("release", "manifest", "report", "onto"),
    ]
    assert (said["dataset"], said["version"], said["held"]) == ("a", "1.0.0", False)
    assert said["rows"] == said["keep"] + said["review"] + said["quarantine"] == ROWS
    assert verify(Path(said["release"])).ok
    assert "version 1.0.0" in Path(said["report"]).read_text()
    for word in ("label: y", "examine: outliers: done", "quarantine", "clean rows", "not run"):
        assert word in err

    from pipelines import flows

    monkeypatch.setattr(flows, "run", None)
    status, out, err = run(capsys, "a.csv", "--label", "y", "--json")
    assert (status, json.loads(out)) == (0, said)
    assert "nothing to do: release 1.0.0 already holds exactly this" in err

    status, out, err = run(capsys, "a.csv", "--label", "y", "--json", "--fail-on", "quarantine")
    held = bool(said["quarantine"])
    assert (status, json.loads(out)["held"]) == (int(held), held)


def test_rows_are_read_while_the_server_starts(
    flow_runs: None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL

    from pipelines import flows, steps

    tables = {"dataset": {"name": "a", "source": "a.csv"}, "roles": {"label": "y"}}
    plan = Plan.make({**tables, "sanitizers": {"use": ["outliers"]}})
    job = Job(plan, Store.open(folder / "store"))
    read, ingest_inputs = [], steps.ingest_inputs

    def ingest(*given: Any) -> dict[str, str]:
        read.append(time.monotonic())
        return ingest_inputs(*given)

    class Server:
        api = PREFECT_API_URL.value()

        def wait(self) -> None:
            assert len(read) == 1
            assert job.is_ingested(job.input_keys())

    monkeypatch.setattr(steps, "ingest_inputs", ingest)
    said = flows.run(job, SILENT, StderrConsole(), cast(Any, Server()))
    assert len(read) == 1, "and not again by the flow"
    assert said.release is not None
    metrics = Metrics.load(job.store.run("a", Manifest.load(Path(said.release)).run))
    assert 0 < metrics.seconds["ingest"] < metrics.whole_seconds
    assert 0 <= metrics.seconds[WAIT] < metrics.whole_seconds

    # What was read for one run is not taken for another.
    (folder / "a.csv").write_text(table(seed=1))
    again = flows.run(replace(job), SILENT, StderrConsole())
    assert (again.version, len(read)) == ("2.0.0", 2)


def test_over_the_budget_nothing_is_published(
    flow_runs: None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "plan.toml").write_text(
        '[dataset]\nname = "b"\nsource = "a.csv"\nstore = "sanitized"\n[roles]\nlabel = "y"\n'
        '[policy.rules.outliers]\nquarantine = "top 40%"\n[sanitizers]\nuse = ["outliers"]\n'
    )
    status, out, err = run(capsys, "plan.toml", "--json")
    said = json.loads(out)
    assert (status, said["held"], said["version"], said["release"]) == (1, True, None, None)
    assert "nothing was published" in err
    assert "budget" in err
    assert "Held." in Path(said["report"]).read_text()
    assert releases(folder) == []
    # The same evidence, another budget: published, and no detector runs again.
    status, out, err = run(capsys, "plan.toml", "--json", "--budget", "0.5")
    assert (status, json.loads(out)["version"]) == (0, "1.0.0")
    assert "examine" not in err


def test_only_small_values_pass_between_tasks(folder: Path) -> None:
    from pipelines import flows

    store = Store.open(folder / "sanitized", bytes(32))
    plan = Plan.make(
        {"dataset": {"name": "a", "source": "a.csv"}, "roles": {"label": "y"}}
    ).model_dump(mode="json")
    inputs = flows.ingest.fn(plan, str(store.root))
    results: list[object] = [inputs]
    for name in Job.load(plan, str(store.root)).ingested(inputs).chosen.run:
        results.append(flows.examine.fn(plan, str(store.root), inputs, name))
    results.append(flows.risks.fn(plan, str(store.root), inputs))
    results.append(flows.decide.fn(plan, str(store.root), inputs))
    results.append(flows.report.fn(plan, str(store.root), inputs))
    results.append(flows.publish.fn(plan, str(store.root), inputs))
    assert max(len(json.dumps(result)) for result in results) < 20_000
    assert str(store.salt.hex()) not in json.dumps(results)
    assert all(not t.persist_result for t in (flows.ingest, flows.examine, flows.publish))


# ------------------------------------------------------------- bad input


def with_head(head: str) -> Callable[[str], str]:
    return lambda text: head + "\n" + text.split("\n", 1)[1]


BAD: list[tuple[str, Callable[[str], str], list[str], int, list[str]]] = [
    ("a missing column", str, ["--label", "z"], 2, ["no column 'z'", "'kind'"]),
    ("an empty file", lambda t: "", [], 3, ["a.csv is empty"]),
    ("a header only", lambda t: t.split("\n")[0] + "\n", [], 3, ["no rows"]),
    ("repeated names", with_head("name,a,a,kind,y"), [], 3, ["2 columns called 'a'"]),
    ("one class", lambda t: t.replace("no", "yes"), ["--label", "y"], 2, ["one class only"]),
    (
        "nothing to learn from",
        lambda t: "\n".join(["a,b,y"] + [f",,{'no' if i % 2 else 'yes'}" for i in range(50)]),
        ["--label", "y"],
        2,
        ["no column to learn from"],
    ),
    ("a target as label", str, ["--label", "a"], 2, ["looks like a target", "--target a"]),
    ("a label as target", str, ["--target", "y"], 2, ["looks like a label", "--label y"]),
    (
        "repeated ids",
        lambda t: t + t.split("\n")[1] + "\n",
        ["--id", "name"],
        3,
        ["'name' repeats in 1 of 301 rows", "'r0'"],
    ),
]


@pytest.mark.parametrize(
    ("change", "words", "status", "said"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_bad_input_is_one_line_and_nothing_is_published(
    flow_runs: None,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[str], str],
    words: list[str],
    status: int,
    said: list[str],
) -> None:
    (folder / "a.csv").write_text(change(table()))
    got, out, err = run(capsys, "a.csv", "--quiet", "--json", *words)
    assert (got, out) == (status, "")
    assert err.count("\n") == 1
    assert err.startswith("sanitize: ")
    for word in said:
        assert word in err
    assert releases(folder) == []


def test_a_missing_file_is_told_before_anything_starts(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(capsys, "b.csv")
    assert (status, err) == (3, "sanitize: no file 'b.csv'; did you mean 'a.csv'?\n")


def test_a_disk_that_fills_up_publishes_nothing_and_the_next_run_does(
    flow_runs: None,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "split_shard", full)
        status, _, err = run(capsys, "a.csv", "--use", "outliers", "--quiet")
    assert (status, err.count("\n")) == (3, 1)
    assert "no space left" in err
    assert releases(folder) == []
    status, out, _ = run(capsys, "a.csv", "--use", "outliers", "--quiet", "--json")
    assert (status, json.loads(out)["version"]) == (0, "1.0.0")


def test_rows_that_cannot_be_read_are_kept_in_quarantine(
    flow_runs: None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with gzip.open("b.csv.gz", "wt") as file:
        file.write(table() + "only,two\n")
    status, out, err = run(capsys, "b.csv.gz", "--use", "outliers", "--json")
    said = json.loads(out)
    assert (status, said["rows"]) == (0, ROWS + 1)
    assert "unreadable rows" in err
    assert (Path(said["release"]) / "quarantine" / "unreadable.parquet").is_file()


def test_a_server_that_does_not_answer_is_one_line(folder: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", MAIN, "run", "a.csv", "--use", "outliers"],
        env=os.environ | {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert "no Prefect server answers at http://127.0.0.1:9/api" in ran.stderr.splitlines()[-1]


# ------------------------------------------------------------- Ctrl-C


def processes_of(folder: Path) -> list[str]:
    """The commands of all processes whose environment names a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_ctrl_c_ends_a_run_soon_and_leaves_nothing_half_done(
    flow_runs: None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.csv").write_text(table(5_000))
    words = ["run", "a.csv", "--label", "y", "--use", "outliers,labels", "--json"]
    environment = os.environ | {"PREFECT_HOME": str(folder / "prefect"), "PYTHONPATH": ROOT}
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("examine"):
            break
    os.killpg(process.pid, signal.SIGINT)
    began = time.monotonic()
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    assert (process.returncode, out) == (130, "")
    assert time.monotonic() - began < 20
    assert err.splitlines()[-1].startswith("sanitize: stopped by Ctrl-C")
    assert "Traceback" not in err
    assert releases(folder) == []
    until = time.monotonic() + 10
    while processes_of(folder) and time.monotonic() < until:
        # What ends the server is a process too, which outlives the run by a moment.
        time.sleep(0.1)
    assert processes_of(folder) == []
    status, out, err = run(capsys, *words[1:])
    assert (status, json.loads(out)["version"]) == (0, "1.0.0")
