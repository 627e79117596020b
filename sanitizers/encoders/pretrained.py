"""Features of a net that was trained elsewhere, on ImageNet: what an image shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sanitizers.core.data import Dataset
from sanitizers.core.images import ImageShape
from sanitizers.encoders.devices import EXTRA, require
from sanitizers.encoders.efficientnet import PACKAGE, WIDTH, efficientnet_lite0
from sanitizers.encoders.torch_embedder import TorchEmbedder

#: Pixels at the longer side, at least and at most, at which the net looks.
LEAST, MOST = 96, 128


@dataclass(frozen=True)
class Pretrained:
    """EfficientNet-Lite0 as it was trained on ImageNet; nothing is learned from the data.

    So no label and no poison of the data bends what it sees. Its weights come with a
    package, and no network is asked. Cost: about 200 images a second and core.
    """

    name: ClassVar[str] = "pretrained"
    needs: ClassVar[frozenset[str]] = frozenset()
    accelerated: ClassVar[bool] = True

    def check(self) -> None:
        for package in ("torch", PACKAGE):
            require(package, "the encoder 'pretrained'", EXTRA)

    def fit(self, data: Dataset, device: str) -> TorchEmbedder:
        shape = data.shape_within(MOST)
        return TorchEmbedder(
            shape,
            WIDTH,
            efficientnet_lite0(device),
            device,
            looked_at(shape),
            (127.0,),
            (128.0,),
            rgb=True,
            unit=True,
        )


def looked_at(shape: ImageShape) -> tuple[int, int]:
    """The size at which the net looks at images: small ones are made larger.

    Its neurons know no things of a few pixels.
    """
    height, width, _ = shape
    scale = max(1.0, LEAST / max(height, width))
    return max(32, round(height * scale)), max(32, round(width * scale))
