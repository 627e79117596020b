"""Triggers that earlier releases have confirmed: kept with a release, read by the next runs."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from pipelines.disk import digest_of, json_object, make_folder, pretty, write_bytes
from pipelines.keepsakes import files_of, read_keepsake, write_keepsake
from pipelines.manifest import MANIFEST, Manifest, read_limited
from pipelines.names import is_name, is_version
from pipelines.plan_parts import OFF
from pipelines.store import Store
from sanitizers.core.errors import IntegrityError, PlanError, did_you_mean
from sanitizers.core.keepsake import TRIGGER, Keepsake

#: The folder of a release that holds its triggers, and the list of them.
TRIGGERS = "triggers"
INDEX = "index.json"
#: Triggers that are applied, at most; the oldest go first.
MOST = 32

_FORMAT = "dataset-sanitizer/triggers/1"
_DIGEST = re.compile(r"[0-9a-f]{32}")
_ORIGIN = re.compile(r"release (\S+) of (\S+)")
_INDEX_BYTES = 64 * 1024


def known_triggers(
    store: Store, dataset: str, source_digest: str, given: str | None
) -> tuple[Keepsake, ...]:
    """The triggers that a run applies before it looks for more.

    Those of the releases before the first one of this very input, and those of a folder that
    is given. Not simply of the last release: one that a run makes must not change what the
    same run says when it is repeated.

    Parameters
    ----------
    store : Store
    dataset : str
    source_digest : str
        Of the input.
    given : str or None
        A release, or a folder of triggers; ``off`` applies none at all.

    Raises
    ------
    IntegrityError
        If any of them is not as it was published.
    """
    if given == OFF:
        return ()
    found: dict[str, Keepsake] = {}
    for release in store.releases(dataset):
        manifest = Manifest.load(release)
        if manifest.source.digest == source_digest:
            break
        for kept in _of_release(release, manifest, found):
            found.setdefault(kept.digest, kept)
    for kept in given_triggers(given):
        found.setdefault(kept.digest, kept)
    return tuple(found.values())[-MOST:]


def given_triggers(given: str | None) -> tuple[Keepsake, ...]:
    """The triggers of a folder that a plan or a command names: a release, or its triggers.

    Raises
    ------
    PlanError
        If there is no such folder, or it holds no triggers.
    IntegrityError
        If it is not as it was written.
    """
    if given in (None, OFF):
        return ()
    folder = Path(str(given))
    if not folder.is_dir():
        near = [p.name for p in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise PlanError(f"no folder of triggers {str(given)!r}", do=did_you_mean(folder.name, near))
    if (folder / MANIFEST).is_file():
        found = tuple(_of_release(folder, Manifest.load(folder), ()))
    else:
        found = tuple(_of_folder(folder, ()))
    if not found:
        raise PlanError(f"{given} holds no triggers", do="name a release that confirmed some")
    return found


def write_triggers(folder: Path, kept: Sequence[Keepsake], origin: str) -> list[str]:
    """Write the triggers of a release; return the names of the files.

    Parameters
    ----------
    folder : Path
    kept : sequence of Keepsake
        Those that the run applied, and those that it confirmed.
    origin : str
        The release, which is the origin of the new ones.
    """
    make_folder(folder)
    # As many as a reader takes; the oldest stand first.
    kept = kept[-MOST:]
    listed = {one.digest: one.origin or origin for one in kept}
    for one in kept:
        write_keepsake(folder, one)
    write_bytes(folder / INDEX, pretty({"format": _FORMAT, "triggers": listed}))
    return sorted([INDEX, *(name for digest in listed for name in files_of(digest))])


def _of_release(release: Path, manifest: Manifest, have: Container[str]) -> Iterator[Keepsake]:
    """The triggers of a release, each file held against the manifest."""
    files = [file for file in manifest.files if file.path.startswith(f"{TRIGGERS}/")]
    for file in files:
        path = release / file.path
        if path.is_symlink() or not path.is_file() or digest_of(path) != file.sha256:
            raise IntegrityError(
                f"{path} is not as it was published", do=f"run 'sanitize verify {release}'"
            )
    if files:
        yield from _of_folder(release / TRIGGERS, have)


def _of_folder(folder: Path, have: Container[str]) -> Iterator[Keepsake]:
    path = folder / INDEX
    listed = _listed(path)
    expected = {INDEX, *(name for digest in listed for name in files_of(digest))}
    more = sorted(set(os.listdir(folder)) - expected)
    if more:
        raise IntegrityError(f"{folder / more[0]} is not listed in {path}")
    for digest in (digest for digest in listed if digest not in have):
        kept = read_keepsake(folder, digest, listed[digest])
        if kept.kind != TRIGGER:
            raise IntegrityError(f"{folder / digest} is a {kept.kind}, and no {TRIGGER}")
        yield kept


def _listed(path: Path) -> dict[str, str]:
    if path.is_file() and path.stat().st_size > _INDEX_BYTES:
        raise IntegrityError(f"{path} is larger than {_INDEX_BYTES // 1024} KiB")
    value = json_object(read_limited(path), path)
    listed = value.get("triggers")
    if value.get("format") != _FORMAT or not isinstance(listed, dict):
        raise IntegrityError(f"{path} is malformed", expected=f"the format {_FORMAT!r}")
    if len(listed) > MOST:
        raise IntegrityError(f"{path} lists {len(listed)} triggers", expected=f"at most {MOST}")
    for digest, origin in listed.items():
        said = _ORIGIN.fullmatch(origin) if isinstance(origin, str) else None
        known = said is not None and is_version(said[1]) and is_name(said[2])
        if not known or not _DIGEST.fullmatch(digest):
            raise IntegrityError(f"{path} lists {digest!r} from {origin!r}")
    return listed
