"""What people have ruled, in the report of a release that obeys."""

from __future__ import annotations

import re
from collections import deque

from pipelines.manifest import Counts, Ruled
from pipelines.report import environment
from pipelines.rulings import Rulings

#: Rulings that are named, the latest first.
NAMED = 10
#: Where they stand. Data cannot write this: whatever comes from them is escaped.
_PLACE = re.compile(rb"<!-- rulings -->.*?<!-- /rulings -->\n?", re.DOTALL)


def tell_rulings(report: bytes, version: str, counts: Counts, ruled: Ruled, log: Rulings) -> bytes:
    """Say in a report what people have ruled, in the place of what an earlier one said.

    Parameters
    ----------
    report : bytes
        The page of a run, or of a release that obeyed earlier rulings.
    version : str
        Of the release.
    counts : Counts
        Of all its rows, the rulings obeyed.
    ruled : Ruled
    log : Rulings
        The log that it obeys.

    Returns
    -------
    bytes
        The page; as it was where it has no place for rulings, as those of early versions.
    """
    latest = deque(log.read(), maxlen=NAMED)
    template = environment().get_template("rulings.html.j2")
    told = template.render(
        version=version,
        counts=counts,
        ruled=ruled,
        latest=list(latest)[::-1],
        more=latest[0].number - 1 if latest else 0,
    )
    return _PLACE.sub(lambda _: told.encode().strip() + b"\n", report, count=1)
