"""What a poison is: a frozen recipe that returns the poisoned table and the truth about it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sanitizers.core.data import Roles
from sanitizers.core.errors import InputError, PlanError, did_you_mean

#: One line for each row that an attacker added or changed, in the order of the rows.
#: ``row`` is its place in the poisoned table; ``was`` the label or target that it had
#: before, null where that was not changed or there was no row.
TRUTH_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("kind", pa.string()),
        pa.field("added", pa.bool_()),
        pa.field("was", pa.string()),
    ]
)

#: What a poison does: gives rows another label, adds rows, changes features, or stamps images
#: and gives them a label.
Act = Literal["flip", "add", "change", "stamp"]
#: How the kind of rows ends that carry a trigger with labels of their own, so that it works on
#: some rows only: their labels are right, and they are neither poison nor clean.
COVER = " cover"


@dataclass(frozen=True)
class Poisoned:
    """A poisoned table, and what was done to it.

    Parameters
    ----------
    table : pyarrow.Table
        Rows that were there keep their order.
    truth : pyarrow.Table
        Of `TRUTH_SCHEMA`.
    """

    table: pa.Table
    truth: pa.Table

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Which rows are poison, shape (n,)."""
        out = np.zeros(self.table.num_rows, dtype=bool)
        out[self.truth.column("row").to_numpy()] = True
        return out


@runtime_checkable
class Poison(Protocol):
    """A frozen recipe of an attack."""

    #: The name on the command line and in the truth.
    name: ClassVar[str]
    #: The roles without which it cannot work.
    needs: ClassVar[frozenset[str]]
    #: What it does to rows.
    act: ClassVar[Act]

    def poison(self, table: pa.Table, roles: Roles, rate: float, seed: int) -> Poisoned:
        """Poison a copy of a table.

        Parameters
        ----------
        table : pyarrow.Table
            Taken for clean.
        roles : Roles
        rate : float
            Rows that are added or changed, as a share of the rows of `table`.
        seed : int
            The same seed gives the same result.
        """
        ...


@dataclass(frozen=True)
class Scene:
    """What every attack starts from.

    Parameters
    ----------
    table : pyarrow.Table
        In one piece, so that its rows can be taken by position.
    schema : pyarrow.Schema
        That of the table that was given.
    roles : Roles
    count : int
        Rows to add or to change.
    rng : numpy.random.Generator
    """

    table: pa.Table
    schema: pa.Schema
    roles: Roles
    count: int
    rng: np.random.Generator

    @property
    def rows(self) -> int:
        """How many rows the clean table has."""
        return int(self.table.num_rows)


def start(poison: Poison, table: pa.Table, roles: Roles, rate: float, seed: int) -> Scene:
    """Check what an attack was given, and seed its random numbers.

    Raises
    ------
    PlanError
        If a role is missing, a column is not there, or rate or seed make no sense.
    """
    lacking = [n for n in sorted(poison.needs) if not roles.present.intersection(n.split("|"))]
    if lacking:
        role = " or ".join(lacking[0].split("|"))
        raise PlanError(
            f"poison {poison.name!r} needs a column with the role {role}",
            do=f"name it with --{lacking[0].split('|')[0]}",
        )
    for column in roles.columns:
        if column not in table.column_names:
            raise PlanError(f"no column {column!r}", do=did_you_mean(column, table.column_names))
    if not 0 < rate < 1:
        raise PlanError(f"the rate is {rate}", expected="a share of the rows in (0, 1)")
    count = round(rate * table.num_rows)
    if count < 1:
        raise PlanError(f"{rate} of {table.num_rows:,} rows is no row", do="choose a higher rate")
    if seed < 0:
        raise PlanError(f"the seed is {seed}", expected="a whole number, 0 or more")
    # Two poisons with one seed choose rows independently, so that they can be combined.
    name = hashlib.blake2b(poison.name.encode(), digest_size=8).digest()
    rng = np.random.default_rng([seed, int.from_bytes(name, "little")])
    return Scene(in_one_piece(table), table.schema, roles, count, rng)


