"""A net that is trained on the very images that are under suspicion, and its training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanitizers.encoders.architectures import WIDTH, residual_net, small_net
from sanitizers.encoders.devices import load_torch

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Floats = NDArray[np.float32]

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
        torch = load_torch("a net")
        logits, features = [], []
        with _threads(self.threads), torch.inference_mode():
            for start in range(0, len(images), 1024):
                x = _tensor(torch, images[start : start + 1024]).to(self.head.weight.device)
                x = self.layers(x)
                features.append(x.cpu().numpy())
                logits.append(self.head(x).cpu().numpy())
        if not logits:
            none = np.empty((0, WIDTH), np.float32)
            return np.empty((0, self.head.out_features), np.float32), none
        return np.concatenate(logits), np.concatenate(features)

    def probabilities(self, images: Images) -> Floats:
        """Class probabilities, shape (n, k)."""
        return softmax(self.look(images)[0])


def train(
    images: Images,
    labels: Labels,
    classes: int,
    epochs: int,
    seed: int,
    threads: int = 1,
    device: str = "cpu",
) -> Net:
    """Train a net: a small one on the CPU, a residual one on CUDA.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, H, W, C)
    labels : ndarray of int64, shape (n,)
    classes, epochs, seed, threads : int
        The same seed and threads give the same net.
    device : {"cpu", "cuda"}

    Notes
    -----
    AdamW with a one-cycle rate (Smith and Topin, "Super-convergence", 2019), batches of
    256, no augmentation: a backdoor is to be learned, not to be softened.

    Raises
    ------
    PlanError
        If torch is not installed.
    """
    torch = load_torch("to train a net")
    make = residual_net if device == "cuda" else small_net
    with _threads(threads), torch.random.fork_rng(devices=[]), _precision(torch, device):
        torch.manual_seed(seed)
        layers, head = (part.to(device) for part in make(torch, images.shape, classes))
        _descend(torch, layers, head, images, labels, epochs, seed)
    return Net(layers.eval(), head.eval(), threads)


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Class probabilities from logits, shape (n, k)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


def epochs(rows: int, classes: int) -> int:
    """Passes over the data: about 400 steps, and 500 where there are many labels."""
    least, images = (8, 130_000) if classes > 20 else (5, 100_000)
    return max(least, -(-images // rows))


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
            if len(rows) == 1 < len(order):
                # Of a single small image a normalisation knows no deviation.
                continue
            descent.zero_grad()
            x = _tensor(torch, images[rows]).to(head.weight.device)
            value = loss(head(layers(x)), torch.from_numpy(labels[rows]).to(x.device))
            value.backward()
            descent.step()
            rate.step()


@contextmanager
def _precision(torch: Any, device: str) -> Iterator[None]:
    """Mixed precision on CUDA, by algorithms that give the same twice."""
    with ExitStack() as stack:
        if device == "cuda":
            stack.enter_context(torch.autocast("cuda", torch.bfloat16))
            stack.enter_context(torch.backends.cudnn.flags(deterministic=True, benchmark=False))
        yield


def _tensor(torch: Any, images: Images) -> Any:
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    return (x / 127.5 - 1).contiguous(memory_format=torch.channels_last)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    torch = load_torch("a net")
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
