"""Images in the library: exact where they can be, calm on hostile bytes, one size for all."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sanitizers.core import image_formats
from sanitizers.core.data import Dataset, MemoryShard, Roles
from sanitizers.core.errors import InputError, PlanError
from sanitizers.core.image_columns import IMAGE, IMAGE_TYPE, bytes_of
from sanitizers.core.images import VIEW_SIDE, common_shape, decode, flaws, form
from tests.pictures import colours, encoded, greys, hostile, png_bomb, webp_bomb

HOSTILE = hostile()

# ---------------------------------------------------------------- decoding


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_lossless_images_come_back_as_they_were(kind: str) -> None:
    pictures = [colours(seed=seed) for seed in range(40)]
    data = [encoded(p, kind, lossless=True) for p in pictures]
    assert np.array_equal(decode(data, (6, 9, 3)), np.stack(pictures))
    assert form(data[0]) == (6, 9, 3)


def test_grey_stays_grey() -> None:
    pictures = [greys(seed=seed) for seed in range(3)]
    assert np.array_equal(
        decode([encoded(p) for p in pictures], (6, 9, 1)), np.stack(pictures)[..., None]
    )
    assert form(encoded(pictures[0])) == (6, 9, 1)


def test_every_mode_becomes_what_it_shows() -> None:
    colour, grey = colours(16, 16), greys(16, 16)
    alpha = greys(16, 16, seed=1)
    table = Image.fromarray(colour).quantize(7)
    deep = np.random.default_rng(0).integers(0, 2**16, (16, 16), dtype=np.uint16)
    bits = grey > 127
    cmyk = Image.fromarray(colour).convert("CMYK")
    luma = np.asarray(Image.fromarray(colour).convert("L"))[..., None]
    cases = [
        (encoded(np.dstack([colour, alpha])), colour, 3),
        (encoded(np.dstack([grey, alpha])), grey[..., None], 1),
        (encoded(table), np.asarray(table.convert("RGB")), 3),
        (encoded(table, transparency=bytes([0, 9, 255])), np.asarray(table.convert("RGB")), 3),
        (encoded(Image.fromarray(deep)), (deep // 256).astype(np.uint8)[..., None], 1),
        (encoded(Image.fromarray(bits)), bits[..., None] * np.uint8(255), 1),
        (encoded(colour), luma, 1),
        (encoded(grey), np.repeat(grey[..., None], 3, axis=2), 3),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data, expected, channels in cases:
            assert np.array_equal(decode([data], (16, 16, channels))[0], expected)
        assert decode([encoded(cmyk, "JPEG")], (16, 16, 3)).shape == (1, 16, 16, 3)
    assert [form(case[0])[2] for case in cases] == [3, 1, 3, 3, 1, 1, 3, 1]


def test_the_order_stays_and_a_missing_image_is_black() -> None:
    pictures = [greys(seed=seed) for seed in range(300)]
    data: list[bytes | None] = [encoded(p) for p in pictures]
    data[7] = None
    whole = decode(data, (6, 9, 1))
    assert not whole[7].any()
    one_by_one = [decode([one], (6, 9, 1))[0] for one in data]
    assert np.array_equal(whole, np.stack(one_by_one))


def test_a_smaller_view_is_not_aliased() -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    seen = decode([encoded(board)], (16, 16, 1)).astype(float)
    assert np.abs(seen - 127.5).max() < 3, "a pixel in four would be black or white"


# ---------------------------------------------------------------- hostile bytes


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_decoded_is_told(name: str) -> None:
    data, word = HOSTILE[name]
    why = flaws([encoded(colours()), data, None])
    assert why[0] is None
    assert why[2] is None
    assert why[1] is not None
    assert word in why[1]
    assert len(why[1]) < 200


@pytest.mark.parametrize(
    "bomb", [png_bomb(), *(webp_bomb(k) for k in (b"VP8 ", b"VP8L", b"VP8X"))], ids=str
)
def test_a_bomb_meets_no_decoder(bomb: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        image_formats, "_OPEN", {k: lambda _, k=k: asked.append(k) for k in ("PNG", "WebP")}
    )
    assert flaws([bomb]) == [f"more than {image_formats.MAX_PIXELS:,} pixels"]
    assert not asked


def test_limits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    data, jpeg = encoded(colours()), encoded(colours(), "JPEG")
    many = jpeg[:-2] + b"\xff\xda" * image_formats.MAX_SCANS + jpeg[-2:]
    assert "scans" in str(flaws([many])[0])
    monkeypatch.setattr(image_formats, "MAX_PIXELS", 53)
    assert "more than 53 pixels" in str(flaws([data])[0])
    assert "more than 53 pixels" in str(flaws([jpeg])[0])
    monkeypatch.setattr(image_formats, "MAX_BYTES", len(data) - 1)
    assert "MiB" in str(flaws([data])[0])


def test_images_that_fill_the_memory_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_formats, "MAX_PIXELS", 60)
    data = [encoded(greys(seed=seed)) for seed in range(80)]
    assert flaws(data) == [None] * 80


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["PNG", "JPEG", "WEBP"]),
    st.integers(0, 2000),
    st.integers(0, 2000),
    st.binary(max_size=6),
)
def test_no_bytes_break_the_decoder(kind: str, cut: int, at: int, noise: bytes) -> None:
    data = encoded(colours(12, 12), kind)
    at %= len(data)
    broken = (data[:at] + noise + data[at + len(noise) :])[: len(data) - cut % len(data)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (why,) = flaws([broken])
        if why is None:
            decode([broken], (4, 4, 3))


# ---------------------------------------------------------------- one shape for all


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(28, 28, 1)] * 9, (28, 28, 1)),
        ([(28, 28, 1)] * 9 + [(28, 28, 3)], (28, 28, 3)),
        ([(32, 32, 3)] * 6 + [(9000, 5000, 3)] * 5, (32, 32, 3)),
        ([(300, 400, 3), (310, 420, 3), (290, 380, 3), (9000, 1, 3)], (50, 64, 3)),
        ([(640, 480, 1)], (64, 48, 1)),
        ([(40_000, 2, 1)], (64, 1, 1)),
        ([], (64, 64, 3)),
    ],
)
def test_the_common_shape(sizes: list[tuple[int, int, int]], expected: tuple[int, ...]) -> None:
    assert common_shape(sizes) == expected


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([1, 3])))
    .filter(bool)
    .flatmap(lambda forms: st.tuples(st.just(forms), st.permutations(forms)))
)
def test_the_common_shape_is_small_and_has_no_order(
    pair: tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]],
) -> None:
    forms, shuffled = pair
    shape = common_shape(forms)
    assert shape == common_shape(shuffled)
    assert 1 <= min(shape[:2]) <= max(shape[:2]) <= VIEW_SIDE


# ---------------------------------------------------------------- through the roles


def pictures_table(rows: int, kind: str = "struct") -> tuple[pa.Table, np.ndarray]:
    pixels = np.stack([greys(seed=seed) for seed in range(rows)])[..., None]
    data: list[bytes | None] = [encoded(p[..., 0]) for p in pixels]
    data[3], pixels[3] = None, 0
    columns = {"label": pa.array(["ab"[i % 2] for i in range(rows)])}
    if kind == "struct":
        values = [
            None if d is None else {"bytes": d, "path": f"{i}.png"} for i, d in enumerate(data)
        ]
        columns["photo"] = pa.array(values, IMAGE_TYPE)
    elif kind == "paths":
        columns["photo"] = pa.array([d and f"{i}.png" for i, d in enumerate(data)], pa.string())
        columns[IMAGE] = pa.array(data, pa.binary())
    else:
        columns["photo"] = pa.array(data, pa.type_for_alias(kind))
    return pa.table(columns), pixels


ROLES = Roles(label="label", image="photo")


@pytest.mark.parametrize("kind", ["struct", "binary", "large_binary", "paths"])
def test_a_batch_has_images_wherever_their_bytes_lie(kind: str) -> None:
    table, pixels = pictures_table(30, kind)
    data = Dataset.from_table(table, ROLES)
    assert data.image_shape == (6, 9, 1)
    (batch,) = data.batches()
    assert np.array_equal(batch.images, pixels)
    assert batch.has_image.tolist() == [i != 3 for i in range(30)]
    some = batch.take(np.array([9, 3, 1]))
    assert np.array_equal(some.images, pixels[[9, 3, 1]])
    assert some.has_image.tolist() == [True, False, True]
    parts = [data.batch(batch.table.slice(at, 7)) for at in range(0, 30, 7)]
    assert np.array_equal(np.concatenate([p.images for p in parts]), pixels)


@pytest.mark.parametrize("kind", ["struct", "paths"])
def test_a_sample_holds_pixels_and_no_files(kind: str) -> None:
    table, pixels = pictures_table(60, kind)
    data = Dataset.from_table(table, ROLES)
    for rows in (20, 60):
        sample = data.sample(rows, "test")
        places = [int(name.removeprefix("row-")) for name in sample.row_ids.to_pylist()]
        assert np.array_equal(sample.images, pixels[places])
        assert np.array_equal(sample.has_image, np.array(places) != 3)
        assert not any(bytes_like(f.type) for f in sample.table.schema if f.name != "__pixels")
        assert np.array_equal(sample.take(np.array([2, 0])).images, pixels[places][[2, 0]])
        assert sample.labels.tolist() == ["ab"[p % 2] for p in places]
    sharded = replace(
        data,
        shards=tuple(MemoryShard(data.shards[0].read().slice(a, 11)) for a in range(0, 60, 11)),
    )
    assert np.array_equal(sharded.sample(20, "test").images, data.sample(20, "test").images)


def bytes_like(kind: pa.DataType) -> bool:
    return "binary" in str(kind)


def test_rows_that_a_person_vouches_for_have_images() -> None:
    table, pixels = pictures_table(40)
    trusted = pa.array([i % 3 == 0 for i in range(40)])
    data = Dataset.from_table(table.append_column("ok", trusted), replace(ROLES, trusted="ok"))
    rows = data.trusted_rows
    assert rows is not None
    places = [int(name.removeprefix("row-")) for name in rows.row_ids.to_pylist()]
    assert sorted(places) == list(range(0, 40, 3))
    assert np.array_equal(rows.images, pixels[places])


@dataclass(frozen=True)
class Watched:
    """A shard that remembers which columns were read."""

    table: pa.Table
    asked: set[str] = field(default_factory=set)

    @property
    def schema(self) -> pa.Schema:
        return self.table.schema

    @property
    def rows(self) -> int:
        return int(self.table.num_rows)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        self.asked.update(self.table.column_names if columns is None else columns)
        return self.table if columns is None else self.table.select(list(columns))


@pytest.mark.parametrize(("kind", "heavy"), [("struct", "photo"), ("paths", IMAGE)])
def test_nobody_reads_images_who_does_not_look_at_them(kind: str, heavy: str) -> None:
    table, _ = pictures_table(30, kind)
    table = table.append_column("x", pa.array(np.arange(30.0)))
    named = Dataset.from_table(table, Roles())
    shard = Watched(named.shards[0].read())
    data = Dataset((shard,), replace(ROLES, features=("x",)), b"salt")
    assert data.encoder.names == ("x",)
    blind = data.without_images
    assert [len(b.X) for b in blind.batches()] == [30]
    assert len(blind.sample(10, "test").labels) > 0
    assert blind.image_shape is None
    assert heavy not in shard.asked
    assert data.sample(5, "test").images.shape[1:] == (6, 9, 1)
    assert heavy in shard.asked
    assert blind.without_images is blind


def test_images_that_nobody_checked_are_told_by_their_row() -> None:
    table = pa.table({"photo": pa.array([encoded(greys()), b"GIF89a", b""], pa.binary())})
    (batch,) = Dataset.from_table(table, Roles(image="photo")).batches()
    with pytest.raises(InputError, match="2 of 3 images cannot be decoded; the first, row 1: GIF"):
        _ = batch.images


def test_names_are_no_images() -> None:
    data = Dataset.from_table(pa.table({"photo": ["a.png"]}), Roles(image="photo"))
    with pytest.raises(PlanError, match="values of type string; expected the bytes of images"):
        _ = data.image_shape
    plain = Dataset.from_table(pa.table({"x": [1.0]}), Roles(features=("x",)))
    assert plain.image_shape is None
    with pytest.raises(PlanError, match="--image COLUMN"):
        _ = next(plain.batches()).images


@given(st.lists(st.none() | st.binary(max_size=5)), st.integers(0, 4))
def test_bytes_are_seen_without_a_copy(values: list[bytes | None], start: int) -> None:
    for kind in (pa.binary(), pa.large_binary()):
        column = pa.chunked_array([pa.array(values, kind).slice(start), pa.array(values, kind)])
        seen = [None if v is None else bytes(v) for v in bytes_of(column)]
        assert seen == values[start:] + values
