"""Vectors from a torch net, the same for an image whatever comes beside it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sanitizers.core.images import ImageShape, thread_count
from sanitizers.encoders.devices import load_torch, one_thread
from sanitizers.encoders.embedder import Images, Vectors, in_blocks

#: Images that go through a net at once.
_BLOCK = {"cpu": 64, "cuda": 256}
#: Vectors are kept in half precision, in which this is about the largest number.
_LARGEST = 65_000.0


@dataclass(frozen=True, eq=False)
class TorchEmbedder:
    """A net, and how images are made ready for it.

    Parameters
    ----------
    shape : (int, int, int)
        Of the images that come.
    width : int
        How many numbers a vector has.
    net : callable
        From a tensor of shape (n, 3 or C, h, w) to one of shape (n, width).
    device : {"cpu", "cuda"}
    size : (int, int) or None
        Height and width at which the net looks; None leaves images as they come.
    mean, deviation : tuple of float
        Of the pixels, from 0 to 255: one for all channels, or one for each.
    rgb : bool
        Whether grey images become three channels.
    unit : bool
        Whether vectors are brought to length 1: of nets that were trained elsewhere the
        direction says what an image shows, and the length mostly how much contrast it has.

    Notes
    -----
    On CUDA nets compute in half precision where that is safe (``torch.autocast``), on the CPU
    in single. So vectors differ in their third digit between the two.
    """

    shape: ImageShape
    width: int
    net: Callable[[Any], Any] = field(repr=False)
    device: str
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = (127.5,)
    deviation: tuple[float, ...] = (127.5,)
    rgb: bool = False
    unit: bool = False

    def embed(self, images: Images) -> Vectors:
        torch = load_torch("an encoder")
        cuda = self.device == "cuda"

        def work(block: Images) -> Vectors:
            half = torch.autocast("cuda", torch.float16) if cuda else nullcontext()
            with torch.inference_mode(), half:
                vectors = self.net(self._ready(torch, block)).float().cpu().numpy()
            return np.asarray(vectors, dtype=np.float32)

        # Two cores on two blocks wait less for one another than two cores on one.
        threads = 1 if cuda else thread_count()
        with one_thread(torch):
            found = in_blocks(work, images, _BLOCK[self.device], self.width, threads)
        if self.unit:
            found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)
        return np.clip(found, -_LARGEST, _LARGEST).astype(np.float16)

    def _ready(self, torch: Any, images: Images) -> Any:
        x = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        x = x.permute(0, 3, 1, 2).float()
        if self.size is not None and self.size != tuple(x.shape[2:]):
            x = torch.nn.functional.interpolate(x, self.size, mode="bilinear", antialias=True)
        mean, deviation = (
            torch.tensor(values, device=self.device)[None, :, None, None]
            for values in (self.mean, self.deviation)
        )
        if self.rgb and x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        return ((x - mean) / deviation).contiguous(memory_format=torch.channels_last)
