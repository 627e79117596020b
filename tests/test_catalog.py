"""The catalog: sanitizers by name, their settings checked before any data are read."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import pytest

from sanitizers.backdoors import Backdoors
from sanitizers.catalog import SANITIZERS, missing_roles, sanitizer, sanitizer_class
from sanitizers.conflicts import Conflicts
from sanitizers.core.data import Dataset, Roles
from sanitizers.core.errors import PlanError
from sanitizers.core.sanitizer import Sanitizer, Scorer
from sanitizers.label_regions import LabelRegions
from sanitizers.labels import Labels
from sanitizers.micro_models import MicroConcentration, MicroVotes
from sanitizers.outliers import Outliers
from sanitizers.regression import Regression
from sanitizers.shared_values import SharedValues


@dataclass(frozen=True)
class Mine:
    """A sanitizer of somebody else."""

    name: ClassVar[str] = "mine"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    level: float = 1.0
    exact: bool = False

    def fit(self, data: Dataset) -> Scorer:
        raise NotImplementedError

    def reason(self, score: float, hint: str | None) -> str:
        return "because"


@dataclass
class Thawed:
    """Not frozen."""

    name: ClassVar[str] = "thawed"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    fit = Mine.fit
    reason = Mine.reason


@dataclass(frozen=True)
class Mute:
    """A recipe that cannot say why."""

    name: ClassVar[str] = "mute"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    fit = Mine.fit


INSTANCE = Mine()
HERE = __name__


def test_every_sanitizer_is_under_its_own_name_and_needs_known_roles() -> None:
    assert {name: type(sanitizer(name)) for name in SANITIZERS} == {
        "outliers": Outliers,
        "micro-votes": MicroVotes,
        "micro-concentration": MicroConcentration,
        "labels": Labels,
        "label-regions": LabelRegions,
        "conflicts": Conflicts,
        "shared-values": SharedValues,
        "regression": Regression,
        "backdoors": Backdoors,
    }
    roles = {f.name for f in fields(Roles)}
    for name, kind in SANITIZERS.items():
        assert kind.name == name
        assert isinstance(sanitizer(name), Sanitizer)
        assert {part for need in kind.needs for part in need.split("|")} <= roles


def test_settings_reach_the_recipe_and_nothing_else_changes() -> None:
    assert sanitizer("labels", {"folds": 3}) == Labels(folds=3)
    assert sanitizer("labels", {}) == sanitizer("labels") == Labels()
    assert sanitizer("outliers", {"detectors": ["KNN"]}) == Outliers(detectors=("KNN",))


def test_a_third_party_is_named_by_module_and_class() -> None:
    assert sanitizer_class(f"{HERE}:Mine") is Mine
    assert sanitizer(f"{HERE}:Mine", {"level": 2}) == Mine(level=2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("outlier", "no sanitizer 'outlier'; did you mean 'outliers'?"),
        ("Labels", "no sanitizer 'Labels'; did you mean 'labels'?"),
        ("zzz", "no sanitizer 'zzz'; known: 'outliers', 'micro-votes', "),
        ("", "no sanitizer ''; known: "),
        ("no.such.module:Mine", "sanitizer 'no.such.module:Mine' cannot be imported: "),
        (":Mine", "sanitizer ':Mine' cannot be imported: "),
        (f"{HERE}:Nobody", f"sanitizer '{HERE}:Nobody' cannot be imported: "),
        (f"{HERE}:INSTANCE", f"'{HERE}:INSTANCE' is not a sanitizer; expected a frozen dataclass"),
        (f"{HERE}:Thawed", f"'{HERE}:Thawed' is not a sanitizer; expected a frozen dataclass"),
        (f"{HERE}:Mute", f"'{HERE}:Mute' is not a sanitizer; expected a frozen dataclass"),
        ("os:path", "'os:path' is not a sanitizer; expected a frozen dataclass"),
        ("os:", "sanitizer 'os:' cannot be imported: "),
    ],
)
def test_what_is_no_sanitizer_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(PlanError) as raised:
        sanitizer(name)
    assert str(raised.value).startswith(message)


def test_a_module_that_breaks_on_import_is_refused_in_one_line(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_module_of_a_test.py").write_text("def oops(:\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PlanError, match="'broken_module_of_a_test:X' cannot be imported: "):
        sanitizer("broken_module_of_a_test:X")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("labels", {"fold": 3}, "sanitizer 'labels' has no setting 'fold'; did you mean 'folds'?"),
        ("labels", {"name": "x"}, "sanitizer 'labels' has no setting 'name'; "),
        ("labels", {"folds": "3"}, "sanitizer 'labels': folds is '3'; expected a whole number"),
        ("labels", {"folds": 3.5}, "sanitizer 'labels': folds is 3.5; expected a whole number"),
        ("labels", {"folds": True}, "sanitizer 'labels': folds is True; expected a whole number"),
        ("labels", {"folds": 1}, "labels: folds=1, "),
        ("micro-votes", {"slices": None}, "sanitizer 'micro-votes': slices is None; "),
        ("micro-votes", {"slices": 2}, "2 slices cannot vote; expected at least 4"),
        ("outliers", {"detectors": "KNN"}, "sanitizer 'outliers': detectors is 'KNN'; expected a"),
        ("outliers", {"detectors": ["KN"]}, "'KN' is not a PyOD detector; did you mean 'KNN'?"),
        ("outliers", {"detectors": [7]}, "outliers.detectors is [7]; expected a list of names"),
        (f"{HERE}:Mine", {"exact": 1}, f"sanitizer '{HERE}:Mine': exact is 1; expected true or"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(
    name: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(PlanError) as raised:
        sanitizer(name, settings)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("roles", "missing"),
    [
        (Roles(), ("features", "time|source")),
        (Roles(features=("a",)), ("time|source",)),
        (Roles(features=("a",), time="t"), ()),
        (Roles(features=("a",), source="s"), ()),
        (Roles(features=("a",), source="s", time="t"), ()),
        (Roles(source="s"), ("features",)),
    ],
)
def test_missing_roles_are_named_and_either_of_two_is_enough(
    roles: Roles, missing: tuple[str, ...]
) -> None:
    assert missing_roles(MicroConcentration, roles) == missing
    assert missing_roles(MicroConcentration(), roles) == missing


def test_votes_run_without_a_time_or_a_source_only_where_they_are_named() -> None:
    bare, timed = Roles(features=("a",)), Roles(features=("a",), time="t")
    assert missing_roles(MicroVotes, bare) == ()
    assert missing_roles(MicroVotes, bare, named=False) == ("time|source",)
    assert missing_roles(MicroVotes(), timed, named=False) == ()
