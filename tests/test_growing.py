"""Rows of new files join the last release; nothing of it is scanned, copied or changed."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import growing
from pipelines.explain import explain
from pipelines.job import Job
from pipelines.manifest import Manifest
from pipelines.plan import Plan
from pipelines.store import Store
from pipelines.take import Take
from pipelines.verify import verify
from sanitizers.core.errors import InputError, PlanError
from tests.staged import Ran, judge_stages, run_stages

ROWS = 400
#: Who looks hardly matters here; these are quick.
USE = ["outliers", "conflicts"]
FOLDERS = ("clean", "review", "quarantine")


def rows(seed: int, count: int = ROWS) -> pd.DataFrame:
    """Two classes that a model can tell apart; codes with leading zeros are no numbers."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=count)
    a = np.round(rng.normal(3.0 * y), 4)
    b = np.round(rng.normal(size=count), 4)
    codes = [f"{n:04d}" if n % 7 else "none" for n in rng.integers(1000, size=count)]
    return pd.DataFrame({"a": a, "b": b, "code": codes, "y": np.where(y, "yes", "no")})


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    folder = tmp_path / "landing"
    folder.mkdir()
    rows(0).to_csv(folder / "a.csv", index=False)
    return folder


def job(landing: Path, take: Take | None = None, **dataset: object) -> Job:
    plan = Plan.make(
        {
            "dataset": {"name": "g", "source": str(landing), "grow": True, **dataset},
            "roles": {"label": "y"},
            "sanitizers": {"use": USE},
        }
    )
    store = Store.open(landing.parent / "store", bytes(range(32)))
    return Job(plan, store, take or Take())


def grown(landing: Path, name: str, table: pd.DataFrame) -> Ran:
    table.to_csv(landing / name, index=False)
    return run_stages(job(landing))


def manifest(ran: Ran) -> Manifest:
    return Manifest.load(ran.release)


# ------------------------------------------------------------- what joins, and what stays


def test_new_rows_join_and_old_files_are_shared(landing: Path) -> None:
    first = run_stages(job(landing))
    second = grown(landing, "b.csv", rows(1))
    assert (first.release.name, second.release.name) == ("1.0.0", "1.1.0")
    assert verify(first.release).ok
    assert verify(second.release).ok
    for file in manifest(first).files:
        if file.path.endswith(".parquet"):
            assert (second.release / file.path).samefile(first.release / file.path)
    before, after = manifest(first), manifest(second)
    assert after.grown is not None
    assert (after.grown.onto, after.grown.run) == ("1.0.0", before.run)
    assert after.counts == before.counts.plus(after.grown.counts)
    assert after.grown.counts.rows == ROWS
    assert [f.path for f in after.source.files] == ["a.csv", "b.csv"]


def test_rows_are_conserved_byte_for_byte(landing: Path) -> None:
    run_stages(job(landing))
    last = grown(landing, "b.csv", rows(1))
    parts = [last.part(folder).select(["a", "b", "code", "y"]) for folder in FOLDERS]
    there = pd.concat([part.to_pandas() for part in parts])
    every = pd.concat([rows(0), rows(1)])
    order = ["a", "b", "code", "y"]
    pd.testing.assert_frame_equal(
        there.sort_values(order).reset_index(drop=True),
        every.sort_values(order).reset_index(drop=True),
        check_dtype=False,
    )


def test_only_new_rows_are_scored(landing: Path) -> None:
    run_stages(job(landing))
    ran = grown(landing, "b.csv", rows(1, 150))
    assert sum(shard.rows for shard in ran.work.data.shards) == 150
    for check in manifest(ran).checks:
        assert check.scored + check.abstained == 150
    assert ran.work.data.onto == "1.0.0"
    assert ran.work.decision.rows == 150


def test_fits_look_at_clean_rows_of_the_release(landing: Path) -> None:
    first = run_stages(job(landing))
    ran = grown(landing, "b.csv", rows(1, 150))
    data = ran.work.data
    clean = set(first.part("clean").column("row_id").to_pylist())
    held = [
        shard.read(["row_id"]).column(0).to_pylist()
        for shard in data.published_files()[: len(data.earlier)]
    ]
    assert {row for part in held for row in part} == clean
    dataset = ran.work.plain.learned
    assert dataset.rows == 150 + len(clean)
    assert sum(shard.rows for shard in dataset.judged) == 150


