"""Images in: every source gives the same pixels, rows are conserved, nothing leaves its folder."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.explain import explain
from pipelines.image_rows import JUDGED
from pipelines.ingest import UNREADABLE, Ingested, ingest
from pipelines.job import Job
from pipelines.pictures import described, thumbnail
from pipelines.plan import Plan
from pipelines.plan_parts import RolesPart
from pipelines.progress import SILENT
from pipelines.readers.named import contents
from pipelines.readers.png import png_files
from pipelines.readers.records import CsvRecords
from pipelines.readers.sources import find_sources
from pipelines.recipes import choose
from pipelines.report import render
from pipelines.report_data import gather
from pipelines.roles import infer_roles
from pipelines.store import Store
from pipelines.verify import verify
from sanitizers.core.data import Dataset
from sanitizers.core.errors import InputError, PlanError
from sanitizers.core.image_columns import IMAGE, IMAGE_TYPE
from sanitizers.core.images import decode, form
from tests.pictures import colours, encoded, greys, hostile, image_folder
from tests.report_run import make_run
from tests.staged import Ran, run_stages

SALT = b"s" * 32
CLASSES = {"cat": [greys(seed=i) for i in range(4)], "dog": [greys(seed=i) for i in range(4, 7)]}
FILES = {label: [encoded(p) for p in pictures] for label, pictures in CLASSES.items()}
PIXELS = np.stack([p for pictures in CLASSES.values() for p in pictures])[..., None]
LABELS = ["cat"] * 4 + ["dog"] * 3


def rows_of(found: Ingested) -> pa.Table:
    return pa.concat_tables([shard.read() for shard in found.shard_files()])


def unreadable_of(found: Ingested) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(found.folder / UNREADABLE).to_pylist()
    return rows


def ids_of(found: Ingested) -> list[str]:
    ids: list[str] = rows_of(found).column("row_id").to_pylist()
    return ids


def seen(found: Ingested, **given: Any) -> Dataset:
    roles = infer_roles(found.columns, RolesPart(**given), found.rows).roles
    return found.dataset(roles, SALT)


def read(source: Path, to: Path, **asked: Any) -> Ingested:
    return ingest(source, to, salt=SALT, **asked)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "pets", FILES)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV file that names the images of a folder beside it."""
    image_folder(tmp_path / "data" / "img", FILES)
    names = [
        f"img/{label}/{i:03d}.png" for label, files in FILES.items() for i in range(len(files))
    ]
    lines = [
        f'{i:03d},{name},"{label}"'
        for i, (name, label) in enumerate(zip(names, LABELS, strict=True))
    ]
    path = tmp_path / "data" / "pets.csv"
    path.write_text("n,file,kind\n" + "\n".join(lines) + "\n")
    return path


# ---------------------------------------------------------------- a folder per class


def test_a_folder_per_class_gives_its_files_and_its_names(folder: Path, tmp_path: Path) -> None:
    found = read(folder, tmp_path / "out")
    rows = rows_of(found)
    assert rows.column_names[:2] == ["image", "label"]
    assert rows.schema.field("image").type == IMAGE_TYPE
    expected = [
        {"bytes": data, "path": f"{label}/{i:03d}.png"}
        for label, files in FILES.items()
        for i, data in enumerate(files)
    ]
    assert rows.column("image").to_pylist() == expected
    assert rows.column("label").to_pylist() == LABELS
    (file,) = found.files
    assert (file.path, file.format, file.rows) == ("pets", "imagefolder", 7)
    assert file.bytes == sum(len(e["bytes"]) for e in expected)


def test_its_roles_need_no_word(folder: Path, tmp_path: Path) -> None:
    found = read(folder, tmp_path / "out")
    inferred = infer_roles(found.columns, RolesPart(), found.rows)
    assert (inferred.roles.image, inferred.roles.label) == ("image", "label")
    assert inferred.roles.features == ()
    data = found.dataset(inferred.roles, SALT)
    assert data.image_shape == (6, 9, 1)
    (batch,) = data.batches()
    assert np.array_equal(batch.images, PIXELS)
    assert batch.labels.tolist() == LABELS


def test_many_classes_are_a_label_all_the_same(tmp_path: Path) -> None:
    one = [encoded(greys())]
    folder = image_folder(tmp_path / "many", {f"c{i:03d}": one for i in range(250)})
    found = read(folder, tmp_path / "out")
    assert infer_roles(found.columns, RolesPart(), found.rows).roles.label == "label"


