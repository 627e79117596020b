"""Risks: look once at columns and batches, keep what was found, and name it by what decides it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.disk import make_folder, write_json
from pipelines.ingest import Ingested
from pipelines.manifest import Manifest, parse_json, read_limited, tool
from pipelines.progress import SILENT, Progress
from pipelines.quiet import quiet
from pipelines.salts import salt_digest
from pipelines.shards import ParquetShard
from pipelines.split import SPLITS
from pipelines.store import Store, key_of
from sanitizers.core.data import Dataset, Roles
from sanitizers.core.errors import EvidenceError, SanitizeError
from sanitizers.core.verdicts import KEEP
from sanitizers.risks import Finding, RiskSettings, examine_risks

#: Counts up when findings change their meaning.
FORMAT = 1
MARKER = "risks.json"


@dataclass(frozen=True)
class Looked:
    """What was looked for, and what was found.

    Parameters
    ----------
    use : tuple of str
        The risks that were looked for.
    reference : str or None
        The release that new rows were held against.
    seconds : float
    findings : tuple of Finding
        The gravest first.
    """

    use: tuple[str, ...]
    reference: str | None
    seconds: float
    findings: tuple[Finding, ...]

    @classmethod
    def load(cls, folder: Path) -> Looked:
        """Read what was found.

        Raises
        ------
        IntegrityError
            If it is missing or malformed.
        """
        return parse_json(cls, read_limited(folder / MARKER), folder / MARKER)


@dataclass(frozen=True)
class Reference:
    """The clean rows of an earlier release.

    Parameters
    ----------
    version : str
    files : mapping of Path to str
        Each with its digest.
    """

    version: str
    files: Mapping[Path, str]

    @classmethod
    def before(cls, store: Store, name: str, source_digest: str) -> Reference | None:
        """Find the release before the first one of this very input; None where there is none.

        Not simply the last one: the release that a run makes must not be what the same run
        compares with when it is repeated, or no run would ever find its work done.
        """
        last: tuple[Path, Manifest] | None = None
        for release in store.releases(name):
            manifest = Manifest.load(release)
            if manifest.source.digest == source_digest:
                break
            last = release, manifest
        if last is None:
            return None
        manifest = last[1]
        release = store.release(name, manifest.version)
        clean = [f for f in manifest.files if f.path.startswith(f"{SPLITS[KEEP]}/")]
        return cls(manifest.version, {release / f.path: f.sha256 for f in clean})

    def dataset(self, roles: Roles, salt: bytes) -> Dataset:
        """See the rows through roles."""
        return Dataset(tuple(ParquetShard(path) for path in self.files), roles, salt)


def risks_key(
    settings: RiskSettings,
    ingested: Ingested,
    roles: Roles,
    salt: bytes,
    reference: Reference | None,
    embeddings: Sequence[str] = (),
) -> str:
    """Name the findings by all that decides them."""
    return key_of(
        "risks",
        FORMAT,
        tool().version,
        asdict(settings),
        ingested.digests,
        asdict(roles),
        salt_digest(salt),
        list(reference.files.values()) if reference else None,
        list(embeddings),
    )


def look(
    settings: RiskSettings,
    dataset: Dataset,
    reference: Reference | None,
    folder: Path,
    *,
    progress: Progress = SILENT,
) -> Looked:
    """Look for risks of columns and batches; what is finished is loaded.

    Parameters
    ----------
    settings : RiskSettings
    dataset : Dataset
    reference : Reference or None
    folder : Path
        Named by `risks_key`.
    progress : Progress

    Raises
    ------
    EvidenceError
        If an examination fails.
    """
    if (folder / MARKER).is_file():
        return Looked.load(folder)
    make_folder(folder)
    dataset = dataset.without_images
    started = time.monotonic()
    other = reference.dataset(dataset.roles, dataset.salt) if reference else None
    with progress.stage("risks", dataset.rows, 1) as stage, quiet():
        try:
            found = examine_risks(dataset, settings, other)
        except (SanitizeError, MemoryError):
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:500]
            raise EvidenceError(
                f"the search for risks failed: {type(error).__name__}: {text}",
                do='nothing is published on a part of the evidence; [risks] use = "off" goes on',
            ) from error
        stage.advance(dataset.rows)
    seconds = round(time.monotonic() - started, 3)
    version = reference.version if reference else None
    write_json(folder / MARKER, asdict(Looked(settings.use, version, seconds, found)))
    return Looked.load(folder)
