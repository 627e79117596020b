"""Sealing: what proves a release is written last; the manifest, and its signature over it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipelines.disk import canonical, pretty, write_bytes
from pipelines.manifest import MANIFEST, Manifest
from pipelines.proofs import CROISSANT, LINEAGE, STATEMENT, croissant, lineage, statement
from pipelines.shards import ParquetShard
from pipelines.signing import key_of_store, sign
from pipelines.split import SPLITS, copy_bytes
from pipelines.store import Store
from pipelines.threats import threats
from sanitizers.core.verdicts import KEEP

#: Files that every seal makes anew.
SEALS = frozenset({CROISSANT, STATEMENT, LINEAGE})


def seal(store: Store, staging: Path, manifest: Manifest) -> Manifest:
    """Write what proves a release: its description, statement, manifest and signature.

    Parameters
    ----------
    store : Store
    staging : Path
        The release in the making, all its other files written.
    manifest : Manifest
        Of these files.
    """
    key = key_of_store(store.root)
    names = [check.sanitizer for check in manifest.checks]
    names += [finding.risk for finding in manifest.findings]
    manifest = replace(manifest, threats=threats(names), key=key.id if key else None)
    clean = next(f.path for f in manifest.files if f.path.startswith(f"{SPLITS[KEEP]}/"))
    schema = ParquetShard(staging / clean).schema
    files = [
        copy_bytes(pretty(croissant(manifest, schema)), staging, CROISSANT),
        copy_bytes(pretty(statement(manifest)), staging, STATEMENT),
        copy_bytes(canonical(lineage(manifest, schema)) + b"\n", staging, LINEAGE),
    ]
    every = sorted((*manifest.files, *files), key=lambda file: file.path)
    manifest = replace(manifest, files=tuple(every))
    write_bytes(staging / MANIFEST, manifest.dump())
    sign(store, staging)
    return manifest
