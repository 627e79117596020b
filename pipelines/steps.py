"""Each stage applied to a job: the stage's own function, and where its work is to lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pipelines.alarms import raise_alarms
from pipelines.base import Base, runs_until
from pipelines.combine import combine
from pipelines.decide import Decision, checks, decide
from pipelines.embed import embed
from pipelines.embedded import Embedded
from pipelines.examine import examine
from pipelines.examined import Examined
from pipelines.growing import join
from pipelines.ingest import Ingested, ingest
from pipelines.job import Job
from pipelines.manifest import Manifest, NotRun, Run, tool
from pipelines.metrics import Metrics
from pipelines.occasions import Occasion, earlier_shares, occasions
from pipelines.outcome import Outcome
from pipelines.progress import Progress
from pipelines.publish import publish
from pipelines.reading import Like
from pipelines.recipes import recipes
from pipelines.report import write_report
from pipelines.report_facts import Previous, SanitizerCard
from pipelines.risks import Looked, look
from pipelines.runners import LOCAL, Runner
from pipelines.seen import looked_at
from pipelines.timing import Timed
from pipelines.vouching import vouch
from pipelines.work import Work
from sanitizers.core.consensus import CONSENSUS
from sanitizers.core.errors import InputError, SanitizeError
from sanitizers.risks import PLANTED


def ingest_inputs(job: Job, progress: Progress) -> dict[str, str]:
    """Read the data and the trusted rows.

    Returns
    -------
    dict of str to str
        The keys of what was read, which is all that the other stages need.

    Raises
    ------
    InputError
        If a file changes while it is read.
    """
    keys = job.input_keys()
    dataset = job.plan.dataset
    if dataset.grow:
        files = [file.path for file in job.new]
        names = [file.name for file in job.new]
        _ingest(job, files, job.data_key, progress, names, job.like)
        if job.base is not None:
            _join(job, job.base, keys["data"], progress)
    else:
        _ingest(job, job.source, keys["data"], progress)
    if job.trusted and job.trusted_key:
        _ingest(job, job.trusted, job.trusted_key, progress)
    if job.kept:
        _vouch(job, keys, progress)
    return keys


def _ingest(
    job: Job,
    source: str | list[Path],
    key: str,
    progress: Progress,
    names: list[str] | None = None,
    like: Like | None = None,
) -> None:
    folder = job.store.inputs(job.name, key)
    done = ingest(
        source,
        folder,
        salt=job.store.salt,
        id_column=job.plan.roles.id,
        image_column=job.plan.roles.image,
        names=names,
        like=like,
        progress=progress,
    )
    if job.input_key([(f.path, f.sha256, f.bytes) for f in done.files], like) != key:
        changed = source if isinstance(source, str) else job.source
        raise InputError(f"{changed} changed while it was read", do="run the command again")
    job.store.give(folder)


def _join(job: Job, base: Base, key: str, progress: Progress) -> None:
    plain = Ingested.load(job.store.inputs(job.name, job.data_key))
    folder = job.store.inputs(job.name, key)
    join(plain, base, folder, job.store.salt, progress=progress)
    job.store.give(folder)


def _vouch(job: Job, keys: Mapping[str, str], progress: Progress) -> None:
    """Put the rows that people kept in audits beside those of the file that is trusted."""
    data = Ingested.load(job.store.inputs(job.name, keys["data"]))
    given = None
    if job.trusted_key:
        given = Ingested.load(job.store.inputs(job.name, job.trusted_key))
    column = Work(job, keys, data, None).roles.trusted
    folder = job.store.inputs(job.name, keys["trusted"])
    done = vouch(data, given, job.kept, _earlier(job, data), column, folder)
    lost = f"; {done.lost:,} are not there any more as they were seen" if done.lost else ""
    progress.note(f"trusted: {done.audited:,} rows that people kept in an audit{lost}")
    job.store.give(folder)


def _earlier(job: Job, data: Ingested) -> Iterator[Ingested]:
    """The inputs whose rows the release holds that the data join, the latest first."""
    if data.onto is not None:
        manifest = Base.load(job.store, job.name, data.onto).manifest
        for run in runs_until(job.store, Run.load(job.store.run(job.name, manifest.run))):
            yield Ingested.load(job.store.inputs(job.name, run.input))


def embed_images(
    work: Work, device: str, progress: Progress, runner: Runner = LOCAL
) -> tuple[Embedded, ...]:
    """Make features of the images, where somebody looks at them."""
    if work.made is None:
        return ()
    made = work.made
    encoder, plain, folders = made.encoder, work.plain, made.folders
    done = embed(encoder, plain, folders, device, runner=runner, progress=progress)
    for folder in folders:
        work.job.store.give(folder)
    return done


def examine_with(work: Work, name: str, progress: Progress, runner: Runner = LOCAL) -> Examined:
    """Let one sanitizer score every row."""
    recipe = work.chosen.run[name]
    dataset = work.dataset_for(recipe)
    folder = work.evidence[name]
    done = examine(recipe, dataset, folder, work.known, runner=runner, progress=progress)
    work.job.store.give(folder)
    return done


def look_for_risks(work: Work, progress: Progress) -> Looked:
    """Look for risks of columns and batches."""
    if work.risks_key is None:
        return work.looked
    folder = work.job.store.evidence(work.job.name, work.risks_key)
    settings = work.job.plan.risk_settings()
    done = look(settings, work.dataset.new, work.reference, folder, progress=progress)
    work.job.store.give(folder)
    return done


def decide_all(work: Work, progress: Progress) -> Decision:
    """Judge every row, and write down what was run.

    Returns
    -------
    Decision
        Held too where the plan is to fail on what was found.
    """
    if CONSENSUS in work.evidence:
        single = {name: work.evidence[name] for name in work.chosen.run}
        combine(work.data, single, work.evidence[CONSENSUS], progress=progress)
        work.job.store.give(work.evidence[CONSENSUS])
    decision = decide(
        work.data,
        work.roles,
        work.evidence,
        work.job.plan.core_policy(),
        work.witnesses,
        work.folder,
        work.trusted,
        progress=progress,
    )
    if work.watched:
        salt = work.job.store.salt
        raise_alarms(work.data, work.roles, salt, work.folder, progress=progress)
    skipped = {name: Examined.load(folder).skipped for name, folder in work.evidence.items()}
    record = Run(
        dataset=work.job.name,
        key=work.key,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        input=work.keys["data"],
        evidence=work.evidence_keys,
        plan=work.plan,
        checks=checks(decision, work.witnesses, skipped),
        not_run=tuple(NotRun(name, why) for name, why in work.chosen.not_run),
        trusted=work.keys.get("trusted"),
        findings=work.findings,
        promise=work.promise,
        embedding=work.made.record() if work.made else None,
        audited=work.audited,
    )
    record.write(work.folder)
    return work.decision


def report_held(work: Work, progress: Progress) -> Outcome:
    """Write the report of a run that is held, and publish nothing."""
    with progress.stage("report", work.data.rows) as stage:
        _report(work, None, Run.load(work.folder).created)
        stage.advance(work.data.rows)
    work.job.store.give(work.folder)
    return work.outcome(None)


def publish_rows(work: Work, progress: Progress) -> Outcome:
    """Publish the verdicts, with a report that names the version."""

    def report(version: str, created: str) -> Path:
        with progress.stage("report", work.data.rows) as stage:
            path = _report(work, version, created)
            stage.advance(work.data.rows)
        # Whoever sees the release finds what it came of.
        work.job.store.give(work.folder)
        return path

    run = Run.load(work.folder)
    done = publish(work.job.store, run, work.data, work.decision, report, progress=progress)
    return work.outcome(done.folder, already=done.already)


def _report(work: Work, version: str | None, created: str) -> Path:
    store, name = work.job.store, work.job.name
    kinds = {**recipes(work.job.plan), **work.witnesses}
    before = store.releases(name)
    previous = Previous(before[-1].name, Manifest.load(before[-1]).counts) if before else None
    return write_report(
        work.report,
        dataset=name,
        ingested=work.data,
        roles=work.roles,
        roles_notes=work.inferred.notes,
        decision=work.decision,
        evidence=work.evidence,
        runs_folder=work.folder,
        plan=work.plan,
        not_run=work.chosen.not_run,
        cards={n: SanitizerCard.of(kind) for n, kind in kinds.items()},
        trusted_rows=work.trusted_rows,
        audited=work.audited,
        version=version,
        created=created,
        run=work.key,
        tool_version=tool().version,
        release=store.place_of(name, version) if version else "",
        reasons={n: recipe.reason for n, recipe in work.witnesses.items()},
        needs={n: looked_at(recipe, work.roles, work.made) for n, recipe in kinds.items()},
        skipped={n: Examined.load(folder).skipped for n, folder in work.evidence.items()},
        previous=previous,
        looked=replace(work.looked, findings=work.findings, use=_looked_for(work)),
        alarms=work.alarms,
        promise=work.promise,
    )


def _looked_for(work: Work) -> tuple[str, ...]:
    """The risks that were looked for; planted groups only where a sanitizer tells of them."""
    return tuple(name for name in work.looked.use if name != PLANTED or work.suspects)


def measure(work: Work, outcome: Outcome, timed: Timed) -> Metrics:
    """Write down what the run came to, in numbers; a disk that refuses is told, no more."""
    metrics = Metrics.of(work, outcome, timed.seconds, timed.whole_seconds)
    try:
        metrics.write(work.job.store)
        work.job.store.give(work.folder)
    except SanitizeError as error:
        timed.note(f"{work.job.name}: the metrics were not written: {error}")
    return metrics


def worth_telling(work: Work, metrics: Metrics) -> tuple[Occasion, ...]:
    """What people may want to be told of the run."""
    earlier = earlier_shares(work.job.store, work.job.name, work.key)
    return occasions(metrics, earlier)
