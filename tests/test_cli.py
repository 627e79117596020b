from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import commands
from pipelines.arguments import COMMANDS, parse
from pipelines.cli import LAST_ERROR, command
from pipelines.commands import plan_of
from pipelines.interrupts import Terminated
from pipelines.prefect_settings import prepare
from sanitizers.core.errors import EvidenceError, StoreError

PLAN = '[dataset]\nsource = "a.csv"\n[roles]\nlabel = "y"\n'


def errors(capsys: pytest.CaptureFixture[str]) -> str:
    """What a command said on standard error: one line."""
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SANITIZE_STORE", raising=False)
    (tmp_path / "a.csv").write_text("x,y\n1,a\n2,b\n")
    (tmp_path / "plan.toml").write_text(PLAN)
    return tmp_path


# ------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["rn", "a.csv"], ["no command 'rn'", "did you mean 'run'?"]),
        (["run", "a.csv", "--labl", "y"], ["no option '--labl'", "did you mean '--label'?"]),
        (["run", "a.csv", "--labl=y"], ["no option '--labl'"]),
        (["run", "a.csv", "b.csv"], ["'b.csv' is one word too many", "sanitize run --help"]),
        (["run"], ["PLAN.toml|DATA", "sanitize run --help"]),
        (["run", "a.csv", "--label"], ["--label", "expected one argument"]),
        (["run", "a.csv", "--budget", "much"], ["--budget", "'much'"]),
        (["run", "a.csv", "--budget", "2"], ["budget", "2.0", "a share in (0, 1]"]),
        (["run", "a.csv", "--label", "y", "--target", "x"], ["one of them"]),
        (["run", "a.csv", "--salt", "xyz"], ["--salt is not hex"]),
        (["run", "a.csv", "--salt", "abcd"], ["the salt has 2 bytes"]),
        (["run", "a.csv", "--use", "outlier"], ["'outlier'", "did you mean 'outliers'?"]),
        (["run", "a.csv", "--fail-on", "reviw"], ["'reviw'", "did you mean 'review'?"]),
        (["run", "a.csv", "--name", "A/b"], ["cannot name a dataset"]),
        (["run", "a.csv", "--store", "s4://bucket"], ["s4://", "known: 's3'"]),
        (["check", "plam.toml"], ["no plan 'plam.toml'", "did you mean 'plan.toml'?"]),
        (["verify", "nowhere"], ["no release 'nowhere'"]),
        (["explain", "a", "b"], ["is not a store"]),
    ],
)
def test_wrong_words_are_one_line_and_status_2(
    folder: Path, capsys: pytest.CaptureFixture[str], argv: list[str], words: list[str]
) -> None:
    assert command(argv) == 2
    said = errors(capsys)
    assert said.startswith("sanitize: ")
    for word in words:
        assert word in said


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_shows_examples(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert command([*name.split(), "--help"]) == 0
    said = capsys.readouterr().out
    assert "example" in said
    assert f"sanitize {name or 'run'} " in said


def test_no_words_is_help_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert command([]) == 2
    assert "examples:" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dataset-sanitizer ")


def test_flags_make_a_plan(folder: Path) -> None:
    words = "run a.csv --label y --features x --ignore u,v --trusted a.csv --clean-loss 0.02"
    more = "--use outliers,labels --fail-on review --fail-on labels --store s --name n"
    plan = plan_of(parse([*words.split(), *more.split()]))
    assert (plan.dataset.name, plan.dataset.source, str(plan.store)) == ("n", "a.csv", "s")
    assert (plan.roles.label, plan.roles.features, plan.roles.ignore) == ("y", ("x",), ("u", "v"))
    assert (plan.dataset.trusted, plan.roles.trusted) == ("a.csv", None)
    assert (plan.policy.clean_loss, plan.policy.fail_on) == (0.02, ("review", "labels"))
    assert plan.sanitizers.use == ("outliers", "labels")


def test_trusted_is_a_column_where_there_is_no_such_file(folder: Path) -> None:
    assert plan_of(parse(["run", "a.csv", "--trusted", "ok"])).roles.trusted == "ok"
    assert plan_of(parse(["run", "a.csv", "--trusted", "no.csv"])).dataset.trusted == "no.csv"


def test_flags_win_over_a_plan_file(folder: Path) -> None:
    plan = plan_of(parse(["run", "plan.toml", "--budget", "0.5", "--store", "s"]))
    assert (plan.roles.label, plan.policy.budget, str(plan.store)) == ("y", 0.5, "s")
    assert Path(plan.dataset.source) == Path("a.csv")


# ------------------------------------------------------------- check and list


def test_check_accepts_a_good_plan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["check", "plan.toml"]) == 0
    assert capsys.readouterr().out.startswith("plan.toml: good; 1 input file(s), sanitizers:")
    assert not (folder / "sanitized").exists()


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ("[sanitizers]\nuse = ['outlier']", 2, ["'outlier'", "did you mean 'outliers'?"]),
        ("[sanitizers.outliers]\ndetector = 'KNN'", 2, ["'detector'", "'detectors'"]),
        ("[sanitizers.outliers]\nsample = 'x'", 2, ["[sanitizers.outliers] sample is 'x'"]),
        ("[sanitizers.outliers]\ndetectors = ['KNM']", 2, ["[sanitizers.outliers]", "'KNN'"]),
        ("[sanitizers]\nuse = ['outliers']\n[sanitizers.labels]\nfolds = 3", 2, ["labels", "use"]),
        (
            "[policy.rules.label]\nreview = 'p <= 0.1'",
            2,
            ["rules.label]", "'labels'?"],
        ),
        ("[policy]\nfail_on = ['lables']", 2, ["'lables'", "did you mean 'labels'?"]),
        ("[sanitizers]\nuse = ['no.such:Thing']", 2, ["'no.such:Thing' cannot be imported"]),
    ],
)
def test_check_refuses_what_can_be_known_before_the_data(
    folder: Path, capsys: pytest.CaptureFixture[str], more: str, status: int, words: list[str]
) -> None:
    (folder / "plan.toml").write_text(PLAN + more)
    assert command(["check", "plan.toml"]) == status
    said = errors(capsys)
    for word in words:
        assert word in said


