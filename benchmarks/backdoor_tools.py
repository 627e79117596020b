"""Tools that look for backdoors in images: ours, and ART's as its documentation would have them.

``python -m benchmarks.backdoor_tools NAME FILE`` runs one in a process of its own, so that
seconds and memory are its own.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.answers import Answer, Flags
from benchmarks.backdoors import Images, Labels
from benchmarks.usage import cpu_seconds, peak_mb
from sanitizers.backdoors import Settings, audit
from sanitizers.encoders.architectures import small_net
from sanitizers.encoders.devices import load_torch
from sanitizers.encoders.net import Net

SEED = 0
OURS = "audit"
#: The rows of groups that our audit reports as looking planted, and does not call poison.
TOLD = "told"
TRUE_RATE = "ART SpectralSignatureDefense, true rate"

_STATE = "net."


@dataclass(frozen=True, eq=False)
class Given:
    """What a tool is given.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, H, W, C)
    labels : ndarray of int64, shape (n,)
    state : mapping of str to ndarray
        The net that was trained on them, without its head, by the names of torch. Ours
        trains its own.
    rate : float
        The poisoned share of the rows that have the target's label, for the tool that is
        told.
    """

    images: Images
    labels: Labels
    state: Mapping[str, NDArray[Any]]
    rate: float

    @classmethod
    def of(cls, images: Images, labels: Labels, net: Net, rate: float) -> Given:
        """Take the layers of a net apart."""
        state = {name: part.numpy() for name, part in net.layers.state_dict().items()}
        return cls(images, labels, state, rate)

    def save(self, file: Path) -> None:
        """Write it as ``.npz``."""
        state = {_STATE + name: part for name, part in self.state.items()}
        with file.open("wb") as out:
            np.savez(
                out,
                allow_pickle=False,
                images=self.images,
                labels=self.labels,
                rate=np.array(self.rate),
                **state,
            )

    @classmethod
    def load(cls, file: Path) -> Given:
        """Read what `save` wrote."""
        with np.load(file, allow_pickle=False) as arrays:
            found = dict(arrays)
        images, labels, rate = (found.pop(name) for name in ("images", "labels", "rate"))
        state = {name.removeprefix(_STATE): part for name, part in found.items()}
        return cls(images, labels, state, float(rate))

    def layers(self) -> Any:
        """The net up to its penultimate layer, as a ``torch.nn.Sequential``."""
        torch = load_torch("a net")
        layers, _ = small_net(torch, self.images.shape, int(self.labels.max()) + 1)
        layers.load_state_dict({name: torch.from_numpy(part) for name, part in self.state.items()})
        return layers.eval()


#: Loading is not part of what is timed, so a tool first loads, then runs.
Tool = Callable[[Given], Callable[[], Answer]]


def ours(given: Given) -> Callable[[], Answer]:
    """Our audit as it comes; it trains its own two nets."""
    load_torch("an audit")

    def run() -> Answer:
        found = audit(given.images, given.labels, Settings())
        flags, told = np.zeros((2, len(given.labels)), dtype=bool)
        flags[found.poison] = True
        for group in found.suspicions:
            told[group.rows] |= not group.refuted
        return _answer(flags, {TOLD: told & ~flags})

    return run


def activations(given: Given, **settings: str) -> Callable[[], Answer]:
    """ART's ``ActivationDefence`` (Chen et al. 2018)."""
    from art.defences.detector.poison import ActivationDefence

    classifier, x, y = _for_art(given)

    def run() -> Answer:
        defence = ActivationDefence(classifier, x, y)
        return _unclean(defence.detect_poison(**settings)[1])

    return run


def signatures(given: Given, *, told: bool = False) -> Callable[[], Answer]:
    """ART's ``SpectralSignatureDefense`` (Tran et al. 2018), told the true rate or not."""
    from art.defences.detector.poison import SpectralSignatureDefense

    classifier, x, y = _for_art(given)
    settings = {"expected_pp_poison": given.rate} if told else {}

    def run() -> Answer:
        defence = SpectralSignatureDefense(classifier, x, y, **settings)
        return _unclean(defence.detect_poison()[1])

    return run


TOOLS: Mapping[str, Tool] = {
    OURS: ours,
    "ART ActivationDefence": activations,
    "ART ActivationDefence, silhouette": partial(activations, cluster_analysis="silhouette-scores"),
    "ART SpectralSignatureDefense": signatures,
    TRUE_RATE: partial(signatures, told=True),
}


def _for_art(given: Given) -> tuple[Any, NDArray[np.float32], NDArray[np.float32]]:
    """A classifier of ART, the images as its net takes them, and labels as 0 and 1.

    ART looks at the last layer of the net that it gets, so the head is left out.
    """
    from art.estimators.classification import PyTorchClassifier

    torch = load_torch("ART")
    classes = int(given.labels.max()) + 1
    x = np.ascontiguousarray(given.images.transpose(0, 3, 1, 2)).astype(np.float32) / 127.5 - 1
    loss = torch.nn.CrossEntropyLoss()
    classifier = PyTorchClassifier(
        given.layers(), loss, x.shape[1:], nb_classes=classes, device_type="cpu"
    )
    return classifier, x, np.eye(classes, dtype=np.float32)[given.labels]


def _unclean(is_clean: list[int]) -> Answer:
    return _answer(np.equal(is_clean, 0).astype(bool), {})


def _answer(flags: Flags, parts: Mapping[str, Flags]) -> Answer:
    return Answer(flags, flags.astype(float), parts)


def main() -> None:
    """Run one tool on a file that `benchmarks.backdoor_contenders` wrote."""
    parser = argparse.ArgumentParser(description="run one tool on images")
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("file", type=Path)
    asked = parser.parse_args()
    given = Given.load(asked.file)
    load_torch("a net").set_num_threads(1)
    # What scikit-learn draws from inside of ART.
    np.random.seed(SEED)
    with threadpool_limits(1):
        run = TOOLS[asked.tool](given)
        started, cpu = time.perf_counter(), cpu_seconds()
        answer = run()
        took = {"seconds": time.perf_counter() - started, "cpu_seconds": cpu_seconds() - cpu}
    answer.save(asked.file.with_suffix(".answer.npz"))
    print(json.dumps({**took, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
