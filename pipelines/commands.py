"""What each command does, once its words are understood."""

from __future__ import annotations

import json
import time
import tomllib
from argparse import Namespace
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.names import name_from
from pipelines.plan import Plan, store_root
from pipelines.store import Store
from pipelines.terminal import StderrConsole, answer, plain
from sanitizers.core.errors import IntegrityError, PlanError

if TYPE_CHECKING:
    from pipelines.job import Job
    from pipelines.outcome import Outcome

#: Exit status of a run that was held.
HELD = 1

_ROLES = ("label", "target", "text", "image", "embedding", "id", "time", "source")
#: What `--trusted` takes for a file though there is none: everything else is a column.
_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".feather", ".arrow", ".npz", ".gz")


def version() -> int:
    """Print the version."""
    from pipelines.manifest import tool

    answer(f"{tool().name} {tool().version}")
    return 0


def run(said: Namespace) -> int:
    """Sanitize a dataset."""
    from pipelines.job import Job
    from pipelines.known import given_triggers
    from pipelines.readers.remote import is_url
    from pipelines.recipes import recipes
    from pipelines.runners import check_runner
    from pipelines.seen import check_encoder
    from pipelines.summary import nothing_to_do, summarise
    from pipelines.take import Take

    started = time.monotonic()
    plan = plan_of(said)
    recipes(plan)
    given_triggers(plan.dataset.triggers)
    check_encoder(plan, said.device)
    check_runner(said.runner)
    console = StderrConsole()
    console.quiet = said.quiet
    if said.full and not plan.dataset.grow:
        raise PlanError("--full is for a dataset that grows", do="leave it out: all is scanned")
    job = Job(plan, Store.open(plan.store, _salt(said.salt)), Take(full=said.full))
    for url in filter(is_url, (plan.dataset.source, plan.dataset.trusted or "")):
        console.print(plain(f"{job.name}: fetching what is new at {url}"), soft_wrap=True)
    before = job.store.releases(job.name)
    outcome = job.published()
    if outcome is not None:
        nothing_to_do(console, outcome)
    else:
        outcome = _alone(job, before, console, said)
        summarise(console, outcome, time.monotonic() - started)
    if said.json:
        answer(json.dumps(outcome.to_json()))
    return HELD if outcome.held else 0


def check(said: Namespace) -> int:
    """Say what is wrong with a plan, before any data is read."""
    from pipelines.readers.remote import count_files

    plan = Plan.read(Path(said.plan))
    made = _check_plan(plan)
    # Where data are awaited, none need be there yet.
    source = plan.dataset.source
    files = count_files(source, awaited=plan.arrivals is not None)
    answer(f"{said.plan}: good; {files} input file(s), sanitizers: {', '.join(made)}")
    return 0


def status(said: Namespace) -> int:
    """Say how the datasets of a store stand."""
    from pipelines.status import states
    from pipelines.status_text import text

    store = Store.open(store_root(said.store), create=False)
    found = states(store, said.dataset)
    if said.json:
        told = {"store": store.address, "datasets": [state.to_json() for state in found]}
        answer(json.dumps(told))
    else:
        answer(text(found))
    return 0


def serve(said: Namespace) -> int:
    """Run plans by the clock and when data arrive."""
    from pipelines.runners import check_runner
    from pipelines.serving import serve

    check_runner(said.runner)
    # Runs start from the same paths, wherever they are started.
    plans = [Plan.read(Path(path).absolute()) for path in said.plans]
    for plan in plans:
        _check_plan(plan)
    serve(plans, port=said.port, runner=said.runner, verbose=said.verbose)
    return 0


def verify(said: Namespace) -> int:
    """Check a release against its manifest."""
    from pipelines.carrying import release_at
    from pipelines.verify import verify

    with release_at(said.release) as folder:
        found = verify(folder, Path(said.key) if said.key else None, said.source)
    for problem in found.problems:
        answer(plain(problem))
    if not found.ok:
        raise IntegrityError(
            f"{said.release} is not as it was published: {len(found.problems)} problem(s)",
            do="take the release from its source again, or publish a new one",
        )
    signed = f"; {found.signed}" if found.signed else ""
    held = f"; it holds every row of {said.source} once, and no other" if said.source else ""
    answer(plain(f"{said.release}: good; {found.files} files, {found.rows:,} rows{signed}{held}"))
    return 0


def explain(said: Namespace) -> int:
    """Say everything that is known of one row."""
    from pipelines.explain import explain

    store = Store.open(store_root(said.store), create=False)
    known = explain(store, said.dataset, said.row_id, said.release)
    if said.json:
        answer(json.dumps(known.to_json()))
    else:
        answer("\n".join(known.lines()))
    return 0


def attack(said: Namespace) -> int:
    """Poison a copy of a file, and keep the truth."""
    from pipelines.attack import attack
    from sanitizers.poisons import poison

    recipe = poison(said.poison, _settings(said.set or []))
    roles = _said(said, *_ROLES) | _lists(said, "features", "ignore")
    given = Plan.make({"dataset": {"name": "any", "source": "any"}, "roles": roles}).roles
    out = Path(said.out) if said.out else None
    done = attack(said.data, recipe, said.rate, said.seed, given, out, force=said.force)
    console = StderrConsole()
    for note in done.notes:
        console.print(plain(note), soft_wrap=True)
    if said.json:
        answer(json.dumps(done.to_json()))
    else:
        share = f"{done.poison:,} of {done.rows:,} rows are poison"
        answer(plain(f"{done.file}: {share} ({recipe.name}); the truth: {done.truth}"))
    return 0


