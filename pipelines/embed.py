"""Embed: a vector for every image, in files beside those of the rows and in their order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.disk import make_folder, read_json, remove, write_json, write_table
from pipelines.embedded import Embedded, embedding_file
from pipelines.ingest import Ingested
from pipelines.manifest import tool
from pipelines.progress import SILENT, Progress, Stage
from pipelines.quiet import quiet
from pipelines.runners import LOCAL, Runner, check_written, require_folder
from pipelines.salts import salt_digest
from pipelines.shards import ParquetShard
from pipelines.store import key_of
from sanitizers.core.data import EMBEDDING, Dataset, Roles, Shard
from sanitizers.core.errors import EvidenceError, IntegrityError, SanitizeError
from sanitizers.core.image_columns import IMAGE, decoded, present
from sanitizers.encoders import Embedder, ImageEncoder, find_device

#: Counts up when embeddings change their meaning.
EMBEDDING_FORMAT = 1
#: Written first: what all of them are computed on.
STARTED = "started.json"
#: Images that are decoded at a time.
PIECE = 1024


def embedding_key(
    encoder: ImageEncoder, fitted_on: Ingested, embedded: Ingested, roles: Roles, salt: bytes
) -> str:
    """Name embeddings by all that decides them, but for what they are computed on.

    Parameters
    ----------
    encoder : ImageEncoder
    fitted_on, embedded : Ingested
        The same, but for trusted rows.
    roles : Roles
    salt : bytes
    """
    kind = type(encoder)
    return key_of(
        "embeddings",
        EMBEDDING_FORMAT,
        tool().version,
        [kind.__module__, kind.__qualname__, asdict(encoder)],  # type: ignore[call-overload]
        [part.digests for part in (fitted_on, embedded)],
        [roles.image, *(getattr(roles, role) for role in sorted(encoder.needs))],
        salt_digest(salt),
    )


def embed(
    encoder: ImageEncoder,
    dataset: Dataset,
    folders: Sequence[Path],
    device: str = "auto",
    *,
    runner: Runner = LOCAL,
    progress: Progress = SILENT,
) -> tuple[Embedded, ...]:
    """Fit an encoder and embed every image, those of the trusted rows besides.

    Finished folders are loaded. In an unfinished one the files that are there are kept: each
    was renamed into place whole, and fitting the same recipe on the same rows gives the same
    embedder.

    Parameters
    ----------
    encoder : ImageEncoder
    dataset : Dataset
    folders : sequence of Path
        For the rows and, where there are any, for the trusted rows of a file of their own;
        each named by `embedding_key`.
    device : {"auto", "cpu", "cuda"}
    runner : Runner
        Where images are embedded; the fit is here.
    progress : Progress

    Raises
    ------
    PlanError
        If the encoder or the device is not to be had.
    EvidenceError
        If the encoder fails.
    """
    parts = list(zip(folders, (dataset.shards, dataset.trusted), strict=False))
    done = [Embedded.finished(folder, len(shards)) for folder, shards in parts]
    if all(done):
        return tuple(part for part in done if part)
    used = _device(device if encoder.accelerated else "cpu", folders)
    count = sum(len(shards) for _, shards in parts)
    rows = sum(shard.rows for _, shards in parts for shard in shards)
    with progress.stage(f"embed: {encoder.name}", rows, count) as stage, quiet():
        try:
            started = time.monotonic()
            embedder = encoder.fit(replace(dataset.learned, trusted=()), used)
            made = []
            for folder, shards in parts:
                embedding = _Embedding(embedder, dataset.roles, tuple(shards), folder)
                made.append(_embed_part(encoder.name, embedding, used, started, stage, runner))
            return tuple(made)
        except (SanitizeError, MemoryError):
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:500]
            raise EvidenceError(
                f"the encoder {encoder.name!r} failed: {type(error).__name__}: {text}",
                do="nothing is published on partial evidence; name another in [encoders] use",
            ) from error


def _device(asked: str, folders: Sequence[Path]) -> str:
    """What to compute on: as before where that is left open, for two devices never mix.

    A net that is trained on CUDA is another one than on the CPU. What was computed on
    another device than is asked for now is removed.
    """
    before = {folder: read_json(folder / STARTED)["device"] for folder in folders if _begun(folder)}
    used = "cpu" if asked == "auto" and set(before.values()) == {"cpu"} else find_device(asked)
    for folder in folders:
        if before.get(folder, used) != used:
            remove(folder)
        make_folder(folder)
        write_json(folder / STARTED, {"device": used})
    return used


def _begun(folder: Path) -> bool:
    return (folder / STARTED).is_file()


def _embed_part(
    encoder: str,
    embedding: _Embedding,
    device: str,
    started: float,
    stage: Stage,
    runner: Runner,
) -> Embedded:
    folder, shards, missing = embedding.folder, embedding.shards, 0
    for count, lacking in runner.map(embedding, len(shards), device=device):
        missing += lacking
        stage.advance(count)
    check_written([embedding_file(folder, number) for number in range(len(shards))])
    rows = sum(shard.rows for shard in shards)
    seconds = round(time.monotonic() - started, 3)
    width = embedding.embedder.width
    return Embedded(encoder, folder, device, rows, missing, width, seconds).write()


@dataclass(frozen=True)
class _Embedding:
    """Embeds the images of shards by their numbers, in whichever process."""

    embedder: Embedder
    roles: Roles
    shards: tuple[Shard, ...]
    folder: Path

    def __call__(self, number: int) -> tuple[int, int]:
        """Write the embeddings of a shard; how many rows it has, and how many without an image."""
        require_folder(self.folder)
        shard, file = self.shards[number], embedding_file(self.folder, number)
        return shard.rows, _embed_shard(self.embedder, self.roles, shard, file)


def _embed_shard(embedder: Embedder, roles: Roles, shard: Shard, path: Path) -> int:
    """Write the embeddings of a shard unless they are there; how many rows have no image."""
    with suppress(IntegrityError):
        if path.is_file() and ParquetShard(path).rows == shard.rows:
            return int(ParquetShard(path).read([EMBEDDING]).column(0).null_count)
    column = str(roles.image)
    table = shard.read([IMAGE if IMAGE in shard.schema.names else column])
    pieces = [table.slice(start, PIECE) for start in range(0, max(len(table), 1), PIECE)]
    vectors = pa.chunked_array([_vectors(embedder, column, piece) for piece in pieces])
    write_table(pa.table({EMBEDDING: vectors}), path)
    return int(vectors.null_count)


def _vectors(embedder: Embedder, column: str, table: pa.Table) -> pa.Array:
    there = present(table, column)
    found = embedder.embed(decoded(table, column, embedder.shape))
    wrong = int((~np.isfinite(found).all(axis=1) & there).sum())
    if wrong:
        raise EvidenceError(f"the encoder gave {wrong:,} vectors that are not finite")
    flat = pa.array(found.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, embedder.width, mask=pa.array(~there))
