"""Releases in a bucket: there from the moment in which their manifest is, which is written last."""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.carrying import Files, appearing, carry, check, files_in, temporary
from pipelines.disk import make_folder, share_file, writing
from pipelines.manifest import MANIFEST, MAX_BYTES, Manifest
from pipelines.mirror import Mirror
from pipelines.names import is_version, version_of
from sanitizers.core.errors import StoreError

#: Files of rows, which come here only when somebody reads them.
ROWS = ".parquet"


def releases_in(mirror: Mirror, folder: Path) -> tuple[str, ...]:
    """The versions that the bucket has; all of them but their rows come here.

    Raises
    ------
    IntegrityError
        If an object is not as it was published.
    """
    with mirror.alone:
        found = (n for n in mirror.folders(folder) if is_version(n))
        return tuple(n for n in found if _bring_light(mirror, folder / n))


def bring_release(mirror: Mirror, release: Path) -> None:
    """Bring a release here with its rows, if it is in the bucket.

    What another release that is here holds already does not travel again.

    Raises
    ------
    IntegrityError
        If an object is not as it was published.
    """
    with mirror.alone:
        if not _bring_light(mirror, release):
            return
        missing = {
            file.path: file.sha256
            for file in Manifest.load(release).files
            if not (release / file.path).is_file()
        }
        if not missing:
            return
        known = _known(release.parent)
        wanted = Files()
        for path, sha256 in missing.items():
            make_folder((release / path).parent)
            if sha256 not in known or not share_file(known[sha256], release / path):
                wanted[path] = sha256
        with temporary(release) as filled:
            carry(mirror.bucket, mirror.name_of(release), wanted, filled)
            for path in wanted:
                with writing(release):
                    os.replace(filled / path, release / path)


def publish_release(mirror: Mirror, staging: Path, release: Path, lock: Path) -> None:
    """Give the bucket a finished release; its manifest last, in which moment it appears.

    Parameters
    ----------
    staging : Path
        Where it lies here.
    release : Path
        Where it will lie.
    lock : Path
        Of the dataset; this process holds it.

    Raises
    ------
    StoreError
        If the bucket has this version already, or the lock was lost.
    """
    there = mirror.name_of(release)
    manifest = f"{there}/{MANIFEST}"
    if mirror.bucket.read(manifest, MAX_BYTES) is not None:
        raise StoreError(
            f"{mirror.bucket.url}/{there} is there already", do="run the same command again"
        )
    # What a process left that died here was never a release.
    mirror.bucket.delete([f"{there}/{name}" for name in mirror.bucket.names(there)])
    old = _shared(mirror, staging, release.parent)
    names = [name for name in files_in(staging) if name != MANIFEST]
    mirror.bucket.copy({f"{there}/{n}": earlier for n, earlier in old.items()})
    mirror.bucket.put({f"{there}/{n}": staging / n for n in names if n not in old})
    mirror.leases[lock].check()
    if not mirror.bucket.create(manifest, (staging / MANIFEST).read_bytes()):
        raise StoreError(
            f"{mirror.bucket.url}/{there} has appeared meanwhile", do="run the same command again"
        )


def _shared(mirror: Mirror, staging: Path, releases: Path) -> dict[str, str]:
    """The files of a release in the making that the last one in the bucket has too."""
    versions = sorted(releases_in(mirror, releases), key=version_of)
    if not versions:
        return {}
    last = releases / versions[-1]
    there = {file.sha256: file.path for file in Manifest.load(last).files}
    files = (file for file in Manifest.load(staging).files if file.sha256 in there)
    return {file.path: f"{mirror.name_of(last)}/{there[file.sha256]}" for file in files}


def _bring_light(mirror: Mirror, release: Path) -> bool:
    """Bring all of a release but its rows; False where the bucket has no such release."""
    if release.is_dir():
        return True
    there = mirror.name_of(release)
    names = mirror.bucket.names(there)
    if MANIFEST not in names:
        return False
    with appearing(release) as filled:
        wanted = {name: "" for name in names if not name.endswith(ROWS)}
        carry(mirror.bucket, there, wanted, filled)
        for file in Manifest.load(filled).files:
            if file.path in wanted:
                check(filled / file.path, file.sha256)
            make_folder((filled / file.path).parent)
    return True


def _known(releases: Path) -> dict[str, Path]:
    """Where the files of the releases lie that are here, by their digests."""
    found = {}
    for release in releases.iterdir():
        if is_version(release.name):
            for file in Manifest.load(release).files:
                if (release / file.path).is_file():
                    found[file.sha256] = release / file.path
    return found
