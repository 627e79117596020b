"""Decide: from the evidence of all sanitizers to a verdict for every row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.disk import make_folder, write_json, write_table
from pipelines.examine import settings_of
from pipelines.examined import Examined, read_earlier, read_evidence
from pipelines.ingest import Ingested
from pipelines.manifest import Check, parse_json, read_limited, tool
from pipelines.progress import SILENT, Progress
from pipelines.shards import ParquetShard, shard_name
from pipelines.store import key_of
from pipelines.tally import Tally, floats
from pipelines.vouched import Vouched
from sanitizers.core.consensus import CONSENSUS
from sanitizers.core.data import ROW_ID, ROW_KEY, Roles
from sanitizers.core.errors import IntegrityError, PlanError
from sanitizers.core.lines import ScoreSummary, Threshold, draw
from sanitizers.core.policy import Policy
from sanitizers.core.sanitizer import Witness
from sanitizers.core.verdicts import KEEP, QUARANTINE, REVIEW, VERDICT_SCHEMA, VERDICTS, judge
from sanitizers.risks import ALARM, Finding

#: Counts up when verdict files change their meaning.
VERDICT_FORMAT = 1
DECISION = "decision.json"
#: What ``fail_on`` says for an alarm of any risk.
ANY_RISK = "risks"


@dataclass(frozen=True)
class Decision:
    """What was decided of all rows.

    Parameters
    ----------
    rows : int
        All rows of the input, also those that could not be read:
        ``keep + review + quarantine == rows``.
    keep, review, quarantine : int
    unreadable : int
        Rows that could not be read; they are counted in `quarantine` too.
    thresholds : tuple of Threshold
    found : dict
        For each sanitizer the rows that it ``scored`` and ``abstained`` from, and those
        over its ``review`` and ``quarantine`` line.
    held : bool
        Nothing is to be published until a person agrees.
    held_because : str
    """

    rows: int
    keep: int
    review: int
    quarantine: int
    unreadable: int
    thresholds: tuple[Threshold, ...]
    found: dict[str, dict[str, int]]
    held: bool = False
    held_because: str = ""

    def failing_on(self, names: Sequence[str], findings: Sequence[Finding] = ()) -> Decision:
        """The same decision, held when one of the named things found something.

        Parameters
        ----------
        names : sequence of str
            ``review``, ``quarantine``, the name of a sanitizer, ``risks`` or that of a risk.
        findings : sequence of Finding
            What was found of columns and batches.
        """
        if self.held:
            return self
        counts = {REVIEW: self.review, QUARANTINE: self.quarantine}
        for sanitizer, found in self.found.items():
            counts[sanitizer] = found[REVIEW] + found[QUARANTINE]
        for name in names:
            if counts.get(name, 0):
                why = f"the run is to fail on {name}, and {name} has {counts[name]:,} rows"
                return replace(self, held=True, held_because=why)
            if told := matching(findings, name):
                why = f"the run is to fail on {name}: {told[0].message}"
                return replace(self, held=True, held_because=why)
        return self

    @classmethod
    def load(cls, folder: Path) -> Decision:
        """Read the decision of a run.

        Raises
        ------
        IntegrityError
            If it is missing or malformed.
        """
        return parse_json(cls, read_limited(folder / DECISION), folder / DECISION)


def run_key(
    ingested: Ingested,
    roles: Roles,
    evidence: Mapping[str, str],
    policy: Policy,
    plan: Mapping[str, Any],
    trusted: Ingested | None,
) -> str:
    """Name a run by all that decides its verdicts and its manifest.

    Parameters
    ----------
    ingested : Ingested
    roles : Roles
    evidence : mapping of str to str
        For each sanitizer the key of its evidence.
    policy : Policy
    plan : mapping
        The plan as it was resolved.
    trusted : Ingested or None
    """
    return key_of(
        "run",
        VERDICT_FORMAT,
        tool().version,
        [ingested.digest, ingested.id_column, ingested.digests],
        asdict(roles),
        dict(evidence),
        asdict(policy),
        dict(plan),
        [shard.sha256 for shard in trusted.shards] if trusted else None,
    )


def decide(
    ingested: Ingested,
    roles: Roles,
    evidence: Mapping[str, Path],
    policy: Policy,
    recipes: Mapping[str, Witness],
    folder: Path,
    trusted: Ingested | None = None,
    *,
    progress: Progress = SILENT,
) -> Decision:
    """Draw every sanitizer's lines on its scores, and judge every row.

    A finished folder is loaded, not done again. Trusted rows are always kept.

    Parameters
    ----------
    ingested : Ingested
    roles : Roles
    evidence : mapping of str to Path
        For each sanitizer the folder of its evidence; and that of their sum, if it is to judge.
    policy : Policy
    recipes : mapping of str to Witness
    folder : Path
        Where ``verdicts-00000.parquet`` and so on go, one per shard, in its order.
    trusted : Ingested, optional
        Rows that a person vouches for, by their ids.
    progress : Progress

    Raises
    ------
    IntegrityError
        If evidence is missing, or is about other rows than the input.
    PlanError
        If there is no evidence at all.
    """
    files = [verdicts_file(folder, i) for i in range(len(ingested.shards))]
    if (folder / DECISION).is_file() and all(file.is_file() for file in files):
        return Decision.load(folder)
    if not evidence:
        raise PlanError("no sanitizer has given evidence", do="name one in [sanitizers] use")
    make_folder(folder)
    if CONSENSUS in evidence:
        policy = policy.summing(Examined.load(evidence[CONSENSUS]).terms)
    vouched = Vouched.of(roles, trusted)
    with progress.stage("decide", ingested.rows, len(files)) as stage:
        summaries = _summarise(ingested, evidence)
        thresholds = {
            name: _threshold(name, policy, summary, evidence[name], vouched=vouched.any)
            for name, summary in summaries.items()
        }
        tally = Tally(summaries)
        for number, shard in enumerate(ingested.shard_files()):
            ids, given = vouched.read(shard)
            tables = {name: read_evidence(evidence[name], number, ids) for name in evidence}
            verdicts = judge(tables, thresholds, recipes, given)
            _check(verdicts, ids, files[number])
            write_table(verdicts, files[number])
            tally.add(tables, thresholds, given, verdicts)
            stage.advance(shard.rows)
    decision = _decision(tally, ingested, policy, thresholds)
    write_json(folder / DECISION, asdict(decision))
    return decision


def _threshold(
    name: str, policy: Policy, summary: ScoreSummary, evidence: Path, *, vouched: bool
) -> Threshold:
    influence = Examined.load(evidence).influence
    trusted = vouched and _calibrated(summary)
    return draw(name, policy.rule(name, trusted=trusted, influence=influence), summary)


def matching(findings: Sequence[Finding], word: str) -> tuple[Finding, ...]:
    """What a word of ``fail_on`` means: any alarm, or whatever there is of one risk."""
    if word == ANY_RISK:
        return tuple(f for f in findings if f.severity == ALARM)
    return tuple(f for f in findings if f.risk == word)


def verdicts_file(folder: Path, shard: int) -> Path:
    """Where the verdicts of a shard lie in the folder of a run."""
    return folder / shard_name(shard, "verdicts")


def checks(
    decision: Decision,
    recipes: Mapping[str, Witness],
    skipped: Mapping[str, tuple[tuple[str, str], ...]],
) -> tuple[Check, ...]:
    """What every sanitizer did, for the record of the run and the manifest.

    Parameters
    ----------
    decision : Decision
    recipes : mapping of str to Witness
    skipped : mapping of str to tuple
        For each sanitizer the columns that it could not use (`Examined.skipped`).
    """
    lines = {threshold.sanitizer: threshold for threshold in decision.thresholds}
    return tuple(
        Check(
            sanitizer=name,
            needs=tuple(sorted(recipe.needs)),
            settings=settings_of(recipe),
            scored=decision.found[name]["scored"],
            abstained=decision.found[name]["abstained"],
            review=decision.found[name][REVIEW],
            quarantine=decision.found[name][QUARANTINE],
            quarantine_line=lines[name].quarantine_line,
            review_line=lines[name].review_line,
            quarantine_above=lines[name].quarantine,
            review_above=lines[name].review,
            basis=lines[name].basis,
            skipped=skipped.get(name, ()),
        )
        for name, recipe in recipes.items()
    )


def _decision(
    tally: Tally, ingested: Ingested, policy: Policy, thresholds: Mapping[str, Threshold]
) -> Decision:
    rows = ingested.rows + ingested.unreadable
    quarantine = tally.verdicts[QUARANTINE] + ingested.unreadable
    over = quarantine > policy.budget * rows
    why = (
        f"{quarantine:,} of {rows:,} rows ({quarantine / max(rows, 1):.1%}) would be "
        f"quarantined, and the budget is {policy.budget:.1%}"
    )
    decision = Decision(
        rows,
        tally.verdicts[KEEP],
        tally.verdicts[REVIEW],
        quarantine,
        ingested.unreadable,
        tuple(thresholds.values()),
        tally.found,
        over,
        why if over else "",
    )
    if decision.keep + decision.review + decision.quarantine != rows:
        raise IntegrityError(f"{sum(tally.verdicts.values()):,} verdicts for {rows:,} rows")
    return decision


def _summarise(ingested: Ingested, evidence: Mapping[str, Path]) -> dict[str, ScoreSummary]:
    """The scores of all rows, and those of the rows of an earlier release."""
    published = ingested.published_files()
    rows = ingested.rows + sum(shard.rows for shard in published)
    summaries = {name: ScoreSummary(rows) for name in evidence}
    for number, shard in enumerate(ingested.shard_files()):
        _add(summaries, shard, partial(_said, evidence, read_evidence, number))
    # The sum of the evidence is calibrated on trusted rows; earlier ones add nothing to it.
    single = {name: summary for name, summary in summaries.items() if name != CONSENSUS}
    for number, shard in enumerate(published):
        _add(single, shard, partial(_said, evidence, read_earlier, number), judged=False)
    return summaries


def _said(
    evidence: Mapping[str, Path],
    read: Callable[[Path, int, pa.ChunkedArray], pa.Table],
    number: int,
    name: str,
    ids: pa.ChunkedArray,
) -> pa.Table:
    return read(evidence[name], number, ids)


def _add(
    summaries: Mapping[str, ScoreSummary],
    shard: ParquetShard,
    read: Callable[[str, pa.ChunkedArray], pa.Table],
    *,
    judged: bool = True,
) -> None:
    """Add the scores of a shard to the summaries of all sanitizers."""
    table = shard.read([ROW_ID, ROW_KEY])
    keys = table.column(ROW_KEY).to_numpy()
    for name, summary in summaries.items():
        said = read(name, table.column(ROW_ID))
        scores, p_values = (floats(said.column(column)) for column in ("score", "p_value"))
        summary.add(scores, p_values, keys, judged=judged)


def _calibrated(summary: ScoreSummary) -> bool:
    """Whether there are p-values: a few trusted rows may be too few for that."""
    return bool(np.isfinite(summary.p_values).any())


def _check(verdicts: pa.Table, ids: pa.ChunkedArray, path: Path) -> None:
    if not verdicts.schema.equals(VERDICT_SCHEMA):
        raise IntegrityError(f"{path} would have the columns {verdicts.column_names}")
    if not verdicts.column(ROW_ID).equals(ids):
        raise IntegrityError(f"{path} would be about other rows than the input")
    known = pc.is_in(verdicts.column("verdict").cast(pa.string()), value_set=pa.array(VERDICTS))
    if not pc.all(known, min_count=0).as_py():
        raise IntegrityError(f"{path} would hold unknown verdicts", expected=", ".join(VERDICTS))
