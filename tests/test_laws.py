"""Every sanitizer of the catalog obeys every law; none is left out by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sanitizers.catalog import SANITIZERS, missing_packages, sanitizer
from sanitizers.core.sanitizer import Sanitizer
from sanitizers.testing import LAWS, THREATS, Threat

#: Settings that make a law quick; the laws hold for any.
QUICK = {
    "backdoors": {"epochs": 8},
    "labels": {"folds": 3, "trees": 20},
    "regression": {"folds": 3},
}


@pytest.mark.parametrize("name", SANITIZERS)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law: Callable[[Sanitizer, Threat], None], name: str) -> None:
    if missing := missing_packages(sanitizer(name)):
        pytest.skip(f"needs {', '.join(missing)}")
    law(sanitizer(name, QUICK.get(name)), THREATS[name])


def test_every_sanitizer_has_a_threat() -> None:
    assert set(THREATS) == set(SANITIZERS)