def changed(
    scene: Scene, kind: str, table: pa.Table, rows: NDArray[np.int64], was: Iterable[str | None]
) -> Poisoned:
    """The result of an attack that changed rows in their places.

    Parameters
    ----------
    scene : Scene
    kind : str
    table : pyarrow.Table
    rows : ndarray of int64
        Those that were changed, in any order.
    was : iterable of str or None
        For each its label or target before, or None where that was not changed.
    """
    order = np.argsort(rows, kind="stable")
    told = list(was)
    return Poisoned(
        table.cast(scene.schema),
        pa.table(
            {
                "row": pa.array(rows[order], pa.int64()),
                "kind": [kind] * len(rows),
                "added": pa.array([False] * len(rows)),
                "was": pa.array([told[i] for i in order], pa.string()),
            },
            schema=TRUTH_SCHEMA,
        ),
    )


def added(scene: Scene, kind: str, rows: pa.Table, behind: NDArray[np.int64]) -> Poisoned:
    """The result of an attack that added rows.

    Parameters
    ----------
    scene : Scene
    kind : str
    rows : pyarrow.Table
    behind : ndarray of int64
        For each row the clean row behind which it comes; -1 for the front.
    """
    rows = _with_ids(scene, rows)
    joined = in_one_piece(pa.concat_tables([scene.table, rows.cast(scene.table.schema)]))
    keys = np.concatenate([np.arange(scene.rows), behind + 0.5])
    order = np.argsort(keys, kind="stable")
    places = np.flatnonzero(order >= scene.rows)
    return Poisoned(
        joined.take(pa.array(order)).cast(scene.schema),
        pa.table(
            {
                "row": pa.array(places, pa.int64()),
                "kind": [kind] * len(places),
                "added": pa.array([True] * len(places)),
                "was": pa.nulls(len(places), pa.string()),
            },
            schema=TRUTH_SCHEMA,
        ),
    )


def overwrite(
    table: pa.Table, name: str, rows: NDArray[np.int64], values: pa.Array | pa.ChunkedArray
) -> pa.Table:
    """Replace values of a column, of any type.

    Parameters
    ----------
    table : pyarrow.Table
    name : str
    rows : ndarray of int64
    values : pyarrow array of the same type
        One for each of `rows`.
    """
    column = table.column(name)
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    joined = pa.chunked_array([*column.chunks, *chunks], column.type).unify_dictionaries()
    index = np.arange(len(column))
    index[rows] = len(column) + np.arange(len(rows))
    at = table.column_names.index(name)
    return table.set_column(at, table.schema.field(at), joined.take(pa.array(index)))


def _with_ids(scene: Scene, rows: pa.Table) -> pa.Table:
    """Give added rows ids of their own, that look like the others."""
    name = scene.roles.id
    if name is None:
        return rows
    at = rows.column_names.index(name)
    kind = rows.schema.field(at).type
    known = scene.table.column(name).to_pylist()
    if pa.types.is_integer(kind):
        first = max((v for v in known if v is not None), default=0) + 1
        ids: list[object] = [first + i for i in range(len(rows))]
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        ids = list(_fresh(scene, {v for v in known if v is not None}, len(rows)))
    else:
        raise InputError(
            f"the ids in column {name!r} are of type {kind}", expected="texts or whole numbers"
        )
    try:
        return rows.set_column(at, rows.schema.field(at), pa.array(ids, kind))
    except (pa.ArrowException, OverflowError):
        raise InputError(f"the column {name!r} has no room for more ids") from None


def _fresh(scene: Scene, known: set[str], count: int) -> Iterable[str]:
    """Ids that do not occur: those of random rows, with their last characters drawn anew."""
    patterns = sorted(known) or ["0" * 8]
    letters = "0123456789abcdef"
    seen = set(known)
    tries = 0
    while count:
        tries += 1
        pattern = patterns[int(scene.rng.integers(len(patterns)))]
        drawn = scene.rng.integers(0, len(letters), size=6 + tries // (20 * len(seen) + 1))
        made = pattern[: -len(drawn)] + "".join(letters[i] for i in drawn)
        if made not in seen:
            seen.add(made)
            count -= 1
            yield made


def in_one_piece(table: pa.Table) -> pa.Table:
    """The same rows in one chunk, so that they can be taken by position; views become texts."""
    plain = [
        f.with_type(pa.string()) if pa.types.is_string_view(f.type) else f for f in table.schema
    ]
    return table.cast(pa.schema(plain)).unify_dictionaries().combine_chunks()
