"""Models of others, for users with a network: named, and fetched by the library of their hub."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sanitizers.core.data import Dataset
from sanitizers.core.errors import InputError
from sanitizers.encoders.devices import EXTRA, load_torch, require
from sanitizers.encoders.torch_embedder import TorchEmbedder

#: Pixels at the longer side at which images are decoded for such a model, at most.
MOST = 224


@dataclass(frozen=True)
class Timm:
    """A model of ``timm`` by its name; its weights are fetched when they are not there yet.

    Parameters
    ----------
    model : str
        For instance ``resnet18.a1_in1k``.
    """

    name: ClassVar[str] = "timm"
    needs: ClassVar[frozenset[str]] = frozenset()
    accelerated: ClassVar[bool] = True

    model: str

    def check(self) -> None:
        _require("timm", f"timm:{self.model}")

    def fit(self, data: Dataset, device: str) -> TorchEmbedder:
        self.check()
        torch, timm = load_torch("an encoder"), importlib.import_module("timm")
        try:
            net = timm.create_model(self.model, pretrained=True, num_classes=0)
        except Exception as error:
            raise _unavailable(f"timm:{self.model}", error) from error
        config = net.pretrained_cfg
        return _embedder(
            torch,
            data,
            device,
            net,
            tuple(config["input_size"][1:]),
            config["mean"],
            config["std"],
        )


@dataclass(frozen=True)
class HuggingFace:
    """A vision model of the Hugging Face hub by its name, from safetensors only.

    Parameters
    ----------
    model : str
        For instance ``facebook/dinov2-small``, or with ``@REVISION`` a fixed state of it.
    """

    name: ClassVar[str] = "hf"
    needs: ClassVar[frozenset[str]] = frozenset()
    accelerated: ClassVar[bool] = True

    model: str

    def check(self) -> None:
        _require("transformers", f"hf:{self.model}")

    def fit(self, data: Dataset, device: str) -> TorchEmbedder:
        self.check()
        torch, transformers = load_torch("an encoder"), importlib.import_module("transformers")
        where, _, revision = self.model.partition("@")
        from_hub = {"revision": revision or "main", "trust_remote_code": False}
        try:
            looks = transformers.AutoImageProcessor.from_pretrained(where, **from_hub)
            net = transformers.AutoModel.from_pretrained(where, use_safetensors=True, **from_hub)
        except Exception as error:
            raise _unavailable(f"hf:{self.model}", error) from error
        size = _sides(looks)
        return _embedder(
            torch, data, device, _Features(net), size, looks.image_mean, looks.image_std
        )


@dataclass(frozen=True, eq=False)
class _Features:
    """One vector per image from a model that may give many things."""

    net: Any

    def eval(self) -> _Features:
        return _Features(self.net.eval())

    def to(self, device: str) -> _Features:
        return _Features(self.net.to(device))

    def __call__(self, x: Any) -> Any:
        if hasattr(self.net, "get_image_features"):
            found = self.net.get_image_features(pixel_values=x)
            if not hasattr(found, "pooler_output"):
                return found
        else:
            found = self.net(pixel_values=x)
        pooled = getattr(found, "pooler_output", None)
        if pooled is None:
            pooled = found.last_hidden_state[:, 0]
        return pooled.flatten(1)


def _embedder(
    torch: Any,
    data: Dataset,
    device: str,
    net: Any,
    size: tuple[int, ...],
    mean: Sequence[float],
    deviation: Sequence[float],
) -> TorchEmbedder:
    height, across = size
    net = net.eval()
    with torch.inference_mode():
        width = int(net(torch.zeros(1, 3, height, across)).shape[1])
    return TorchEmbedder(
        data.shape_within(MOST),
        width,
        net.to(device),
        device,
        (height, across),
        tuple(255.0 * float(v) for v in mean),
        tuple(255.0 * float(v) for v in deviation),
        rgb=True,
        unit=True,
    )


def _sides(looks: Any) -> tuple[int, int]:
    """Height and width that an image processor crops or resizes to."""
    found = getattr(looks, "crop_size", None) or looks.size
    if found.get("height") and found.get("width"):
        return int(found.get("height")), int(found.get("width"))
    side = int(found.get("shortest_edge") or MOST)
    return side, side


def _require(library: str, encoder: str) -> None:
    require("torch", f"the encoder {encoder!r}", EXTRA)
    do = f"pip install {library}; the model is fetched over the network when first used"
    require(library, f"the encoder {encoder!r}", do)


def _unavailable(encoder: str, error: Exception) -> InputError:
    text = (str(error).splitlines() or [type(error).__name__])[0][:300]
    return InputError(
        f"the encoder {encoder!r} cannot be loaded: {text}",
        do="see that the name is right, and that the network or the cache of its library has it",
    )
