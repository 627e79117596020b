"""The sum of sanitizers as a stage: from evidence on rows and trusted rows to reasons."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from pipelines.combine import combine, sum_key
from pipelines.decide import Decision, checks, decide, verdicts_file
from pipelines.examine import examine
from pipelines.examined import Examined, evidence_file, read_evidence, trusted_file
from pipelines.explain import explain
from pipelines.ingest import Ingested
from pipelines.job import Job
from pipelines.manifest import Manifest
from pipelines.plan import Plan
from pipelines.progress import SILENT
from pipelines.steps import decide_all, examine_with, ingest_inputs, look_for_risks, publish_rows
from pipelines.store import Store
from pipelines.work import Work
from sanitizers.core.calibration import ConformalNull, ModelNull
from sanitizers.core.consensus import CONSENSUS, CalibratedSum, Consensus
from sanitizers.core.data import ROW_ID, Dataset, Roles
from sanitizers.core.errors import IntegrityError, PlanError
from sanitizers.core.lines import Line, Rule
from sanitizers.core.policy import Policy
from sanitizers.core.sanitizer import Witness
from sanitizers.core.verdicts import QUARANTINE
from tests.spine import SALT, Toy, ToyScorer, hand_in

ROWS, TRUSTED = 1_500, 300
ROLES = Roles(features=("a", "b", "c"))


@dataclass(frozen=True)
class First(Toy):
    """The value of a column, with p-values from the trusted rows."""

    name: ClassVar[str] = "first"
    column: str = "a"

    def fit(self, data: Dataset) -> ToyScorer:
        trusted = data.trusted_rows
        own = ToyScorer(self.column).score(trusted) if trusted else np.empty(0)
        return ToyScorer(self.column, ConformalNull.fit(own) if trusted else None)


@dataclass(frozen=True)
class Second(First):
    name: ClassVar[str] = "second"
    column: str = "b"


@dataclass(frozen=True)
class Third(First):
    name: ClassVar[str] = "third"
    column: str = "c"


@dataclass(frozen=True)
class Model(Toy):
    """Its p-values come from a model of its own."""

    name: ClassVar[str] = "model"

    def fit(self, data: Dataset) -> ToyScorer:
        return ToyScorer(self.column, ModelNull(np.array([0.0, 50.0]), np.array([0.5, 1e-9])))


@dataclass(frozen=True)
class Vain(First):
    """Its null is of other scores than those that trusted rows get: it saw them."""

    name: ClassVar[str] = "vain"

    def fit(self, data: Dataset) -> ToyScorer:
        fitted = super().fit(data)
        assert isinstance(fitted.null, ConformalNull)
        return replace(fitted, null=ConformalNull.fit(0.5 * fitted.null.scores))


RECIPES: dict[str, Witness] = {
    recipe.name: recipe for recipe in (First(), Second(), Third(), Model(column="a"))
}
ODD = np.arange(ROWS) < 30


def values(rng: np.random.Generator, rows: int) -> NDArray[np.float64]:
    return np.round(rng.normal(size=(rows, 3)), 6)


@dataclass(frozen=True)
class Case:
    """An input with trusted rows, and the evidence of all sanitizers."""

    root: Path
    ingested: Ingested
    trusted: Ingested | None
    roles: Roles
    evidence: dict[str, Path]

    def combine(self) -> Examined:
        return combine(self.ingested, self.evidence, self.root / "sum")

    def decide(self, policy: Policy | None = None) -> Decision:
        everything = {**self.evidence, CONSENSUS: self.root / "sum"}
        given = policy or Policy(consensus="sum")
        return decide(
            self.ingested,
            self.roles,
            everything,
            given,
            {**RECIPES, CONSENSUS: Consensus()},
            self.root / "run",
            self.trusted,
        )

    @property
    def verdicts(self) -> pa.Table:
        files = [verdicts_file(self.root / "run", i) for i in range(len(self.ingested.shards))]
        return pa.concat_tables([pq.read_table(f) for f in files]).unify_dictionaries()


def case(
    root: Path, *, column: bool = False, trusted: int = TRUSTED, shard_rows: int = 400
) -> Case:
    """Rows of which some are mildly odd to all, and trusted rows beside or among them."""
    rng = np.random.default_rng(3)
    rows, vouched = values(rng, ROWS), values(rng, trusted)
    rows[ODD] = 2.2 + 0.1 * rows[ODD]
    names = ROLES.features
    table = pa.table({n: rows[:, i] for i, n in enumerate(names)})
    beside = pa.table({n: vouched[:, i] for i, n in enumerate(names)})
    if column:
        marks = pa.array([False] * ROWS + [True] * trusted)
        table = pa.concat_tables([table, beside]).append_column("ok", marks)
        roles, given = replace(ROLES, trusted="ok"), None
    else:
        roles, given = ROLES, hand_in(root / "trusted", beside, shard_rows=170)
    data = hand_in(root / "in", table, shard_rows=shard_rows)
    dataset = data.dataset(roles, SALT, given)
    recipes = (First(), Second(), Third(), Model(column="a"))
    folders = {r.name: examine(r, dataset, root / r.name).folder for r in recipes}
    return Case(root, data, given, roles, folders)


@pytest.mark.parametrize("column", [False, True], ids=["a file", "a column"])
def test_what_is_mildly_odd_to_all_is_found_by_the_sum_alone(tmp_path: Path, column: bool) -> None:
    made = case(tmp_path, column=column)
    assert made.combine().terms == ("first", "second", "third")
    decision = made.decide()
    found = np.array(made.verdicts.column("verdict").to_pylist()) == QUARANTINE
    assert found[:ROWS][ODD].mean() > 0.9
    assert found[:ROWS][~ODD].sum() <= 4
    assert not found[ROWS:].any()
    assert decision.found[CONSENSUS]["quarantine"] == decision.quarantine == found.sum()
    assert all(decision.found[name]["quarantine"] == 0 for name in RECIPES)
    reasons = made.verdicts.column("reasons").to_pylist()
    told = reasons[int(np.flatnonzero(found)[0])]
    assert [reason["sanitizer"] for reason in told] == [CONSENSUS]
    for name in ("first (p 0.0", "second (p 0.0", "third (p 0.0", "clean rows", " and "):
        assert name in told[0]["message"]
    worst = Policy(rules={name: Rule(Line.parse("p <= 0.002"), None) for name in RECIPES})
    single = decide(
        made.ingested, made.roles, made.evidence, worst, RECIPES, tmp_path / "worst", made.trusted
    )
    assert single.quarantine < 0.2 * ODD.sum() + 8


def test_the_evidence_is_that_of_the_whole_at_once(tmp_path: Path) -> None:
    made, whole = case(tmp_path / "a", shard_rows=400), case(tmp_path / "b", shard_rows=ROWS)
    for one in (made, whole):
        one.combine()
    parts = [pq.read_table(evidence_file(tmp_path / "a/sum", i)) for i in range(4)]
    for column in (ROW_ID, "score", "p_value"):
        joined = pa.concat_tables(parts, promote_options="permissive").column(column)
        one = pq.read_table(evidence_file(tmp_path / "b/sum", 0)).column(column)
        assert joined.to_pylist() == one.to_pylist()
    table = pq.read_table(trusted_file(made.evidence["first"]))
    scores = {n: pq.read_table(trusted_file(made.evidence[n])).column("score").to_numpy()
              for n in ("first", "second", "third")}  # fmt: skip
    ids = made.ingested.shard_files()[0].read([ROW_ID]).column(ROW_ID)
    said = {n: read_evidence(made.evidence[n], 0, ids) for n in scores}
    expected = CalibratedSum.fit(scores).evidence(said)
    assert expected.column("p_value").to_pylist() == parts[0].column("p_value").to_pylist()
    assert table.num_rows == TRUSTED


def test_lines_of_the_plan_stay_and_a_model_of_its_own_is_a_union(tmp_path: Path) -> None:
    made = case(tmp_path)
    made.combine()
    rules = {
        "first": Rule(Line.parse("score > 2.9"), None),
        "model": Rule(Line.parse("score > 2.8"), None),
    }
    decision = made.decide(Policy(rules=rules, consensus="sum"))
    own = [sum(t > cut for t in _column(made, "a")) for cut in (2.9, 2.8)]
    assert [decision.found[name]["quarantine"] for name in ("first", "model")] == own
    found = checks(decision, {**RECIPES, CONSENSUS: Consensus()}, {})
    lines = {check.sanitizer: check.quarantine_line for check in found}
    assert lines["second"] == ""
    assert lines[CONSENSUS].startswith("p <= 0.003 and fdr <= 0.1")


def _column(made: Case, name: str) -> list[float]:
    return [
        v for shard in made.ingested.shard_files() for v in shard.read().column(name).to_pylist()
    ]


def test_a_null_of_other_scores_is_not_summed(tmp_path: Path) -> None:
    made = case(tmp_path)
    dataset = made.ingested.dataset(made.roles, SALT, made.trusted)
    vain = examine(Vain(), dataset, tmp_path / "vain")
    assert (vain.trusted, vain.conformal) == (TRUSTED, False)
    made.evidence["vain"] = vain.folder
    assert "vain" not in made.combine().terms


@pytest.mark.parametrize("trusted", [0, 99])
def test_too_few_trusted_rows_are_told(tmp_path: Path, trusted: int) -> None:
    made = case(tmp_path, trusted=trusted)
    with pytest.raises(PlanError, match=rf"{trusted} trusted rows .*expected at least 100; vouch"):
        made.combine()
    assert not (tmp_path / "sum" / "evidence.json").exists()


def test_finished_work_is_loaded_and_lost_work_is_done_anew(tmp_path: Path) -> None:
    made = case(tmp_path)
    first = made.combine()
    path = evidence_file(first.folder, 1)
    before = path.stat().st_mtime_ns
    assert made.combine() == first == Examined.load(first.folder)
    assert path.stat().st_mtime_ns == before
    path.unlink()
    assert replace(made.combine(), seconds=first.seconds) == first
    assert path.is_file()


def test_evidence_about_other_trusted_rows_is_refused(tmp_path: Path) -> None:
    made = case(tmp_path)
    path = trusted_file(made.evidence["second"])
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(IntegrityError, match="the trusted rows of second are not those of first"):
        made.combine()
    path.write_bytes(b"PAR1")
    with pytest.raises(IntegrityError, match="damaged"):
        made.combine()


def test_the_key_changes_with_all_evidence() -> None:
    keys = [sum_key({"a": "1"}), sum_key({"a": "2"}), sum_key({"a": "1", "b": "1"})]
    assert len(set(keys)) == 3


# ---------------------------------------------------------------- from the plan to the release


def work(folder: Path, consensus: str, trusted: int = 200) -> Work:
    """Rows of a regression, some mildly odd in features and target alike."""
    rng = np.random.default_rng(2)
    for name, rows in (("a", 900), ("t", trusted)):
        X = rng.normal(size=(rows, 3))
        y = X @ [1.0, 2.0, -1.0] + rng.normal(size=rows)
        if name == "a":
            X[:25] += np.array([2.4, -2.4, 0.0])
            y[:25] += 3.0
        lines = [f"r{name}{i}," + ",".join(f"{v:.4f}" for v in (*X[i], y[i])) for i in range(rows)]
        (folder / f"{name}.csv").write_text("\n".join(["id,a,b,c,y", *lines]) + "\n")
    plan = Plan.make(
        {
            "dataset": {
                "name": "toys",
                "source": str(folder / "a.csv"),
                "trusted": str(folder / "t.csv"),
            },
            "roles": {"id": "id", "target": "y"},
            "policy": {"consensus": consensus},
            "sanitizers": {"use": ["outliers", "regression"]},
            "risks": {"use": "off"},
        }
    )
    job = Job(plan, Store.open(folder / "store", bytes(32)))
    return job.ingested(ingest_inputs(job, SILENT))


def test_the_sum_is_told_wherever_a_sanitizer_is(tmp_path: Path) -> None:
    for consensus in ("worst", "sum"):
        done = work(tmp_path, consensus)
        for name in done.chosen.run:
            examine_with(done, name, SILENT)
        look_for_risks(done, SILENT)
        decide_all(done, SILENT)
        markers = {p: p.stat().st_mtime_ns for p in tmp_path.glob("store/*/evidence/*/*.json")}
        outcome = publish_rows(done, SILENT)
        if consensus == "worst":
            before = markers
    assert {p: markers[p] for p in before} == before
    assert len(markers) == len(before) + 1
    assert outcome.found[CONSENSUS]["quarantine"] >= 10
    release = Path(str(outcome.release))
    check = {c.sanitizer: c for c in Manifest.load(release).checks}[CONSENSUS]
    assert check.quarantine == outcome.found[CONSENSUS]["quarantine"]
    assert "outliers, regression together" in check.basis
    rows = pq.read_table(release / "quarantine").to_pylist()
    (reason,) = [r for r in rows[0]["reasons"] if r["sanitizer"] == CONSENSUS]
    assert reason["message"] in Path(str(outcome.report)).read_text()
    assert "How surprising the p-values of all" in Path(str(outcome.report)).read_text()
    known = explain(done.job.store, "toys", rows[0]["row_id"], outcome.version)
    (opinion,) = [o for o in known.opinions if o.sanitizer == CONSENSUS]
    assert opinion.message == reason["message"]
    assert sum("together are this surprising" in line for line in known.lines()) == 1


def test_too_few_trusted_rows_are_told_before_any_sanitizer_is_fitted(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="99 trusted rows are there, too few"):
        examine_with(work(tmp_path, "sum", trusted=99), "outliers", SILENT)
    assert not list(tmp_path.glob("store/*/evidence/*"))
