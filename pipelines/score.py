"""Score: what a release made of poison that is known, and the damage that is left."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.attack import table_of
from pipelines.disk import digest_of
from pipelines.identity import content_digests
from pipelines.ingest import FILE, ROW, Ingested, ingest
from pipelines.manifest import Manifest, Run
from pipelines.shards import ParquetShard
from pipelines.split import SPLITS
from pipelines.store import Store
from pipelines.truth import Truth, origins, read_truth
from sanitizers.core.data import ROW_ID, Roles
from sanitizers.core.errors import InputError, IntegrityError, PlanError, did_you_mean
from sanitizers.core.verdicts import KEEP
from sanitizers.poisons.poison import COVER
from sanitizers.scorecard import Damage, Scorecard, damage, score

#: The share of the clean rows that no reference model is trained on.
HOLDOUT = 0.25


@dataclass(frozen=True)
class Scored:
    """What a release made of poison.

    Parameters
    ----------
    dataset, version : str
    card : Scorecard
    damage : Damage or None
    """

    dataset: str
    version: str
    card: Scorecard
    damage: Damage | None

    def to_json(self) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        card = self.card
        return {
            "dataset": self.dataset,
            "version": self.version,
            "recall": card.recall,
            "precision": card.precision,
            "clean_lost": card.lost,
            "poison": asdict(card.poison),
            "clean": asdict(card.clean),
            "kinds": [asdict(kind) for kind in card.kinds],
            "damage": asdict(self.damage) if self.damage else None,
        }


@dataclass(frozen=True)
class _Release:
    """A release, and the input that it came from while its store is there."""

    folder: Path
    manifest: Manifest
    verdicts: Mapping[str, str]
    read: Ingested | None

    @property
    def name(self) -> str:
        return f"{self.manifest.dataset} {self.manifest.version}"


def score_release(release: Path, truth_file: Path, before: str | None = None) -> Scored:
    """Compare a release with the truth about its input.

    Poisoned rows are found by their ids. Where a run was told of another id column than
    the attack, they are found by their places in the file, if it still lies beside its
    truth and is, to the byte, what the release was made from.

    Parameters
    ----------
    release : Path
    truth_file : Path
    before : str, optional
        The clean data, for the damage.

    Raises
    ------
    InputError
        If the truth is not about the input of the release, or the clean data are not those
        that were poisoned.
    """
    truth = read_truth(truth_file)
    found = _open(release)
    ids = _poison_ids(found, truth)
    kinds = dict(zip(ids, truth.kinds, strict=True))
    covers = {kind for kind in truth.kinds if kind.endswith(COVER)}
    told = [kinds.get(row) for row in found.verdicts]
    card = score(told, list(found.verdicts.values()), covers)
    harm = None if before is None else _damage(found, truth, before)
    return Scored(found.manifest.dataset, found.manifest.version, card, harm)


def _open(release: Path) -> _Release:
    if not release.is_dir():
        near = [p.name for p in release.parent.iterdir()] if release.parent.is_dir() else []
        raise PlanError(f"no release {str(release)!r}", do=did_you_mean(release.name, near))
    manifest = Manifest.load(release)
    verdicts: dict[str, str] = {}
    by_folder = {folder: verdict for verdict, folder in SPLITS.items()}
    for file in manifest.files:
        if file.rows is not None:
            path = release / file.path
            if not path.is_file() or path.stat().st_size != file.bytes:
                raise IntegrityError(
                    f"{path} is not as it was published", do=f"run 'sanitize verify {release}'"
                )
            names = ParquetShard(path).read([ROW_ID]).column(ROW_ID).to_pylist()
            verdicts.update(dict.fromkeys(names, by_folder[file.path.split("/")[0]]))
    return _Release(release, manifest, verdicts, _input_of(release, manifest))


def _input_of(release: Path, manifest: Manifest) -> Ingested | None:
    """The rows that a release came from, while it lies in its store."""
    above = release.absolute().parents
    if len(above) < 3 or not (above[2] / "salt").is_file():
        return None
    store = Store.open(above[2], create=False)
    run = store.run(manifest.dataset, manifest.run)
    try:
        return Ingested.load(store.inputs(manifest.dataset, Run.load(run).input))
    except IntegrityError:
        return None


def _poison_ids(release: _Release, truth: Truth) -> list[str]:
    """The ids of the poisoned rows in the release."""
    named = sum(row in release.verdicts for row in truth.ids)
    if named == len(truth.ids):
        return list(truth.ids)
    number = _file_of(release, truth)
    if number is None or release.read is None:
        raise InputError(
            f"{named:,} of the {len(truth.ids):,} rows in {truth.path.name} are in "
            f"{release.name}; it is not a release of the file that was poisoned",
            do="run 'sanitize run' on that file, with the same --id as the attack",
        )
    ids = _ids_at(release.read, number)
    lost = [row for row in truth.rows.tolist() if row not in ids]
    if lost:
        raise InputError(f"{truth.path.name} speaks of row {lost[0]:,}, which no file has")
    return [ids[row] for row in truth.rows.tolist()]


def _file_of(release: _Release, truth: Truth) -> int | None:
    """Which of the input files is, to the byte, the one beside the truth."""
    known = {file.sha256: i for i, file in enumerate(release.manifest.source.files)}
    found = (known.get(digest_of(path)) for path in truth.files())
    return next((number for number in found if number is not None), None)


def _ids_at(read: Ingested, file: int) -> dict[int, str]:
    """The ids of the rows of one file, by their places in it."""
    out: dict[int, str] = {}
    for shard in read.shard_files():
        table = shard.read([ROW_ID, FILE, ROW])
        here = table.filter(pa.array(table.column(FILE).to_numpy() == file))
        names = here.column(ROW_ID).to_pylist()
        out.update(zip(here.column(ROW).to_pylist(), names, strict=True))
    return out


def _damage(release: _Release, truth: Truth, before: str) -> Damage:
    read = release.read
    if read is None:
        raise InputError(
            f"the store of {release.folder} is not there",
            expected="a release in its store, STORE/DATASET/releases/VERSION, for the damage",
        )
    if len(read.files) > 1 or read.unreadable:
        raise InputError(
            f"{release.name} has {len(read.files)} files and {read.unreadable:,} unreadable rows",
            expected="one file, and none, for the damage",
        )
    poisoned = table_of(read)
    verdict = [
        release.verdicts[row]
        for shard in read.shard_files()
        for row in shard.read([ROW_ID]).column(ROW_ID).to_pylist()
    ]
    with tempfile.TemporaryDirectory(prefix="sanitize-score-") as work:
        clean = table_of(ingest(before, Path(work) / "before", salt=secrets.token_bytes()))
    roles = _roles(release.manifest)
    origin = _origins(truth, poisoned, clean, roles, before)
    held = np.random.default_rng(0).permutation(len(clean)) < HOLDOUT * len(clean)
    # A row that is held out is in no training data, poisoned or not.
    train = (origin < 0) | ~held[np.maximum(origin, 0)]
    kept = train & np.array([v == KEEP for v in verdict], dtype=bool)
    return damage(
        _rows(clean, ~held),
        _rows(poisoned, train),
        _rows(poisoned, kept),
        _rows(clean, held),
        roles,
    )


def _origins(
    truth: Truth, poisoned: pa.Table, clean: pa.Table, roles: Roles, before: str
) -> NDArray[np.int64]:
    """For each poisoned row the clean row that it was, or -1; checks that the others are alike."""
    new = truth.rows[truth.added]
    rows = poisoned.num_rows - len(new)
    if clean.num_rows != rows or truth.rows.max() >= poisoned.num_rows:
        raise InputError(
            f"{before} has {clean.num_rows:,} rows, and the release {rows:,} that were not added",
            expected="the data before they were poisoned",
        )
    names = [*roles.features, *(n for n in (roles.label, roles.target) if n)]
    for name in names:
        if name not in clean.column_names:
            raise InputError(f"{before} has no column {name!r}", expected="the same columns")
    origin = origins(new, poisoned.num_rows)
    same = np.setdiff1d(np.arange(poisoned.num_rows), truth.rows)
    left = content_digests(_taken(poisoned.select(names), same))
    right = content_digests(_taken(clean.select(names), origin[same]))
    other = int((left != right).any(axis=1).sum())
    if other:
        raise InputError(
            f"{other:,} rows that are not poison differ between {before} and the release",
            expected="the data before they were poisoned",
        )
    return origin


def _roles(manifest: Manifest) -> Roles:
    given = dict(manifest.plan.get("roles", {}))
    known = {f.name for f in fields(Roles)}
    features = tuple(given.pop("features", ()))
    return Roles(**{k: v for k, v in given.items() if k in known}, features=features)


def _rows(table: pa.Table, mask: NDArray[np.bool_]) -> pa.Table:
    return _taken(table, np.flatnonzero(mask))


def _taken(table: pa.Table, rows: NDArray[np.integer]) -> pa.Table:
    return table.take(pa.array(rows, pa.int64()))
