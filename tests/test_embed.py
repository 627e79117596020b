"""Embed: vectors in row order, made once, and seen as features by the sanitizers of tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from pipelines import steps
from pipelines.cli import command
from pipelines.embed import embed, embedding_key
from pipelines.embedded import MARKER, Embedded, embedding_file, with_embeddings
from pipelines.examined import read_evidence
from pipelines.ingest import Ingested, ingest
from pipelines.job import Job
from pipelines.manifest import Run
from pipelines.plan import Plan
from pipelines.progress import SILENT
from pipelines.store import Store
from pipelines.work import Work
from sanitizers.core.data import EMBEDDING, Dataset, Roles
from sanitizers.core.errors import EvidenceError, InputError, IntegrityError, PlanError
from sanitizers.core.images import ImageShape
from sanitizers.encoders import Pixels, Trained
from tests.pictures import encoded

SALT = b"s" * 32
ROLES = Roles(image="image", label="label")
ROWS, LACKING = 60, (7, 41)


def pictures(rows: int = ROWS) -> NDArray[np.uint8]:
    """Squares on the left or on the right, with some noise."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (rows, 8, 8))
    for row in range(rows):
        side = slice(0, 4) if row % 2 else slice(4, 8)
        images[row, :, side] += 150
    return images.astype(np.uint8)


def rows_of(lacking: Sequence[int] = LACKING, rows: int = ROWS) -> pa.Table:
    files = [encoded(image) for image in pictures(rows)]
    given = [None if row in lacking else data for row, data in enumerate(files)]
    labels = ["left" if row % 2 else "right" for row in range(rows)]
    return pa.table({"image": pa.array(given, pa.binary()), "label": labels})


@pytest.fixture
def ingested(tmp_path: Path) -> Ingested:
    return read_in(rows_of(), tmp_path / "in")


def read_in(table: pa.Table, to: Path, shard_rows: int = 25) -> Ingested:
    to.mkdir(exist_ok=True)
    pq.write_table(table, to / "rows.parquet")
    return ingest(to / "rows.parquet", to / "out", salt=SALT, shard_rows=shard_rows)


def vectors_of(folder: Path) -> list[list[float] | None]:
    files = sorted(folder.glob("embeddings-*.parquet"))
    return [v for file in files for v in pq.read_table(file).column(EMBEDDING).to_pylist()]


def expected(embedder: Any) -> list[list[float] | None]:
    made = embedder.embed(pictures()[..., None]).tolist()
    return [None if row in LACKING else vector for row, vector in enumerate(made)]


@dataclass(frozen=True, eq=False)
class Watch:
    """Counts what it embeds, and fails when it is told to."""

    fails_at: int = 10**9
    value: float = 0.5
    seen: list[int] = field(default_factory=list)
    shape: ImageShape = (8, 8, 1)
    width: int = 2

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if sum(self.seen) >= self.fails_at:
            raise RuntimeError("out of order")
        self.seen.append(len(images))
        means = images.mean(axis=(1, 2, 3), dtype=np.float32)
        return np.column_stack([means, np.full(len(images), self.value, np.float32)])


@dataclass(frozen=True)
class Watched:
    """An encoder whose embedder is watched."""

    watch: Watch
    device: str = "cpu"
    name: ClassVar[str] = "watched"
    needs: ClassVar[frozenset[str]] = frozenset()
    accelerated: ClassVar[bool] = True

    def check(self) -> None:
        return None

    def fit(self, data: Dataset, device: str) -> Watch:
        assert device == self.device
        return self.watch


# ---------------------------------------------------------------- the stage


