"""Backdoors in labelled images: triggers proposed cheaply, confirmed by their effect.

`audit` works on arrays; `Backdoors` is the sanitizer. Training needs torch, the extra
``images``; nothing here imports it before it is used.
"""

from __future__ import annotations

from sanitizers.backdoors.auditing import Settings, audit
from sanitizers.backdoors.found import Audit, Suspicion, Trigger
from sanitizers.backdoors.sanitizer import Backdoors, BackdoorScorer
from sanitizers.backdoors.stamp import Filter, Mark, Stamp

__all__ = [
    "Audit",
    "BackdoorScorer",
    "Backdoors",
    "Filter",
    "Mark",
    "Settings",
    "Stamp",
    "Suspicion",
    "Trigger",
    "audit",
]
