"""What was run and what was published: the record of a run, the manifest of a release."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from pipelines.disk import canonical, pretty, write_json
from sanitizers.core.data import Roles
from sanitizers.core.errors import IntegrityError, StoreError
from sanitizers.core.promise import Promise
from sanitizers.risks.finding import Finding

#: The format that this code writes and reads.
FORMAT = "dataset-sanitizer/1"
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
REPORT = "report.html"
RUN = "run.json"
#: A larger manifest is refused, not read.
MAX_BYTES = 256 * 1024 * 1024

T = TypeVar("T")

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Tool:
    """What wrote a release."""

    name: str
    version: str


@dataclass(frozen=True)
class SourceEntry:
    """One input file. `rows` counts those that could be read."""

    path: str
    sha256: str
    bytes: int
    rows: int
    unreadable: int


@dataclass(frozen=True)
class Source:
    """The input files, in order, and one digest over them."""

    digest: str
    files: tuple[SourceEntry, ...]


@dataclass(frozen=True)
class Counts:
    """Rows by verdict: ``keep + review + quarantine == rows``, `unreadable` among quarantine."""

    rows: int
    keep: int
    review: int
    quarantine: int
    unreadable: int

    def plus(self, other: Counts) -> Counts:
        """The counts of the rows of both."""
        return Counts(
            self.rows + other.rows,
            self.keep + other.keep,
            self.review + other.review,
            self.quarantine + other.quarantine,
            self.unreadable + other.unreadable,
        )


@dataclass(frozen=True)
class Check:
    """What one sanitizer did, also when it flagged nothing.

    Parameters
    ----------
    sanitizer : str
    needs : tuple of str
        The roles without which it cannot run.
    settings : mapping
    scored, abstained, review, quarantine : int
        Rows.
    quarantine_line, review_line : str
        The lines in words; empty where there is none.
    quarantine_above, review_above : float or None
        The lines as drawn on the scores of the run.
    basis : str
        From which measurement the lines come.
    skipped : tuple of (str, str)
        Columns that it could not use, each with the reason.
    """

    sanitizer: str
    needs: tuple[str, ...]
    settings: Mapping[str, Any]
    scored: int
    abstained: int
    review: int
    quarantine: int
    quarantine_line: str
    review_line: str
    quarantine_above: float | None
    review_above: float | None
    basis: str
    skipped: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class NotRun:
    """A sanitizer that did not run, and why."""

    sanitizer: str
    why: str


@dataclass(frozen=True)
class Embedding:
    """How images became features.

    Parameters
    ----------
    encoder : str
    key : str
        Of the folder of the embeddings in the store.
    device : str
        What they were computed on; decides nothing but their last digits.
    width : int
        Numbers of a vector.
    """

    encoder: str
    key: str
    device: str
    width: int


@dataclass(frozen=True)
class Grown:
    """How a release came from the one before: rows joined it, and only these were scanned.

    Parameters
    ----------
    onto, run : str
        The version of that release, and the run that made it.
    counts : Counts
        Of the rows that joined it.
    """

    onto: str
    run: str
    counts: Counts


@dataclass(frozen=True)
class Ruled:
    """The rulings of people that a release obeys.

    Parameters
    ----------
    head : str
        The digest of the last of them, which stands for all; the release has a copy of the log.
    keep, quarantine : int
        Rows that people have ruled to keep and to leave out.
    moved : int
        Rows that lie elsewhere for it than sanitizers, or earlier rulings, had put them.
    unknown : int
        Ruled rows that the release does not have.
    """

    head: str
    keep: int
    quarantine: int
    moved: int
    unknown: int


@dataclass(frozen=True)
class Audited:
    """The trusted rows that people kept in an audit: rows that were drawn at random.

    Parameters
    ----------
    rows : int
    lost : int
        Rows that they kept too, and that are not in the data any more, or not as they were seen.
    """

    rows: int
    lost: int


@dataclass(frozen=True)
class FileEntry:
    """One file of a release, by its path in the release; `rows` is None where it holds none."""

    path: str
    bytes: int
    sha256: str
    rows: int | None


@dataclass(frozen=True)
class Run:
    """The record of a run: what it read, what it was told, what it found out.

    Parameters
    ----------
    dataset : str
    key : str
        Names the run by all that decides its verdicts.
    created : str
        UTC, ISO 8601.
    input : str
        Key of the input's folder in the store.
    evidence : mapping of str to str
        For each sanitizer the key of its evidence.
    plan : mapping
        The plan as it was resolved, roles included.
    checks : tuple of Check
    not_run : tuple of NotRun
    trusted : str or None
        Key of the folder of the trusted rows.
    findings : tuple of Finding
        Of columns and batches, the gravest first.
    promise : Promise or None
        What the policy promises of clean rows, and what was measured of it.
    embedding : Embedding or None
        How images became features.
    audited : Audited or None
        The trusted rows that people kept in an audit.
    """

    dataset: str
    key: str
    created: str
    input: str
    evidence: Mapping[str, str]
    plan: Mapping[str, Any]
    checks: tuple[Check, ...]
    not_run: tuple[NotRun, ...] = ()
    trusted: str | None = None
    findings: tuple[Finding, ...] = ()
    promise: Promise | None = None
    embedding: Embedding | None = None
    audited: Audited | None = None

    def write(self, folder: Path) -> None:
        """Write the record into the folder of the run; it marks the run as done."""
        write_json(folder / RUN, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read the record of a run.

        Raises
        ------
        IntegrityError
            If it is missing or malformed.
        """
        return parse_json(cls, read_limited(folder / RUN), folder / RUN)