def test_check_misses_the_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.csv").rename(folder / "b.csv")
    assert command(["check", "plan.toml"]) == 3
    assert "no file" in errors(capsys)


def test_list_names_every_sanitizer_and_every_poison(capsys: pytest.CaptureFixture[str]) -> None:
    from sanitizers.catalog import SANITIZERS
    from sanitizers.poisons import POISONS

    assert command(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    named = [("sanitizer", name) for name in SANITIZERS] + [("poison", name) for name in POISONS]
    assert [tuple(line.split()[:2]) for line in lines] == named
    assert all(" needs " in line for line in lines)


# ------------------------------------------------------------- faults and signals


def test_a_fault_of_ours_is_one_line_and_leaves_its_traceback(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(said: object) -> int:
        raise RuntimeError("a\nb")

    monkeypatch.setattr(commands, "run", broken)
    (folder / "kept").mkdir()
    assert command(["run", "a.csv", "--store", "kept"]) == 4
    said = errors(capsys)
    assert "a fault of sanitize" in said
    assert str(Path("kept") / LAST_ERROR) in said
    assert "in broken" in (folder / "kept" / LAST_ERROR).read_text()


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (EvidenceError("sanitizer 'x' failed"), 4, "sanitizer 'x' failed"),
        (StoreError("no space left on the disk of s"), 3, "disk of s"),
        (OSError(28, "No space left on device"), 3, "no space left on the disk"),
        (MemoryError(), 4, "not enough memory"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
        (Terminated(), 143, "stopped by SIGTERM"),
    ],
)
def test_errors_meant_for_people_have_no_traceback(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    word: str,
) -> None:
    def broken(said: object) -> int:
        raise error

    monkeypatch.setattr(commands, "run", broken)
    assert command(["run", "a.csv"]) == status
    assert word in errors(capsys)


def test_a_full_disk_below_another_error_is_told_as_such(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(said: object) -> int:
        raise EvidenceError("sanitizer 'x' failed") from OSError(28, "No space left on device")

    monkeypatch.setattr(commands, "run", broken)
    assert command(["run", "a.csv"]) == 3
    assert "no space left" in errors(capsys)


def test_verbose_shows_the_traceback(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(said: object) -> int:
        raise RuntimeError("no")

    monkeypatch.setattr(commands, "run", broken)
    assert command(["run", "a.csv", "--verbose"]) == 4
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = "import sys; from pipelines.cli import main; sys.exit(main())"
    ran = subprocess.run(
        [sys.executable, "-c", code, "list"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("word", ["--help", "list"])
def test_the_start_is_quick_because_nothing_heavy_is_imported(word: str) -> None:
    heavy = (
        "{'prefect', 'torch', 'pyod', 'sklearn', 'pandas', 'scipy.stats', 'duckdb', 'matplotlib'}"
    )
    code = (
        f"import sys; from pipelines.cli import command; command(['{word}']); "
        f"print(sorted({heavy} & set(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "[]"


# ------------------------------------------------------------- Prefect's settings


def test_prefect_lives_in_the_store_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    made: dict[str, str] = {}
    prepare(tmp_path, environment=made)
    assert made["PREFECT_HOME"] == str(tmp_path / ".prefect")
    assert made["DO_NOT_TRACK"] == "1"
    kept = {"PREFECT_HOME": "/mine", "PREFECT_SERVER_ANALYTICS_ENABLED": "true"}
    prepare(tmp_path, environment=kept)
    assert (kept["PREFECT_HOME"], kept["PREFECT_SERVER_ANALYTICS_ENABLED"]) == ("/mine", "true")


def test_a_server_is_started_only_where_nothing_can_name_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert prepare(tmp_path, environment={})
    assert not prepare(tmp_path, environment={"PREFECT_API_URL": "http://127.0.0.1:4200/api"})
    home = tmp_path / "home"
    home.mkdir()
    assert prepare(tmp_path, environment={"PREFECT_HOME": str(home)})
    (home / "profiles.toml").touch()
    assert not prepare(tmp_path, environment={"PREFECT_HOME": str(home)})
    (tmp_path / ".prefect").mkdir()
    (tmp_path / ".prefect" / "profiles.toml").touch()
    assert not prepare(tmp_path, environment={})
