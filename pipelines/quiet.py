"""Keep the warnings of libraries away from the terminal, also when threads overlap."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field


@dataclass
class _Filters:
    """The warning filters of the process, and how many threads want them silent."""

    wanted: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    restore: ExitStack = field(default_factory=ExitStack)


# The filters are the process's own, so what counts their users is too.
_FILTERS = _Filters()


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore warnings until the last thread that asked for it is done.

    ``warnings.catch_warnings`` alone restores, when two threads overlap, the filters
    that the second one met, which are those of the first one's silence.
    """
    with _FILTERS.lock:
        if _FILTERS.wanted == 0:
            _FILTERS.restore.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        _FILTERS.wanted += 1
    try:
        yield
    finally:
        with _FILTERS.lock:
            _FILTERS.wanted -= 1
            if _FILTERS.wanted == 0:
                _FILTERS.restore.close()
