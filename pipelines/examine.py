"""Examine: fit one sanitizer on a dataset, score it shard by shard, keep the evidence."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.disk import make_folder, write_table
from pipelines.examined import (
    Examined,
    earlier_file,
    evidence_file,
    kept_folder,
    read_file,
    trusted_file,
)
from pipelines.ingest import Ingested
from pipelines.keepsakes import write_keepsake
from pipelines.manifest import tool
from pipelines.progress import SILENT, Progress
from pipelines.quiet import quiet
from pipelines.runners import LOCAL, Runner, check_written, require_folder
from pipelines.salts import salt_digest
from pipelines.seen import looks_at
from pipelines.store import key_of
from sanitizers.core.calibration import ConformalNull
from sanitizers.core.data import Batch, Dataset, Roles
from sanitizers.core.errors import EvidenceError, PlanError, SanitizeError
from sanitizers.core.evidence import examine_batch
from sanitizers.core.keepsake import Keepsake
from sanitizers.core.sanitizer import Influential, Keeping, Recalling, Sanitizer, Scorer, Witness

#: Counts up when evidence files change their meaning.
EVIDENCE_FORMAT = 5


def evidence_key(
    recipe: Sanitizer,
    ingested: Ingested,
    roles: Roles,
    salt: bytes,
    trusted: Ingested | None,
    known: Sequence[Keepsake] = (),
    embeddings: Sequence[str] = (),
) -> str:
    """Name the evidence of a sanitizer by all that decides it.

    Parameters
    ----------
    recipe : Sanitizer
    ingested : Ingested
        Named by the digests of its shards, so also by their ids and their order.
    roles : Roles
    salt : bytes
    trusted : Ingested or None
    known : sequence of Keepsake
        What earlier fits have left; decides only where the sanitizer applies it.
    embeddings : sequence of str
        The keys of the embeddings that are among the features.
    """
    applied = known if isinstance(recipe, Recalling) else ()
    return key_of(
        "evidence",
        EVIDENCE_FORMAT,
        tool().version,
        _recipe_key(recipe),
        ingested.digests,
        asdict(roles),
        salt_digest(salt),
        [shard.sha256 for shard in trusted.shards] if trusted else None,
        [[kept.digest, kept.origin] for kept in applied],
        list(embeddings),
    )


def settings_of(recipe: Witness) -> dict[str, Any]:
    """The settings of a recipe, as JSON can hold them.

    Raises
    ------
    PlanError
        If the recipe is no dataclass, or a setting is no plain value.
    """
    kind: type[Any] = type(recipe)
    if not is_dataclass(kind):
        raise PlanError(
            f"sanitizer {recipe.name!r} is not a dataclass",
            do="make its class a frozen dataclass, so that its settings can be recorded",
        )
    names = [f.name for f in fields(kind)]
    return {name: _plain(getattr(recipe, name), recipe.name, name) for name in names}


def examine(
    recipe: Sanitizer,
    dataset: Dataset,
    folder: Path,
    known: Sequence[Keepsake] = (),
    *,
    runner: Runner = LOCAL,
    progress: Progress = SILENT,
) -> Examined:
    """Fit a sanitizer on a dataset and score every row, and the trusted rows besides.

    A finished folder is loaded. In an unfinished one the shards that are there are kept:
    each was renamed into place whole, and fitting the same recipe on the same rows gives
    the same scorer.

    Parameters
    ----------
    recipe : Sanitizer
    dataset : Dataset
    folder : Path
        Named by `evidence_key`.
    known : sequence of Keepsake
        What earlier fits have left, for a sanitizer that applies it.
    runner : Runner
        Where shards are scored; the fit is here.
    progress : Progress

    Raises
    ------
    EvidenceError
        If the sanitizer raises or breaks a promise.
    """
    dataset = dataset if looks_at(recipe, "image") else dataset.without_images
    files = [evidence_file(folder, number) for number in range(len(dataset.judged))]
    if found := Examined.finished(folder, len(files)):
        return found
    make_folder(folder)
    started = time.monotonic()
    whole, dataset = dataset, dataset.learned
    rows = sum(shard.rows for shard in dataset.judged)
    with progress.stage(f"examine: {recipe.name}", rows, len(files)) as stage:
        with _guarded(recipe.name, "fitting"):
            scorer = _fit(recipe, dataset, known)
        abstained = 0
        earlier = _score_published(recipe, scorer, whole, folder)
        scoring = _Scoring(recipe, scorer, dataset, folder)
        for count, lacking in runner.map(scoring, len(files)):
            abstained += lacking
            stage.advance(count)
        check_written(files)
        trusted, conformal = _score_trusted(recipe, scorer, dataset, folder)
        kept = _keep(scorer, folder)
    return Examined(
        recipe.name,
        folder,
        rows,
        abstained,
        round(time.monotonic() - started, 3),
        dataset.encoder.skipped if looks_at(recipe, "features") else (),
        scorer.influence if isinstance(scorer, Influential) else None,
        trusted,
        conformal,
        kept=kept,
        earlier=earlier,
    ).write(settings_of(recipe))


@dataclass(frozen=True)
class _Scoring:
    """Scores shards by their numbers, in whichever process."""

    recipe: Sanitizer
    scorer: Scorer
    dataset: Dataset
    folder: Path

    def __call__(self, number: int) -> tuple[int, int]:
        """Write the evidence of a shard; how many rows it has, and how many without a score."""
        require_folder(self.folder)
        (batch,) = self.dataset.batches_of([self.dataset.judged[number]])
        table = _score(self.recipe, self.scorer, batch, evidence_file(self.folder, number))
        return len(batch), table.column("score").null_count


def _fit(recipe: Sanitizer, dataset: Dataset, known: Sequence[Keepsake]) -> Scorer:
    if known and isinstance(recipe, Recalling):
        return recipe.fit_knowing(dataset, known)
    return recipe.fit(dataset)


def _keep(scorer: Scorer, folder: Path) -> tuple[tuple[str, str], ...]:
    """Write what a scorer leaves behind; name it by digest and origin, each once."""
    kept = scorer.keepsakes if isinstance(scorer, Keeping) else ()
    if kept:
        make_folder(kept_folder(folder))
    for one in kept:
        write_keepsake(kept_folder(folder), one)
    return tuple({one.digest: one.origin for one in kept}.items())


def _score(recipe: Sanitizer, scorer: Scorer, batch: Batch, path: Path) -> pa.Table:
    """Write the evidence of a batch unless it is there."""
    kept = read_file(path) if path.is_file() else None
    if kept is None or not kept.column("row_id").equals(batch.row_ids.cast(pa.string())):
        with _guarded(recipe.name, "scoring"):
            blank = batch.blank if looks_at(recipe, "features") else None
            kept = examine_batch(recipe.name, scorer, batch, blank)
        write_table(kept, path)
    return kept


def _score_published(recipe: Sanitizer, scorer: Scorer, dataset: Dataset, folder: Path) -> int:
    """Write the evidence of rows of an earlier release, on which lines are drawn too.

    Rows that all came at once could else draw the lines that they are judged by. Those that
    were set aside are among them: a line such as the worst 2 % would else move nearer with
    every release.
    """
    for number, batch in enumerate(dataset.learned.batches_of(dataset.published)):
        _score(recipe, scorer, batch, earlier_file(folder, number))
    return len(dataset.published)


def _score_trusted(
    recipe: Sanitizer, scorer: Scorer, dataset: Dataset, folder: Path
) -> tuple[int, bool]:
    """Write the evidence of the trusted rows; how many there are, and whether p-values are theirs.

    The rows are those that sanitizers are given, `Dataset.trusted_rows`: at most 20,000, in an
    order of their own, whether a file or a column vouches for them.
    """
    batch = dataset.trusted_rows
    if batch is None:
        return 0, False
    table = _score(recipe, scorer, batch, trusted_file(folder))
    if not isinstance(scorer.null, ConformalNull):
        return len(batch), False
    scores = table.column("score").drop_null().to_numpy()
    known = scorer.null.scores
    # A null of other scores than these, such as those of models that saw the rows, cannot
    # say what is surprising of a trusted row. Models round, so equal is not quite equal.
    same = len(scores) == len(known) and np.allclose(
        np.sort(scores), known, rtol=0, atol=0.01 * float(np.std(known)) if len(known) else 0
    )
    return len(batch), bool(same)


@contextmanager
def _guarded(name: str, doing: str) -> Iterator[None]:
    """Turn what a sanitizer raises into one clear line, and keep its libraries quiet."""
    with quiet():
        try:
            yield
        except (SanitizeError, MemoryError):
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:500]
            raise EvidenceError(
                f"sanitizer {name!r} failed while {doing}: {type(error).__name__}: {text}",
                do="nothing is published on partial evidence; leave it out of the plan to go on",
            ) from error


def _recipe_key(recipe: Sanitizer) -> list[object]:
    kind = type(recipe)
    source = inspect.getsourcefile(kind)
    # A third party's sanitizer has no version that we know of; its text stands for it.
    text = sha256(Path(source).read_bytes()).hexdigest() if source else ""
    return [kind.__module__, kind.__qualname__, text, settings_of(recipe)]


def _plain(value: object, sanitizer: str, setting: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(k): _plain(v, sanitizer, setting) for k, v in value.items()}
    if isinstance(value, Sequence):
        return [_plain(v, sanitizer, setting) for v in value]
    if isinstance(value, Set):
        return sorted(_plain(v, sanitizer, setting) for v in value)
    raise PlanError(
        f"setting {setting!r} of sanitizer {sanitizer!r} is of type {type(value).__name__}",
        expected="numbers, texts, and lists or tables of them",
    )
