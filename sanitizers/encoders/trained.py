"""Features of a net that was trained on the suspect data themselves, labels and all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sanitizers.core.data import Dataset
from sanitizers.core.errors import PlanError
from sanitizers.encoders.architectures import WIDTH
from sanitizers.encoders.devices import EXTRA, require
from sanitizers.encoders.net import epochs, train
from sanitizers.encoders.torch_embedder import TorchEmbedder


@dataclass(frozen=True)
class Trained:
    """What a small net (on CUDA a residual one) makes of the images to tell their labels apart.

    The view in which backdoors show. Not for label checks: the net has seen the labels that
    these are to judge, and learned the wrong ones too. Of 5 % random flips on Fashion-MNIST
    `labels` finds none in this view, 46 % by `pixels` and 43 % by `pretrained`
    (``benchmarks/results/embeddings.md``).

    Parameters
    ----------
    sample : int
        Images that it is trained on, at most; all are embedded.
    epochs : int
        Passes over them; 0 chooses by the number of rows and labels.
    seed : int
    threads : int
        Of torch while it trains. The same number gives the same net.
    """

    name: ClassVar[str] = "trained"
    needs: ClassVar[frozenset[str]] = frozenset({"label"})
    accelerated: ClassVar[bool] = True

    sample: int = 20_000
    epochs: int = 0
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.sample < 2 or self.threads < 1 or min(self.seed, self.epochs) < 0:
            raise PlanError(
                f"trained: sample={self.sample}, epochs={self.epochs}, seed={self.seed}, "
                f"threads={self.threads}",
                expected="sample >= 2, threads >= 1, epochs >= 0, seed >= 0",
            )

    def check(self) -> None:
        require("torch", "the encoder 'trained'", EXTRA)

    def fit(self, data: Dataset, device: str) -> TorchEmbedder:
        rows = data.sample(self.sample, "encoders/trained")
        known = rows.has_image & np.array([v is not None for v in rows.labels], dtype=bool)
        classes, codes = np.unique(rows.labels[known].astype(str), return_inverse=True)
        if len(classes) < 2:
            raise PlanError(
                f"the encoder 'trained' finds {len(classes)} class in the label",
                expected="two at least",
                do="name another encoder in [encoders] use",
            )
        images = rows.images[known]
        passes = self.epochs or epochs(len(images), len(classes))
        net = train(
            images,
            codes.astype(np.int64),
            len(classes),
            passes,
            self.seed,
            self.threads,
            device,
        )
        return TorchEmbedder(data.shape_within(), WIDTH, net.layers, device)