def test_formats_and_sizes_may_be_mixed(tmp_path: Path) -> None:
    root = tmp_path / "mixed"
    image_folder(root, {"a": [encoded(colours(30, 20))]}, "png")
    image_folder(root, {"a": [encoded(colours(10, 40), "JPEG")]}, "JPG")
    image_folder(root, {"b": [encoded(greys(25, 25), "WEBP"), encoded(greys(9, 9))]}, "webp")
    found = read(root, tmp_path / "out")
    assert (found.rows, found.unreadable) == (4, 0)
    data = seen(found)
    assert data.image_shape == (18, 22, 3)
    assert next(data.batches()).images.shape == (4, 18, 22, 3)


def test_an_id_hangs_on_every_byte_and_on_nothing_else(folder: Path, tmp_path: Path) -> None:
    first = ids_of(read(folder, tmp_path / "one"))
    assert len(set(first)) == 7
    assert ids_of(read(folder, tmp_path / "parts", shard_rows=2)) == first
    changed = CLASSES["cat"][2].copy()
    changed[0, 0] ^= 1
    (folder / "cat" / "002.png").write_bytes(encoded(changed))
    again = ids_of(read(folder, tmp_path / "two"))
    assert [a == b for a, b in zip(first, again, strict=True)] == [i != 2 for i in range(7)]


def test_the_same_folder_is_not_read_twice(folder: Path, tmp_path: Path) -> None:
    first = read(folder, tmp_path / "out")
    marker = (tmp_path / "out" / "input.json").stat().st_mtime_ns
    os.utime(folder / "cat" / "000.png")
    assert read(folder, tmp_path / "out").digest == first.digest
    assert (tmp_path / "out" / "input.json").stat().st_mtime_ns == marker
    (folder / "dog" / "009.png").write_bytes(encoded(greys()))
    assert read(folder, tmp_path / "out").rows == 8
    (folder / "dog" / "009.png").rename(folder / "cat" / "009.png")
    moved = read(folder, tmp_path / "out")
    assert rows_of(moved).column("label").to_pylist().count("cat") == 5


def test_what_is_no_image_by_its_name_is_told(folder: Path, tmp_path: Path) -> None:
    (folder / "cat" / "notes.txt").write_text("mine")
    (folder / "cat" / ".hidden.png").write_bytes(b"x")
    (folder / "_trash").mkdir()
    (folder / "_trash" / "a.png").write_bytes(b"x")
    (folder / "README.md").write_text("mine")
    notes = Notes()
    assert ingest(folder, tmp_path / "out", salt=SALT, progress=notes).rows == 7
    assert notes.said == [
        "left out of the folders: 1 files not named like images, such as cat/notes.txt"
    ]


class Notes:
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)

    def stage(self, name: str, total: int | None = None, shards: int | None = None) -> Any:

        return SILENT.stage(name, total, shards)


def test_names_that_are_no_utf8_are_kept_as_text(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path / "odd")
    os.makedirs(root + b"/caf\xe9")
    os.makedirs(root + "/日本".encode())
    for label in (b"caf\xe9", "日本".encode()):
        Path(os.fsdecode(root + b"/" + label + b"/a\xff.png")).write_bytes(encoded(greys()))
    found = read(tmp_path / "odd", tmp_path / "out")
    assert rows_of(found).column("label").to_pylist() == ["caf\\xe9", "日本"]
    assert rows_of(found).column("image").to_pylist()[0]["path"] == "caf\\xe9/a\\xff.png"


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        (["train/cat/1.png", "test/cat/1.png"], r"the split 'test'.*one split at a time.*/test"),
        (["cat/black/1.png", "dog/2.png"], "cat/black/1.png lies too deep"),
        (["cat/a/b/1.png", "dog/2.png"], "cat/a/b/1.png lies too deep"),
        (["1.png", "cat/2.png"], "image '1.png' lies in"),
        (["1.png", "2.png"], "a folder per class"),
        (["cat/1.png", "dog/notes.csv"], "holds images in folders, and the table dog/notes.csv"),
        (["cat/1.txt"], "no data in the folder .* or a folder per class"),
    ],
)
def test_other_layouts_are_told(tmp_path: Path, layout: list[str], said: str) -> None:
    for name in layout:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(encoded(greys()))
    with pytest.raises(InputError, match=said):
        find_sources(tmp_path / "in")


