"""The audit net: a small convolutional net, trained on the images under audit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanitizers.backdoors.arrays import Floats, Images, Labels
from sanitizers.core.errors import PlanError

_BATCH = 256
_RATE = 3e-3


@dataclass(frozen=True, eq=False)
class Net:
    """A trained net.

    Parameters
    ----------
    layers : torch.nn.Module
        From images to features.
    head : torch.nn.Module
        From features to logits.
    threads : int
    """

    layers: Any
    head: Any
    threads: int

    def look(self, images: Images) -> tuple[Floats, Floats]:
        """Logits, shape (n, k), and features, shape (n, 64)."""
        torch = load_torch()
        logits, features = [], []
        with _threads(self.threads), torch.inference_mode():
            for start in range(0, len(images), 1024):
                x = self.layers(_tensor(images[start : start + 1024]))
                features.append(x.numpy())
                logits.append(self.head(x).numpy())
        if not logits:
            return np.empty((0, self.head.out_features), np.float32), np.empty((0, 64), np.float32)
        return np.concatenate(logits), np.concatenate(features)

    def probabilities(self, images: Images) -> Floats:
        """Class probabilities, shape (n, k)."""
        return softmax(self.look(images)[0])


def train(
    images: Images, labels: Labels, classes: int, epochs: int, seed: int, threads: int = 1
) -> Net:
    """Train a net: three convolutions that halve the image, and two dense layers.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, H, W, C)
    labels : ndarray of int64, shape (n,)
    classes, epochs, seed, threads : int
        The same seed and threads give the same net.

    Notes
    -----
    AdamW with a one-cycle rate (Smith and Topin, "Super-convergence", 2019), batches of
    256, no augmentation: a backdoor is to be learned, not to be softened.

    Raises
    ------
    PlanError
        If torch is not installed.
    """
    torch = load_torch()
    with _threads(threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers, head = _architecture(torch, images.shape, classes)
        _descend(torch, layers, head, images, labels, epochs, seed)
    return Net(layers.eval(), head.eval(), threads)


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Class probabilities from logits, shape (n, k)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


def load_torch() -> Any:
    """Import torch, which is in the extra ``images``.

    Raises
    ------
    PlanError
        If it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise PlanError(
            "backdoors need torch, which is not installed",
            do="install the extra: pip install 'dataset-sanitizer[images]'",
        ) from error
    return torch


def _architecture(torch: Any, shape: tuple[int, ...], classes: int) -> tuple[Any, Any]:
    nn = torch.nn
    blocks: list[Any] = []
    inputs, height, width = shape[3], shape[1], shape[2]
    for outputs, size in ((16, 5), (32, 3), (64, 3)):
        conv = nn.Conv2d(inputs, outputs, size, stride=2, padding=size // 2)
        blocks += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs, height, width = outputs, (height + 1) // 2, (width + 1) // 2
    blocks += [nn.Flatten(), nn.Linear(inputs * height * width, 64), nn.ReLU()]
    layers = nn.Sequential(*blocks).to(memory_format=torch.channels_last)
    return layers, nn.Linear(64, classes)


def _descend(
    torch: Any, layers: Any, head: Any, images: Images, labels: Labels, epochs: int, seed: int
) -> None:
    parameters = [*layers.parameters(), *head.parameters()]
    steps = -(-len(images) // _BATCH) * epochs
    descent = torch.optim.AdamW(parameters, lr=_RATE)
    rate = torch.optim.lr_scheduler.OneCycleLR(descent, max_lr=_RATE, total_steps=steps)
    loss = torch.nn.CrossEntropyLoss()
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(images))
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            descent.zero_grad()
            value = loss(head(layers(_tensor(images[rows]))), torch.from_numpy(labels[rows]))
            value.backward()
            descent.step()
            rate.step()


def _tensor(images: Images) -> Any:
    torch = load_torch()
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    return (x / 127.5 - 1).contiguous(memory_format=torch.channels_last)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    torch = load_torch()
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
