"""Sources behind URLs: fetched once, named as local ones, and refused in one clear line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipelines import fetch as module
from pipelines.cli import command
from pipelines.disk import write_json
from pipelines.fetch import FILES, INDEX, fetch
from pipelines.ingest import ingest
from pipelines.job import Job
from pipelines.plan import Plan
from pipelines.readers.remote import Listing, RemoteFile, count_files, is_url, list_files
from pipelines.readers.sources import find_sources, names_of
from pipelines.store import Store
from sanitizers.core.errors import InputError, PlanError, StoreError
from tests.spine import SALT

URL = "memory://lake/in"


@pytest.fixture
def gets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all files that are fetched."""
    found: list[str] = []
    plain = module._fetch

    def watched(url: str, listing: Listing, batch: list[RemoteFile], folder: Path) -> None:
        found.extend(file.name for file in batch)
        plain(url, listing, batch, folder)

    monkeypatch.setattr(module, "_fetch", watched)
    return found


def put(lake: Any, files: dict[str, str]) -> None:
    for name, text in files.items():
        lake.pipe(f"/lake/in/{name}", text.encode())


def here(folder: Path) -> dict[str, str]:
    files = folder / FILES
    return {str(p.relative_to(files)): p.read_text() for p in files.rglob("*") if p.is_file()}


# ---------------------------------------------------------------- what a URL means


@pytest.mark.parametrize(
    ("source", "is_one"),
    [
        ("s3://bucket/a.csv", True),
        ("simplecache::s3://bucket/a.csv", True),
        ("memory://a", True),
        ("a.csv", False),
        ("/data/a.csv", False),
        ("C:/data/a.csv", False),
        ("dir//a.csv", False),
    ],
)
def test_a_url_is_told_from_a_path(source: str, is_one: bool) -> None:
    assert is_url(source) == is_one


LAKE = {
    "a.csv": "x\n1\n",
    "sub/b.csv.gz": "x\n2\n",
    "sub/c.parquet": "PAR1",
    "sub/readme.txt": "no data",
    "_tmp/d.csv": "x\n3\n",
    ".e.csv": "x\n4\n",
    "photo/cat/1.png": "an image",
    "_SUCCESS": "",
}


@pytest.mark.parametrize("ending", ["", "/", "/*.csv", "/sub/*", "/**/*.csv*", "/a.csv", "/*/b*"])
def test_a_url_means_the_files_that_it_would_mean_in_a_folder(
    lake: Any, tmp_path: Path, ending: str
) -> None:
    put(lake, LAKE)
    for name, text in LAKE.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    plain = find_sources(f"{tmp_path}/in{ending}")
    fetched = find_sources(fetch(URL + ending, tmp_path / "fetched"))
    assert names_of(fetched) == names_of(plain)
    assert [p.read_bytes() for p in fetched] == [p.read_bytes() for p in plain]


# ---------------------------------------------------------------- once


def test_what_has_not_changed_is_not_fetched_again(
    lake: Any, tmp_path: Path, gets: list[str]
) -> None:
    put(lake, {"a.csv": "1", "b.csv": "2", "d/c.csv": "3"})
    fetch(URL, tmp_path)
    assert gets == ["a.csv", "b.csv", "d/c.csv"]
    gets.clear()
    fetch(URL, tmp_path)
    assert gets == []
    put(lake, {"b.csv": "4", "e.csv": "5"})
    lake.rm("/lake/in/d/c.csv")
    fetch(URL, tmp_path)
    assert gets == ["b.csv", "e.csv"]
    assert here(tmp_path) == {"a.csv": "1", "b.csv": "4", "e.csv": "5"}
    assert not (tmp_path / FILES / "d").exists()


def test_a_fetch_that_was_cut_off_goes_on_where_it_stopped(
    lake: Any, tmp_path: Path, gets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake, {f"{i}.csv": str(i) for i in range(5)})
    monkeypatch.setattr(module, "BATCH_FILES", 2)
    plain = module._put

    def cut(part: Path, path: Path, time: float | None) -> None:
        if path.name == "3.csv":
            raise KeyboardInterrupt
        plain(part, path, time)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_put", cut)
        with pytest.raises(KeyboardInterrupt):
            fetch(URL, tmp_path)
    gets.clear()
    fetch(URL, tmp_path)
    assert gets == ["2.csv", "3.csv", "4.csv"]
    assert here(tmp_path) == {f"{i}.csv": str(i) for i in range(5)}
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", INDEX, FILES]


@pytest.mark.parametrize("damage", ["gone", "cut", "index", "other"])
def test_what_is_not_whole_here_is_fetched_again(
    lake: Any, tmp_path: Path, gets: list[str], damage: str
) -> None:
    put(lake, {"a.csv": "1,2,3", "b.csv": "4"})
    fetch(URL, tmp_path)
    gets.clear()
    if damage == "gone":
        (tmp_path / FILES / "a.csv").unlink()
    elif damage == "cut":
        (tmp_path / FILES / "a.csv").write_text("1,")
    elif damage == "index":
        (tmp_path / INDEX).write_text("{")
    else:
        write_json(tmp_path / INDEX, {"url": "memory://other", "files": {"a.csv": "x"}})
    fetch(URL, tmp_path)
    assert "a.csv" in gets
    assert here(tmp_path) == {"a.csv": "1,2,3", "b.csv": "4"}


