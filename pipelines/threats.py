"""Which known threats a check is about, by the numbers that others use for them.

MITRE ATLAS (https://atlas.mitre.org) numbers techniques of attackers: AML.T0020 is *Poison
Training Data*, AML.T0018 *Manipulate AI Model*, which a backdoor does, AML.T0010.002 *AI Supply
Chain Compromise: Data*. OWASP's LLM04 (2025) is *Data and Model Poisoning*, LLM03 *Supply Chain*.
What befalls data without an attacker has no number.
"""

from __future__ import annotations

from collections.abc import Iterable

_POISON = ("AML.T0020", "LLM04:2025")
_BACKDOOR = ("AML.T0018", "AML.T0020", "LLM04:2025")
_SUPPLY = ("AML.T0010.002", "AML.T0020", "LLM03:2025", "LLM04:2025")

#: By the name of a sanitizer or of a risk.
THREATS: dict[str, tuple[str, ...]] = {
    "outliers": _POISON,
    "micro-votes": _POISON,
    "micro-concentration": _POISON,
    "labels": _POISON,
    "label-regions": _POISON,
    "shared-values": _BACKDOOR,
    "conflicts": _POISON,
    "regression": _POISON,
    "consensus": _POISON,
    "backdoors": _BACKDOOR,
    "planted": _BACKDOOR,
    "skewing": _POISON,
    "crowding": _POISON,
    "suppliers": _SUPPLY,
}


def known_threats(name: str) -> tuple[str, ...]:
    """The numbers of one check or risk; none where it has none."""
    return THREATS.get(name, ())


def threats(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The numbers of those checks and risks that have some.

    Parameters
    ----------
    names : iterable of str
    """
    return {name: THREATS[name] for name in sorted(set(names)) if name in THREATS}
