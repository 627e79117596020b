"""Rows seen through their roles: ``Roles``, ``Batch``, ``Shard`` and ``Dataset``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sanitizers.core.encoder import Encoder, as_numbers, fit_encoder, is_number
from sanitizers.core.errors import InputError, PlanError, did_you_mean
from sanitizers.core.image_columns import IMAGE, PIXELS, decoded, forms, present, with_pixels
from sanitizers.core.images import VIEW_SIDE, ImageShape, common_shape, resized
from sanitizers.core.vectors import check_vectors

#: The column that names a row, in every file that the product writes.
ROW_ID = "row_id"
#: The salted 64-bit hash of ``row_id``; in the store only, never published.
ROW_KEY = "__row_key"
#: The embeddings that were made of the images; in the store only, never published.
EMBEDDING = "__embedding"
#: Rows that the encoder is fitted on, at most.
ENCODER_ROWS = 50_000
#: Trusted rows that are used, at most; more buy nothing measurable.
TRUSTED_ROWS = 20_000
#: Rows whose images decide the size at which all are looked at, at most.
SHAPE_ROWS = 2_000


@dataclass(frozen=True)
class Roles:
    """Which column plays which part. A sanitizer says which roles it needs.

    Parameters
    ----------
    id, label, target, text, prompt, response, image, embedding, time, source, trusted : str or None
        The name of one column each. ``trusted`` is a boolean column: true where a
        person vouches for the row.
    features : tuple of str
        The columns that models learn from. They learn from the ``embedding`` too, a column
        of vectors, so that an embedding alone makes features.
    """

    id: str | None = None
    label: str | None = None
    target: str | None = None
    features: tuple[str, ...] = ()
    text: str | None = None
    prompt: str | None = None
    response: str | None = None
    image: str | None = None
    embedding: str | None = None
    time: str | None = None
    source: str | None = None
    trusted: str | None = None

    @property
    def present(self) -> frozenset[str]:
        """The names of the roles that have a column; ``features`` where there is an embedding."""
        have = frozenset(f.name for f in fields(self) if getattr(self, f.name))
        return have | {"features"} if "embedding" in have else have

    @property
    def learned(self) -> tuple[str, ...]:
        """The columns that `Batch.X` is made of: the features, and the embedding."""
        embedding = (self.embedding,) if self.embedding else ()
        return tuple(dict.fromkeys((*self.features, *embedding)))

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that plays a part, each once, features last."""
        named = [getattr(self, f.name) for f in fields(self) if f.name != "features"]
        return tuple(dict.fromkeys([c for c in named if c] + list(self.features)))