def test_a_batch_cannot_draw_the_line_that_it_is_judged_by(landing: Path) -> None:
    # A batch that is all outliers would look normal among itself.
    # One code for all: where a seventh of the rows has none, these are as far from the others.
    plain, far = (rows(seed, count).assign(code="0042") for seed, count in ((0, 2_000), (1, 60)))
    plain.to_csv(landing / "a.csv", index=False)
    run_stages(job(landing))
    rng = np.random.default_rng(2)
    for column in ("a", "b"):
        far[column] += rng.choice([-1, 1], size=60) * 10.0 ** rng.uniform(2, 6, size=60)
    far.to_csv(landing / "b.csv", index=False)
    work = judge_stages(job(landing))
    assert work.decision.held
    assert work.decision.quarantine > 50


def test_nothing_new_is_nothing_to_do(landing: Path) -> None:
    assert job(landing).published() is None
    first = run_stages(job(landing))
    again = job(landing).published()
    assert again is not None
    assert (again.version, again.already) == (first.release.name, True)
    grown(landing, "b.csv", rows(1))
    again = job(landing).published()
    assert again is not None
    assert (again.version, again.onto, again.rows) == ("1.1.0", "1.0.0", ROWS)


def test_files_may_be_gone_once_they_are_taken(landing: Path) -> None:
    run_stages(job(landing))
    (landing / "a.csv").unlink()
    ran = grown(landing, "b.csv", rows(1))
    assert manifest(ran).counts.rows == 2 * ROWS


def test_a_copy_under_another_name_is_not_taken_twice(landing: Path) -> None:
    run_stages(job(landing))
    (landing / "copy.csv").write_bytes((landing / "a.csv").read_bytes())
    assert job(landing).published() is not None
    rows(1).to_csv(landing / "b.csv", index=False)
    (landing / "b2.csv").write_bytes((landing / "b.csv").read_bytes())
    assert [file.name for file in job(landing).new] == ["b.csv"]


def test_one_file_is_a_batch_of_its_own_where_it_is_named(landing: Path) -> None:
    for number, name in enumerate(("b.csv", "c.csv"), start=1):
        rows(number).to_csv(landing / name, index=False)
    for name, version in (("a.csv", "1.0.0"), ("c.csv", "1.1.0"), ("b.csv", "1.2.0")):
        ran = run_stages(job(landing, Take(only=(name,))))
        assert ran.release.name == version
        assert manifest(ran).source.files[-1].path == name
    assert job(landing).published() is not None
    with pytest.raises(InputError, match=r"no file 'd.csv'"):
        _ = job(landing, Take(only=("d.csv",))).new


# ------------------------------------------------------------- ids


def test_copies_of_earlier_rows_are_numbered_on(landing: Path) -> None:
    table = rows(0, 300)
    pd.concat([table, table[:5]]).to_csv(landing / "a.csv", index=False)
    run_stages(job(landing))
    ran = grown(landing, "b.csv", pd.concat([rows(1, 100), table[:6], table[:2]]))
    ids = [row for folder in FOLDERS for row in ran.part(folder).column("row_id").to_pylist()]
    assert len(ids) == len(set(ids)) == 413
    suffixes = sorted(row[33:] for row in ids if len(row) > 32)
    # 5 rows were there twice; then 6 rows came once more, 2 of them yet again.
    assert suffixes == sorted(["1"] * 6 + ["2"] * 5 + ["3"] * 2)
    assert verify(ran.release).ok
    told = [f for f in manifest(ran).findings if f.subject == "new rows"]
    assert [f.message for f in told] == [
        "8 of the 108 new rows (7.4%) are in release 1.0.0 already, value for value"
    ]


def test_an_id_that_is_taken_is_refused(landing: Path) -> None:
    for number, name in enumerate(("a.csv", "b.csv")):
        table = rows(number)
        table.insert(0, "id", [f"r{i}" for i in range(number * ROWS, (number + 1) * ROWS)])
        table.to_csv(landing / name, index=False)
    named = replace(job(landing), plan=with_id(job(landing).plan))
    run_stages(replace(named, take=Take(only=("a.csv",))))
    run_stages(replace(named, take=Take(only=("b.csv",))))
    table.head(3).to_csv(landing / "c.csv", index=False)
    with pytest.raises(InputError, match=r"names 3 rows that release 1.1.0 has already") as raised:
        run_stages(replace(named))
    assert f"r{ROWS}" in str(raised.value)


@pytest.mark.parametrize("kind", [int, "string", "large"])
def test_ids_may_be_in_the_column_that_releases_call_so(landing: Path, kind: object) -> None:
    for number, name in enumerate(("a", "b")):
        table = rows(number)
        ids = pa.array(range(number * ROWS, (number + 1) * ROWS))
        if kind is not int:
            ids = ids.cast(pa.string() if kind == "string" else pa.large_string())
        whole = pa.Table.from_pandas(table, preserve_index=False).add_column(0, "row_id", ids)
        pq.write_table(whole, landing / f"{name}.parquet")
        (landing / "a.csv").unlink(missing_ok=True)
        ran = run_stages(job(landing))
    assert manifest(ran).counts.rows == 2 * ROWS
    assert verify(ran.release).ok