@dataclass(frozen=True)
class Manifest:
    """What was published. The order of its parts is their order in the file.

    Where it has `grown`, its checks and findings are those of the rows that joined; source,
    counts and files are those of all rows. `threats` are the numbers of what its checks and
    findings are about (`pipelines.threats`), `key` names the key that has signed it.
    """

    dataset: str
    version: str
    created: str
    tool: Tool
    run: str
    salt_digest: str
    plan: Mapping[str, Any]
    source: Source
    counts: Counts
    checks: tuple[Check, ...]
    not_run: tuple[NotRun, ...]
    findings: tuple[Finding, ...]
    files: tuple[FileEntry, ...]
    promise: Promise | None = None
    grown: Grown | None = None
    ruled: Ruled | None = None
    audited: Audited | None = None
    threats: Mapping[str, tuple[str, ...]] | None = None
    key: str | None = None
    format: str = field(default=FORMAT)

    def dump(self) -> bytes:
        """The one text of this manifest, with a digest of all that it says."""
        value = {"format": self.format} | asdict(self)
        for name in ("promise", "grown", "ruled", "audited", "threats", "key"):
            # Releases of before there was such a thing stay as they were written.
            if value[name] is None:
                del value[name]
        return pretty(value | {"digest": sha256(canonical(value)).hexdigest()})

    @classmethod
    def load(cls, release: Path) -> Manifest:
        """Read the manifest of a release.

        Raises
        ------
        IntegrityError
            If it is missing, malformed, of another format, or not as it was written.
        """
        path = release / MANIFEST
        data = read_limited(path)
        manifest = parse_json(cls, data, path)
        if manifest.format != FORMAT:
            raise IntegrityError(
                f"{path} has the format {manifest.format!r}", expected=f"{FORMAT!r}"
            )
        # The text is compared as a whole, so that not even a space can change unseen.
        if manifest.dump() != data:
            raise IntegrityError(f"{path} was changed after it was written")
        _check_paths(manifest, path)
        return manifest


def roles_in(plan: Mapping[str, Any]) -> Roles:
    """The roles of the columns, from a plan as it was recorded.

    Raises
    ------
    IntegrityError
        If there are none, or they are malformed.
    """
    try:
        given: dict[str, Any] = dict(plan["roles"])
        return Roles(**given | {k: tuple(v) for k, v in given.items() if isinstance(v, list)})
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"a recorded plan has no roles: {error!r}") from None


def tool() -> Tool:
    """What this code calls itself in manifests."""
    try:
        return Tool("dataset-sanitizer", version("dataset-sanitizer"))
    except PackageNotFoundError:
        return Tool("dataset-sanitizer", "not installed")


def read_limited(path: Path) -> bytes:
    """Read a small regular file, never through a symbolic link.

    Raises
    ------
    IntegrityError
        If it is missing, no regular file, or too large.
    """
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise IntegrityError(f"{path} is not a regular file")
        if path.stat().st_size > MAX_BYTES:
            raise IntegrityError(f"{path} is larger than {MAX_BYTES // 2**20} MiB")
        return path.read_bytes()
    except FileNotFoundError:
        raise IntegrityError(f"{path} is missing") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error


def safe_path(path: str) -> bool:
    """Whether a path in a manifest stays in the release: plain names, no way up or out."""
    return all(_PART.fullmatch(part) for part in path.split("/"))


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    # Building one takes longer than reading a manifest.
    return TypeAdapter(kind)


def parse_json(kind: type[T], data: bytes, path: Path) -> T:
    """Read JSON as a dataclass, strictly.

    Raises
    ------
    IntegrityError
        If it is malformed; the message names the first field that is.
    """
    try:
        value: T = _adapter(cast(Hashable, kind)).validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        what = f"{where}: {first['msg']}" if where else first["msg"]
        raise IntegrityError(f"{path} is malformed: {what}") from None
    return value


def _check_paths(manifest: Manifest, path: Path) -> None:
    names = [file.path for file in manifest.files]
    for name in names:
        if not safe_path(name) or name in {MANIFEST, SIGNATURE}:
            raise IntegrityError(f"{path} lists {name!r}", expected="plain paths in the release")
    if len(set(names)) < len(names):
        raise IntegrityError(f"{path} lists a file twice")
