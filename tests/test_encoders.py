"""Encoders: the same recipe gives the same vectors, and a vector hangs on its image only."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from sanitizers.core.data import Dataset, Roles
from sanitizers.core.errors import InputError, IntegrityError, PlanError
from sanitizers.encoders import (
    AUTO,
    ENCODERS,
    Embedder,
    ImageEncoder,
    Pixels,
    Pretrained,
    Trained,
    devices,
    efficientnet,
    find_device,
    image_encoder,
    usual_encoder,
)
from sanitizers.encoders.architectures import WIDTH, residual_net, small_net
from sanitizers.encoders.embedder import in_blocks
from sanitizers.encoders.pixels import PixelMeans
from sanitizers.encoders.pretrained import LEAST, looked_at
from tests.pictures import encoded

TORCH = find_spec("torch") is not None
WEIGHTS = efficientnet.weights_file() is not None
needs_torch = pytest.mark.skipif(not TORCH, reason="needs torch: .[images]")
needs_weights = pytest.mark.skipif(not (TORCH and WEIGHTS), reason="needs weights: .[images]")
needs_cuda = pytest.mark.skipif(
    not (TORCH and devices.find_device("auto") == "cuda"), reason="needs a CUDA device"
)
#: What every encoder of ours must hold to; training is kept short.
RECIPES = [
    pytest.param(Pixels(), id="pixels"),
    pytest.param(Trained(epochs=2), id="trained", marks=needs_torch),
    pytest.param(Pretrained(), id="pretrained", marks=needs_weights),
]


def drawn(rows: int = 150, side: int = 12, channels: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    """Noise, brighter at one side or at the other."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (rows, side, side, channels))
    images[: rows // 2, : side // 2] += 120
    images[rows // 2 :, side // 2 :] += 120
    return images.astype(np.uint8)


def dataset(images: NDArray[np.uint8], **more: object) -> Dataset:
    files = [encoded(image[..., 0] if image.shape[2] == 1 else image) for image in images]
    half = len(images) // 2
    labels = ["up"] * half + ["down"] * (len(images) - half)
    table = pa.table({"image": pa.array(files, pa.binary()), "label": labels})
    return dataclasses.replace(
        Dataset.from_table(table, Roles(image="image", label="label")),
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def data() -> Dataset:
    return dataset(drawn())


# ---------------------------------------------------------------- laws of every encoder


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_a_frozen_value_that_cannot_embed(recipe: Any) -> None:
    assert dataclasses.replace(recipe) == recipe
    assert hash(dataclasses.replace(recipe)) == hash(recipe)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.sample = 1
    assert isinstance(recipe, ImageEncoder)
    assert not isinstance(recipe, Embedder)


@pytest.mark.parametrize("recipe", RECIPES)
def test_vectors_are_finite_and_told_apart(recipe: ImageEncoder, data: Dataset) -> None:
    made = recipe.fit(data, "cpu")
    assert isinstance(made, Embedder)
    assert not hasattr(made, "fit")
    vectors = made.embed(drawn())
    assert vectors.shape == (150, made.width)
    assert vectors.dtype.kind == "f"
    assert np.isfinite(vectors).all()
    assert made.embed(drawn()[:0]).shape == (0, made.width)
    assert made.embed(drawn()[:0]).dtype == vectors.dtype
    middle = vectors.astype(np.float64).reshape(2, 75, -1).mean(axis=1)
    spread = vectors.astype(np.float64).std(axis=0).mean()
    assert np.abs(middle[0] - middle[1]).max() > spread


@pytest.mark.parametrize("recipe", RECIPES)
def test_fitting_again_and_on_other_shards_gives_the_same(
    recipe: ImageEncoder, data: Dataset
) -> None:
    table = data.shards[0].read()
    parts = tuple(Dataset.from_table(table.slice(at, 40), data.roles) for at in range(0, 150, 40))
    cut = dataclasses.replace(data, shards=tuple(shard for p in parts for shard in p.shards))
    shuffled = Dataset.from_table(table.take(np.random.default_rng(1).permutation(150)), data.roles)
    first, *others = (recipe.fit(d, "cpu").embed(drawn()) for d in (data, data, cut, shuffled))
    assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_vector_hangs_on_no_other_image(recipe: ImageEncoder, data: Dataset) -> None:
    made = recipe.fit(data, "cpu")
    images = drawn()
    whole = made.embed(images)
    for start, rows in ((0, 1), (63, 2), (7, 130), (149, 1)):
        assert np.array_equal(made.embed(images[start : start + rows]), whole[start : start + rows])
    order = np.random.default_rng(2).permutation(150)
    assert np.array_equal(made.embed(images[order]), whole[order])
    twice = images[[3, 90, 3]]
    assert np.array_equal(*made.embed(twice)[[0, 2]])


@pytest.mark.parametrize("recipe", RECIPES)
def test_colours_and_other_proportions_are_taken(recipe: ImageEncoder) -> None:
    images = drawn(channels=3)[:, :, :7]
    data = dataset(images)
    made = recipe.fit(data, "cpu")
    assert made.shape == (12, 7, 3)
    assert np.isfinite(made.embed(images)).all()


# ---------------------------------------------------------------- pixels


def test_pixels_are_means_of_blocks_also_at_the_edge() -> None:
    images = np.arange(2 * 5 * 7 * 3, dtype=np.uint8).reshape(2, 5, 7, 3)
    vectors = PixelMeans((5, 7, 3), 3).embed(images)
    slow = [
        [
            image[down : down + 3, across : across + 3, channel].mean() / 255
            for down in (0, 3)
            for across in (0, 3, 6)
            for channel in range(3)
        ]
        for image in images
    ]
    assert vectors == pytest.approx(np.array(slow), abs=1e-6)


@pytest.mark.parametrize("shape", [(28, 28, 1), (64, 64, 3), (64, 3, 3), (1, 1, 1), (64, 64, 1)])
def test_pixels_have_as_many_numbers_as_they_may(shape: tuple[int, int, int]) -> None:
    images = np.zeros((3, *shape), dtype=np.uint8)
    made = Pixels().fit(dataset(images), "cpu")
    assert 0 < made.width <= 1024
    assert made.embed(images).shape == (3, made.width)
    if np.prod(shape) <= 1024:
        assert made.width == np.prod(shape)


# ---------------------------------------------------------------- trained


@needs_torch
def test_a_seed_decides_the_trained_net(data: Dataset) -> None:
    one, other = (Trained(epochs=1, seed=s).fit(data, "cpu").embed(drawn()) for s in (0, 1))
    assert not np.array_equal(one, other)


@needs_torch
def test_a_label_of_one_class_trains_nothing() -> None:
    data = dataset(drawn(20))
    table = data.shards[0].read()
    one = table.set_column(1, "label", pa.array(["same"] * 20))
    with pytest.raises(PlanError, match="1 class in the label"):
        Trained().fit(Dataset.from_table(one, data.roles), "cpu")


@needs_torch
@pytest.mark.parametrize("make", [small_net, residual_net])
@pytest.mark.parametrize("shape", [(28, 28, 1), (33, 17, 3), (2, 2, 1)])
def test_nets_take_every_shape(make: Any, shape: tuple[int, int, int]) -> None:
    torch = devices.load_torch("a test")
    layers, head = make(torch, (5, *shape), 4)
    features = layers.eval()(torch.zeros(5, shape[2], *shape[:2]))
    assert features.shape == (5, WIDTH)
    assert head(features).shape == (5, 4)


@needs_torch
def test_a_last_batch_of_one_small_image_stops_nothing() -> None:
    images = drawn(257, side=6)
    made = Trained(epochs=1).fit(dataset(images), "cpu")
    assert np.isfinite(made.embed(images)).all()


# ---------------------------------------------------------------- pretrained


@needs_weights
def test_weights_of_other_bytes_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Dataset
) -> None:
    false = tmp_path / "weights.pth"
    false.write_bytes(b"not the weights")
    monkeypatch.setattr(efficientnet, "weights_file", lambda: false)
    found = hashlib.sha256(b"not the weights").hexdigest()[:12]
    with pytest.raises(IntegrityError, match=f"SHA-256 {found}.*install efficientnet-lite0"):
        Pretrained().fit(data, "cpu")


@needs_weights
def test_every_weight_but_the_classifiers_is_used() -> None:
    torch = devices.load_torch("a test")
    weights = torch.load(efficientnet.weights_file(), weights_only=True)
    layers = dict(efficientnet._layers())
    used = {f"{name}.weight" for name in layers}
    used |= {
        f"{norm}.{part}"
        for norm in layers.values()
        for part in ("weight", "bias", "running_mean", "running_var")
    }
    rest = {name for name in weights if not name.endswith("num_batches_tracked")} - used
    assert rest == {"_fc.weight", "_fc.bias"}
    assert used <= weights.keys()


@needs_weights
def test_a_folded_normalisation_is_the_same_as_one_that_follows() -> None:
    torch = devices.load_torch("a test")
    functional = torch.nn.functional
    net = efficientnet.efficientnet_lite0("cpu")
    weights = torch.load(efficientnet.weights_file(), weights_only=True)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    # TensorFlow's "same": one row of zeros at the end, none at the start.
    plain = functional.conv2d(
        functional.pad(x, (0, 1, 0, 1)), weights["_conv_stem.weight"], None, 2
    )
    parts = ("running_mean", "running_var", "weight", "bias")
    expected = functional.batch_norm(plain, *(weights[f"_bn0.{p}"] for p in parts), eps=1e-3)
    assert torch.allclose(net._convolve(x, "_conv_stem", 2), expected, atol=1e-4)


@needs_weights
def test_things_that_look_alike_to_people_lie_near() -> None:
    discs, bars = [], []
    at = np.arange(40)
    for seed in range(8):
        across, down = np.random.default_rng(seed).integers(15, 25, 2)
        far = np.hypot(at[:, None] - down, at[None] - across)
        discs.append(np.where(far < 9, 230, 20))
        bars.append(np.broadcast_to(np.where(np.abs(at - across) < 4, 230, 20), (40, 40)))
    images = np.stack([*discs, *bars]).astype(np.uint8)[..., None]
    vectors = Pretrained().fit(dataset(images), "cpu").embed(images).astype(np.float64)
    apart = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    same = np.equal.outer(np.arange(16) < 8, np.arange(16) < 8)
    np.fill_diagonal(same, False)
    nearest = np.where(np.eye(16, dtype=bool), np.inf, apart).argmin(axis=1)
    assert same[np.arange(16), nearest].all()


def test_small_images_are_looked_at_larger_and_large_ones_as_they_are() -> None:
    assert looked_at((28, 28, 1)) == (LEAST, LEAST)
    assert looked_at((10, 20, 3)) == (48, LEAST)
    assert looked_at((128, 100, 3)) == (128, 100)
    assert looked_at((128, 1, 3)) == (128, 32)


# ---------------------------------------------------------------- names and devices


def test_every_encoder_is_found_by_its_name() -> None:
    for name, kind in ENCODERS.items():
        assert type(image_encoder(name)) is kind
    assert image_encoder(AUTO).name == usual_encoder()
    assert image_encoder("trained", {"epochs": 3}) == Trained(epochs=3)
    assert image_encoder("timm:resnet18.a1_in1k").name == "timm"
    assert image_encoder("hf:facebook/dinov2-small").name == "hf"


@pytest.mark.parametrize(
    ("name", "settings", "why"),
    [
        ("pixel", None, "did you mean 'pixels'"),
        ("timm:", None, "expected timm:NAME"),
        ("hug:thing", None, "no encoder"),
        ("trained", {"epoch": 3}, "did you mean 'epochs'"),
        ("trained", {"epochs": "many"}, "expected a whole number"),
        ("trained", {"epochs": -1}, "epochs >= 0"),
        ("pixels", {"numbers": 0}, "at least 3"),
        ("pretrained", {"weights": "/tmp/x"}, "no setting 'weights'"),
    ],
)
def test_what_is_asked_for_wrongly_is_refused(name: str, settings: Any, why: str) -> None:
    with pytest.raises(PlanError, match=why):
        image_encoder(name, settings)


def test_the_usual_encoder_is_the_one_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usual_encoder() == ("pretrained" if TORCH and WEIGHTS else "pixels")
    monkeypatch.setattr(efficientnet, "PACKAGE", "no_such_package")
    assert usual_encoder() == "pixels"
    with pytest.raises(PlanError, match=r"needs the package|are not installed"):
        Pretrained().fit(dataset(drawn(4)), "cpu")


@pytest.mark.parametrize(("name", "package"), [("timm:x", "timm"), ("hf:x", "transformers")])
def test_a_hub_whose_library_is_missing_says_what_to_install(
    name: str, package: str, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    missing = package if TORCH else "torch"
    why = f"needs the package {missing}, .* pip install"
    with pytest.raises(PlanError, match=why):
        image_encoder(name).check()
    with pytest.raises(PlanError, match=why):
        image_encoder(name).fit(data, "cpu")


def module(name: str, **parts: object) -> ModuleType:
    """A library that is taken for installed."""
    made = ModuleType(name)
    made.__spec__ = ModuleSpec(name, None)
    vars(made).update(parts)
    return made


@needs_torch
def test_a_model_of_timm_is_asked_for_by_its_name(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = devices.load_torch("a test")
    asked: list[tuple[str, dict[str, object]]] = []

    def create_model(name: str, **said: object) -> Any:
        asked.append((name, said))
        if name == "absent":
            raise RuntimeError("no such model\nand much more")
        net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
        net.pretrained_cfg = {"input_size": (3, 20, 24), "mean": (0.5,) * 3, "std": (0.25,) * 3}
        return net

    monkeypatch.setitem(sys.modules, "timm", module("timm", create_model=create_model))
    made = image_encoder("timm:some.model").fit(data, "cpu")
    assert asked == [("some.model", {"pretrained": True, "num_classes": 0})]
    assert made.embed(drawn()).shape == (150, 12)
    with pytest.raises(InputError, match=r"'timm:absent' cannot be loaded: no such model; see"):
        image_encoder("timm:absent").fit(data, "cpu")


@needs_torch
def test_a_model_of_hugging_face_is_read_without_its_code(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = devices.load_torch("a test")
    asked: list[dict[str, object]] = []

    class Net(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, pixel_values: Any) -> Any:
            tokens = pixel_values.mean((2, 3))[:, None].expand(-1, 5, -1)
            return SimpleNamespace(pooler_output=None, last_hidden_state=tokens)

    def model(name: str, **said: object) -> Any:
        asked.append({"name": name, **said})
        return Net()

    def looks(name: str, **said: object) -> Any:
        return SimpleNamespace(
            crop_size=None, size={"shortest_edge": 16}, image_mean=[0.5] * 3, image_std=[0.5] * 3
        )

    hub = module(
        "transformers",
        AutoModel=SimpleNamespace(from_pretrained=model),
        AutoImageProcessor=SimpleNamespace(from_pretrained=looks),
    )
    monkeypatch.setitem(sys.modules, "transformers", hub)
    made = image_encoder("hf:who/what@1a2b").fit(data, "cpu")
    assert made.embed(drawn()).shape == (150, 3)
    safe = {"use_safetensors": True, "trust_remote_code": False}
    assert asked == [{"name": "who/what", "revision": "1a2b", **safe}]


def test_devices_are_found_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_device("cpu") == "cpu"
    with pytest.raises(PlanError, match="did you mean 'cuda'"):
        find_device("cuds")
    monkeypatch.setattr(devices, "_has_cuda", lambda: False)
    assert find_device("auto") == "cpu"
    with pytest.raises(PlanError, match=r"no CUDA device|not installed"):
        find_device("cuda")


def test_blocks_are_of_one_size_and_in_order() -> None:
    sizes = []

    def work(block: NDArray[np.uint8]) -> NDArray[np.float32]:
        sizes.append(len(block))
        return block.reshape(len(block), -1).astype(np.float32)

    images = np.random.default_rng(0).integers(0, 255, (23, 2, 2, 1)).astype(np.uint8)
    for threads in (1, 3):
        out = in_blocks(work, images, 5, 4, threads)
        assert np.array_equal(out, images.reshape(23, -1))
    assert set(sizes) == {5}


@pytest.fixture
def threads() -> Iterator[int]:
    torch = devices.load_torch("a test")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


@needs_weights
def test_the_threads_of_torch_are_left_as_they_were(threads: int, data: Dataset) -> None:
    torch = devices.load_torch("a test")
    Pretrained().fit(data, "cpu").embed(drawn(3))
    assert torch.get_num_threads() == threads


@needs_cuda
@pytest.mark.parametrize("recipe", RECIPES[1:])
def test_cuda_gives_nearly_what_the_cpu_gives_and_the_same_twice(
    recipe: ImageEncoder, data: Dataset
) -> None:
    vectors = recipe.fit(data, "cuda").embed(drawn())
    assert np.array_equal(recipe.fit(data, "cuda").embed(drawn()), vectors)
    if isinstance(recipe, Pretrained):
        on_cpu = recipe.fit(data, "cpu").embed(drawn())
        assert vectors == pytest.approx(on_cpu, abs=0.05)
