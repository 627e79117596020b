"""torch, where it is installed, and what it computes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from sanitizers.core.errors import PlanError, did_you_mean

#: What can be asked for. ``auto`` is CUDA where there is any, else the CPU.
DEVICES = ("auto", "cpu", "cuda")
#: What to do where a package of the extra is not installed.
EXTRA = "install the extra: pip install 'dataset-sanitizer[images]'"


def check_device(asked: str) -> None:
    """Refuse a word that names no device.

    Raises
    ------
    PlanError
    """
    if asked not in DEVICES:
        raise PlanError(f"no device {asked!r}", do=did_you_mean(asked, DEVICES))


def find_device(asked: str) -> str:
    """What to compute on: ``cpu`` or ``cuda``.

    Raises
    ------
    PlanError
        If there is no such device.
    """
    check_device(asked)
    there = find_spec("torch") is not None and asked != "cpu" and _has_cuda()
    if asked == "cuda" and not there:
        raise PlanError(
            "torch finds no CUDA device" if find_spec("torch") else "torch is not installed",
            do="leave --device out, or install a torch that fits the driver",
        )
    return "cuda" if there else "cpu"


def require(package: str, for_what: str, do: str) -> None:
    """Refuse to go on without a package. Imports nothing.

    Raises
    ------
    PlanError
        If it is not installed.
    """
    if find_spec(package) is None:
        raise PlanError(f"{for_what} needs the package {package}, which is not installed", do=do)


def load_torch(for_what: str) -> Any:
    """Import torch, which is in the extra ``images``.

    Raises
    ------
    PlanError
        If it is not installed.
    """
    require("torch", for_what, EXTRA)
    import torch

    return torch


@contextmanager
def one_thread(torch: Any) -> Iterator[None]:
    """Let torch compute each thing on one core: what comes then hangs on no number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _has_cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())
