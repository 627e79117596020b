"""When people are told of a run: which occasions there are, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from pipelines.manifest import Manifest
from pipelines.metrics import Metrics
from pipelines.store import Store
from sanitizers.core.errors import SanitizeError

HELD, TRIGGER, UNUSUAL = "held", "trigger", "more-than-usual"
#: Every occasion, and the event that Prefect is sent of it.
EVENTS = {HELD: "dataset.held", TRIGGER: "dataset.trigger", UNUSUAL: "dataset.unusual"}

#: More than usual is this many times the median share of earlier releases in quarantine,
TIMES = 3.0
#: and more than this share of the rows;
LEAST = 0.01
#: what is usual is known from so many releases,
RELEASES = 3
#: and from so many of the last at most.
LAST = 20


@dataclass(frozen=True)
class Occasion:
    """Something that people want to be told of a run.

    Parameters
    ----------
    kind : str
        A key of `EVENTS`.
    why : str
        A line; never what a row holds.
    """

    kind: str
    why: str


def occasions(metrics: Metrics, earlier: Sequence[float]) -> tuple[Occasion, ...]:
    """Say what is worth telling of a run.

    Parameters
    ----------
    metrics : Metrics
    earlier : sequence of float
        The shares of their rows that earlier releases have in quarantine.
    """
    found = []
    if metrics.held:
        # What follows a colon is a finding, which may quote the data; the report has it.
        found.append(Occasion(HELD, metrics.held_because.partition(":")[0]))
    if metrics.triggers:
        many = "trigger" if metrics.triggers == 1 else "triggers"
        found.append(Occasion(TRIGGER, f"{metrics.triggers} confirmed backdoor {many}"))
    share = metrics.quarantine / max(metrics.rows, 1)
    if is_unusual(share, earlier):
        usual = f"the median of earlier releases is {median(earlier):.2%}"
        found.append(Occasion(UNUSUAL, f"{share:.2%} of the rows in quarantine; {usual}"))
    return tuple(found)


def is_unusual(share: float, earlier: Sequence[float]) -> bool:
    """Whether a share of rows in quarantine is more than usual.

    Parameters
    ----------
    share : float
    earlier : sequence of float
        The shares of earlier releases; of fewer than `RELEASES` nothing is usual yet.
    """
    return len(earlier) >= RELEASES and share > max(LEAST, TIMES * median(earlier))


def earlier_shares(store: Store, dataset: str, run: str) -> list[float]:
    """The shares in quarantine of the last releases of a dataset, without that of a run.

    Parameters
    ----------
    store : Store
    dataset : str
    run : str
        The key of a run whose release does not count.
    """
    shares = []
    for release in store.releases(dataset)[-LAST:]:
        try:
            manifest = Manifest.load(release)
        except SanitizeError:
            # Told by 'sanitize verify'; what is usual can be said without it.
            continue
        if manifest.run != run:
            # What joined an earlier release is judged by itself.
            counts = manifest.grown.counts if manifest.grown else manifest.counts
            shares.append(counts.quarantine / max(counts.rows, 1))
    return shares


def letter(metrics: Metrics, told: Sequence[Occasion], report: str | None) -> tuple[str, str]:
    """Write what people are told: a subject and a text, with counts and no row.

    Parameters
    ----------
    metrics : Metrics
    told : sequence of Occasion
    report : str or None
        Where the report lies.
    """
    what = f"published {metrics.version}" if metrics.version else "held, nothing was published"
    lines = [f"{occasion.kind}: {occasion.why}" for occasion in told]
    lines.append(
        f"{metrics.rows:,} rows: {metrics.keep:,} clean, {metrics.review:,} for review, "
        f"{metrics.quarantine:,} in quarantine"
    )
    if report:
        lines.append(f"report: {report}")
    return f"{metrics.dataset}: {what}", "\n".join(lines)