def score(said: Namespace) -> int:
    """Compare a release with the truth about its input."""
    from pipelines.score import score_release
    from pipelines.score_text import lines

    scored = score_release(Path(said.release), Path(said.truth), said.before)
    answer(json.dumps(scored.to_json()) if said.json else "\n".join(map(plain, lines(scored))))
    return 0


def list_recipes(said: Namespace) -> int:
    """List the sanitizers and the poisons, one line each."""
    from pipelines.report_facts import SanitizerCard
    from sanitizers.catalog import SANITIZERS
    from sanitizers.poisons import POISONS

    for what, kinds in (("sanitizer", SANITIZERS), ("poison", POISONS)):
        for name, kind in kinds.items():
            trusted = ["trusted rows"] if getattr(kind, "needs_trusted", False) else []
            needs = ", ".join([*sorted(kind.needs), *trusted]) or "nothing"
            answer(f"{what:<10} {name:<20} needs {needs:<29} {SanitizerCard.of(kind).summary}")
    return 0


def plan_of(said: Namespace) -> Plan:
    """Make the plan that the words of ``run`` mean.

    Raises
    ------
    PlanError
        If a word or the plan file is wrong.
    """
    over = {
        "dataset": _said(said, "name", "store", "triggers", "grow"),
        "roles": _said(said, *_ROLES) | _lists(said, "features", "ignore"),
        "policy": _said(said, "clean_loss", "budget") | _lists(said, "fail_on"),
        "sanitizers": _lists(said, "use"),
    }
    if said.encoder is not None:
        over["encoders"] = {"use": said.encoder}
    if said.trusted is not None:
        part = "dataset" if _is_data(said.trusted) else "roles"
        over[part]["trusted"] = said.trusted
    if said.data.endswith(".toml"):
        return Plan.read(Path(said.data), over)
    over["dataset"] = {"name": name_from(said.data), "source": said.data} | over["dataset"]
    return Plan.make(over)


def _check_plan(plan: Plan) -> list[str]:
    """Refuse what can be refused of a plan before its data is read; return its sanitizers."""
    from pipelines.known import given_triggers
    from pipelines.readers.remote import count_files
    from pipelines.recipes import recipes
    from pipelines.seen import check_encoder

    made = recipes(plan)
    check_encoder(plan)
    if plan.dataset.trusted:
        count_files(plan.dataset.trusted)
    given_triggers(plan.dataset.triggers)
    return list(made)


def _alone(job: Job, before: tuple[Path, ...], console: StderrConsole, said: Namespace) -> Outcome:
    """Run the flow as the only run of the dataset, on what the others have published.

    Parameters
    ----------
    job : Job
    before : tuple of Path
        The releases that the job has been looked up in.
    console : StderrConsole
    said : Namespace
    """

    def tell(line: str) -> None:
        console.print(plain(line), soft_wrap=True)

    with job.store.at_work(job.name, tell=tell, wait=said.wait) as waited:
        if not waited and job.store.releases(job.name) == before:
            return _flow(job, console, said)
        # Another run was at work meanwhile: it may have published just this, and files change.
        anew = replace(job)
        return anew.published() or _flow(anew, console, said)


def _flow(job: Job, console: StderrConsole, said: Namespace) -> Outcome:
    from pipelines import prefect_settings
    from pipelines.prefect_server import single_server
    from pipelines.progress import show

    alone = prefect_settings.prepare(job.store.root)
    # The server starts while Prefect is imported here.
    with (
        show(console, quiet=said.quiet) as progress,
        single_server() if alone else nullcontext() as server,
    ):
        progress.note(f"{job.name}: starting")
        from pipelines import flows

        return flows.run(
            job,
            progress,
            console,
            server,
            device=said.device,
            runner=said.runner,
            verbose=said.verbose,
        )


def _said(said: Namespace, *names: str) -> dict[str, object]:
    values = {name: getattr(said, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _lists(said: Namespace, *names: str) -> dict[str, object]:
    """Options whose values are joined by commas, or which may be said more than once."""
    out: dict[str, object] = {}
    for name in names:
        value: str | list[str] | None = getattr(said, name)
        if value is not None:
            words = [value] if isinstance(value, str) else value
            out[name] = [part.strip() for word in words for part in word.split(",")]
    return out


def _settings(words: list[str]) -> dict[str, object]:
    """Settings of a poison: numbers and truth values as in TOML, all else a text."""
    out: dict[str, object] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise PlanError(f"--set {word!r}", expected="KEY=VALUE")
        try:
            out[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            out[key] = value
    return out


def _is_data(text: str) -> bool:
    return Path(text).exists() or "/" in text or text.endswith(_ENDINGS)


def _salt(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise PlanError("--salt is not hex", expected="32 to 128 hex characters") from None