def with_id(plan: Plan) -> Plan:
    whole = plan.model_dump(mode="json")
    return Plan.make({**whole, "roles": {**whole["roles"], "id": "id"}})


# ------------------------------------------------------------- what is refused


def test_types_stay_those_of_the_release(landing: Path) -> None:
    run_stages(job(landing))
    numbers = rows(1)
    numbers["code"] = [f"{i:04d}" for i in range(ROWS)]
    ran = grown(landing, "b.csv", numbers)
    # Alone, this column would be one of numbers, and lose its zeros.
    assert "0007" in ran.part("clean").column("code").to_pylist()
    odd = rows(2)
    odd["a"] = "words"
    odd.to_csv(landing / "c.csv", index=False)
    with pytest.raises(InputError, match=r"'a' is double in release 1.1.0 and string in c.csv"):
        run_stages(job(landing))
    rows(2).drop(columns="b").to_csv(landing / "c.csv", index=False)
    with pytest.raises(InputError, match="has no column 'b'"):
        run_stages(job(landing))


def test_a_type_is_not_widened(landing: Path) -> None:
    whole = rows(0).assign(b=range(ROWS))
    whole.to_csv(landing / "a.csv", index=False)
    run_stages(job(landing))
    rows(1).to_csv(landing / "b.csv", index=False)
    with pytest.raises(InputError, match=r"'b' is double here, and int64 in release 1.0.0"):
        run_stages(job(landing))


def test_a_file_that_was_taken_must_not_change(landing: Path) -> None:
    run_stages(job(landing))
    rows(7).to_csv(landing / "a.csv", index=False)
    with pytest.raises(InputError, match=r"has changed since release 1.0.0 took its rows"):
        _ = job(landing).new


def test_other_roles_are_refused(landing: Path) -> None:
    run_stages(job(landing))
    rows(1).to_csv(landing / "b.csv", index=False)
    plan = job(landing).plan.model_dump(mode="json")
    other = Plan.make({**plan, "roles": {"label": "code"}})
    with pytest.raises(PlanError, match=r"release 1.0.0 was made with 'y'"):
        _ = replace(job(landing), plan=other).new


def test_full_scans_everything_anew_and_loses_nothing(landing: Path) -> None:
    run_stages(job(landing))
    grown(landing, "b.csv", rows(1))
    ran = run_stages(job(landing, Take(full=True)))
    assert manifest(ran).grown is None
    assert manifest(ran).counts.rows == 2 * ROWS
    (landing / "a.csv").unlink()
    with pytest.raises(InputError, match=r"the first is a.csv"):
        _ = job(landing, Take(full=True)).base


def test_unreadable_rows_are_carried_on(landing: Path) -> None:
    text = (landing / "a.csv").read_text()
    (landing / "a.csv").write_text(text + "1,2,3\n")
    run_stages(job(landing))
    ran = grown(landing, "b.csv", rows(1))
    assert (manifest(ran).counts.unreadable, verify(ran.release).ok) == (1, True)
    rows(2).to_csv(landing / "c.csv", index=False)
    with (landing / "c.csv").open("a") as file:
        file.write("4,5\n")
    ran = run_stages(job(landing))
    assert (manifest(ran).counts.unreadable, verify(ran.release).ok) == (2, True)
    found = pq.read_table(ran.release / "quarantine/unreadable.parquet")
    assert found.column("file").to_pylist() == ["a.csv", "c.csv"]


