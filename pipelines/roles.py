"""Sensible roles for the columns that nobody gave one, each said in a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.profiles import MAX_DISTINCT, ColumnProfile
from pipelines.role_checks import (
    MAX_CLASSES,
    GivenRoles,
    all_missing,
    check_given,
    given_columns,
    is_continuous,
    kind_of,
    shown,
)
from sanitizers.core.data import Roles
from sanitizers.core.errors import PlanError

# Names are compared in lower case; where several columns have one, the first name wins.
_ID_NAMES = ("row_id", "id", "uuid", "guid", "rowid", "record_id", "index", "rownames")
_UNNAMED = ("", "unnamed: 0", "__index_level_0__")
_LABEL_NAMES = (
    "label", "given_label", "noisy_label", "class_label", "target_label", "labels",
    "class", "target", "outcome", "y",
)  # fmt: skip
_TARGET_NAMES = ("target",)
_TIME_NAMES = ("time", "timestamp", "datetime", "date", "created_at")
_SOURCE_NAMES = ("source", "supplier", "origin", "vendor", "site", "annotator", "batch")

#: A label that nobody named has at most as many classes; with more it is a guess too far.
MAX_GUESSED_CLASSES = 200
#: More sources than this are rows, not sources.
MAX_SOURCES = 1_000
#: A column of strings is a category while it has at most so many values ...
MAX_CATEGORIES = 1_000
#: ... and fewer than this share of the rows.
CATEGORY_SHARE = 0.5
#: Strings longer than this on average are texts.
TEXT_LENGTH = 40
#: Below so many rows, most strings being distinct says nothing.
FEW_ROWS = 100
#: Fewer rows than this can count up by chance.
COUNTED_ROWS = 20
#: This share of names of image files makes a column one of images.
IMAGE_SHARE = 0.9
#: Columns named in a note, at most.
_TOLD = 8
#: Labels that are suggested, at most.
_SUGGESTED = 3


@dataclass(frozen=True)
class InferredRoles:
    """The roles of all columns, and how they were found.

    Parameters
    ----------
    roles : Roles
    notes : tuple of str
        One line for each thing that was inferred, or could not be.
    """

    roles: Roles
    notes: tuple[str, ...]


def infer_roles(columns: Sequence[ColumnProfile], given: GivenRoles, rows: int) -> InferredRoles:
    """Give every column its role: what a person said, and sensible ones for the rest.

    A label is found by its name only, never by its place, or is the name of the folder that
    an image lies in. Texts, images and nested columns are no features: tabular models learn
    from numbers, truth values, dates and categories, and from one column of vectors, the
    embedding.

    Parameters
    ----------
    columns : sequence of ColumnProfile
    given : GivenRoles
    rows : int

    Raises
    ------
    PlanError
        If a given role cannot be played, or no column is left to learn from.
    """
    check_given(given, {c.name: c for c in columns})
    search = _Search(list(columns), given_columns(given), rows, set(given.ignore), [])
    search.take(given.features)
    search.find_known()
    search.find_id()
    search.find_label()
    search.find_time()
    search.find_source()
    search.find_carried()
    features = tuple(given.features) or search.features()
    if not features and not {"image", "embedding"} & search.found.keys():
        kinds = ", ".join(f"{c.name!r} is {c.type}" for c in columns[:_TOLD])
        raise PlanError(
            f"no column to learn from: {kinds}",
            expected="a number, a truth value, a date or a category besides label and id",
            do="name columns with --features, if one was left out",
        )
    return InferredRoles(Roles(**search.found, features=features), tuple(search.notes))


@dataclass
class _Search:
    """The columns that have no role yet, and what was found so far."""

    columns: list[ColumnProfile]
    found: dict[str, str]
    rows: int
    ignored: set[str]
    notes: list[str]

    def __post_init__(self) -> None:
        self.take([*self.found.values(), *self.ignored])

    def take(self, names: Sequence[str]) -> None:
        """Leave columns out of what follows."""
        self.columns = [c for c in self.columns if c.name not in set(names)]

    def find_known(self) -> None:
        """Images, and the names of their folders, are known since they were read."""
        for column in list(self.columns):
            if column.role == "image" and "image" not in self.found:
                self._give("image", column, "every value was decoded")
            elif column.role == "label" and not {"label", "target"} & self.found.keys():
                known = f"the folder of the image, classes: {shown(column.distinct)}"
                if 2 <= column.distinct <= MAX_CLASSES:
                    self._give("label", column, known)
                else:
                    self._leave(column, known)

    def find_id(self) -> None:
        """An id is named like one, and no value comes twice."""
        if "id" not in self.found:
            for column in self._named(_ID_NAMES):
                if kind_of(column) in {"string", "number"} and self._unique(column):
                    self._give("id", column, "a value of its own in every row")
                    break
        for column in list(self.columns):
            unnamed = column.name.lower() in _UNNAMED and self._unique(column)
            if unnamed or (column.row_numbers and self.rows >= COUNTED_ROWS):
                self._leave(column, "it counts the rows")

    def find_label(self) -> None:
        """A label, or a target, is found by its name."""
        if {"label", "target"} & self.found.keys():
            return
        for column in self._named(_LABEL_NAMES):
            if column.name.lower() in _TARGET_NAMES and self._continuous(column):
                self._give("target", column, "continuous")
                return
            if not self._continuous(column) and 2 <= column.distinct <= MAX_GUESSED_CLASSES:
                self._give("label", column, f"{column.distinct} classes")
                return
            self.notes.append(f"label: not {column.name}, {self._why_no_label(column)}")
        likely = " or ".join(f"--label {c.name}" for c in self._could_be_label())
        example = f", perhaps {likely}" if likely else ""
        self.notes.append(f"label: none found by name; name one with --label{example}")

    def find_time(self) -> None:
        """A time is of a type of time; a telling name decides between several."""
        if "time" in self.found:
            return
        times = [c for c in self.columns if kind_of(c) == "time" and c.distinct > 1]
        named = [c for c in self._named(_TIME_NAMES) if c in times]
        for column in [*named, *times][:1]:
            self._give("time", column, column.type)

    def find_source(self) -> None:
        """A source has a telling name, and rows in common."""
        if "source" in self.found:
            return
        for column in self._named(_SOURCE_NAMES):
            whole = kind_of(column) == "string" or column.integers
            if whole and 2 <= column.distinct <= min(MAX_SOURCES, self.rows // 2):
                self._give("source", column, f"{column.distinct} sources")
                return

    def find_carried(self) -> None:
        """Texts, images, embeddings and nested columns are no features."""
        for column in list(self.columns):
            role = self._carried_role(column)
            if role is None:
                continue
            if role in {"text", "embedding"} and role not in self.found:
                text = role == "text"
                self._give(role, column, "carried through, not scanned" if text else "vectors")
            elif role in {"text", "embedding"}:
                self._leave(column, f"another {role}, carried through, not scanned")
            elif role == "image names":
                self._leave(column, self._about_names(column))
            else:
                self._leave(column, f"{role}; carried through, not scanned")

    def features(self) -> tuple[str, ...]:
        """What is left."""
        names = tuple(c.name for c in self.columns)
        told = ", ".join(names[:_TOLD]) + (" ..." if len(names) > _TOLD else "")
        if names:
            self.notes.append(
                f"features: {len(names)} column{'s' if len(names) > 1 else ''} ({told})"
            )
        return names

    def _give(self, role: str, column: ColumnProfile, why: str) -> None:
        self.found[role] = column.name
        self.take([column.name])
        self.notes.append(f"{role}: {column.name} ({why})")

    def _leave(self, column: ColumnProfile, why: str) -> None:
        self.take([column.name])
        self.notes.append(f"not a feature: {column.name} ({why})")

    def _named(self, names: Sequence[str]) -> list[ColumnProfile]:
        known = [c for c in self.columns if c.name.strip().lower() in names]
        return sorted(known, key=lambda c: names.index(c.name.strip().lower()))

    def _unique(self, column: ColumnProfile) -> bool:
        # Beyond what is counted, "more" has to do: the column is left out of the
        # features by it, nothing else.
        most = column.distinct > MAX_DISTINCT and self.rows > MAX_DISTINCT
        return column.nulls == 0 and (most or column.distinct == self.rows)

    def _continuous(self, column: ColumnProfile) -> bool:
        many = kind_of(column) == "number" and column.distinct > MAX_GUESSED_CLASSES
        return many or is_continuous(column)

    def _why_no_label(self, column: ColumnProfile) -> str:
        if self._continuous(column):
            return f"it looks continuous; if it is to be predicted, use --target {column.name}"
        count = column.distinct
        if count < 2:
            return "it has no two classes"
        return f"it has {shown(count)} distinct values; --label {column.name} takes it all the same"

    def _could_be_label(self) -> list[ColumnProfile]:
        """Columns with few values, names before numbers; they are only ever suggested."""
        few = (c for c in self.columns if not self._continuous(c) and c.mean_length <= TEXT_LENGTH)
        likely = [c for c in few if 2 <= c.distinct <= min(50, self.rows // 2)]
        return sorted(likely, key=lambda c: (kind_of(c) == "number", c.distinct))[:_SUGGESTED]

    def _carried_role(self, column: ColumnProfile) -> str | None:
        """Why a column is no feature; None where it is one."""
        kind = kind_of(column)
        if all_missing(column, self.rows):
            return "no value in any row"
        simple = {k: k for k in ("bytes", "image", "nested")} | {"vector": "embedding"}
        if kind in simple:
            return simple[kind]
        return self._string_role(column) if kind == "string" else None

    def _about_names(self, column: ColumnProfile) -> str:
        if "image" in self.found:
            return "names of images"
        return f"names of images, which are not read; --image {column.name} reads them"

    def _string_role(self, column: ColumnProfile) -> str | None:
        values = self.rows - column.nulls
        if column.image_names >= IMAGE_SHARE * values:
            return "image names"
        mostly = self.rows > FEW_ROWS and column.distinct > CATEGORY_SHARE * self.rows
        if column.mean_length > TEXT_LENGTH or mostly or column.distinct > MAX_DISTINCT:
            return "text"
        if column.distinct > MAX_CATEGORIES or column.distinct >= CATEGORY_SHARE * self.rows:
            return f"{shown(column.distinct)} distinct strings"
        return None