def test_vectors_lie_in_row_order_and_are_null_without_an_image(
    ingested: Ingested, tmp_path: Path
) -> None:
    data = ingested.dataset(ROLES, SALT)
    (done,) = embed(Pixels(), data, [tmp_path / "e"])
    assert vectors_of(tmp_path / "e") == expected(Pixels().fit(data, "cpu"))
    assert (done.rows, done.missing, done.width, done.device) == (ROWS, len(LACKING), 64, "cpu")
    assert Embedded.load(tmp_path / "e") == done
    kind = pq.read_schema(embedding_file(tmp_path / "e", 0)).field(EMBEDDING).type
    assert kind == pa.list_(pa.float32(), 64)
    seen = with_embeddings(data, [tmp_path / "e"])
    assert [s.rows for s in seen.shards] == [25, 25, 10]
    assert seen.shards[1].read([EMBEDDING, "label"]).column_names == [EMBEDDING, "label"]
    assert set(seen.shards[0].read().column_names) > {"image", "label", EMBEDDING}
    blank = np.concatenate([batch.blank for batch in seen.without_images.batches()])
    assert np.flatnonzero(blank).tolist() == list(LACKING)


def test_the_same_again_gives_the_same_bytes_and_shards_do_not_matter(
    ingested: Ingested, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        embed(Pixels(), ingested.dataset(ROLES, SALT), [tmp_path / name])
    for file in sorted((tmp_path / "one").glob("*.parquet")):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    cut = read_in(rows_of(), tmp_path / "cut", shard_rows=7)
    embed(Pixels(), cut.dataset(ROLES, SALT), [tmp_path / "three"])
    assert vectors_of(tmp_path / "three") == vectors_of(tmp_path / "one")


def test_what_was_broken_off_goes_on_where_it_was(ingested: Ingested, tmp_path: Path) -> None:
    data, folder = ingested.dataset(ROLES, SALT), tmp_path / "e"
    with pytest.raises(EvidenceError, match=r"'watched' failed: RuntimeError: out of order"):
        embed(Watched(Watch(fails_at=50)), data, [folder])
    assert not (folder / MARKER).exists()
    assert len(list(folder.glob("embeddings-*.parquet"))) == 2
    again = Watch()
    embed(Watched(again), data, [folder])
    assert again.seen == [10]
    embed(Watched(Watch()), data, [tmp_path / "whole"])
    for file in sorted((tmp_path / "whole").glob("*.parquet")):
        assert file.read_bytes() == (folder / file.name).read_bytes()
    embed(Watched(Watch(fails_at=0)), data, [folder])


def test_two_devices_never_mix(
    ingested: Ingested, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A net that was trained on another device is another net."""
    data, folder = ingested.dataset(ROLES, SALT), tmp_path / "e"
    monkeypatch.setattr("pipelines.embed.find_device", lambda asked: "cuda")
    with pytest.raises(EvidenceError):
        embed(Watched(Watch(fails_at=50, value=1.0), "cuda"), data, [folder])
    monkeypatch.setattr("pipelines.embed.find_device", lambda asked: "cpu")
    again = Watch(fails_at=20)
    with pytest.raises(EvidenceError):
        embed(Watched(again), data, [folder], "cpu")
    assert again.seen == [25]
    assert [v[1] for v in vectors_of(folder) if v] == [0.5] * 24
    monkeypatch.setattr("pipelines.embed.find_device", lambda asked: "cuda")
    (done,) = embed(Watched(Watch()), data, [folder], "auto")
    assert done.device == "cpu"
    assert {v[1] for v in vectors_of(folder) if v} == {0.5}


def test_a_damaged_file_is_made_anew_while_the_work_is_not_done(
    ingested: Ingested, tmp_path: Path
) -> None:
    data, folder = ingested.dataset(ROLES, SALT), tmp_path / "e"
    embed(Pixels(), data, [folder])
    good = embedding_file(folder, 1).read_bytes()
    embedding_file(folder, 1).write_bytes(good[:50])
    (folder / MARKER).unlink()
    embed(Pixels(), data, [folder])
    assert embedding_file(folder, 1).read_bytes() == good


def test_embeddings_of_other_rows_are_not_taken(ingested: Ingested, tmp_path: Path) -> None:
    embed(Pixels(), ingested.dataset(ROLES, SALT), [tmp_path / "e"])
    embedding_file(tmp_path / "e", 2).replace(embedding_file(tmp_path / "e", 0))
    seen = with_embeddings(ingested.dataset(ROLES, SALT), [tmp_path / "e"])
    with pytest.raises(IntegrityError, match="holds 10 embeddings; expected 25"):
        seen.shards[0].read()
    (tmp_path / "e" / MARKER).write_text("{}")
    with pytest.raises(IntegrityError, match="malformed"):
        Embedded.load(tmp_path / "e")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_no_numbers_are_refused(
    value: float, ingested: Ingested, tmp_path: Path
) -> None:
    with pytest.raises(EvidenceError, match="24 vectors that are not finite"):
        embed(Watched(Watch(value=value)), ingested.dataset(ROLES, SALT), [tmp_path / "e"])


def test_trusted_rows_have_vectors_of_the_same_encoder(ingested: Ingested, tmp_path: Path) -> None:
    trusted = read_in(rows_of((), 20), tmp_path / "trusted")
    data = ingested.dataset(ROLES, SALT, trusted)
    embed(Pixels(), data, [tmp_path / "e", tmp_path / "t"])
    seen = with_embeddings(data, [tmp_path / "e", tmp_path / "t"])
    vouched = seen.trusted_rows
    assert vouched is not None
    assert len(vouched) == 20
    whole = expected(Pixels().fit(data, "cpu"))
    assert vectors_of(tmp_path / "t")[:7] == whole[:7]


def test_a_key_names_all_that_decides_and_nothing_else(ingested: Ingested, tmp_path: Path) -> None:
    def key(encoder: Any = None, part: Ingested = ingested, **roles: Any) -> str:
        return embedding_key(encoder or Pixels(), ingested, part, replace(ROLES, **roles), SALT)

    other = read_in(rows_of((3,)), tmp_path / "other")
    assert key() == key()
    assert key(source="any") == key()
    assert (
        len({key(), key(Pixels(numbers=9)), key(part=other), key(image="b"), key(Trained())}) == 5
    )
    assert key(label="kind") == key()
    assert key(Trained(), label="kind") != key(Trained())


# ---------------------------------------------------------------- a run


def work_of(source: Path, store: Path, **tables: Any) -> Work:
    """A run up to its verdicts, without its order from Prefect."""
    plan = Plan.make({"dataset": {"name": "pets", "source": str(source)}, **tables})
    job = Job(plan, Store.open(store, SALT))
    work = job.ingested(steps.ingest_inputs(job, SILENT))
    steps.embed_images(work, "auto", SILENT)
    for name in work.chosen.run:
        steps.examine_with(work, name, SILENT)
    steps.look_for_risks(work, SILENT)
    steps.decide_all(work, SILENT)
    return work


PIXELS = {"encoders": {"use": "pixels"}}
USE = {"sanitizers": {"use": ["outliers", "micro-votes", "conflicts"]}}


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    """Images of which one comes again with another label, and one is as no other."""
    table = rows_of((5,), 200)
    files, labels = table.column("image").to_pylist(), table.column("label").to_pylist()
    files[9], labels[9] = files[100], "left"
    files[30] = encoded(np.tile(np.array([[0, 255], [255, 0]], np.uint8), (4, 4)))
    pq.write_table(pa.table({"image": files, "label": labels}), tmp_path / "pets.parquet")
    return tmp_path / "pets.parquet"


def scores(work: Work, name: str) -> NDArray[np.float64]:
    (shard,) = work.data.shard_files()
    evidence = read_evidence(work.evidence[name], 0, shard.read(["row_id"]).column(0))
    return np.asarray(evidence.column("score").to_numpy(zero_copy_only=False), dtype=np.float64)


def test_sanitizers_of_tables_judge_images(twins: Path, tmp_path: Path) -> None:
    work = work_of(twins, tmp_path / "store", **PIXELS, **USE)
    assert np.flatnonzero(scores(work, "conflicts") > 0).tolist() == [9, 100]
    assert np.nanargmax(scores(work, "outliers")) == 30
    assert np.nanargmax(scores(work, "micro-votes")) == 30
    for name in work.chosen.run:
        assert np.flatnonzero(np.isnan(scores(work, name))).tolist() == [5]


def test_a_run_says_what_its_features_are_made_by(twins: Path, tmp_path: Path) -> None:
    work = work_of(twins, tmp_path / "store", **PIXELS, **USE)
    record = json.loads((work.folder / "run.json").read_text())
    assert work.made is not None
    made = {"encoder": "pixels", "key": work.made.keys[0], "device": "cpu", "width": 64}
    assert record["embedding"] == made
    assert Run.load(work.folder).embedding is not None
    assert record["plan"]["encoders"] == {
        "use": "pixels",
        "settings": {"pixels": {"numbers": 1024}},
    }
    assert "device" not in json.dumps(record["plan"])
    assert "features: made of the images by the encoder pixels" in work.notes
    assert work.unscanned == ()
    assert "an embedding" in work.promise.note
    outcome = steps.publish_rows(work, SILENT)
    assert outcome.release is not None
    clean = pq.read_schema(sorted(Path(outcome.release).glob("clean/*.parquet"))[0])
    assert clean.names == ["image", "label", "row_id"]
    page = (Path(outcome.release) / "report.html").read_text()
    assert "No column has the role features" not in page
    assert EMBEDDING not in page


def test_another_encoder_is_other_evidence_and_nothing_is_made_twice(
    twins: Path, tmp_path: Path
) -> None:
    one = work_of(twins, tmp_path / "store", **PIXELS, **USE)
    small = {"encoders": {"use": "pixels", "pixels": {"numbers": 16}}}
    two = work_of(twins, tmp_path / "store", **small, **USE)
    assert not set(one.evidence_keys.values()) & set(two.evidence_keys.values())
    assert one.made is not None
    marker = one.made.folders[0] / MARKER
    before = marker.stat().st_mtime_ns
    rules = {"policy": {"rules": {"outliers": {"quarantine": "score > 99"}}}}
    three = work_of(twins, tmp_path / "store", **PIXELS, **USE, **rules)
    assert three.evidence_keys == one.evidence_keys
    assert marker.stat().st_mtime_ns == before


def test_where_nobody_looks_at_features_none_are_made(twins: Path, tmp_path: Path) -> None:
    bright = {"sanitizers": {"use": ["tests.pictures:Bright"]}}
    work = work_of(twins, tmp_path / "store", **bright)
    assert work.made is None
    assert not list(tmp_path.glob("store/pets/embeddings"))
    assert Run.load(work.folder).embedding is None


def test_without_an_encoder_images_are_no_features(twins: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="features"):
        work_of(twins, tmp_path / "store", encoders={"use": "off"}, **USE)


def test_an_encoder_that_lacks_a_role_says_so(twins: Path, tmp_path: Path) -> None:
    pq.write_table(pq.read_table(twins).select(["image"]), tmp_path / "bare.parquet")
    trained = {"encoders": {"use": "trained"}, "sanitizers": {"use": ["outliers"]}}
    with pytest.raises(PlanError, match="'trained' needs a label, and no column has that role"):
        work_of(tmp_path / "bare.parquet", tmp_path / "store", **trained)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32(), 8), pa.list_(pa.float64()), pa.large_list(pa.float32())]
)
def test_an_embedding_of_ones_own_is_features(kind: pa.DataType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 8))
    vectors[17] = 40.0
    given = [None if row == 5 else v for row, v in enumerate(vectors.tolist())]
    labels = ["a", "b"] * 100
    table = pa.table({"vector": pa.array(given, kind), "label": labels})
    pq.write_table(table, tmp_path / "own.parquet")
    roles = {"roles": {"embedding": "vector", "label": "label"}}
    work = work_of(tmp_path / "own.parquet", tmp_path / "store", **roles, **USE)
    assert work.made is None
    assert np.nanargmax(scores(work, "outliers")) == 17
    assert np.flatnonzero(np.isnan(scores(work, "outliers"))).tolist() == [5]
    assert work.unscanned == ()


@pytest.mark.parametrize(
    ("values", "kind", "error", "why"),
    [
        ([["a"], ["b"]], pa.list_(pa.string()), PlanError, "lists of numbers"),
        ([[1.0], [1.0, 2.0]], pa.list_(pa.float32()), InputError, "another length"),
        (["a", "b"], pa.string(), PlanError, "cannot be the embedding"),
        ([[[1.0]], [[2.0]]], pa.list_(pa.list_(pa.float32())), PlanError, "lists of numbers"),
    ],
)
def test_hostile_embeddings_are_refused(
    values: list[Any], kind: pa.DataType, error: type[Exception], why: str, tmp_path: Path
) -> None:
    table = pa.table({"e": pa.array(values * 50, kind), "label": ["a", "b"] * 50})
    pq.write_table(table, tmp_path / "own.parquet")
    roles = {"roles": {"embedding": "e", "label": "label"}}
    with pytest.raises(error, match=why):
        work_of(tmp_path / "own.parquet", tmp_path / "store", **roles, **USE)


def test_the_internal_name_is_taken(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the name is ours"):
        read_in(pa.table({EMBEDDING: [1]}), tmp_path / "in")


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("encoders", "why"),
    [
        ({"use": "pixel"}, r"\[encoders\] no encoder 'pixel'; did you mean 'pixels'"),
        ({"used": "pixels"}, r"\[encoders\] used is 'pixels'; expected a table"),
        ({"use": "pixels", "trained": {"seed": 1}}, r"\[encoders.trained\] has settings, and"),
        ({"use": "trained", "trained": {"sed": 1}}, r"no setting 'sed'; did you mean 'seed'"),
        ({"use": ["pixels"]}, "expected a string"),
        ({"use": "pixels", "device": "cuda"}, "expected a table"),
    ],
)
def test_wrong_plans_are_refused_before_any_data_are_read(
    encoders: dict[str, object], why: str
) -> None:
    with pytest.raises(PlanError, match=why):
        Plan.make({"dataset": {"name": "a", "source": "a"}, "encoders": encoders})


def test_a_wrong_device_is_refused_before_any_data_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(["run", "nothing.parquet", "--device", "gpu"]) == 2
    assert "no device 'gpu'" in capsys.readouterr().err
    assert not (tmp_path / "sanitized").exists()


def test_an_encoder_that_is_not_installed_is_refused_before_any_data_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "timm", None)
    assert command(["run", "nothing.parquet", "--encoder", "timm:x"]) == 2
    assert "needs the package" in capsys.readouterr().err
    (tmp_path / "plan.toml").write_text(
        '[dataset]\nsource = "nothing.parquet"\n[encoders]\nuse = "timm:x"\n'
    )
    assert command(["check", "plan.toml"]) == 2
    assert "needs the package" in capsys.readouterr().err


def test_a_command_makes_features_once(
    flow_runs: None,
    twins: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["run", str(twins), "--encoder", "pixels", "--device", "cpu", "--use", "conflicts"]
    words += ["--image", "image", "--label", "label"]
    assert command(words) == 0
    assert "embed: pixels: done, 200 rows" in capsys.readouterr().err
    (record,) = tmp_path.glob("sanitized/pets/runs/*/run.json")
    assert json.loads(record.read_text())["embedding"]["device"] == "cpu"
    assert command(words) == 0
    assert "embed" not in capsys.readouterr().err
