"""A net of the attacker's own: which way each pixel makes its label less likely."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sanitizers.encoders.devices import load_torch
from sanitizers.encoders.net import epochs, train
from sanitizers.poisons.stamping import Gradient, Labels
from sanitizers.poisons.stamps import Images


def own_gradient(images: Images, labels: Labels, seed: int) -> Gradient:
    """Train a net on the images, and give the slope of its loss.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, H, W, C)
    labels : ndarray of int64, shape (n,)
    seed : int

    Returns
    -------
    callable
        From images, as float32 from 0 to 255, and their labels to slopes of the same shape.

    Raises
    ------
    PlanError
        If torch is not installed.
    """
    torch = load_torch("to make images hard to learn before they are stamped")
    classes = int(labels.max()) + 1
    net = train(images, labels, classes, epochs(len(labels), classes), seed)

    def gradient(x: NDArray[np.float32], y: Labels) -> NDArray[np.float32]:
        given = torch.from_numpy(x).permute(0, 3, 1, 2).requires_grad_()
        logits = net.head(net.layers(given / 127.5 - 1))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y), reduction="sum")
        (slope,) = torch.autograd.grad(loss, given)
        return np.asarray(slope.permute(0, 2, 3, 1).numpy())

    return gradient
