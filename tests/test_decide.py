from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest

from pipelines import decide as module
from pipelines.decide import DECISION, Decision, checks, decide, run_key, verdicts_file
from pipelines.disk import pretty
from pipelines.examine import examine
from pipelines.examined import evidence_file
from pipelines.ingest import Ingested
from pipelines.shards import ParquetShard
from sanitizers.core.data import ROW_ID, Roles
from sanitizers.core.errors import IntegrityError, PlanError
from sanitizers.core.lines import Line, Rule
from sanitizers.core.policy import Policy
from sanitizers.core.verdicts import KEEP, QUARANTINE, REVIEW, VERDICT_SCHEMA, judge
from tests.spine import SALT, Toy, hand_in

ROLES = Roles(features=("x",))
RULE = Rule(Line.parse("score > 3"), Line.parse("score > 2"))
POLICY = Policy(budget=0.5, rules={"toy": RULE, "other": RULE})
X = [0.0, 2.5, None, 3.5, 2.0, 3.0, 9.0]
Y = [0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 0.0]
VERDICTS = [KEEP, REVIEW, QUARANTINE, QUARANTINE, KEEP, REVIEW, QUARANTINE]


@dataclass(frozen=True)
class Other(Toy):
    name: ClassVar[str] = "other"


RECIPES = {"toy": Toy(), "other": Other(column="y")}


@dataclass(frozen=True)
class Case:
    """An input with evidence, and where its verdicts go."""

    ingested: Ingested
    evidence: dict[str, Path]
    folder: Path
    roles: Roles = ROLES

    def decide(self, policy: Policy = POLICY, trusted: Ingested | None = None) -> Decision:
        return decide(
            self.ingested, self.roles, self.evidence, policy, RECIPES, self.folder, trusted
        )

    @property
    def verdicts(self) -> pa.Table:
        files = [verdicts_file(self.folder, i) for i in range(len(self.ingested.shards))]
        return pa.concat_tables([ParquetShard(f).read() for f in files]).unify_dictionaries()


def case(root: Path, *, unreadable: int = 0, shard_rows: int = 3) -> Case:
    vouched = [True, None, False, True, False, False, False]
    table = pa.table({"x": X, "y": Y, "vouched": vouched})
    ingested = hand_in(root / "in", table, shard_rows=shard_rows, unreadable=unreadable)
    dataset = ingested.dataset(Roles(features=("x", "y")), SALT)
    evidence = {
        name: examine(recipe, dataset, root / name).folder for name, recipe in RECIPES.items()
    }
    return Case(ingested, evidence, root / "run")


def test_every_row_gets_the_worst_verdict(tmp_path: Path) -> None:
    made = case(tmp_path)
    decision = made.decide()
    assert made.verdicts.schema.equals(VERDICT_SCHEMA)
    assert made.verdicts.column("verdict").to_pylist() == VERDICTS
    assert (decision.rows, decision.keep, decision.review, decision.quarantine) == (7, 2, 2, 3)
    assert decision.found == {
        "toy": {"scored": 6, "abstained": 1, "review": 2, "quarantine": 2},
        "other": {"scored": 7, "abstained": 0, "review": 0, "quarantine": 1},
    }
    assert not decision.held


def test_verdicts_are_in_the_order_of_the_rows(tmp_path: Path) -> None:
    made = case(tmp_path)
    made.decide()
    for number, shard in enumerate(made.ingested.shard_files()):
        found = ParquetShard(verdicts_file(made.folder, number)).read()
        assert found.column(ROW_ID).equals(shard.read([ROW_ID]).column(ROW_ID))


@pytest.mark.parametrize("shard_rows", [1, 2, 7, 100])
def test_the_sharding_changes_nothing(tmp_path: Path, shard_rows: int) -> None:
    made = case(tmp_path, shard_rows=shard_rows)
    decision = made.decide()
    assert made.verdicts.column("verdict").to_pylist() == VERDICTS
    assert decision.quarantine == 3


def test_a_decision_survives_its_file(tmp_path: Path) -> None:
    made = case(tmp_path)
    decision = made.decide()
    assert Decision.load(made.folder) == decision
    assert json.loads(pretty(asdict(decision))) == json.loads((made.folder / DECISION).read_text())


