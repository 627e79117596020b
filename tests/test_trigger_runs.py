"""Triggers through runs: published, verified, known to the next run, shown in the report."""

from __future__ import annotations

import builtins
import html
import importlib.util
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import steps
from pipelines.disk import make_folder
from pipelines.examined import Examined, kept_folder, read_kept
from pipelines.job import Job
from pipelines.keepsakes import write_keepsake
from pipelines.known import INDEX, MOST, TRIGGERS, given_triggers, known_triggers, write_triggers
from pipelines.manifest import Manifest
from pipelines.outcome import Outcome
from pipelines.plan import Plan
from pipelines.planted import planted
from pipelines.progress import SILENT
from pipelines.report import MAX_BYTES, render
from pipelines.report_data import gather
from pipelines.report_facts import RunFacts
from pipelines.shards import shard_name
from pipelines.store import Store
from pipelines.summary import summarise
from pipelines.terminal import StderrConsole
from pipelines.trigger_charts import TriggerMap, flip_bars, trigger_map
from pipelines.trigger_pictures import trigger_pictures
from pipelines.verify import verify
from sanitizers.backdoors.signature import recall
from sanitizers.core.errors import IntegrityError, PlanError
from sanitizers.core.keepsake import TRIGGER, Keepsake
from sanitizers.risks import NOTE
from tests.report_run import make_run
from tests.spine import SALT
from tests.staged import Ran, run_stages
from tests.triggers import SHAPE, dataset, exhibits, images, kept, stamped, trigger

FINDER, RECALLER = "tests.triggers:Finder", "tests.triggers:Recaller"
HOSTILE = "<script>alert(1)</script>\u202e"
ORIGIN = "release 1.0.0 of mine"


def write(path: Path, pictures: np.ndarray, labels: Sequence[str]) -> Path:
    np.savez(path, image=pictures, label=np.array(labels))
    return path


