"""Verify: whether a release is, to the byte, what was published."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.conserved import lost_and_invented
from pipelines.disk import digest_of
from pipelines.manifest import MANIFEST, SIGNATURE, FileEntry, Manifest
from pipelines.row_ids import repeated
from pipelines.rulings import Rulings
from pipelines.shards import ParquetShard
from pipelines.signing import Key, check_signature, key_of_store
from pipelines.split import INTERNAL, RULINGS, SPLITS, UNREADABLE
from sanitizers.core.data import ROW_ID
from sanitizers.core.errors import IntegrityError, PlanError, StoreError, did_you_mean
from sanitizers.core.verdicts import KEEP, QUARANTINE, REVIEW


@dataclass(frozen=True)
class Verification:
    """What came of verifying a release.

    Parameters
    ----------
    ok : bool
    problems : tuple of str
        One line each; empty where all is well.
    files : int
        Files that were read, the manifest among them.
    rows : int
        Rows that the manifest speaks of.
    signed : str
        By which key, in words, and whether that was checked; empty where nobody signed.
    """

    ok: bool
    problems: tuple[str, ...]
    files: int
    rows: int
    signed: str = ""


def verify(release: Path, key: Path | None = None, source: str | None = None) -> Verification:
    """Compare a release with its manifest: files, bytes, rows, ids, columns, signature.

    Parameters
    ----------
    release : Path
        The folder of the release.
    key : Path, optional
        The public key that it has to be signed with; by default that of the store in which
        it lies. Of a signed release elsewhere it is only told that nobody checked.
    source : str, optional
        The input, to be read again: then its rows are compared too, value for value.

    Raises
    ------
    PlanError
        If there is no such folder, or no such key.
    InputError
        If the input cannot be read.
    """
    wanted = Key.read(key) if key else None
    if not release.is_dir():
        near = [p.name for p in release.parent.iterdir()] if release.parent.is_dir() else []
        raise PlanError(f"no release {str(release)!r}", do=did_you_mean(release.name, near))
    try:
        manifest = Manifest.load(release)
    except (IntegrityError, StoreError) as error:
        return Verification(False, (str(error),), 0, 0)
    store = _store_of(release)
    found = wanted or (key_of_store(store) if store else None)
    problems = [*_tree(release, manifest), *_changed(release, manifest)]
    problems += _signature(release, manifest, found, asked=wanted is not None)
    if not problems:
        # What a file holds is looked at only when it is the file that was published.
        problems = [*_counts(manifest), *_contents(release, manifest), *_log(release, manifest)]
    if not problems and source is not None:
        problems = list(lost_and_invented(release, manifest, source))
    files = len(manifest.files) + 1
    signed = "" if manifest.key is None else f"signed by the key {manifest.key}"
    if signed and found is None:
        signed += ", which nobody checked: name its file with --key"
    return Verification(not problems, tuple(problems), files, manifest.counts.rows, signed)


def _store_of(release: Path) -> Path | None:
    """The root of the store in which a release lies; None where it lies elsewhere."""
    whole = release.absolute()
    # STORE/DATASET/releases/VERSION
    root = whole.parent.parent.parent
    inside = whole.parent.name == "releases" and (root / "salt").is_file()
    return root if inside else None


def _signature(release: Path, manifest: Manifest, key: Key | None, *, asked: bool) -> Iterator[str]:
    if manifest.key is None:
        if asked:
            yield f"{MANIFEST} was not signed"
        if (release / SIGNATURE).exists():
            yield f"{SIGNATURE} is there, and {MANIFEST} says that nobody signed it"
    elif key is None:
        if not (release / SIGNATURE).is_file():
            yield f"{SIGNATURE} is missing"
    elif wrong := check_signature(release, key):
        yield wrong


def _log(release: Path, manifest: Manifest) -> Iterator[str]:
    """Whether the copy of the log of rulings is whole, and the one that was obeyed."""
    if manifest.ruled is None:
        return
    try:
        digests = [ruling.digest for ruling in Rulings(release / RULINGS).read()]
    except IntegrityError as error:
        yield str(error)
        return
    if digests[-1:] != [manifest.ruled.head]:
        yield f"{RULINGS} does not end with the ruling that {MANIFEST} names"


def _tree(release: Path, manifest: Manifest) -> Iterator[str]:
    """What is there and should not be."""
    expected = {file.path for file in manifest.files} | {MANIFEST}
    expected |= {SIGNATURE} if manifest.key else set()
    folders = {parent for path in expected for parent in _parents(path)}
    for path, kind in _walk(release, ""):
        if stat.S_ISLNK(kind):
            yield f"{path} is a symbolic link"
        elif stat.S_ISDIR(kind):
            if path not in folders:
                yield f"{path}/ is not in the manifest"
        elif not stat.S_ISREG(kind):
            yield f"{path} is not a regular file"
        elif path not in expected:
            yield f"{path} is not in the manifest"


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = prefix + entry.name
        kind = entry.stat(follow_symlinks=False).st_mode
        yield path, kind
        if stat.S_ISDIR(kind):
            yield from _walk(folder / entry.name, f"{path}/")


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _changed(release: Path, manifest: Manifest) -> Iterator[str]:
    """What should be there and is not, or is not as it was."""
    for file in manifest.files:
        path = release / file.path
        if not _is_plain(release, file.path):
            if not os.path.lexists(path):
                yield f"{file.path} is missing"
        elif path.stat().st_size != file.bytes:
            yield f"{file.path} has {path.stat().st_size:,} bytes, expected {file.bytes:,}"
        elif digest_of(path) != file.sha256:
            yield f"{file.path} was changed: its SHA-256 is not the one in the manifest"


def _is_plain(release: Path, path: str) -> bool:
    """True for a regular file that is reached through real folders only."""
    links = (release / parent for parent in _parents(path))
    if any(folder.is_symlink() for folder in links) or (release / path).is_symlink():
        return False
    return (release / path).is_file()


def _counts(manifest: Manifest) -> Iterator[str]:
    counts = manifest.counts
    total = counts.keep + counts.review + counts.quarantine
    if total != counts.rows:
        yield f"the manifest counts {counts.rows:,} rows, and {total:,} by verdict"
    read = sum(file.rows + file.unreadable for file in manifest.source.files)
    if read != counts.rows:
        yield f"the source has {read:,} rows, and the release {counts.rows:,}"
    for verdict, said in (
        (KEEP, counts.keep),
        (REVIEW, counts.review),
        (QUARANTINE, counts.quarantine),
    ):
        listed = sum(file.rows or 0 for file in _files(manifest, verdict))
        if listed != said:
            yield f"{SPLITS[verdict]} has {listed:,} rows, and the manifest counts {said:,}"
    unreadable = sum(f.rows or 0 for f in manifest.files if f.path == UNREADABLE)
    if unreadable != counts.unreadable:
        yield f"{UNREADABLE} has {unreadable:,} rows, expected {counts.unreadable:,}"


def _contents(release: Path, manifest: Manifest) -> Iterator[str]:
    """Whether files hold the rows and columns that they should."""
    try:
        wrong = [p for verdict in SPLITS for p in _columns(release, _files(manifest, verdict))]
        if wrong:
            yield from wrong
            return
        files = [release / f.path for verdict in SPLITS for f in _files(manifest, verdict)]
        with tempfile.TemporaryDirectory(prefix="sanitize-verify-") as spill:
            count, example = repeated(files, Path(spill))
    except (IntegrityError, StoreError) as error:
        yield str(error)
        return
    if count:
        yield f"{count:,} row ids occur more than once, for instance {example!r}"


def _columns(release: Path, files: list[FileEntry]) -> Iterator[str]:
    first = None
    for file in files:
        shard = ParquetShard(release / file.path)
        if shard.rows != file.rows:
            yield f"{file.path} holds {shard.rows:,} rows, expected {file.rows or 0:,}"
        inside = sorted(INTERNAL & set(shard.schema.names))
        if inside:
            yield f"{file.path} has the internal column {inside[0]!r}"
        if ROW_ID not in shard.schema.names:
            yield f"{file.path} has no column {ROW_ID!r}"
        if file.path == UNREADABLE:
            continue
        first = first or shard.schema
        if not shard.schema.equals(first):
            yield f"{file.path} has other columns than {files[0].path}"


def _files(manifest: Manifest, verdict: str) -> list[FileEntry]:
    return [f for f in manifest.files if f.path.startswith(f"{SPLITS[verdict]}/")]
