from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.plan import STORE_VARIABLE, Plan
from pipelines.recipes import recipes
from sanitizers.core.errors import PlanError

WHOLE = """
[dataset]
name = "adult"
source = "adult.csv"
trusted = "good/*.csv"
store = "kept"

[roles]
label = "income"
features = ["age", "hours"]

[policy]
clean_loss = 0.02
budget = 0.3
fail_on = ["review"]

[policy.rules.outliers]
quarantine = "p <= 0.002"

[sanitizers]
use = ["outliers", "labels"]

[sanitizers.labels]
folds = 3
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text)
    return path


def test_a_whole_plan_is_read(tmp_path: Path) -> None:
    plan = Plan.read(write(tmp_path, WHOLE))
    assert plan.dataset.source == str(tmp_path / "adult.csv")
    assert plan.dataset.trusted == str(tmp_path / "good/*.csv")
    assert plan.store == str(tmp_path / "kept")
    assert plan.roles.features == ("age", "hours")
    assert plan.sanitizers.use == ("outliers", "labels")
    assert plan.sanitizers.settings == {"labels": {"folds": 3}}
    policy = plan.core_policy()
    assert (policy.clean_loss, policy.budget) == (0.02, 0.3)
    assert str(policy.rules["outliers"].quarantine) == "p <= 0.002"
    assert policy.rules["outliers"].review is None


def test_a_plan_survives_json(tmp_path: Path) -> None:
    plan = Plan.read(write(tmp_path, WHOLE))
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert Plan.make(plan.model_dump(mode="json")) == plan


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("clean_loss", "clean_los", ["[policy] 'clean_los'", "did you mean 'clean_loss'?"]),
        ("[policy]", "[polcy]", ["[polcy]", "did you mean 'policy'?"]),
        ("quarantine =", "quarantin =", ["[policy.rules.outliers] 'quarantin'", "'quarantine'"]),
        ("label =", "lable =", ["[roles] 'lable'", "did you mean 'label'?"]),
        ('"income"', "3", ["[roles] label is 3", "expected a string"]),
        ('["age", "hours"]', '"age"', ["[roles] features is 'age'", "a list of strings"]),
        ('["age", "hours"]', '["age", 3]', ["[roles] features is 3", "a string"]),
        ("0.02", '"0.02"', ["[policy] clean_loss is '0.02'", "expected a number"]),
        ("0.02", "2", ["clean_loss", "2", "a share in (0, 1]"]),
        ("p <= 0.002", "p < 0.002", ["[policy.rules.outliers] quarantine", "is not a line"]),
        ("folds = 3", "", []),
        ("[sanitizers.labels]\nfolds = 3", "labels = 3", ["[sanitizers] labels is 3", "a table"]),
        ('source = "adult.csv"', "", ["[dataset] source is missing"]),
        ("[dataset]", "[data]", ["[dataset]"]),
        ('"adult"', '"../adult"', ["'../adult' cannot name a dataset"]),
        ('label = "income"', 'label = "income"\ntarget = "x"', ["one of them"]),
        ("[roles]", "[roles", ["not TOML", "line"]),
        ('""', '""', []),
        ("budget", 'consensus = "sum"\nbudget', []),
        ("budget", 'consensus = "summ"\nbudget', ["'summ'", "did you mean 'sum'?"]),
        ("budget", "consensus = 1\nbudget", ["[policy] consensus is 1", "a string"]),
        ('"income"', '""', ["[roles] label is ''", "not empty"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    path = write(tmp_path, WHOLE.replace(old, new))
    if not words:
        Plan.read(path)
        return
    with pytest.raises(PlanError) as error:
        Plan.read(path)
    text = str(error.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    for word in words:
        assert word in text


def test_a_sum_needs_trusted_rows() -> None:
    dataset, policy = {"name": "x", "source": "b.csv"}, {"consensus": "sum"}
    with pytest.raises(PlanError, match="nobody vouches for any row; expected trusted rows"):
        Plan.make({"dataset": {**dataset, "audited": False}, "policy": policy})
    audits = Plan.make({"dataset": dataset, "policy": policy})
    with pytest.raises(PlanError, match="nobody vouches for any row; expected trusted rows"):
        audits.check_vouched(audited=False)
    file = Plan.make({"dataset": {**dataset, "trusted": "t.csv"}, "policy": policy})
    assert file.core_policy().consensus == "sum"
    column = Plan.make({"dataset": dataset, "policy": policy, "roles": {"trusted": "ok"}})
    assert column.core_policy().consensus == "sum"


@pytest.mark.parametrize("consensus", ["sum", "worst"])
def test_the_sum_has_lines_where_there_is_one(consensus: str) -> None:
    rules = {"consensus": {"quarantine": "p <= 0.01"}}
    for part in ({"rules": rules}, {"fail_on": ["consensus"]}):
        dataset = {"name": "x", "source": "b.csv", "trusted": "t.csv"}
        plan = Plan.make({"dataset": dataset, "policy": {"consensus": consensus, **part}})
        if consensus == "sum":
            assert "consensus" not in recipes(plan)
        else:
            with pytest.raises(PlanError, match="consensus"):
                recipes(plan)


def test_a_missing_plan_names_a_near_one(tmp_path: Path) -> None:
    write(tmp_path, WHOLE)
    with pytest.raises(PlanError, match=r"did you mean 'plan\.toml'"):
        Plan.read(tmp_path / "plam.toml")


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    plan = Plan.read(
        write(tmp_path, WHOLE), {"dataset": {"store": "other"}, "policy": {"budget": 0.5}}
    )
    assert plan.store == "other"
    assert (plan.policy.budget, plan.policy.clean_loss) == (0.5, 0.02)


def test_the_digest_knows_what_decides_and_nothing_else(tmp_path: Path) -> None:
    plan = Plan.read(write(tmp_path, WHOLE))
    same = WHOLE.replace("kept", "elsewhere").replace('fail_on = ["review"]', "")
    assert Plan.read(write(tmp_path, same)).digest == plan.digest
    for other in (WHOLE.replace("0.02", "0.01"), WHOLE.replace("folds = 3", "folds = 4")):
        assert Plan.read(write(tmp_path, other)).digest != plan.digest


def test_flags_and_file_make_the_same_plan(tmp_path: Path) -> None:
    read = Plan.read(write(tmp_path, '[dataset]\nsource = "a.csv"\n[roles]\nlabel = "y"\n'))
    made = Plan.make({"dataset": {"name": "x", "source": "b.csv"}, "roles": {"label": "y"}})
    assert made.digest == read.digest
    assert read.dataset.name == "plan"


def test_the_store_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan.make({"dataset": {"name": "x", "source": "b.csv"}})
    monkeypatch.delenv(STORE_VARIABLE, raising=False)
    assert plan.store == "sanitized"
    monkeypatch.setenv(STORE_VARIABLE, "/elsewhere")
    assert plan.store == "/elsewhere"
    monkeypatch.setenv(STORE_VARIABLE, "s3://lake/store")
    assert plan.store == "s3://lake/store"