def test_a_long_history_costs_no_more(landing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LEAST", 50), ("MOST", 120), ("MOST_FILES", 2)):
        monkeypatch.setattr(growing, name, value)
    run_stages(job(landing))
    for number in range(1, 4):
        ran = grown(landing, f"b{number}.csv", rows(number, 100))
    assert sum(shard.rows for shard in ran.work.data.earlier) <= 122
    before = Manifest.load(ran.release.parent / "1.2.0")
    held = set(published(ran))
    clean = [ran.release.parent / "1.2.0" / f.path for f in before.files if "clean" in f.path]
    taken = [bool(held & set(pq.read_table(f).column("row_id").to_pylist())) for f in clean]
    assert sorted(taken) == [False, True, True]


def published(ran: Ran) -> list[str]:
    """The ids of the rows of the release that new ones are scanned beside."""
    shards = ran.work.data.published_files()
    return [row for s in shards for row in s.read(["row_id"]).column(0).to_pylist()]


def test_rows_of_many_files_lie_together(landing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What looks at a shard takes a while, however few rows it has.
    run_stages(job(landing))
    for number in range(1, 4):
        ran = grown(landing, f"b{number}.csv", rows(number, 100))
    assert len(ran.work.data.earlier) == 1
    monkeypatch.setattr(growing, "SHARD_ROWS", 250)
    ran = grown(landing, "b4.csv", rows(4, 100))
    sizes = [shard.rows for shard in ran.work.data.earlier]
    assert len(sizes) == 3
    assert max(sizes[1:]) <= 250
    assert (
        len(set(published(ran)))
        == len(published(ran))
        == sum(sizes) + sum(shard.rows for shard in ran.work.data.aside)
    )


def test_files_without_rows_are_no_choice(landing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first file of a folder may be empty; of the others there may be just as many as wanted.
    monkeypatch.setattr(growing, "MOST_FILES", 2)
    empty = {"rules": {"outliers": {"quarantine": "score > 1e9", "review": "score > 1e9"}}}
    found = {"rules": {"outliers": {"quarantine": "top 2%"}}}
    for number, policy in enumerate((empty, found, found, found)):
        rows(number).to_csv(landing / f"{number}.csv", index=False)
        (landing / "a.csv").unlink(missing_ok=True)
        plan = {"policy": policy, "sanitizers": {"use": ["outliers"]}, "roles": {"label": "y"}}
        dataset = {"name": "g", "source": str(landing), "grow": True}
        ran = run_stages(Job(Plan.make({"dataset": dataset, **plan}), job(landing).store))
    assert 0 < len(ran.work.data.aside) <= 2


def test_where_files_cannot_have_two_names_they_are_copied(
    landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_stages(job(landing))

    def refuse(*paths: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    ran = grown(landing, "b.csv", rows(1))
    assert verify(ran.release).ok
    file = "clean/part-00000.parquet"
    assert not (ran.release / file).samefile(first.release / file)
    assert (ran.release / file).read_bytes() == (first.release / file).read_bytes()


def test_the_same_batch_gives_the_same_release(landing: Path, tmp_path: Path) -> None:
    run_stages(job(landing))
    one = grown(landing, "b.csv", rows(1))
    other = tmp_path / "again"
    (other / "landing").mkdir(parents=True)
    rows(0).to_csv(other / "landing" / "a.csv", index=False)
    run_stages(job(other / "landing"))
    two = grown(other / "landing", "b.csv", rows(1))

    def digests(ran: Ran) -> dict[str, str]:
        files = manifest(ran).files
        return {f.path: f.sha256 for f in files if f.path.endswith(".parquet")}

    assert digests(one) == digests(two)
    assert manifest(one).run == manifest(two).run


def test_the_report_says_what_was_scanned(landing: Path) -> None:
    first = run_stages(job(landing))
    page = grown(landing, "b.csv", rows(1, 150)).page
    clean = len(first.part("clean"))
    told = f"joined release 1.0.0 of {ROWS} rows, and they alone were scanned, beside {clean}"
    assert told in page
    assert "Of 150 rows" in page


def test_rows_of_every_batch_can_be_explained(landing: Path) -> None:
    first = run_stages(job(landing))
    second = grown(landing, "b.csv", rows(1))
    old = str(first.part("clean").column("row_id")[0])
    new = str(second.part("clean").column("row_id")[-1])
    store = job(landing).store
    assert explain(store, "g", old).file == "a.csv"
    assert explain(store, "g", old, "1.1.0").run == manifest(first).run
    assert explain(store, "g", new).file == "b.csv"


def test_lines_do_not_move_nearer_with_every_release(landing: Path) -> None:
    # The worst 2 % of all rows: rows that were set aside before count among them.
    rules = {"rules": {"outliers": {"quarantine": "top 2%"}}}

    def top(name: str, number: int) -> Job:
        rows(number, 1_000).to_csv(landing / name, index=False)
        plan = {"policy": rules, "sanitizers": {"use": ["outliers"]}, "roles": {"label": "y"}}
        dataset = {"name": "g", "source": str(landing), "grow": True}
        return Job(Plan.make({"dataset": dataset, **plan}), job(landing).store)

    run_stages(top("a.csv", 0))
    for number in range(1, 5):
        ran = run_stages(top(f"b{number}.csv", number))
        assert ran.work.decision.quarantine <= 40
    before = Manifest.load(ran.release.parent / "1.3.0").counts
    aside = sum(shard.rows for shard in ran.work.data.aside)
    assert aside == before.review + before.quarantine > 0
    assert ran.work.plain.learned.rows == ran.work.plain.rows - aside