def test_a_table_beside_the_classes_is_the_data(folder: Path) -> None:
    (folder / "all.csv").write_text("file,kind\ncat/000.png,cat\n")
    assert find_sources(folder) == [folder / "all.csv"]


def test_single_images_are_no_data(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"000\.png is an image.*a folder per class"):
        read(folder / "cat" / "000.png", tmp_path / "out")


# ---------------------------------------------------------------- hostile files


def test_what_cannot_be_decoded_is_kept_with_its_reason(folder: Path, tmp_path: Path) -> None:
    bad = hostile()
    for name, (data, _) in bad.items():
        (folder / "dog" / f"{name}.png").write_bytes(data)
    found = read(folder, tmp_path / "out")
    assert found.rows == 7
    assert found.unreadable == len(bad)
    assert rows_of(found).num_rows + len(unreadable_of(found)) == 7 + len(bad)
    for row in unreadable_of(found):
        name = row["file"].removeprefix("pets/dog/").removesuffix(".png")
        data, word = bad.pop(name)
        assert row["image"] == data
        assert row["reason"].startswith("image: ")
        assert word in row["reason"]
        assert json.loads(row["raw"]) == {"image": {"path": f"dog/{name}.png"}, "label": "dog"}
    assert not bad
    places = [
        *rows_of(found).column("__row").to_pylist(),
        *[r["row"] for r in unreadable_of(found)],
    ]
    assert sorted(places) == list(range(found.rows + found.unreadable))