class TestTrusted:
    def test_rows_of_a_column_are_kept(self, tmp_path: Path) -> None:
        made = replace(case(tmp_path), roles=Roles(features=("x",), trusted="vouched"))
        decision = made.decide()
        expected = [KEEP if i in (0, 3) else verdict for i, verdict in enumerate(VERDICTS)]
        assert made.verdicts.column("verdict").to_pylist() == expected
        assert decision.found["toy"]["quarantine"] == 1

    def test_rows_of_a_file_are_kept(self, tmp_path: Path) -> None:
        made = case(tmp_path)
        ids = [str(i) for shard in made.ingested.shard_files() for i in shard.read().column(ROW_ID)]
        trusted = hand_in(tmp_path / "t", pa.table({"x": [9.0, 1.0]}), ids=[ids[6], "unknown"])
        made.decide(trusted=trusted)
        assert made.verdicts.column("verdict").to_pylist() == [*VERDICTS[:6], KEEP]

    def test_a_column_without_any_uses_the_measured_lines(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def rule(_: Policy, name: str, *, trusted: bool, influence: object) -> Rule:
            asked.append(trusted)
            return RULE

        monkeypatch.setattr(Policy, "rule", rule)
        replace(case(tmp_path), roles=Roles(features=("x",), trusted="vouched")).decide()
        assert asked == [False, False]


class TestBudget:
    @pytest.mark.parametrize(("budget", "held"), [(0.5, False), (3 / 7, False), (0.42, True)])
    def test_holds_a_run(self, tmp_path: Path, budget: float, held: bool) -> None:
        decision = case(tmp_path).decide(replace(POLICY, budget=budget))
        assert decision.held == held
        assert bool(decision.held_because) == held
        if held:
            assert "3 of 7 rows (42.9%)" in decision.held_because

    def test_counts_rows_that_could_not_be_read(self, tmp_path: Path) -> None:
        decision = case(tmp_path, unreadable=3).decide(replace(POLICY, budget=0.59))
        assert (decision.rows, decision.quarantine, decision.unreadable) == (10, 6, 3)
        assert decision.keep + decision.review + decision.quarantine == decision.rows
        assert decision.held

    @pytest.mark.parametrize(
        ("names", "says"),
        [
            ([], ""),
            (["review"], "review has 2 rows"),
            (["quarantine"], "quarantine has 3 rows"),
            (["other"], "other has 1 rows"),
            (["labels"], ""),
        ],
    )
    def test_is_not_the_only_thing_that_holds(
        self, tmp_path: Path, names: list[str], says: str
    ) -> None:
        decision = case(tmp_path).decide().failing_on(names)
        assert says in decision.held_because
        assert decision.held == bool(says)
        assert decision.failing_on(["review"]).held


class TestRefuses:
    def test_evidence_about_other_rows(self, tmp_path: Path) -> None:
        made = case(tmp_path)
        one, two = evidence_file(made.evidence["toy"], 0), evidence_file(made.evidence["toy"], 1)
        one.write_bytes(two.read_bytes())
        with pytest.raises(IntegrityError, match="other rows"):
            made.decide()
        assert not (made.folder / DECISION).exists()

    def test_missing_evidence(self, tmp_path: Path) -> None:
        made = case(tmp_path)
        evidence_file(made.evidence["toy"], 2).unlink()
        with pytest.raises(IntegrityError, match="missing"):
            made.decide()

    def test_no_evidence(self, tmp_path: Path) -> None:
        with pytest.raises(PlanError, match="no sanitizer"):
            replace(case(tmp_path), evidence={}).decide()

    @pytest.mark.parametrize("how", ["short", "order", "columns"])
    def test_verdicts_that_are_not_about_every_row(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        def broken(*args: object) -> pa.Table:
            table = judge(*args)  # type: ignore[arg-type]
            if how == "short":
                return table.slice(1)
            return table.take(np.array([1, 0, 2])) if how == "order" else table.select([ROW_ID])

        monkeypatch.setattr(module, "judge", broken)
        with pytest.raises(IntegrityError):
            case(tmp_path).decide()


class TestAgain:
    def test_finished_work_is_loaded(self, tmp_path: Path) -> None:
        made = case(tmp_path)
        first = made.decide()
        before = verdicts_file(made.folder, 0).stat().st_mtime_ns
        assert made.decide() == first
        assert verdicts_file(made.folder, 0).stat().st_mtime_ns == before

    def test_work_that_lost_a_file_is_done_anew(self, tmp_path: Path) -> None:
        made = case(tmp_path)
        first = made.decide()
        verdicts_file(made.folder, 0).unlink()
        assert made.decide() == first
        assert made.verdicts.column("verdict").to_pylist() == VERDICTS

    def test_no_detector_runs_when_only_a_line_moves(self, tmp_path: Path) -> None:
        made = case(tmp_path)
        files = [p.stat().st_mtime_ns for p in tmp_path.glob("toy/*")]
        moved = replace(POLICY, rules={**POLICY.rules, "toy": Rule(None, None)})
        decision = replace(made, folder=tmp_path / "other run").decide(moved)
        assert decision.quarantine == 1
        assert [p.stat().st_mtime_ns for p in tmp_path.glob("toy/*")] == files


def test_the_key_changes_with_all_that_decides_a_verdict(tmp_path: Path) -> None:
    made = case(tmp_path)

    def key(
        roles: Roles = ROLES,
        evidence: str = "e",
        policy: Policy = POLICY,
        plan: str = "p",
        trusted: Ingested | None = None,
    ) -> str:
        return run_key(made.ingested, roles, {"toy": evidence}, policy, {"plan": plan}, trusted)

    keys = {
        key(),
        key(roles=Roles(features=("y",))),
        key(evidence="f"),
        key(policy=replace(POLICY, budget=0.3)),
        key(policy=replace(POLICY, rules={})),
        key(plan="q"),
        key(trusted=made.ingested),
    }
    assert len(keys) == 7
    assert key() == key()


def test_checks_say_what_every_sanitizer_did(tmp_path: Path) -> None:
    decision = case(tmp_path).decide()
    toy, other = checks(decision, RECIPES, {"toy": (("flat", "every value is the same"),)})
    assert (toy.sanitizer, toy.settings, toy.needs) == ("toy", {"column": "x"}, ("features",))
    assert (toy.scored, toy.abstained, toy.review, toy.quarantine) == (6, 1, 2, 2)
    assert (toy.quarantine_line, toy.quarantine_above) == ("score > 3", 3.0)
    assert toy.skipped == (("flat", "every value is the same"),)
    assert other.skipped == ()
