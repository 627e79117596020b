"""Encoders: from images to vectors, which every sanitizer then sees as features."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from sanitizers.core.errors import PlanError, did_you_mean
from sanitizers.core.settings import make
from sanitizers.encoders.devices import DEVICES, check_device, find_device
from sanitizers.encoders.efficientnet import weights_file
from sanitizers.encoders.embedder import Embedder, ImageEncoder
from sanitizers.encoders.hubs import HuggingFace, Timm
from sanitizers.encoders.pixels import Pixels
from sanitizers.encoders.pretrained import Pretrained
from sanitizers.encoders.trained import Trained

__all__ = [
    "AUTO",
    "DEVICES",
    "ENCODERS",
    "Embedder",
    "ImageEncoder",
    "Pixels",
    "Pretrained",
    "Trained",
    "check_device",
    "find_device",
    "image_encoder",
    "usual_encoder",
]

#: What chooses the encoder by what is installed.
AUTO = "auto"
#: Every encoder by its name; ``timm:NAME`` and ``hf:NAME`` are models of others.
ENCODERS: Mapping[str, type[ImageEncoder]] = {
    kind.name: kind for kind in (Pixels, Pretrained, Trained)
}
_HUBS: Mapping[str, type[Timm] | type[HuggingFace]] = {"timm": Timm, "hf": HuggingFace}


def image_encoder(name: str, settings: Mapping[str, Any] | None = None) -> ImageEncoder:
    """Make an encoder from its name and its settings.

    Parameters
    ----------
    name : str
        ``auto``, one of `ENCODERS`, ``timm:NAME`` or ``hf:NAME``.
    settings : mapping, optional

    Raises
    ------
    PlanError
        If the name or a setting is unknown, or a setting has a wrong value.
    """
    if name == AUTO:
        name = usual_encoder()
    hub, colon, model = name.partition(":")
    if colon and hub in _HUBS:
        if not model:
            raise PlanError(f"the encoder {name!r} names no model", expected=f"{hub}:NAME")
        return _HUBS[hub](model)
    if name not in ENCODERS:
        known = [AUTO, *ENCODERS, *(f"{hub}:NAME" for hub in _HUBS)]
        raise PlanError(f"no encoder {name!r}", do=did_you_mean(name, known))
    return make("encoder", name, ENCODERS[name], settings)


def usual_encoder() -> str:
    """The encoder where none is named: ``pretrained`` where it is installed, else ``pixels``."""
    there = find_spec("torch") is not None and weights_file() is not None
    return Pretrained.name if there else Pixels.name
