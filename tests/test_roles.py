"""Roles: given ones win and are checked; the others are found by name and kind, and said."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.plan_parts import RolesPart
from pipelines.profiles import ColumnProfile
from pipelines.roles import InferredRoles, infer_roles
from sanitizers.core.errors import PlanError

ROWS = 1000
VECTOR = "fixed_size_list<element: float>[8]"
STRUCT = "struct<bytes: binary, path: string>"
CATEGORY = "dictionary<values=string, indices=int8, ordered=0>"


def column(name: str, kind: str = "double", distinct: int = 900, **more: Any) -> ColumnProfile:
    return ColumnProfile(name, kind, more.pop("nulls", 0), distinct, **more)


def string(name: str, distinct: int = 5, length: float = 6.0, **more: Any) -> ColumnProfile:
    return column(name, "string", distinct, mean_length=length, **more)


def whole(name: str, distinct: int = 20, **more: Any) -> ColumnProfile:
    return column(name, "int64", distinct, integers=True, **more)


def infer(*columns: ColumnProfile, rows: int = ROWS, **given: Any) -> InferredRoles:
    return infer_roles([column("x"), *columns], RolesPart(**given), rows)


# ---------------------------------------------------------------- inferred


@pytest.mark.parametrize(
    ("found", "role"),
    [
        (whole("id", ROWS), "id"),
        (string("UUID", ROWS), "id"),
        (whole("rownames", ROWS, row_numbers=True), "id"),
        (string("label"), "label"),
        (string("class", 200), "label"),
        (whole("y", 2), "label"),
        (whole("Outcome", 2), "label"),
        (column("given_label", "bool", 2), "label"),
        (column("label", CATEGORY, 3), "label"),
        (whole("target", 3), "label"),
        (column("target"), "target"),
        (whole("target", 500), "target"),
        (column("created_at", "timestamp[us]", 700), "time"),
        (column("born", "date32[day]", 700), "time"),
        (string("annotator", 12), "source"),
        (whole("batch", 12), "source"),
        (string("story", 990, 200.0), "text"),
        (string("remark", 20, 41.0), "text"),
        (string("title", 600, 12.0), "text"),
        (column("photo", "binary", 0, role="image"), "image"),
        (column("photo", STRUCT, 0, role="image"), "image"),
        (string("photo", 990, 12.0, image_names=950, role="image"), "image"),
        (string("folder", 900, role="label"), "label"),
        (column("vector", VECTOR, 0), "embedding"),
    ],
)
def test_a_role_is_found_and_said(found: ColumnProfile, role: str) -> None:
    inferred = infer(found)
    assert getattr(inferred.roles, role) == found.name
    assert inferred.roles.features == ("x",)
    assert sum(note.startswith(f"{role}: {found.name} (") for note in inferred.notes) == 1
    assert inferred.notes[-1] == "features: 1 column (x)"


@pytest.mark.parametrize(
    "found",
    [
        whole("id", 900),
        whole("id", ROWS - 1, nulls=1),
        string("species", 3),
        whole("y", 201),
        string("site", 1),
        column("time"),
        column("is_open", "bool", 2),
        column("lunch", "time32[s]", 40),
        column("price", "decimal128(9, 2)", 400),
        column("colour", CATEGORY, 9),
        string("town", 450, 9.0),
    ],
)
def test_the_rest_are_features(found: ColumnProfile) -> None:
    inferred = infer(found)
    assert inferred.roles.features == ("x", found.name)
    assert inferred.roles.present == {"features"}


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (whole("Unnamed: 0", ROWS, row_numbers=True), "it counts the rows"),
        (whole("", ROWS), "it counts the rows"),
        (whole("n", ROWS, row_numbers=True), "it counts the rows"),
        (column("tags", "list<item: string>", 0), "nested"),
        (column("void", "null", 0, nulls=ROWS), "no value in any row"),
        (string("hollow", 0, nulls=ROWS), "no value in any row"),
        (string("code", 1001, 9.0), "1,001 distinct strings"),
        (column("sound", "binary", 0), "bytes; carried through, not scanned"),
        (column("photo", STRUCT, 0), "image; carried through, not scanned"),
        (string("photo", 990, 12.0, image_names=950), "names of images, which are not read; "),
        (string("folder", 1, role="label"), "the folder of the image, classes: 1"),
        (string("folder", 1001, role="label"), "the folder of the image, classes: 1,001"),
    ],
)
def test_some_are_no_features_and_said_so(found: ColumnProfile, why: str) -> None:
    rows = 10_000 if found.name == "code" else ROWS
    inferred = infer(found, rows=rows)
    assert inferred.roles.features == ("x",)
    assert inferred.roles.present == {"features"}
    assert any(n.startswith(f"not a feature: {found.name} ({why}") for n in inferred.notes)


def test_the_first_text_has_the_role_and_all_are_told() -> None:
    inferred = infer(string("a", 990, 99.0), string("b", 990, 99.0))
    assert inferred.roles.text == "a"
    assert "not a feature: b (another text, carried through, not scanned)" in inferred.notes


def test_the_better_name_wins() -> None:
    inferred = infer(whole("y", 2), string("class"), string("label"))
    assert inferred.roles.label == "label"
    assert inferred.roles.features == ("x", "y", "class")
    times = [column("born", "date32[day]", 700), column("Date", "date32[day]", 700)]
    assert infer(*times).roles.time == "Date"


def test_without_a_label_some_are_suggested_and_none_is_taken() -> None:
    inferred = infer(whole("age", 40), string("species", 3), string("town", 30))
    assert inferred.roles.label is None
    assert (
        "label: none found by name; name one with --label, perhaps --label species "
        "or --label town or --label age" in inferred.notes
    )


def test_a_label_that_is_continuous_is_not_taken() -> None:
    inferred = infer(column("y"))
    assert inferred.roles.label is None
    assert any("use --target y" in note for note in inferred.notes)


def test_the_order_of_columns_is_that_of_the_features() -> None:
    assert infer(whole("b"), whole("a")).roles.features == ("x", "b", "a")


# ------------------------------------------------------------------- given


def test_given_roles_win() -> None:
    inferred = infer(
        string("label"), string("species"), whole("age"), label="species", ignore=("age",)
    )
    assert inferred.roles.label == "species"
    assert inferred.roles.features == ("x", "label")
    assert not any(note.startswith("label") for note in inferred.notes)


def test_given_features_are_the_features() -> None:
    inferred = infer(string("label"), whole("age"), features=("age",))
    assert inferred.roles.features == ("age",)
    assert inferred.roles.label == "label"


def test_a_given_target_leaves_no_label_to_find() -> None:
    assert infer(string("label"), whole("price", 800), target="price").roles.label is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"label": "speces"}, r"no column 'speces' for the role 'label'; did you mean 'species'"),
        ({"label": "zzz"}, "known: 'x', 'species'"),
        ({"features": ("zzz",)}, "no column 'zzz' for the role 'features'"),
        ({"ignore": ("zzz",)}, "no column 'zzz' for the role 'ignore'"),
        ({"label": "species", "source": "species"}, "two roles: label and source"),
        ({"label": "species", "features": ("species",)}, "two roles: label and features"),
        ({"features": ("x", "x")}, "two roles: features and features"),
        ({"label": "price"}, r"looks like a target \(continuous\).*use --target price"),
        ({"label": "sum"}, "more than 10,000 distinct values.*use --target sum"),
        ({"label": "name"}, "1,500 distinct values.*at most 1,000 classes"),
        ({"label": "same"}, "one class only"),
        ({"label": "void"}, "has no value in any row"),
        ({"label": "tags"}, "is no label"),
        ({"target": "species"}, "use --label species"),
        ({"target": "flag"}, "use --label flag"),
        ({"target": "born"}, "is no target"),
        ({"target": "constant"}, "the same value in every row"),
        ({"target": "void"}, "has no value in any row"),
        ({"trusted": "species"}, "cannot be the trusted: it is of type string"),
        ({"time": "species"}, "cannot be the time"),
        ({"text": "price"}, "cannot be the text"),
        ({"image": "price"}, "cannot be the image"),
        ({"embedding": "price"}, "cannot be the embedding"),
        ({"features": ("tags",)}, "which no model learns from"),
    ],
)
def test_roles_that_cannot_be_played_are_told(given: dict[str, Any], said: str) -> None:
    columns = [
        string("species", 3), string("name", 1500), string("same", 1), column("void", "null", 0),
        column("price"), whole("sum", 10_001), column("flag", "bool", 2),
        column("born", "date32[day]", 700), column("constant", "double", 1),
        column("tags", "list<item: string>", 0),
    ]  # fmt: skip
    with pytest.raises(PlanError, match=said) as error:
        infer(*columns, rows=20_000, **given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("profile", "role"),
    [
        (column("c", "double", 40), "label"),
        (column("c", "double", 51, integers=True), "label"),
        (whole("c", 1000), "label"),
        (whole("c", 2), "target"),
        (whole("c"), "time"),
        (column("c", "bool", 2), "trusted"),
        (column("c", "list<item: float>", 0), "embedding"),
        (string("c", 900, 9.0), "id"),
    ],
)
def test_roles_that_can_be_played(profile: ColumnProfile, role: str) -> None:
    inferred = infer_roles([column("x"), profile], RolesPart.model_validate({role: "c"}), ROWS)
    assert getattr(inferred.roles, role) == "c"


def test_nothing_to_learn_from_is_told() -> None:
    columns = [whole("id", ROWS), string("label"), string("story", 990, 99.0)]
    with pytest.raises(PlanError, match="no column to learn from"):
        infer_roles(columns, RolesPart(), ROWS)