def test_no_file_leads_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(greys(seed=99)))
    (folder / "cat" / "out.png").symlink_to(secret)
    (folder / "cat" / "far.png").symlink_to("../../secret.png")
    (folder / "cat" / "near.png").symlink_to("../dog/001.png")
    (folder / "cat" / "lost.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "cat" / "pipe.png")
    found = read(folder, tmp_path / "out")
    told = {r["file"].split("/")[-1]: r["reason"] for r in unreadable_of(found)}
    assert told == {
        "out.png": "image: its path leads out of the folder of the data",
        "far.png": "image: its path leads out of the folder of the data",
        "lost.png": "image: no such file",
        "pipe.png": "image: not a regular file",
    }
    assert all(r["image"] is None for r in unreadable_of(found))
    data = [v["bytes"] for v in rows_of(found).column("image").to_pylist()]
    assert secret.read_bytes() not in data
    assert data.count(FILES["dog"][1]) == 2


def test_no_class_leads_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    image_folder(tmp_path / "elsewhere", {"bird": FILES["cat"]})
    (folder / "bird").symlink_to(tmp_path / "elsewhere" / "bird")
    with pytest.raises(InputError, match="the class 'bird' is a symbolic link that leads out"):
        read(folder, tmp_path / "out")
    (folder / "bird").unlink()
    (folder / "bird").symlink_to("dog")
    assert read(folder, tmp_path / "out").rows == 10
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert read(link, tmp_path / "linked").rows == 10


def test_a_file_beyond_the_limit_is_not_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.readers.inside.MAX_BYTES", 1000)
    (folder / "cat" / "vast.png").write_bytes(FILES["cat"][0] + bytes(1000))
    found = read(folder, tmp_path / "out")
    (row,) = unreadable_of(found)
    assert row["reason"] == "image: more than 0 MiB"
    assert found.rows == 7


def test_nothing_but_hostile_files_is_told(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "bad", {"a": [b"GIF89a", b"<svg/>"]})
    with pytest.raises(InputError, match=r"none of the 2 rows could be read.*bad/a/000\.png.*GIF"):
        read(folder, tmp_path / "out")


# ---------------------------------------------------------------- a table that names files


def test_a_column_of_paths_stays_as_it_is(table: Path, tmp_path: Path) -> None:
    found = read(table, tmp_path / "out", image_column="file")
    rows = rows_of(found)
    assert rows.column("file").to_pylist()[0] == "img/cat/000.png"
    assert rows.column(IMAGE).to_pylist() == [d for files in FILES.values() for d in files]
    data = seen(found, image="file", label="kind", ignore=("n",))
    (batch,) = data.batches()
    assert np.array_equal(batch.images, PIXELS)
    assert np.array_equal(np.sort(data.sample(7, "test").images, axis=0), np.sort(PIXELS, axis=0))


def test_paths_are_not_read_unless_they_are_named(table: Path, tmp_path: Path) -> None:
    found = read(table, tmp_path / "out")
    assert IMAGE not in rows_of(found).column_names
    inferred = infer_roles(found.columns, RolesPart(), found.rows)
    assert inferred.roles.image is None
    assert any("--image file reads them" in note for note in inferred.notes)


def test_ids_and_the_input_cover_the_files_that_are_named(table: Path, tmp_path: Path) -> None:
    first = read(table, tmp_path / "out", image_column="file")
    assert first.files[-1].path == "images named by 'file'"
    assert first.files[-1].bytes == sum(len(d) for files in FILES.values() for d in files)
    assert sum(f.rows for f in first.files) == 7
    ids = ids_of(first)
    (table.parent / "img" / "dog" / "000.png").write_bytes(encoded(greys(seed=77)))
    second = read(table, tmp_path / "out", image_column="file")
    assert second.digest != first.digest
    assert [a == b for a, b in zip(ids, ids_of(second), strict=True)] == [i != 4 for i in range(7)]
    blind = read(table, tmp_path / "blind")
    assert ids_of(blind) != ids
    assert len({first.digest, second.digest, blind.digest}) == 3


def test_paths_that_lead_elsewhere_are_refused(table: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(greys(seed=99)))
    (table.parent / "img" / "out.png").symlink_to(secret)
    refused = {
        str(secret): "absolute",
        "../secret.png": "goes up with '..'",
        "img/../../secret.png": "goes up with '..'",
        "img/../img/cat/000.png": "goes up with '..'",
        "img\\\\..\\\\..\\\\secret.png": "goes up with '..'",
        "C:/secret.png": "absolute",
        "\\\\host/secret.png": "absolute",
        "~/secret.png": "absolute",
        "https://example.org/a.png": "URL",
        "file:///etc/passwd": "URL",
        "img/out.png": "leads out of the folder",
        "img/none.png": "no such file",
        "img": "not a regular file",
        "x" * 5000: "too long",
        "pets.csv": "no known format",
    }
    lines = [f'{i},"{name}",cat' for i, name in enumerate(refused)]
    table.write_text(table.read_text() + "\n".join(lines) + "\n")
    found = read(table, tmp_path / "out", image_column="file")
    assert found.rows == 7
    assert secret.read_bytes() not in rows_of(found).column(IMAGE).to_pylist()
    told = unreadable_of(found)
    for row, (name, word), line in zip(told, refused.items(), lines, strict=True):
        assert word in row["reason"], name
        assert row["reason"].startswith("image 'file': ")
        assert row["raw"] == line, "the line as it came"
        assert (row["file"], row["image"] is None) == ("pets.csv", name != "pets.csv")


def test_many_bad_lines_cost_no_more_than_their_number(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts: list[int] = []

    def split(self: CsvRecords, text: bytes) -> list[bytes]:
        cuts.append(len(text))
        return whole(self, text)

    whole = CsvRecords.split
    monkeypatch.setattr(CsvRecords, "split", split)
    table.write_text(table.read_text() + "".join(f"{i},none-{i}.png,cat\n" for i in range(500)))
    found = read(table, tmp_path / "out", image_column="file")
    assert [row["raw"] for row in unreadable_of(found)][-1] == "499,none-499.png,cat"
    assert len(cuts) == 1, "the block is cut once, not for every line"


def test_a_line_without_a_path_has_no_image(table: Path, tmp_path: Path) -> None:
    table.write_text(table.read_text() + "9,,cat\n")
    found = read(table, tmp_path / "out", image_column="file")
    assert (found.rows, found.unreadable) == (8, 0)
    (batch,) = seen(found, image="file", label="kind").batches()
    assert batch.has_image.tolist() == [True] * 7 + [False]
    assert not batch.images[7].any()


def test_paths_are_relative_to_their_own_table(table: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.png").write_bytes(encoded(greys(seed=50)))
    (other / "more.csv").write_text("n,file,kind\n7,a.png,cat\n")
    found = ingest([table, other / "more.csv"], tmp_path / "out", salt=SALT, image_column="file")
    assert (found.rows, found.unreadable) == (8, 0)
    data = rows_of(found).column(IMAGE).to_pylist()
    assert np.array_equal(decode(data, (6, 9, 1))[7][..., 0], greys(seed=50))


@pytest.mark.parametrize("ending", ["csv.gz", "jsonl", "parquet", "parquet.gz", "feather"])
def test_every_format_may_name_images(table: Path, tmp_path: Path, ending: str) -> None:
    frame = pd.read_csv(table, dtype={"n": str}).astype({"file": "category"})
    path = table.with_name(f"other.{ending}")
    plain = path.with_suffix("") if ending.endswith(".gz") else path
    kind = ending.split(".", maxsplit=1)[0]
    if kind == "csv":
        frame.to_csv(plain, index=False)
    elif kind == "jsonl":
        frame.to_json(plain, orient="records", lines=True)
    else:
        getattr(frame, f"to_{kind}")(plain)
    if plain != path:
        path.write_bytes(gzip.compress(plain.read_bytes()))
    found = read(path, tmp_path / "out", image_column="file")
    assert rows_of(found).column(IMAGE).to_pylist() == [d for f in FILES.values() for d in f]
    (table.parent / "img" / "cat" / "001.png").write_bytes(b"GIF89a")
    (row,) = unreadable_of(read(path, tmp_path / "again", image_column="file"))
    assert row["row"] == 1
    if kind == "jsonl":
        assert row["raw"] == path.read_text().splitlines()[1]
    elif kind != "csv":
        assert json.loads(row["raw"]) == {"n": "001", "file": "img/cat/001.png", "kind": "cat"}


def test_given_ids_go_with_images(table: Path, tmp_path: Path) -> None:
    text = table.read_text().replace("n,file", "id,file")
    table.write_text(
        "\n".join(f"r{line}" if line[:1].isdigit() else line for line in text.split("\n"))
    )
    found = read(table, tmp_path / "out", image_column="file", id_column="id")
    assert ids_of(found) == [f"r{i:03d}" for i in range(7)]


def test_a_file_that_changes_meanwhile_is_told(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*args: Any) -> Any:
        (table.parent / "img" / "dog" / "000.png").write_bytes(encoded(greys(seed=3)))
        return contents(*args)

    monkeypatch.setattr("pipelines.image_rows.contents", slow)
    with pytest.raises(InputError, match="changed while it was read"):
        read(table, tmp_path / "out", image_column="file")


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("flie", "no column 'flie' for the images.*did you mean 'file'"),
        ("zzz", "no column 'zzz' for the images.*known: 'n', 'file', 'kind'"),
        ("n", "column 'n' cannot be the image: it is of type int64; expected paths, bytes"),
    ],
)
def test_columns_that_are_no_images_are_told(
    table: Path, tmp_path: Path, column: str, said: str
) -> None:
    table.write_text(table.read_text().replace("\n0", "\n1"))
    with pytest.raises(PlanError, match=said):
        read(table, tmp_path / "out", image_column=column)


# ---------------------------------------------------------------- bytes in a column


def write_parquet(path: Path, photos: list[Any], kind: pa.DataType) -> Path:
    columns = {
        "photo": pa.array(photos, kind),
        "kind": pa.array(["ab"[i % 2] for i in range(len(photos))]),
    }
    pq.write_table(pa.table(columns), path, row_group_size=3)
    return path


def as_kind(data: list[bytes | None], kind: pa.DataType) -> list[Any]:
    if not pa.types.is_struct(kind):
        return data
    return [None if d is None else {"bytes": d, "path": f"{i}.png"} for i, d in enumerate(data)]


KINDS = [
    IMAGE_TYPE,
    pa.struct([("path", pa.string()), ("bytes", pa.large_binary())]),
    pa.binary(),
    pa.large_binary(),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_bytes_in_a_column_stay_as_they_are(tmp_path: Path, kind: pa.DataType) -> None:
    data: list[bytes | None] = [d for files in FILES.values() for d in files]
    data[5] = None
    path = write_parquet(tmp_path / "a.parquet", as_kind(data, kind), kind)
    found = read(path, tmp_path / "out")
    original = pq.read_table(path)
    assert rows_of(found).select(["photo", "kind"]).equals(original)
    inferred = infer_roles(found.columns, RolesPart(label="kind"), found.rows)
    assert inferred.roles.image == "photo"
    (batch,) = found.dataset(inferred.roles, SALT).batches()
    expected = PIXELS.copy()
    expected[5] = 0
    assert np.array_equal(batch.images, expected)
    bad = [*data, b"<svg/>", data[0][:50] if data[0] else b""]
    path = write_parquet(tmp_path / "b.parquet", as_kind(bad, kind), kind)
    found = read(path, tmp_path / "out", image_column="photo")
    assert (found.rows, found.unreadable) == (7, 2)
    assert [row["image"] for row in unreadable_of(found)] == bad[7:]
    assert [json.loads(row["raw"])["kind"] for row in unreadable_of(found)] == ["b", "a"]


def test_a_struct_that_only_names_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(encoded(greys()))
    photos = [{"bytes": FILES["cat"][0], "path": None}, {"bytes": None, "path": "b.png"}]
    found = read(write_parquet(tmp_path / "a.parquet", photos, IMAGE_TYPE), tmp_path / "out")
    (row,) = unreadable_of(found)
    assert "a path without the bytes" in row["reason"]
    assert json.loads(row["raw"]) == {"photo": {"path": "b.png"}, "kind": "b"}


@pytest.mark.parametrize(("good", "role"), [(16, "photo"), (15, None)])
def test_bytes_are_images_when_most_of_the_first_are(
    tmp_path: Path, good: int, role: str | None
) -> None:
    data = [FILES["cat"][0]] * good + [b"sound"] * (JUDGED - good) + [b"more"] * 50
    path = write_parquet(tmp_path / "a.parquet", data, pa.binary())
    if role is None:
        found = read(path, tmp_path / "out")
        assert (found.rows, found.unreadable) == (70, 0)
        assert all(not column.role for column in found.columns)
        with pytest.raises(InputError, match="none of the 70 rows"):
            read(
                write_parquet(path, [b"no"] * 70, pa.binary()),
                tmp_path / "out",
                image_column="photo",
            )
        return
    found = read(path, tmp_path / "out")
    assert (found.rows, found.unreadable) == (good, 70 - good)


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize("shape", [(5, 6, 9), (5, 6, 9, 1), (5, 6, 9, 3), (2, 300, 300, 3)])
def test_arrays_become_images_without_loss(tmp_path: Path, shape: tuple[int, ...]) -> None:
    X = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.savez_compressed(tmp_path / "a.npz", X=X, y=np.arange(len(X)) % 2)
    found = read(tmp_path / "a.npz", tmp_path / "out")
    rows = rows_of(found)
    assert rows.schema.field("X").type == IMAGE_TYPE
    channels = shape[3] if len(shape) == 4 else 1
    data = [value["bytes"] for value in rows.column("X").to_pylist()]
    whole = decode(data, (shape[1], shape[2], channels))
    assert np.array_equal(whole, X.reshape(whole.shape))
    inferred = infer_roles(found.columns, RolesPart(), found.rows).roles
    assert (inferred.image, inferred.label, inferred.features) == ("X", "y", ())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([None, 1, 3]))
def test_our_png_is_png(height: int, width: int, channels: int | None) -> None:
    shape = (3, height, width) + (() if channels is None else (channels,))
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    files = [row.tobytes() for row in png_files(pixels)]
    whole = decode(files, (height, width, channels or 1))
    assert np.array_equal(whole, pixels.reshape(whole.shape))


def test_our_png_never_changes() -> None:
    """Row ids come from these bytes: a new version of a compressor must not change them."""
    pixels = (np.arange(3 * 150 * 160 * 3) % 251).astype(np.uint8).reshape(3, 150, 160, 3)
    digest = hashlib.sha256(png_files(pixels).tobytes()).hexdigest()
    assert digest == "8c2f172eb318306d2506aad5c85c8ed2f6dc77e0363c927fbc5a034a4d14bcc8"


@pytest.mark.parametrize(
    ("X", "said"),
    [
        (np.zeros((4, 3, 8, 8), np.uint8), r"\(4, 3, 8, 8\).*\[n, H, W, 1 or 3\] of uint8"),
        (np.zeros((4, 8, 8, 4), np.uint8), r"\[n, H, W, 1 or 3\]"),
        (np.zeros((4, 8, 8), np.float32), "of float32.*of uint8"),
        (np.zeros((4, 0, 8), np.uint8), "0 x 8 pixels"),
        (np.asfortranarray(np.zeros((4, 8, 8), np.uint8)), "in C order"),
    ],
)
def test_arrays_that_are_no_images_are_told(tmp_path: Path, X: np.ndarray, said: str) -> None:
    np.savez(tmp_path / "a.npz", X=X, y=np.arange(4))
    with pytest.raises(InputError, match=said):
        read(tmp_path / "a.npz", tmp_path / "out")


# ---------------------------------------------------------------- memory


def test_shards_of_images_end_by_their_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = [encoded(colours(60, 60, seed)) for seed in range(40)]
    folder = image_folder(tmp_path / "large", {"a": large[:20], "b": large[20:]})
    whole = ids_of(read(folder, tmp_path / "one"))
    size = len(large[0])
    monkeypatch.setattr("pipelines.rows.SHARD_BYTES", 10 * size)
    monkeypatch.setattr("pipelines.rows.PIECE_BYTES", 3 * size)
    monkeypatch.setattr("pipelines.image_rows.PIECE_BYTES", 4 * size)
    monkeypatch.setattr("pipelines.readers.inside.WINDOW_BYTES", 5 * size)
    found = read(folder, tmp_path / "many")
    assert max(shard.rows for shard in found.shards) < 14
    assert ids_of(found) == whole


def test_small_images_count_as_what_they_grow_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "a.npz", X=np.zeros((50, 4, 4), np.uint8), y=np.arange(50) % 2)
    monkeypatch.setattr("pipelines.rows.SHARD_BYTES", 20 * 64 * 64 * 3)
    found = read(tmp_path / "a.npz", tmp_path / "out")
    assert [shard.rows for shard in found.shards] == [50]
    monkeypatch.setattr("pipelines.image_rows.PIECE_BYTES", 10 * 64 * 64 * 3)
    found = read(tmp_path / "a.npz", tmp_path / "again")
    assert [shard.rows for shard in found.shards] == [20, 20, 10]


