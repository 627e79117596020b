from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.decide import Decision, checks, decide
from pipelines.examine import examine
from pipelines.explain import Explanation, explain
from pipelines.manifest import Run
from pipelines.publish import publish
from pipelines.store import Store
from sanitizers.core.data import Roles
from sanitizers.core.errors import IntegrityError, PlanError
from sanitizers.core.lines import Line, Rule
from sanitizers.core.policy import Policy
from sanitizers.core.verdicts import QUARANTINE, REVIEW
from tests.spine import CREATED, SALT, Toy, content_ids, hand_in, mixed, stage

KEY, RUN, EVIDENCE = "a" * 16, "b" * 16, "c" * 16
TABLE = mixed(20)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with one run, published, whose evidence is real."""
    made = Store.open(tmp_path_factory.mktemp("store"), SALT)
    data = hand_in(made.inputs("toys", KEY), TABLE, shard_rows=8, unreadable=1)
    roles = Roles(features=("x",))
    done = examine(Toy(), data.dataset(roles, SALT), made.evidence("toys", EVIDENCE))
    rule = Rule(Line.parse("score > 1"), Line.parse("score > 0.5"))
    policy = Policy(budget=0.9, rules={"toy": rule})
    folder = made.run("toys", RUN)
    decision = decide(data, roles, {"toy": done.folder}, policy, {"toy": Toy()}, folder)
    found = checks(decision, {"toy": Toy()}, {})
    run = Run("toys", RUN, CREATED, KEY, {"toy": EVIDENCE}, {}, found)
    run.write(folder)
    report = folder / "report.html"
    report.write_text("a report")
    publish(made, run, data, decision, lambda version, created: report)
    return made


def about(store: Store, row: int) -> Explanation:
    return explain(store, "toys", content_ids(TABLE)[row])


def test_every_row_is_explained(store: Store) -> None:
    verdicts = []
    for row in range(TABLE.num_rows):
        found = about(store, row)
        verdicts.append(found.verdict)
        assert (found.file, found.row, found.version) == ("in.csv", row, "1.0.0")
        assert found.opinions[0].score == TABLE.column("x")[row].as_py()
        assert (found.opinions[0].quarantine, found.opinions[0].review) == (1.0, 0.5)
    decision = Decision.load(store.run("toys", RUN))
    assert verdicts.count(QUARANTINE) == decision.quarantine - 1
    assert verdicts.count(REVIEW) == decision.review


def test_a_find_has_its_reason(store: Store) -> None:
    worst = max(range(20), key=lambda i: TABLE.column("x")[i].as_py())
    opinion = about(store, worst).opinions[0]
    assert opinion.sanitizer == "toy"
    assert opinion.hint == "high"
    assert opinion.message is not None
    assert "its value is" in opinion.message


def test_values_of_every_type_can_be_told(store: Store) -> None:
    for row in range(20):
        found = about(store, row)
        assert list(found.values) == TABLE.column_names
        json.dumps(found.to_json(), allow_nan=False)
    values = [about(store, row).values for row in range(20)]
    assert {v["empty"] for v in values} == {None}
    assert any(v["nan"] == "nan" for v in values)
    assert any(str(v["zone"]).startswith("2024-01-01 ") for v in values)
    assert any(v["uint64"] == TABLE.column("uint64")[i].as_py() for i, v in enumerate(values))


def test_lines_are_safe_to_print(store: Store) -> None:
    for row in range(20):
        lines = about(store, row).lines()
        assert all(line.isprintable() for line in lines)
        assert lines[0].startswith("toys ")
        assert "file in.csv" in lines[1]
        assert "release 1.0.0" in lines[2]
        assert any("score" in line for line in lines)


def test_a_row_that_could_not_be_read(store: Store) -> None:
    found = explain(store, "toys", "unreadable-0")
    assert (found.verdict, found.file, found.row) == (QUARANTINE, "in.csv", 0)
    assert found.values == {"raw": "1,2,\\xff0"}
    assert "3 fields, expected 2" in "\n".join(found.lines())


def test_an_abstention_is_told(tmp_path: Path) -> None:
    made = Store.open(tmp_path, SALT)
    table = pa.table({"x": [None, 1.0], "long": ["y" * 999, "z"]})
    data = hand_in(made.inputs("toys", KEY), table)
    roles = Roles(features=("x",))
    done = examine(Toy(), data.dataset(roles, SALT), made.evidence("toys", EVIDENCE))
    policy = Policy(rules={"toy": Rule(None, None)})
    folder = made.run("toys", RUN)
    decide(data, roles, {"toy": done.folder}, policy, {"toy": Toy()}, folder)
    Run("toys", RUN, CREATED, KEY, {"toy": EVIDENCE}, {}, ()).write(folder)
    found = explain(made, "toys", content_ids(table)[0])
    text = "\n".join(found.lines())
    assert found.opinions[0].score is None
    assert "abstained" in text
    assert "not published" in text
    assert "(999 characters)" in text


class TestUnknown:
    def test_row(self, store: Store) -> None:
        with pytest.raises(PlanError, match=r"no row 'x' in run b+ of 'toys'; row ids are in"):
            explain(store, "toys", "x")

    def test_row_that_starts_well(self, store: Store) -> None:
        whole = content_ids(TABLE)[11]
        with pytest.raises(PlanError, match=f"did you mean '{whole}'"):
            explain(store, "toys", whole[:12])

    def test_dataset(self, store: Store) -> None:
        with pytest.raises(PlanError, match="did you mean 'toys'"):
            explain(store, "toy", "x")

    def test_release(self, store: Store) -> None:
        with pytest.raises(PlanError, match=r"no release '1\.0\.1'"):
            explain(store, "toys", "x", "1.0.1")
        with pytest.raises(PlanError, match="not a version"):
            explain(store, "toys", "x", "latest")

    def test_run(self, tmp_path: Path) -> None:
        made = Store.open(tmp_path, SALT)
        made.dataset("toys").mkdir()
        with pytest.raises(PlanError, match="no run"):
            explain(made, "toys", "x")


class TestWhich:
    def test_the_latest_run_speaks(self, tmp_path: Path) -> None:
        table = pa.table({"a": [1]})
        old = stage(tmp_path, table, [QUARANTINE])
        old.publish()
        new = stage(tmp_path, table, [REVIEW])
        folder = new.store.run("toys", new.run.key)
        replace(new.run, created="2026-01-02T00:00:00+00:00").write(folder)
        row = content_ids(table)[0]
        latest = explain(new.store, "toys", row)
        assert (latest.verdict, latest.version) == (REVIEW, None)
        released = explain(new.store, "toys", row, "1.0.0")
        assert (released.verdict, released.version) == (QUARANTINE, "1.0.0")

    def test_a_run_without_its_input_is_told(self, tmp_path: Path) -> None:
        made = stage(tmp_path, pa.table({"a": [1]}), [REVIEW])
        (made.ingested.folder / "input.json").unlink()
        with pytest.raises(IntegrityError, match="missing"):
            explain(made.store, "toys", "x")
