"""The report of a run: one HTML file that opens without a network and runs no script."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipelines import charts, report_text
from pipelines.disk import write_bytes
from pipelines.report_data import ReportData, gather
from pipelines.report_facts import Previous, Reason, RunFacts, SanitizerCard
from pipelines.slice_chart import slice_chart
from pipelines.threats import known_threats
from pipelines.trigger_charts import flip_bars, trigger_map

if TYPE_CHECKING:
    from pipelines.alarms import Alarms
    from pipelines.decide import Decision
    from pipelines.ingest import Ingested
    from pipelines.manifest import Audited
    from pipelines.risks import Looked
    from sanitizers.core.data import Roles
    from sanitizers.core.promise import Promise

#: No report is larger, whatever the rows hold.
MAX_BYTES = 4_500_000

_TEMPLATES = Path(__file__).parent / "templates"
_CODE = re.compile(r"``([^`]+)``|`([^`]+)`")


def write_report(
    path: Path,
    *,
    dataset: str,
    ingested: Ingested,
    roles: Roles,
    roles_notes: Sequence[str],
    decision: Decision,
    evidence: Mapping[str, Path],
    runs_folder: Path,
    plan: Mapping[str, object],
    not_run: Sequence[tuple[str, str]],
    cards: Mapping[str, SanitizerCard],
    trusted_rows: int,
    version: str | None,
    created: str = "",
    run: str = "",
    tool_version: str = "",
    release: str = "",
    reasons: Mapping[str, Reason] | None = None,
    needs: Mapping[str, frozenset[str]] | None = None,
    skipped: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    previous: Previous | None = None,
    looked: Looked | None = None,
    alarms: Alarms | None = None,
    promise: Promise | None = None,
    audited: Audited | None = None,
) -> Path:
    """Write the report of a run, whole or not at all.

    The same facts give the same bytes; nothing is taken from the clock.

    Parameters
    ----------
    path : Path
    dataset, ingested, roles, roles_notes, decision, evidence, runs_folder, plan, not_run, cards
    trusted_rows, version, created, run, tool_version, release, reasons, needs, skipped, previous
    looked, alarms, promise, audited
        As in `RunFacts`.

    Returns
    -------
    Path
        Where it lies.

    Raises
    ------
    IntegrityError
        If evidence or verdicts are about other rows than the input.
    StoreError
        If it cannot be written.
    """
    facts = RunFacts(
        dataset=dataset,
        ingested=ingested,
        roles=roles,
        roles_notes=roles_notes,
        decision=decision,
        evidence=evidence,
        runs_folder=runs_folder,
        plan=plan,
        not_run=not_run,
        cards=cards,
        trusted_rows=trusted_rows,
        version=version,
        created=created,
        run=run,
        tool_version=tool_version,
        release=release,
        reasons=reasons or {},
        needs=needs or {},
        skipped=skipped or {},
        previous=previous,
        looked=looked,
        alarms=alarms,
        promise=promise,
        audited=audited,
    )
    write_bytes(path, render(gather(facts)).encode())
    return path


def render(data: ReportData) -> str:
    """Turn what was gathered into one page, with fewer of the worst rows if it grows too large.

    Parameters
    ----------
    data : ReportData
    """
    most = max((len(s.worst) for s in data.sections), default=0)
    page = _page(data, False)
    while len(page.encode()) > MAX_BYTES and most > 1:
        most //= 2
        sections = tuple(replace(s, worst=s.worst[:most]) for s in data.sections)
        page = _page(replace(data, sections=sections), True)
    return page


def _page(data: ReportData, worst_cut: bool) -> str:
    template = environment().get_template("report.html.j2")
    page: str = template.render(d=data, worst_cut=worst_cut)
    return page


def environment(*more: Path) -> Environment:
    """What templates of pages are rendered with: everything is escaped, nothing is left undefined.

    Parameters
    ----------
    *more : Path
        Folders of templates that come before those of the report.
    """
    environment = Environment(
        loader=FileSystemLoader((*more, _TEMPLATES)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = (
        "count",
        "cut",
        "figure",
        "line_in_words",
        "percent",
        "probability",
        "sentence",
        "share",
        "spelled",
    )
    environment.filters |= {name: getattr(report_text, name) for name in names}
    environment.filters |= {"visible": report_text.visible, "prose": prose}
    drawn: tuple[Callable[..., Markup], ...] = (
        charts.histogram_chart,
        charts.meter,
        charts.share_bar,
        charts.time_chart,
        slice_chart,
        flip_bars,
        trigger_map,
    )
    environment.globals |= {chart.__name__: chart for chart in drawn}
    environment.globals |= {known_threats.__name__: known_threats}
    return environment


def prose(text: str) -> Markup:
    """Escape a text of ours as `visible` does, with what stands in backticks as code."""
    html, at = Markup(""), 0
    for match in _CODE.finditer(text):
        html += _plain(text[at : match.start()])
        html += Markup("<code>{}</code>").format(report_text.visible(match[1] or match[2]))
        at = match.end()
    return html + _plain(text[at:])


def _plain(text: str) -> Markup:
    return report_text.visible(text) if text else Markup("")
