"""What the first training and the neighbours say of every row."""

from __future__ import annotations

from dataclasses import dataclass

from sanitizers.backdoors.arrays import Floats, Rows
from sanitizers.encoders.net import Net


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the stages after the first training share.

    Parameters
    ----------
    net : Net
    logits, features : ndarray of float32
    belief : ndarray of float32, shape (n,)
        The net's probability of each row's label.
    apart : ndarray of float32, shape (n,)
        The share of neighbours with another label.
    looks : ndarray of int64, shape (n,)
        The commonest label of the neighbours.
    """

    net: Net
    logits: Floats
    features: Floats
    belief: Floats
    apart: Floats
    looks: Rows
