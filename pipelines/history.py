"""History: the releases of a dataset on one page, and how much each sanitizer set aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from pipelines.disk import write_bytes
from pipelines.manifest import REPORT, Counts, Manifest
from pipelines.report import environment
from pipelines.report_text import count, share, spelled
from pipelines.store import Store
from pipelines.svg import LEFT, RIGHT, WIDTH, bar, peak, rule, spaced, svg, words, x_axis
from sanitizers.core.errors import PlanError

#: The page, in the folder of the dataset.
PAGE = "index.html"
#: Releases that are shown, the latest ones.
SHOWN = 200


@dataclass(frozen=True)
class Release:
    """One release, as the page shows it.

    Parameters
    ----------
    version, created : str
    how : str
        How it came to be, in words.
    counts : Counts
        Of all its rows.
    scanned : Counts
        Of the rows that its run scanned.
    found : dict of str to int
        For each sanitizer the rows of these that it put in quarantine.
    report : str
        Where its report lies, seen from the page.
    signed : bool
    """

    version: str
    created: str
    how: str
    counts: Counts
    scanned: Counts
    found: dict[str, int]
    report: str
    signed: bool

    @classmethod
    def of(cls, folder: Path) -> Release:
        """Read a release."""
        manifest = Manifest.load(folder)
        grown, ruled = manifest.grown, manifest.ruled
        how = "all rows scanned"
        if grown:
            how = f"{count(grown.counts.rows)} new rows joined {grown.onto}"
        if ruled:
            how += f"; {count(ruled.keep + ruled.quarantine)} rows as people have ruled"
        found = {check.sanitizer: check.quarantine for check in manifest.checks}
        return cls(
            manifest.version,
            manifest.created,
            how,
            manifest.counts,
            grown.counts if grown else manifest.counts,
            found,
            f"releases/{manifest.version}/{REPORT}",
            manifest.key is not None,
        )


def write_history(store: Store, dataset: str, out: Path | None = None) -> Path:
    """Write the page of a dataset's releases.

    Parameters
    ----------
    store : Store
    dataset : str
    out : Path, optional
        In the folder of the dataset by default, from where its links lead to the reports.

    Raises
    ------
    PlanError
        If there is no release yet.
    """
    folders = store.releases(store.known(dataset))
    if not folders:
        raise PlanError(f"no release of {dataset!r} yet", do="run 'sanitize run' first")
    releases = [Release.of(folder) for folder in folders[-SHOWN:]]
    names = sorted({name for release in releases for name in release.found})
    # Two releases of one run tell of the same scan.
    trends = [(name, trend_chart(name, releases)) for name in names]
    page = environment().get_template("history.html.j2")
    text: str = page.render(
        dataset=dataset,
        releases=releases[::-1],
        trends=trends,
        more=len(folders) - len(releases),
        linked=out is None,
    )
    path = store.dataset(dataset) / PAGE if out is None else out
    write_bytes(path, text.encode())
    return path


def trend_chart(name: str, releases: Sequence[Release]) -> Markup:
    """Draw which share of the scanned rows a sanitizer put in quarantine, release by release.

    Parameters
    ----------
    name : str
        The sanitizer.
    releases : sequence of Release
        The oldest first.
    """
    top, bottom, height = 16.0, 96.0, 122.0
    step = (WIDTH - LEFT - RIGHT) / len(releases)
    shares = [r.found.get(name, 0) / max(r.scanned.rows, 1) for r in releases]
    end = peak(max(shares))
    body = [words(0, 10, "share of scanned rows", "t")]
    for part in (0.0, 1.0):
        body += rule(bottom - (bottom - top) * part, f"{100 * end * part:.3g} %")
    for at, (release, value) in enumerate(zip(releases, shares, strict=True)):
        tall = value / end * (bottom - top)
        rows = release.found.get(name)
        said = "did not run" if rows is None else f"{count(rows)} rows"
        title = f"{release.version}: {said} ({share(rows or 0, release.scanned.rows)})"
        x, width = LEFT + at * step + 1, min(max(step - 2, 0.6), 60.0)
        body.append(bar("q", x, bottom - tall, width, tall, title))
    ticks = [(LEFT + at * step + 12, release.version) for at, release in enumerate(releases)]
    body += x_axis(spaced(ticks), bottom)
    return svg(height, f"Rows in quarantine by {spelled(name)}, release by release", body)