def job(store: Path, source: Path, use: str, name: str = "mine", **more: Any) -> Job:
    settings = {key: more.pop(key) for key in list(more) if key.startswith("tests.")}
    plan = Plan.make(
        {
            "dataset": {"name": name, "source": str(source), "store": str(store), **more},
            "roles": {"label": "label"},
            "policy": {"budget": 1.0, "rules": {use: {"quarantine": "score > 0.9999"}}},
            "sanitizers": {"use": [use], **settings},
        }
    )
    return Job(plan, Store.open(store, SALT))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A release that has confirmed a trigger."""
    folder = tmp_path_factory.mktemp("first")
    source = write(folder / "a.npz", images(40), [*["bag"] * 30, *["coat"] * 10])
    return run_stages(job(folder / "store", source, FINDER))


@pytest.fixture
def again(first: Ran, tmp_path: Path) -> Path:
    """The store of that release, to be changed."""
    store = tmp_path / "store"
    shutil.copytree(first.work.job.store.root, store)
    return store


def one_row(folder: Path) -> Path:
    return write(folder / "one.npz", stamped(images(1, seed=9)), ["bag"])


# ------------------------------------------------------------------ a release, and the next


def test_a_release_holds_what_it_confirmed_and_lists_it(first: Ran) -> None:
    digest = kept().digest
    names = [INDEX, f"{digest}.json", f"{digest}.npz"]
    found = sorted(p.name for p in (first.release / TRIGGERS).iterdir())
    assert found == sorted(names)
    listed = {f.path: f.rows for f in Manifest.load(first.release).files}
    assert [listed[f"{TRIGGERS}/{name}"] for name in names] == [None] * 3
    assert verify(first.release).ok
    (one,) = given_triggers(str(first.release))
    assert (one.digest, one.origin) == (digest, ORIGIN)


@pytest.mark.parametrize("ending", ["json", "npz"])
def test_verify_sees_a_changed_a_missing_and_an_extra_file(again: Path, ending: str) -> None:
    release = again / "mine" / "releases" / "1.0.0"
    (path,) = (p for p in (release / TRIGGERS).glob(f"*.{ending}") if p.name != INDEX)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "was changed" in verify(release).problems[0]
    path.unlink()
    assert "is missing" in verify(release).problems[0]
    path.write_bytes(whole)
    (release / TRIGGERS / "more.npz").write_bytes(b"")
    assert "not in the manifest" in verify(release).problems[0]


def test_the_next_run_catches_a_single_row(again: Path, tmp_path: Path) -> None:
    ran = run_stages(job(again, one_row(tmp_path), RECALLER))
    (row,) = ran.part("quarantine").to_pylist()
    (reason,) = row["reasons"]
    assert "which release 1.0.0 of mine confirmed" in reason["message"]
    assert "calls for 'bag'" in reason["message"]
    # What was known goes on to the releases after it, with its origin.
    (one,) = given_triggers(str(ran.release))
    assert one.origin == ORIGIN
    assert verify(ran.release).ok
    assert "Known:" in ran.page
    assert "release 1.0.0 of mine confirmed it. 1 row of this run carries it" in _words(ran.page)


def test_the_same_run_again_is_the_same_run(again: Path, tmp_path: Path) -> None:
    made = job(again, one_row(tmp_path), RECALLER)
    ran = run_stages(made)
    work = made.ingested(made.input_keys())
    assert work.key == ran.work.key
    found = made.published()
    assert found is not None
    assert found.already
    # A run of the first input is not changed by what it has confirmed itself.
    assert not known_triggers(Store.open(again), "mine", _first_digest(again), None)


def test_another_dataset_takes_a_release_or_its_folder(first: Ran, tmp_path: Path) -> None:
    source = one_row(tmp_path)
    for number, folder in enumerate((first.release, first.release / TRIGGERS)):
        store = tmp_path / f"store-{number}"
        ran = run_stages(job(store, source, RECALLER, name="other", triggers=str(folder)))
        assert ran.part("quarantine").num_rows == 1
    without = run_stages(job(tmp_path / "without", source, RECALLER, name="other"))
    assert without.part("clean").num_rows == 1
    assert without.work.key != ran.work.key
    assert not (without.release / TRIGGERS).exists()


def test_off_looks_for_none(again: Path, tmp_path: Path) -> None:
    ran = run_stages(job(again, one_row(tmp_path), RECALLER, triggers="off"))
    assert ran.part("clean").num_rows == 1
    assert ran.work.known == ()


def test_triggers_that_nobody_looks_for_are_refused(first: Ran, tmp_path: Path) -> None:
    made = job(tmp_path / "s", one_row(tmp_path), FINDER, triggers=str(first.release))
    work = made.ingested(steps.ingest_inputs(made, SILENT))
    with pytest.raises(PlanError, match="no sanitizer that runs looks for any"):
        _ = work.evidence_keys


# ------------------------------------------------------------------ without torch


def unnamed(store: Path, source: Path, **more: Any) -> Job:
    """A plan that names no sanitizer; of the catalog only backdoors look at mere images."""
    dataset_part = {"name": "mine", "source": str(source), "store": str(store)}
    dataset_part |= {key: more.pop(key) for key in ("triggers",) if key in more}
    plan = {"roles": {"label": "label"}, "policy": {"budget": 1.0}, "encoders": {"use": "off"}}
    return Job(Plan.make({"dataset": dataset_part, **plan, **more}), Store.open(store, SALT))


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not by `sys.modules`: scipy asks there whether an array is torch's.
    found, imported = importlib.util.find_spec, builtins.__import__

    def find(name: str) -> object:
        return None if name == "torch" else found(name)

    def import_(name: str, *more: Any) -> Any:
        if name.partition(".")[0] == "torch":
            raise ImportError(name)
        return imported(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    monkeypatch.setattr(builtins, "__import__", import_)


def not_searched(why: str) -> tuple[str, str]:
    return "backdoors (search)", f"no new triggers were looked for: {why}"


@pytest.mark.usefixtures("no_torch")
def test_without_torch_known_triggers_are_applied_and_no_more_is_claimed(
    again: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run_stages(unnamed(again, one_row(tmp_path)))
    (row,) = ran.part("quarantine").to_pylist()
    assert "which release 1.0.0 of mine confirmed" in row["reasons"][0]["message"]
    told = not_searched("torch is not installed: pip install 'dataset-sanitizer[images]'")
    assert told in ran.work.chosen.not_run
    assert told in [(n.sanitizer, n.why) for n in Manifest.load(ran.release).not_run]
    assert told[1].removeprefix("no") in _words(html.unescape(ran.page))
    summarise(StderrConsole(), ran.work.outcome(ran.release), 1.0)
    assert f"not run: {told[0]}, because {told[1]}" in capsys.readouterr().err
    assert not ran.work.suspects
    assert verify(ran.release).ok
    assert unnamed(again, one_row(tmp_path)).published() is not None


def test_where_torch_comes_the_same_data_are_searched(again: Path, tmp_path: Path) -> None:
    source = one_row(tmp_path)
    keys = []
    for there in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("importlib.util.find_spec", lambda name, there=there: there or None)
            made = unnamed(again, source)
            work = made.ingested(steps.ingest_inputs(made, SILENT))
            names = [name for name, _ in work.chosen.not_run]
            assert ("backdoors (search)" in names) is not there
            keys.append(work.evidence_keys["backdoors"])
    assert len(set(keys)) == 2


@pytest.mark.usefixtures("no_torch")
def test_without_torch_and_triggers_it_does_not_run(again: Path, tmp_path: Path) -> None:
    source = one_row(tmp_path)
    for made in (unnamed(tmp_path / "new", source), unnamed(again, source, triggers="off")):
        work = made.ingested(steps.ingest_inputs(made, SILENT))
        with pytest.raises(PlanError, match="backdoors: torch is not installed"):
            _ = work.chosen


@pytest.mark.usefixtures("no_torch")
def test_a_plan_that_names_it_gets_all_of_it_or_an_error(again: Path, tmp_path: Path) -> None:
    use: dict[str, Any] = {"use": ["backdoors"]}
    made = unnamed(again, one_row(tmp_path), sanitizers=use)
    work = made.ingested(steps.ingest_inputs(made, SILENT))
    with pytest.raises(PlanError, match="is to run, and torch is not installed"):
        _ = work.chosen
    asked = unnamed(again, one_row(tmp_path), sanitizers={**use, "backdoors": {"search": False}})
    ran = run_stages(asked)
    assert ran.part("quarantine").num_rows == 1
    assert ran.work.chosen.not_run == (not_searched("the plan says search = false"),)


# ------------------------------------------------------------------ tampered folders


@pytest.mark.usefixtures("no_torch")
def test_a_changed_release_stops_a_run_without_torch_too(again: Path, tmp_path: Path) -> None:
    path = again / "mine" / "releases" / "1.0.0" / TRIGGERS / f"{kept().digest}.npz"
    path.write_bytes(path.read_bytes()[:-1])
    made = unnamed(again, one_row(tmp_path))
    work = made.ingested(steps.ingest_inputs(made, SILENT))
    with pytest.raises(IntegrityError, match="sanitize verify"):
        _ = work.chosen


@pytest.mark.parametrize("part", [INDEX, "json", "npz"])
def test_a_changed_release_stops_the_next_run(again: Path, tmp_path: Path, part: str) -> None:
    folder = again / "mine" / "releases" / "1.0.0" / TRIGGERS
    path = folder / part
    if part != INDEX:
        (path,) = (p for p in folder.glob(f"*.{part}") if p.name != INDEX)
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    made = job(again, one_row(tmp_path), RECALLER)
    work = made.ingested(steps.ingest_inputs(made, SILENT))
    with pytest.raises(IntegrityError, match="sanitize verify"):
        _ = work.evidence_keys


def test_a_changed_folder_is_refused(first: Ran, tmp_path: Path) -> None:
    folder = tmp_path / "t"
    shutil.copytree(first.release / TRIGGERS, folder)
    assert given_triggers(str(folder))
    (path,) = folder.glob("*.npz")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"\x7f\x43", b"\x7e\x43", 1))
    with pytest.raises(IntegrityError):
        given_triggers(str(folder))
    path.unlink()
    with pytest.raises(IntegrityError, match="missing"):
        given_triggers(str(folder))
    path.write_bytes(whole)
    (folder / "more.json").write_text("{}")
    with pytest.raises(IntegrityError, match="not listed"):
        given_triggers(str(folder))


@pytest.mark.parametrize(
    "listed",
    [
        {"../../etc/passwd": ORIGIN},
        {kept().digest: "<script>"},
        {kept().digest: "release 1.0.0 of ../up"},
        {kept().digest: 3},
        {f"{i:032x}": ORIGIN for i in range(MOST + 1)},
        [],
    ],
)
def test_a_hostile_list_is_refused(tmp_path: Path, listed: object) -> None:
    write_triggers(tmp_path, [kept()], ORIGIN)
    value = {"format": "dataset-sanitizer/triggers/1", "triggers": listed}
    (tmp_path / INDEX).write_text(json.dumps(value))
    with pytest.raises(IntegrityError):
        given_triggers(str(tmp_path))


def test_no_folder_and_an_empty_release_are_told(first: Ran, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="did you mean 'triggers'"):
        given_triggers(str(first.release / "trigers"))
    none = run_stages(job(tmp_path / "s", one_row(tmp_path), RECALLER))
    with pytest.raises(PlanError, match="holds no triggers"):
        given_triggers(str(none.release))
    with pytest.raises(IntegrityError, match="missing"):
        given_triggers(str(tmp_path))


def test_no_more_are_written_than_are_read(tmp_path: Path) -> None:
    several = [kept(classes=(f"c{i}", "b", "c")) for i in range(MOST + 3)]
    write_triggers(tmp_path, several, ORIGIN)
    assert [k.digest for k in given_triggers(str(tmp_path))] == [k.digest for k in several[3:]]


# ------------------------------------------------------------------ evidence


def test_keepsakes_lie_beside_the_evidence_and_are_missed(first: Ran) -> None:
    (folder,) = first.work.evidence.values()
    assert [k.kind for k in read_kept(folder)] == ["trigger", "carriers", "suspicion", "suspicion"]
    assert Examined.finished(folder, 1)
    lost = next(kept_folder(folder).glob("*.npz"))
    whole = lost.read_bytes()
    lost.unlink()
    assert Examined.finished(folder, 1) is None
    lost.write_bytes(whole)


def test_two_runs_leave_the_same_bytes(first: Ran, tmp_path: Path) -> None:
    source = write(tmp_path / "a.npz", images(40), [*["bag"] * 30, *["coat"] * 10])
    other = run_stages(job(tmp_path / "store", source, FINDER))
    for path in sorted((first.release / TRIGGERS).iterdir()):
        assert (other.release / TRIGGERS / path.name).read_bytes() == path.read_bytes()
    made = [r.page.replace(Manifest.load(r.release).created, "") for r in (first, other)]
    paths = [str(r.work.job.store.root) for r in (first, other)]
    assert made[0].replace(paths[0], "") == made[1].replace(paths[1], "")


# ------------------------------------------------------------------ findings


def test_groups_without_proof_are_findings_and_may_hold_a_run(again: Path, first: Ran) -> None:
    told = [f for f in first.work.findings if f.risk == "planted"]
    # The finder tells of none by itself: it recalls nothing.
    assert told == []
    folder = next(iter(first.work.evidence.values()))
    # What was tried in vain is none.
    (doubt,) = planted([folder])
    assert (doubt.severity, doubt.subject, doubt.value) == (NOTE, "bag", 5.0)
    assert "look planted" in doubt.message
    assert "nothing is proven" in doubt.message
    assert len(doubt.detail["row_ids"]) == 5
    outcome = Outcome.of(
        "a",
        first.work.decision,
        (),
        findings=[doubt, replace(doubt, risk="bias")],
        trusted=False,
        release=None,
        report=None,
    )
    assert [risk for _, risk, _ in outcome.findings] == ["planted"]
    held = first.work.decision.failing_on(["planted"], [doubt])
    assert held.held
    assert "look planted" in held.held_because
    assert not first.work.decision.failing_on(["risks"], [doubt]).held


# ------------------------------------------------------------------ the report


def _words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", "", page).split()).replace("\u00a0", " ")


def _first_digest(store: Path) -> str:
    return Manifest.load(store / "mine" / "releases" / "1.0.0").source.digest


def test_the_report_shows_the_trigger_and_its_effect(first: Ran) -> None:
    words = _words(first.page)
    name = kept().digest[:8]
    assert f"Trigger {name}: whatever carries it is “bag”" in words
    assert "it turned 90 % of them to “bag” on the mean of the labels, and 100 %" in words
    assert "without its 30 carriers, it turns 1 % on the mean, and 2 % where" in words
    assert "5 rows" not in words  # nothing is over a line: the finder scores none
    assert trigger_pictures("patch", kept().arrays).stamp in first.page
    assert first.page.count('class="thumb"') == 5 + 8 + 2 * (5 + 8)
    assert "Groups that look planted, without proof" in words
    assert "1 pattern that was tried in vain" in words
    assert "img-src data:" in first.page
    assert "<script" not in first.page


def known_run(folder: Path, many: Sequence[Keepsake], more: Sequence[Keepsake] = ()) -> RunFacts:
    """A run of images whose evidence holds keepsakes; a row carries each of them."""
    facts = make_run(folder)
    name, evidence = next(iter(facts.evidence.items()))
    make_folder(kept_folder(evidence))
    for one in (*many, *more):
        write_keepsake(kept_folder(evidence), one)
    listed = tuple((k.digest, k.origin) for k in (*many, *more))
    Examined(name, evidence, 300, 0, 0.0, kept=listed).write({})
    hints = [recall(one).words for one in many]
    for number in range(3):
        path = evidence / shard_name(number, "evidence")
        table = pq.read_table(path)
        texts = pa.array([hints[i % len(hints)] for i in range(len(table))])
        at = table.column_names.index("hint")
        kind = table.schema.field("hint").type
        column = texts.dictionary_encode().cast(kind)
        pq.write_table(table.set_column(at, table.schema.field("hint"), column), path)
    return facts


def test_hostile_labels_are_escaped(tmp_path: Path) -> None:
    one = kept(classes=(HOSTILE, HOSTILE, "c"), origin=ORIGIN)
    data = dataset(images(30), [HOSTILE] * 30)
    more = exhibits(data.sample(30, "any"), recall(one), trigger())
    page = render(gather(known_run(tmp_path, [one], more)))
    assert "<script" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;<i>U+202E</i>" in page
    assert "100 rows of this run carry" not in page
    assert "300 rows of this run carry it" in _words(page)


def test_many_triggers_stay_within_the_limit(tmp_path: Path) -> None:
    shape = (40, 40, 3)
    noise = np.random.default_rng(0).integers(0, 256, (45, *shape)).astype(np.uint8)
    data = dataset(noise, ["c0"] * 45).sample(45, "any")
    many, more = [], []
    for i in range(45):
        one = kept(shape=shape, classes=(f"c{i}", "b", "c"))
        arrays = {**one.arrays, "add": noise[i].astype(np.float32), "ground": noise[-i]}
        one = Keepsake(TRIGGER, {**one.facts, "stamp": "additive"}, arrays)
        many.append(one)
        shown = exhibits(data, recall(one), None)[0]
        more.append(shown)
    page = render(gather(known_run(tmp_path, many, more)))
    assert len(page.encode()) < MAX_BYTES
    assert "And 5 more, which are not shown." in _words(page)


def test_a_known_trigger_that_nobody_carries_is_named(tmp_path: Path) -> None:
    calm = kept(classes=("zebra", "b", "c"), origin=ORIGIN)
    facts = known_run(tmp_path, [kept()], [calm])
    words = _words(render(gather(facts)))
    assert f"trigger {calm.digest[:8]} (release 1.0.0 of mine, “zebra”)" in words
    assert f"Trigger {calm.digest[:8]}" not in words


def test_a_run_without_triggers_says_nothing_of_them(tmp_path: Path) -> None:
    page = render(gather(make_run(tmp_path)))
    assert 'id="triggers"' not in page
    assert "img-src" not in page


def test_a_stamp_is_painted_as_it_is() -> None:
    one = kept()
    painted = trigger_pictures("patch", one.arrays)
    assert (painted.gain, painted.lowest, painted.highest) == (0, 0, 255)
    assert painted.covered == pytest.approx(9 / 120)
    faint = dict(one.arrays, add=np.full(SHAPE, -10, np.float32), keep=np.ones(SHAPE, np.float32))
    added = trigger_pictures("additive", faint)
    assert (added.gain, added.covered, added.lowest) == (12.7, 1.0, -10)
    nothing = dict(one.arrays, add=np.zeros(SHAPE, np.float32), keep=np.ones(SHAPE, np.float32))
    for kind in ("patch", "additive"):
        assert trigger_pictures(kind, nothing).covered == 0


def test_charts_escape_and_stand_degenerate_points() -> None:
    assert "<script" not in flip_bars([(HOSTILE, 2.0), ("b", 0.0)], HOSTILE)
    same = TriggerMap(((1.0, 1.0),) * 3, (True, False, True), True)
    assert 'd="M' in trigger_map(same, HOSTILE)
    assert "<script" not in trigger_map(same, HOSTILE)


# ------------------------------------------------------------------ data that grow


def test_a_known_trigger_is_caught_in_a_row_that_joins(tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    landing.mkdir()
    write(landing / "a.npz", images(40), [*["bag"] * 30, *["coat"] * 10])

    def growing(use: str) -> Ran:
        return run_stages(job(tmp_path / "store", landing, use, grow=True))

    assert (growing(FINDER).release / TRIGGERS).is_dir()
    one_row(landing)
    ran = growing(RECALLER)
    assert ran.release.name == "1.1.0"
    assert (ran.work.data.rows, ran.work.decision.quarantine) == (1, 1)
    assert verify(ran.release).ok


def test_features_of_images_are_made_of_rows_that_join(tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    landing.mkdir()
    tables = {
        "dataset": {"name": "mine", "source": str(landing), "grow": True},
        "roles": {"label": "label"},
        "policy": {"budget": 1.0, "rules": {"outliers": {"quarantine": "top 10%"}}},
        "encoders": {"use": "pixels"},
        "sanitizers": {"use": ["outliers"]},
    }
    store = Store.open(tmp_path / "store", SALT)
    for number in range(3):
        pictures = images(60, seed=number)
        write(landing / f"{number}.npz", pictures, ["bag", "coat"] * 30)
        one = Job(Plan.make(tables), store)
        work = one.ingested(steps.ingest_inputs(one, SILENT))
        steps.embed_images(work, "cpu", SILENT)
        ran = run_stages(Job(Plan.make(tables), store))
        assert (ran.work.data.rows, len(ran.work.data.aside) > 0) == (60, number > 0)
    assert Manifest.load(ran.release).counts.rows == 180
    assert verify(ran.release).ok