def test_wide_rows_do_not_make_vast_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pa.table({"text": [f"{i:05d}" * 200 for i in range(100)]})
    pq.write_table(texts, tmp_path / "a.parquet")
    monkeypatch.setattr("pipelines.rows.SHARD_BYTES", 20_000)
    monkeypatch.setattr("pipelines.rows.PIECE_BYTES", 5_000)
    found = read(tmp_path / "a.parquet", tmp_path / "out")
    assert max(shard.rows for shard in found.shards) <= 25
    assert rows_of(found).select(["text"]).equals(texts)


def test_an_internal_name_is_taken(tmp_path: Path) -> None:
    pq.write_table(pa.table({IMAGE: [1]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="the name is ours"):
        read(tmp_path / "a.parquet", tmp_path / "out")


def test_the_work_folder_is_gone(folder: Path, tmp_path: Path) -> None:
    read(folder, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "input.json",
        "rows-00000.parquet",
    ]
    shutil.rmtree(tmp_path / "out")
    assert not list(tmp_path.glob(".*tmp*"))


# ---------------------------------------------------------------- a run, to the release and back

BRIGHT = "tests.pictures:Bright"


def run(source: Path, store: Path, **roles: Any) -> Ran:
    """All stages, without their order from Prefect."""
    plan = Plan.make(
        {
            "dataset": {"name": "pets", "source": str(source), "store": str(store)},
            "roles": roles,
            "policy": {"budget": 0.9, "rules": {BRIGHT: {"quarantine": "score > 200"}}},
            "sanitizers": {"use": [BRIGHT]},
        }
    )
    return run_stages(Job(plan, Store.open(store, SALT)))


@pytest.fixture
def glaring(folder: Path) -> Path:
    """Two white images among the others, and two that are none."""
    white = np.full((6, 9), 255, dtype=np.uint8)
    (folder / "dog" / "white.png").write_bytes(encoded(white) + b"<script>")
    (folder / "cat" / "white.jpg").write_bytes(encoded(white, "JPEG"))
    (folder / "cat" / "bad.png").write_bytes(b"<svg onload=alert(1)>")
    (folder / "cat" / "cut.png").write_bytes(FILES["cat"][0][:70])
    return folder


def test_a_release_holds_the_images_and_the_reasons(glaring: Path, tmp_path: Path) -> None:
    ran = run(glaring, tmp_path / "store")
    clean, held = ran.part("clean"), ran.part("quarantine")
    assert clean.schema.names == ["image", "label", "row_id"]
    assert clean.schema.field("image").type == IMAGE_TYPE
    assert [v["path"] for v in held.column("image").to_pylist()] == [
        "cat/white.jpg",
        "dog/white.png",
    ]
    for value in [*clean.column("image").to_pylist(), *held.column("image").to_pylist()]:
        assert (glaring / value["path"]).read_bytes() == value["bytes"]
    lost = pq.read_table(ran.release / "quarantine" / "unreadable.parquet")
    assert lost.column("image").to_pylist() == [
        b"<svg onload=alert(1)>", FILES["cat"][0][:70]
    ]  # fmt: skip
    assert lost.column("file").to_pylist() == ["pets/cat/bad.png", "pets/cat/cut.png"]
    assert clean.num_rows + held.num_rows + lost.num_rows == 11
    assert verify(ran.release).ok
    frame = pd.read_parquet(ran.release / "clean")
    assert np.array_equal(decode([frame["image"][0]["bytes"]], (6, 9, 1))[0], PIXELS[0])


def test_a_release_of_named_images_holds_their_names(table: Path, tmp_path: Path) -> None:
    ran = run(table, tmp_path / "store", image="file", label="kind", ignore=["n"])
    assert ran.part("clean").schema.names == ["n", "file", "kind", "row_id"]
    assert ran.part("clean").column("file").to_pylist()[0] == "img/cat/000.png"
    assert verify(ran.release).ok
    keys = ran.work.job.input_keys()
    (table.parent / "img" / "cat" / "000.png").write_bytes(encoded(greys(seed=42)))
    assert replace(ran.work.job).input_keys() != keys


def test_the_report_paints_images_anew(glaring: Path, tmp_path: Path) -> None:
    ran = run(glaring, tmp_path / "store")
    html = (ran.release / "report.html").read_text()
    painted = re.findall(r'src="([^"]*)"', html)
    assert len(painted) == 9
    assert "img-src data:;" in html
    assert "alert(1)" not in html
    for address in painted:
        picture = base64.b64decode(address.removeprefix("data:image/png;base64,"), validate=True)
        assert max(form(picture)[:2]) <= 64
        assert b"script" not in picture
    first = base64.b64decode(painted[0].removeprefix("data:image/png;base64,"))
    assert decode([first], (6, 9, 1)).min() == 255
    assert "cat/white.jpg, JPEG, 9 x 6 pixels" in html
    assert ran.work.unscanned == ()


def test_a_report_without_images_allows_none(tmp_path: Path) -> None:
    html = render(gather(make_run(tmp_path)))
    assert "img-src" not in html
    assert "<img" not in html


def test_pictures_stay_small() -> None:
    large = encoded(colours(300, 200))
    limits = (20_000, 8_000, 3_000, 1_500)
    sizes = [len(thumbnail(large, limit)) for limit in limits]
    assert all(0 < size <= limit for size, limit in zip(sizes, limits, strict=True))
    assert sizes == sorted(sizes, reverse=True)
    assert thumbnail(large, 100) == ""
    assert thumbnail(b"<svg/>", 20_000) == ""
    assert described(large) == f"PNG, 200 x 300 pixels, {len(large):,} bytes"
    assert described(b"sound") is None


def test_a_row_is_explained_without_its_bytes(glaring: Path, tmp_path: Path) -> None:
    ran = run(glaring, tmp_path / "store")
    (row,) = ran.part("quarantine").slice(0, 1).to_pylist()
    found = explain(ran.work.job.store, "pets", row["row_id"])
    size = len(row["image"]["bytes"])
    assert found.values["image"] == {
        "bytes": f"JPEG, 9 x 6 pixels, {size} bytes", "path": "cat/white.jpg"
    }  # fmt: skip
    assert found.opinions[0].message == "its mean is 255 of 255"
    lost = pq.read_table(ran.release / "quarantine" / "unreadable.parquet").to_pylist()[0]
    found = explain(ran.work.job.store, "pets", lost["row_id"])
    assert "SVG" in str(found.message)
    assert list(found.values) == ["raw"]


def test_images_are_scanned_for_backdoors_where_torch_is_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan.make({"dataset": {"name": "pets", "source": str(folder)}})
    found = read(folder, tmp_path / "in")
    roles = infer_roles(found.columns, plan.roles, found.rows).roles
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert "backdoors" in choose(plan, roles).run
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    source = {"name": "pets", "source": str(folder)}
    named = Plan.make({"dataset": source, "sanitizers": {"use": ["backdoors"]}})
    with pytest.raises(PlanError, match=r"torch is not installed: pip install '.*\[images\]'"):
        choose(named, roles)