class Shard(Protocol):
    """Some rows of a dataset that are read when asked for."""

    @property
    def schema(self) -> pa.Schema:
        """The columns and their types."""
        ...

    @property
    def rows(self) -> int:
        """How many rows the shard holds."""
        ...

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows; `columns` limits what is read, None reads all."""
        ...


@dataclass(frozen=True)
class MemoryShard:
    """A shard that is already in memory."""

    table: pa.Table

    @property
    def schema(self) -> pa.Schema:
        return self.table.schema

    @property
    def rows(self) -> int:
        return int(self.table.num_rows)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        return self.table if columns is None else self.table.select(list(columns))


def row_keys(row_ids: Sequence[str], salt: bytes) -> NDArray[np.uint64]:
    """Hash row ids with the store's salt (BLAKE2b, keyed).

    Folds, slices and samples come from these keys, so nobody who supplies rows
    and does not know the salt can choose a fold.

    Parameters
    ----------
    row_ids : sequence of str, length n
    salt : bytes
        At most 64 bytes.

    Returns
    -------
    ndarray of uint64, shape (n,)
    """
    keyed = hashlib.blake2b(digest_size=8, key=salt)
    out = bytearray()
    for row_id in row_ids:
        h = keyed.copy()
        h.update(row_id.encode())
        out += h.digest()
    return np.frombuffer(bytes(out), dtype="<u8").astype(np.uint64)


def mix(keys: NDArray[np.uint64], purpose: str) -> NDArray[np.uint64]:
    """Derive independent keys for one purpose from the row keys (splitmix64).

    Parameters
    ----------
    keys : ndarray of uint64, shape (n,)
    purpose : str
        For instance ``"labels/fold"``: the same purpose gives the same keys.
    """
    seed = np.frombuffer(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), dtype="<u8")[0]
    with np.errstate(over="ignore"):
        z = (keys ^ seed) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


@dataclass(frozen=True)
class Batch:
    """Some rows in memory, seen through their roles.

    Parameters
    ----------
    table : pyarrow.Table
        The rows; has the column ``row_id``.
    roles : Roles
    salt : bytes
        The store's salt.
    encoder : Encoder
        Turns the feature columns into numbers; the same for all batches of a dataset.
    image_shape : (int, int, int) or None
        Height, width and channels of `images`; the same for all batches of a dataset.
    """

    table: pa.Table
    roles: Roles
    salt: bytes
    encoder: Encoder
    image_shape: ImageShape | None = None

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def row_ids(self) -> pa.ChunkedArray:
        """The ids of the rows, strings, shape (n,)."""
        return self.table.column(ROW_ID)

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        """The salted hashes of the row ids, shape (n,)."""
        return _keys(self.table, self.salt)

    def buckets(self, count: int, purpose: str) -> NDArray[np.int64]:
        """Put every row into one of `count` buckets (folds, slices) by its salted id.

        Returns
        -------
        ndarray of int64, shape (n,)
        """
        return np.asarray(mix(self.keys, purpose) % np.uint64(count), dtype=np.int64)

    @cached_property
    def X(self) -> NDArray[np.float32]:
        """The encoded features and the components of the embedding, finite, shape (n, d)."""
        return self.encoder.transform(self.table)

    @cached_property
    def wide(self) -> NDArray[np.float32]:
        """As `X`, with more components of an embedding: for what asks how far rows lie, (n, D)."""
        if not self.encoder.has_vectors:
            return self.X
        return self.encoder.transform(self.table, wide=True)

    @cached_property
    def blank(self) -> NDArray[np.bool_]:
        """Which rows have nothing to learn from but an embedding, and that is missing, (n,)."""
        if self.roles.embedding is None or self.roles.features:
            return np.zeros(len(self), dtype=bool)
        return np.asarray(self.table.column(self.roles.embedding).is_null().to_numpy(), dtype=bool)

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """The images at one size, shape (n, H, W, C); zeros where a row has none.

        See `sanitizers.core.images.decode` for what becomes of other sizes and colours.
        """
        column = self._role("image")
        if self.image_shape is None:
            raise PlanError("a batch with images knows no size", do="take it from a Dataset")
        return decoded(self.table, column, self.image_shape)

    def images_at(self, shape: ImageShape) -> NDArray[np.uint8]:
        """The images at another size than that of the dataset, shape (n, *shape).

        For what was learned on images of that size; the same as `images` where it is theirs.
        """
        if shape == self.image_shape:
            return self.images
        if PIXELS in self.table.column_names:
            return resized(self.images, shape)
        return decoded(self.table, self._role("image"), shape)

    @cached_property
    def has_image(self) -> NDArray[np.bool_]:
        """Which rows have an image, shape (n,)."""
        return present(self.table, self._role("image"))

    @cached_property
    def labels(self) -> NDArray[np.object_]:
        """The labels as strings, None where missing, shape (n,)."""
        return self._strings(self._role("label"))

    @cached_property
    def sources(self) -> NDArray[np.object_]:
        """The sources as strings, None where missing, shape (n,)."""
        return self._strings(self._role("source"))

    @cached_property
    def times(self) -> NDArray[np.float64]:
        """The times as numbers (seconds for dates), NaN where missing, shape (n,)."""
        name = self._role("time")
        column = self.table.column(name)
        if not is_number(column.type) and not pa.types.is_null(column.type):
            raise PlanError(
                f"column {name!r} has the role 'time' and values of type {column.type}",
                expected="dates, times or numbers",
            )
        return as_numbers(column)

    def farthest_columns(self) -> list[str | None]:
        """For every row the feature that lies furthest from its centre, length n.

        None where it is an embedding of ours, which no column of the data holds.
        """
        names = [None if name == EMBEDDING else name for name in self.encoder.names]
        if not names:
            return [None] * len(self)
        return list(np.asarray(names, dtype=object)[np.abs(self.X).argmax(axis=1)])

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Batch:
        """The batch of some of the rows, by position or by a mask."""
        index = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return replace(self, table=self.table.take(pa.array(index, type=pa.int64())))

    def _role(self, role: str) -> str:
        name = getattr(self.roles, role)
        if not name:
            raise PlanError(f"no column has the role {role!r}", do=f"name one with --{role} COLUMN")
        return str(name)

    def _strings(self, name: str) -> NDArray[np.object_]:
        column = self.table.column(name)
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), None, column)
        return np.asarray(column.cast(pa.string()).to_numpy(zero_copy_only=False), dtype=object)


@dataclass(frozen=True)
class Dataset:
    """A handle on rows that need not fit in memory, and the roles of their columns.

    Parameters
    ----------
    shards : tuple of Shard
        The rows; every shard has the columns of the roles and ``row_id``.
    roles : Roles
    salt : bytes
        Keys the hashes from which folds and samples come.
    trusted : tuple of Shard
        Rows that a person vouches for, from a file of their own. Rows that the
        ``trusted`` column vouches for are found among `shards`.
    earlier : int
        How many of the first shards hold clean rows of an earlier release: a fit sees them
        like all others, and nobody judges them again.
    aside : int
        How many of the shards after these hold rows that this release has set aside: no fit
        sees them, but lines are drawn on them too.
    """

    shards: tuple[Shard, ...]
    roles: Roles
    salt: bytes
    trusted: tuple[Shard, ...] = ()
    earlier: int = 0
    aside: int = 0

    def __getstate__(self) -> dict[str, object]:
        # To another process goes, worked out, what every batch is seen through; the rows that
        # were read on the way stay here.
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {"encoder": self.encoder, "image_shape": self.image_shape}

    @property
    def rows(self) -> int:
        """How many rows there are in all."""
        return sum(shard.rows for shard in self.shards)

    @property
    def judged(self) -> tuple[Shard, ...]:
        """The shards whose rows are judged: all but those of an earlier release."""
        return self.shards[self.earlier + self.aside :]

    @property
    def published(self) -> tuple[Shard, ...]:
        """The shards of an earlier release."""
        return self.shards[: self.earlier + self.aside]

    @cached_property
    def learned(self) -> Dataset:
        """The rows that fits may see: all but those that were set aside."""
        if not self.aside:
            return self
        return replace(self, shards=(*self.shards[: self.earlier], *self.judged), aside=0)

    @classmethod
    def from_table(cls, table: pa.Table, roles: Roles, *, salt: bytes = b"dataset") -> Dataset:
        """Wrap a table in memory; rows without a ``row_id`` are numbered.

        Meant for notebooks and tests; the pipelines give rows ids that are stable.
        """
        # Rows cannot be taken by position from views of texts.
        plain = [
            f.with_type(pa.string()) if pa.types.is_string_view(f.type) else f for f in table.schema
        ]
        table = table.cast(pa.schema(plain))
        if ROW_ID not in table.column_names:
            ids = pa.array([f"row-{i:08d}" for i in range(table.num_rows)])
            table = table.append_column(ROW_ID, ids)
        return cls((MemoryShard(table),), roles, salt)

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder of the features, fitted on a sample of hashed ids."""
        if self.roles.image is not None:
            return self.without_images.encoder
        rows = self._sample_table(ENCODER_ROWS, "encoder")
        if self.roles.embedding is not None:
            check_vectors(self.roles.embedding, rows.column(self.roles.embedding))
        return fit_encoder(rows, self.roles.learned)

    @cached_property
    def image_shape(self) -> ImageShape | None:
        """Height, width and channels at which images are looked at; None without images.

        Chosen from a sample by `sanitizers.core.images.common_shape`.
        """
        return None if self.roles.image is None else self.shape_within()

    def shape_within(self, side: int = VIEW_SIDE) -> ImageShape:
        """The shape in which images are looked at where no side may be longer, of a sample."""
        if self.roles.image is None:
            raise PlanError("no column has the role 'image'", do="name one with --image COLUMN")
        sampled = self._sampled(SHAPE_ROWS, "image shape")
        return common_shape([f for table in sampled for f in forms(table, self.roles.image)], side)

    @cached_property
    def without_images(self) -> Dataset:
        """The same rows for those who do not look at images, which are then not read."""
        if self.roles.image is None:
            return self
        return replace(self, roles=replace(self.roles, image=None))

    @cached_property
    def new(self) -> Dataset:
        """The rows that are judged, and no others."""
        return replace(self, shards=self.judged, earlier=0, aside=0) if self.published else self

    def batch(self, table: pa.Table) -> Batch:
        """See rows of this dataset through its roles and its encoder."""
        return Batch(table, self.roles, self.salt, self.encoder, self.image_shape)

    def batches(self) -> Iterator[Batch]:
        """Every row, shard by shard, in order."""
        return self.batches_of(self.shards)

    def batches_of(self, shards: Sequence[Shard]) -> Iterator[Batch]:
        """The rows of some of the shards, in order."""
        for shard in shards:
            yield self.batch(self._read(shard))

    def sample(self, rows: int, purpose: str) -> Batch:
        """About `rows` rows, chosen and ordered by their salted ids.

        The choice depends on the set of rows only: not on their order, not on the
        sharding. All rows are taken where there are no more than `rows`. Images are decoded
        on the way, so that the sample holds pixels and not files.
        """
        return self.batch(self._sample_table(rows, purpose))

    @cached_property
    def trusted_rows(self) -> Batch | None:
        """The rows that a person vouches for, or None where there are none."""
        kept: pa.Table | None = None
        for table in self._vouched():
            if table.num_rows:
                found = [self._viewed(table)] if kept is None else [kept, self._viewed(table)]
                whole = pa.concat_tables(found, promote_options="permissive")
                # Cut each time: rows with images are large.
                kept = _by_key(whole, self.salt, "trusted", TRUSTED_ROWS)
        return None if kept is None else self.batch(kept)

    def _vouched(self) -> Iterator[pa.Table]:
        for shard in self.trusted:
            yield self._read(shard)
        if self.roles.trusted:
            for shard in self.shards:
                table = self._read(shard)
                yield table.filter(pc.fill_null(table.column(self.roles.trusted), False))

    def _read(self, shard: Shard) -> pa.Table:
        """Read what sanitizers may see of a shard: its ids and the columns with a role."""
        have = set(shard.schema.names)
        missing = [c for c in self.roles.columns if c not in have]
        if missing:
            raise InputError(
                f"no column {missing[0]!r} in the data", do=did_you_mean(missing[0], have)
            )
        wanted = [ROW_ID, ROW_KEY, *self.roles.columns, *([IMAGE] if self.roles.image else [])]
        return shard.read([c for c in dict.fromkeys(wanted) if c in have])

    def _viewed(self, table: pa.Table) -> pa.Table:
        """Rows with the pixels of their images in the place of the bytes."""
        if self.roles.image is None or self.image_shape is None:
            return table
        return with_pixels(table, self.roles.image, self.image_shape)

    def _sample_table(self, rows: int, purpose: str) -> pa.Table:
        tables = [self._viewed(table) for table in self._sampled(rows, purpose)]
        return _by_key(pa.concat_tables(tables), self.salt, purpose)

    def _sampled(self, rows: int, purpose: str) -> Iterator[pa.Table]:
        # A row is in the sample when its key lies below a line: no pass over the
        # data but this one, and no memory but the sample's.
        share = min(1.0, rows / max(self.rows, 1))
        line = np.uint64(min(int(share * 2**64), 2**64 - 1))
        for shard in self.shards:
            table = self._read(shard)
            if share < 1.0:
                table = table.filter(pa.array(mix(_keys(table, self.salt), purpose) < line))
            yield table


def _keys(table: pa.Table, salt: bytes) -> NDArray[np.uint64]:
    if ROW_KEY in table.column_names:
        return np.asarray(table.column(ROW_KEY).to_numpy(), dtype=np.uint64)
    return row_keys(table.column(ROW_ID).to_pylist(), salt)


def _by_key(table: pa.Table, salt: bytes, purpose: str, rows: int | None = None) -> pa.Table:
    """Order rows by their salted ids, so that a fit never depends on the order of arrival."""
    order = np.argsort(mix(_keys(table, salt), purpose), kind="stable")
    return table.take(pa.array(order[:rows]))
