"""What people keep of a random draw is trusted from the next run on; nothing else of theirs is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import steps
from pipelines.audit import seen
from pipelines.job import Job
from pipelines.manifest import Audited, Manifest
from pipelines.plan import Plan
from pipelines.progress import SILENT
from pipelines.rulings import NONE, Rulings
from pipelines.store import Store
from pipelines.take import Take
from pipelines.verify import verify
from pipelines.vouched import Vouched
from sanitizers.core.data import ROW_ID
from sanitizers.core.errors import IntegrityError, PlanError
from sanitizers.core.verdicts import KEEP, QUARANTINE
from tests.pictures import colours, encoded
from tests.staged import Ran, run_stages
from tests.test_growing import landing, rows

__all__ = ["landing"]

WHO = {"who": "ana", "why": "looked at it"}


def job(landing: Path, take: Take | None = None, **dataset: object) -> Job:
    plan = {
        "dataset": {"name": "g", "source": str(landing), **dataset},
        "roles": {"label": "y"},
        "sanitizers": {"use": ["outliers"], "settings": {"outliers": {"detectors": ["HBOS"]}}},
    }
    store = Store.open(landing.parent / "store", bytes(range(32)))
    return Job(Plan.make(plan), store, take or Take())


def digests(ran: Ran) -> dict[str, str]:
    """For every row of a run the digest of its values."""
    found: dict[str, str] = {}
    for shard in ran.work.data.shard_files():
        table = shard.read()
        found |= dict(zip(table.column(ROW_ID).to_pylist(), seen(table), strict=True))
    return found


def keep(ran: Ran, *row_ids: str) -> None:
    """Let an audit keep some rows."""
    known, log = digests(ran), Rulings.of(ran.work.job.store, "g")
    for row_id in row_ids:
        log.add([row_id], KEEP, drawn=known[row_id], **WHO)


def clean(ran: Ran, count: int) -> list[str]:
    ids: list[str] = ran.part("clean").column(ROW_ID).to_pylist()
    return sorted(ids)[:count]


def vouched(ran: Ran) -> list[str]:
    """The ids of the rows that the sanitizers of a run were given as trusted ones."""
    batch = ran.work.plain.trusted_rows
    return [] if batch is None else sorted(batch.row_ids.to_pylist())


# ------------------------------------------------------------------ the next run


def test_the_next_run_trusts_what_an_audit_kept(landing: Path) -> None:
    first = run_stages(job(landing))
    assert not vouched(first)
    assert Manifest.load(first.release).audited is None
    some = clean(first, 120)
    keep(first, *some)
    second = run_stages(job(landing))
    assert vouched(second) == some
    assert second.work.trusted_rows == 120
    manifest = Manifest.load(second.release)
    assert manifest.audited == Audited(120, 0)
    assert manifest.run != Manifest.load(first.release).run
    assert "120 of them came of an audit" in second.page
    assert "No trusted rows" not in second.page
    assert verify(second.release).ok
    # The lines are drawn on p-values now, which trusted rows give.
    before, after = (
        {check.sanitizer: check.quarantine_line for check in Manifest.load(ran.release).checks}
        for ran in (first, second)
    )
    assert before["outliers"].startswith("score")
    assert after["outliers"].startswith("p ")


def test_a_sum_may_be_calibrated_on_them_alone(landing: Path) -> None:
    def summed(*, audited: bool = True) -> Job:
        plain = job(landing, audited=audited)
        plan = {**plain.plan.model_dump(), "policy": {"consensus": "sum"}}
        return Job(Plan.make(plan), plain.store)

    first = run_stages(job(landing))
    with pytest.raises(PlanError, match="nobody vouches for any row"):
        summed().published()
    with pytest.raises(PlanError, match="nobody vouches for any row"):
        summed(audited=False)
    keep(first, *clean(first, 120))
    second = run_stages(summed())
    assert "consensus" in {check.sanitizer for check in Manifest.load(second.release).checks}


def test_nothing_new_is_nothing_to_do(landing: Path) -> None:
    first = run_stages(job(landing))
    assert job(landing).published() is not None
    keep(first, *clean(first, 3))
    assert job(landing).published() is None
    second = run_stages(job(landing))
    again = job(landing).published()
    assert again is not None
    assert (again.already, again.version, again.trusted) == (True, second.release.name, True)
    # What says nothing new of trusted rows starts no run either.
    log = Rulings.of(first.work.job.store, "g")
    log.add([clean(first, 9)[8]], KEEP, **WHO)
    log.add([clean(first, 1)[0]], KEEP, **WHO)
    assert job(landing).published() is not None


def test_rows_that_are_not_there_any_more_are_left_out_and_told(landing: Path) -> None:
    first = run_stages(job(landing))
    some = clean(first, 4)
    keep(first, *some[1:])
    Rulings.of(first.work.job.store, "g").add(["gone"], KEEP, drawn="d" * 32, **WHO)
    told = rows(0)
    ids = first.work.data.shard_files()[0].read().column(ROW_ID).to_pylist()
    told.drop(index=ids.index(some[3])).to_csv(landing / "a.csv", index=False)
    second = run_stages(job(landing))
    assert vouched(second) == some[1:3]
    assert Manifest.load(second.release).audited == Audited(2, 2)
    assert "2 rows that people kept in an audit are not in the data any more" in second.page


def test_only_rows_that_are_gone_is_as_if_there_were_no_audit(landing: Path) -> None:
    first = run_stages(job(landing))
    Rulings.of(first.work.job.store, "g").add(["gone"], KEEP, drawn="d" * 32, **WHO)
    second = run_stages(job(landing))
    assert second.release == first.release
    assert second.work.trusted is None
    assert second.work.audited == Audited(0, 1)


def test_a_row_with_other_values_under_its_id_is_not_trusted(tmp_path: Path) -> None:
    folder = tmp_path / "landing"
    folder.mkdir()
    table = rows(0)
    table.insert(0, "row_id", [f"r{i}" for i in range(len(table))])
    table.to_csv(folder / "a.csv", index=False)
    first = run_stages(job(folder))
    keep(first, "r1", "r2", "r3")
    table.loc[2, "y"] = "yes" if table.loc[2, "y"] == "no" else "no"
    table.to_csv(folder / "a.csv", index=False)
    second = run_stages(job(folder))
    assert vouched(second) == ["r1", "r3"]
    assert Manifest.load(second.release).audited == Audited(2, 1)


def test_what_is_taken_back_or_overruled_is_not_trusted(landing: Path) -> None:
    first = run_stages(job(landing))
    some = clean(first, 5)
    keep(first, *some)
    log = Rulings.of(first.work.job.store, "g")
    log.add([some[0]], NONE, **WHO)
    log.add([some[1], "other"], QUARANTINE, who="ben", why="no")
    log.add([some[2]], QUARANTINE, drawn="d" * 32, **WHO)
    log.add([some[3]], KEEP, who="ben", why="yes")
    second = run_stages(job(landing))
    assert vouched(second) == some[3:]
    # What an audit quarantines is obeyed as any other ruling is.
    held = second.part("quarantine").column(ROW_ID).to_pylist()
    assert {some[1], some[2]} <= set(held)


def test_rows_that_people_chose_to_keep_are_not_trusted(landing: Path) -> None:
    first = run_stages(job(landing))
    Rulings.of(first.work.job.store, "g").add(clean(first, 150), KEEP, **WHO)
    assert job(landing).published() is not None
    second = run_stages(job(landing))
    assert not vouched(second)


def test_a_plan_may_say_no(landing: Path) -> None:
    first = run_stages(job(landing))
    keep(first, *clean(first, 110))
    assert job(landing, audited=False).published() is not None
    second = run_stages(job(landing, audited=False))
    assert second.release == first.release
    assert not vouched(second)


def test_a_log_that_was_tampered_with_stops_the_run(landing: Path) -> None:
    first = run_stages(job(landing))
    some = clean(first, 2)
    Rulings.of(first.work.job.store, "g").add(some[:1], KEEP, **WHO)
    keep(first, some[1])
    path = Rulings.of(first.work.job.store, "g").path
    path.write_bytes(path.read_bytes().replace(b'"group"', b'"drawn":"dd","group"', 1))
    with pytest.raises(IntegrityError, match="ruling 1"):
        run_stages(job(landing))


def test_verify_finds_that_a_ruling_was_made_one_of_an_audit(landing: Path) -> None:
    first = run_stages(job(landing))
    keep(first, clean(first, 1)[0])
    Rulings.of(first.work.job.store, "g").add([clean(first, 2)[1]], KEEP, **WHO)
    release = run_stages(job(landing)).release
    assert verify(release).ok
    copy = release / "rulings.jsonl"
    data = copy.read_bytes()
    head, _, tail = data.rpartition(b'"group"')
    for text in (
        head + b'"drawn":"dd","group"' + tail,
        data.replace(b'"drawn":"', b'"drawn":"0', 1),
    ):
        copy.unlink(missing_ok=True)
        copy.write_bytes(text)
        assert not verify(release).ok


# ------------------------------------------------------------------ with other trusted rows


def test_beside_a_file_and_a_column_none_is_taken_twice(landing: Path, tmp_path: Path) -> None:
    table = rows(0)
    table["sure"] = [i < 30 for i in range(len(table))]
    table.to_csv(landing / "a.csv", index=False)
    file = tmp_path / "checked.csv"
    table.iloc[30:60].to_csv(file, index=False)

    def mine() -> Job:
        made = job(landing, trusted=str(file))
        plan = made.plan.model_dump(mode="json")
        plan["roles"]["trusted"] = "sure"
        return Job(Plan.make(plan), made.store)

    first = run_stages(mine())
    ids = first.work.data.shard_files()[0].read().column(ROW_ID).to_pylist()
    keep(first, *ids[20:80])
    second = run_stages(mine())
    assert vouched(second) == sorted(ids[:80])
    assert second.work.trusted_rows == 80
    assert second.work.audited == Audited(20, 0)
    verdicts = Vouched.of(second.work.roles, second.work.trusted)
    _, is_given = verdicts.read(second.work.data.shard_files()[0])
    assert is_given.tolist() == [i < 80 for i in range(len(table))]


def test_with_images_that_grow(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()

    def add(name: str, seeds: range) -> None:
        pictures = [encoded(colours(seed=i), "PNG") for i in seeds]
        words = ["cat", "dog"] * (len(pictures) // 2)
        table = pa.table({"picture": pa.array(pictures, pa.binary()), "class": words})
        pq.write_table(table, tmp_path / "in" / name)

    add("a.parquet", range(60))

    def mine() -> Job:
        plan = {
            "dataset": {"name": "g", "source": str(tmp_path / "in"), "grow": True},
            "roles": {"label": "class"},
            "sanitizers": {"use": ["labels"]},
            "encoders": {"use": "pixels"},
        }
        return Job(Plan.make(plan), Store.open(tmp_path / "store", bytes(range(32))))

    def ran() -> Ran:
        made = mine()
        work = made.ingested(steps.ingest_inputs(made, SILENT))
        steps.embed_images(work, "cpu", SILENT)
        for name in work.chosen.run:
            steps.examine_with(work, name, SILENT)
        steps.look_for_risks(work, SILENT)
        steps.decide_all(work, SILENT)
        return Ran(work, Path(str(steps.publish_rows(work, SILENT).release)))

    first = ran()
    keep(first, *clean(first, 7))
    add("b.parquet", range(60, 100))
    second = ran()
    assert vouched(second) == clean(first, 7)
    trusted = second.work.dataset.trusted_rows
    assert trusted is not None
    assert np.isfinite(trusted.X).all()


# ------------------------------------------------------------------ data that grow


def test_new_rows_are_judged_by_the_rows_of_the_release_that_were_kept(landing: Path) -> None:
    first = run_stages(job(landing, grow=True))
    some = clean(first, 110)
    keep(first, *some)
    # There is nothing to judge until new rows come.
    done = job(landing, grow=True).published()
    assert done is not None
    assert done.version == first.release.name
    rows(1).to_csv(landing / "b.csv", index=False)
    second = run_stages(job(landing, grow=True))
    assert vouched(second) == some
    assert Manifest.load(second.release).audited == Audited(110, 0)
    keep(second, *(newest := sorted(digests(second))[:2]))
    rows(2).to_csv(landing / "c.csv", index=False)
    third = run_stages(job(landing, grow=True))
    # Of the rows of all runs, however far back they are.
    assert vouched(third) == sorted([*some, *newest])
    done = job(landing, grow=True).published()
    assert done is not None
    assert done.trusted


def test_a_full_scan_of_data_that_grow_trusts_them_too(landing: Path) -> None:
    first = run_stages(job(landing, grow=True))
    some = clean(first, 5)
    keep(first, *some)
    whole = run_stages(job(landing, Take(full=True), grow=True))
    assert vouched(whole) == some
    assert whole.release.name != first.release.name