def test_files_are_as_old_as_where_they_come_from(lake: Any, tmp_path: Path) -> None:
    put(lake, {"a.csv": "1"})
    written = list_files(URL).files[0].time
    assert written is not None
    os.utime(tmp_path, (0, 0))
    fetch(URL, tmp_path)
    assert abs((tmp_path / FILES / "a.csv").stat().st_mtime - written) < 1e-3


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("url", "error", "says"),
    [
        ("memory://lake/none", InputError, "there are no data at memory://lake/none"),
        ("memory://lake/in/*.parquet", InputError, "there are no data"),
        ("htps://bucket/a", PlanError, "did you mean 'https'?"),
        ("s3://key:secret@bucket/a", PlanError, "holds a password"),
    ],
)
def test_a_url_that_means_nothing_is_one_line(
    lake: Any, tmp_path: Path, url: str, error: type[Exception], says: str
) -> None:
    put(lake, {"a.csv": "1"})
    with pytest.raises(error) as caught:
        fetch(url, tmp_path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["a//b.csv", "x\\y.csv", "a.csv/b.csv", "n" * 250 + ".csv"])
def test_a_name_that_leads_elsewhere_is_refused(lake: Any, tmp_path: Path, name: str) -> None:
    # Object stores take any name; a folder does not.
    put(lake, {"a.csv": "1"})
    lake.store[f"/lake/in/{name}"] = lake.store["/lake/in/a.csv"]
    with pytest.raises(InputError, match="has the name"):
        fetch(URL, tmp_path / "fetched")
    assert not (tmp_path / "fetched" / FILES).exists()


def test_a_name_that_climbs_is_refused_in_a_pattern_and_no_data_in_a_folder(
    lake: Any, tmp_path: Path
) -> None:
    put(lake, {"a.csv": "1"})
    lake.store["/lake/in/../../x.csv"] = lake.store["/lake/in/a.csv"]
    fetch(URL, tmp_path / "fetched")
    assert here(tmp_path / "fetched") == {"a.csv": "1"}
    with pytest.raises(InputError, match="has the name"):
        fetch(URL + "/**", tmp_path / "fetched")
    assert not list(tmp_path.rglob("x.csv"))


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(
    lake: Any, tmp_path: Path, gets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake, {"a.csv": "1" * 1_000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 999}))
    with pytest.raises(StoreError, match="no space left"):
        fetch(URL, tmp_path)
    assert gets == []


def test_a_missing_package_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(PlanError, match=r"pip install 'dataset-sanitizer\[s3\]'"):
        count_files("s3://bucket/a")


# ---------------------------------------------------------------- a run


def test_a_job_from_a_url_is_the_job_of_the_folder(lake: Any, tmp_path: Path) -> None:
    files = {"a.csv": "x,y\n1,2\n3,4\n", "b.csv": "x,y\n5,6\n7,8\n"}
    put(lake, {f"day={i}/{name}": text for i, (name, text) in enumerate(files.items())})
    for i, (name, text) in enumerate(files.items()):
        (tmp_path / "in" / f"day={i}").mkdir(parents=True)
        (tmp_path / "in" / f"day={i}" / name).write_text(text)
    keys = []
    for source in (URL, str(tmp_path / "in")):
        plan = Plan.make({"dataset": {"name": "days", "source": source, "trusted": source}})
        job = Job(plan, Store.open(tmp_path / "store", SALT))
        keys.append(job.input_keys())
        read = ingest(job.source, tmp_path / f"out-{len(keys)}", salt=SALT)
        assert [file.path for file in read.files] == ["day=0/a.csv", "day=1/b.csv"]
    assert keys[0] == keys[1]


def test_check_lists_and_fetches_nothing(
    lake: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], gets: list[str]
) -> None:
    put(lake, {"a.csv": "x\n1\n", "b.csv": "x\n2\n"})
    (tmp_path / "plan.toml").write_text(f'[dataset]\nname = "a"\nsource = "{URL}/*.csv"\n')
    assert command(["check", str(tmp_path / "plan.toml")]) == 0
    assert "2 input file(s)" in capsys.readouterr().out
    assert gets == []
    assert count_files("memory://lake/none", awaited=True) == 0
    with pytest.raises(InputError):
        count_files("memory://lake/none")


# ---------------------------------------------------------------- a real protocol


def test_objects_of_s3_are_fetched_once(bucket: Any, tmp_path: Path, gets: list[str]) -> None:
    for name, text in {"in/a.csv": "x\n1\n", "in/d=1/b.csv": "x\n2\n", "in/note.txt": "-"}.items():
        bucket.pipe(f"lake/{name}", text.encode())
    assert Path(fetch("s3://lake/in", tmp_path / "f")) == tmp_path / "f" / FILES
    assert here(tmp_path / "f") == {"a.csv": "x\n1\n", "d=1/b.csv": "x\n2\n"}
    gets.clear()
    bucket.pipe("lake/in/a.csv", b"x\n9\n")
    fetch("s3://lake/in", tmp_path / "f")
    assert gets == ["a.csv"]
    assert here(tmp_path / "f")["a.csv"] == "x\n9\n"
    assert count_files("s3://lake/in/**/*.csv") == 2
    assert count_files("s3://lake/in/a.csv") == 1
    for url in ("s3://lack/in", "s3://lack/a.csv", "s3://lack/*.csv", "s3://lake/none/"):
        with pytest.raises(InputError, match=url.replace("*", r"\*")):
            count_files(url)
