"""A release proves itself: signature, Croissant, in-toto, OpenLineage; every change is found."""

from __future__ import annotations

import json
import logging
import random
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import command
from pipelines.disk import digest_of
from pipelines.manifest import Manifest
from pipelines.ruled import publish_rulings
from pipelines.signing import KEYS, Key, make_key
from pipelines.store import Store
from pipelines.verify import verify
from sanitizers.core.errors import IntegrityError, PlanError
from tests.staged import Ran, part_of, run_stages
from tests.test_ruled import job, landing, rule

__all__ = ["landing"]


@pytest.fixture
def signed(landing: Path) -> Ran:
    """A release that obeys a ruling, of a store with a key."""
    make_key(job(landing).store)
    ran = run_stages(job(landing))
    rule(ran, "keep", str(part_of(ran.release, "quarantine").column("row_id")[0]))
    release, _, _ = publish_rulings(ran.work.job.store, "g")
    return Ran(ran.work, release)


def of(ran: Ran, name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((ran.release / name).read_bytes())
    return value


# ------------------------------------------------------------- signatures


def test_a_store_with_a_key_signs(signed: Ran, tmp_path: Path) -> None:
    found = verify(signed.release)
    key = Key.read(signed.work.job.store.root / KEYS / "public.pem")
    assert (found.problems, found.signed) == ((), f"signed by the key {key.id}")
    away = tmp_path / "away"
    shutil.copytree(signed.release, away)
    assert "nobody checked" in verify(away).signed
    public = tmp_path / "given.pem"
    shutil.copy(signed.work.job.store.root / KEYS / "public.pem", public)
    assert verify(away, public).ok
    other = Store.open(tmp_path / "other")
    wrong = verify(away, make_key(other))
    assert not wrong.ok
    assert f"not by {Key.read(other.root / KEYS / 'public.pem').id}" in wrong.problems[0]
    with pytest.raises(PlanError, match="no public key"):
        verify(away, away / "manifest.json")


def test_a_forger_without_the_key_is_found(signed: Ran) -> None:
    path = signed.release / "manifest.json"
    manifest = Manifest.load(signed.release)
    forged = Manifest(**{**manifest.__dict__, "created": "2020-01-01T00:00:00+00:00"})
    path.write_bytes(forged.dump())
    assert "is not the signature" in verify(signed.release).problems[0]
    unsigned = Manifest(**{**manifest.__dict__, "key": None})
    path.write_bytes(unsigned.dump())
    (signed.release / "manifest.sig").unlink()
    public = signed.work.job.store.root / KEYS / "public.pem"
    assert verify(signed.release, public).problems == ("manifest.json was not signed",)


def test_keys_are_made_once_and_kept_to_oneself(
    landing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = job(landing).store
    assert command(["keygen", "--store", str(store.root)]) == 0
    assert "every release is signed" in capsys.readouterr().out
    private = store.root / KEYS / "private.pem"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert command(["keygen", "--store", str(store.root)]) == 2
    assert store.datasets() == ()
    private.write_text("no key")
    with pytest.raises(IntegrityError, match=r"private\.pem is missing or damaged"):
        run_stages(job(landing))
    assert store.releases("g") == ()


def test_any_change_of_a_release_is_found(signed: Ran, tmp_path: Path) -> None:
    rng = random.Random(0)
    files = sorted(p for p in signed.release.rglob("*") if p.is_file())
    for number in range(60):
        copy = tmp_path / "copy"
        shutil.copytree(signed.release, copy)
        path = copy / rng.choice(files).relative_to(signed.release)
        kind = ("byte", "gone", "more")[number % 3]
        if kind == "byte":
            data = bytearray(path.read_bytes())
            at = rng.randrange(len(data))
            data[at] ^= rng.randrange(1, 256)
            path.write_bytes(bytes(data))
        elif kind == "gone":
            path.unlink()
        else:
            (path.parent / f"{number}.parquet").write_bytes(b"x")
        public = signed.work.job.store.root / KEYS / "public.pem"
        assert not verify(copy, public).ok, (kind, path)
        shutil.rmtree(copy)
    assert verify(signed.release).ok


# ------------------------------------------------------------- what others read


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a library of the validator
def test_croissant_is_valid_and_leads_to_the_rows(
    signed: Ran, caplog: pytest.LogCaptureFixture
) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    caplog.set_level(logging.ERROR)
    said = of(signed, "croissant.json")
    assert said["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    dataset = mlcroissant.Dataset(jsonld=str(signed.release / "croissant.json"))
    assert not dataset.metadata.issues.errors
    rows = {
        record[f"{records.uuid}/row_id"].decode()
        for records in dataset.metadata.record_sets
        for record in dataset.records(record_set=records.uuid)
    }
    assert rows == set(part_of(signed.release, "clean").column("row_id").to_pylist())


def test_the_statement_names_every_file_and_check(signed: Ran) -> None:
    said = of(signed, "attestation.json")
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    for subject in said["subject"]:
        assert digest_of(signed.release / subject["name"]) == subject["digest"]["sha256"]
    told = said["predicate"]
    checks = {check.sanitizer for check in Manifest.load(signed.release).checks}
    assert checks <= {*told["passedTests"], *told["warnedTests"]}
    assert (told["result"], told["failedTests"]) == ("WARNED", [])
    assert told["annotations"]["threats"]["outliers"] == ["AML.T0020", "LLM04:2025"]


def test_the_event_is_one_of_openlineage(signed: Ran) -> None:
    client = pytest.importorskip("openlineage.client.event_v2")
    from openlineage.client.generated import (
        data_quality_metrics_input_dataset as metrics,
    )
    from openlineage.client.generated import (
        dataset_version_dataset,
        output_statistics_output_dataset,
        schema_dataset,
    )

    said = of(signed, "openlineage.json")
    facets = {
        "dataQualityMetrics": metrics.DataQualityMetricsInputDatasetFacet,
        "version": dataset_version_dataset.DatasetVersionDatasetFacet,
        "schema": schema_dataset.SchemaDatasetFacet,
        "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
    }
    parts = [
        pair
        for dataset in (*said["inputs"], *said["outputs"])
        for key in ("facets", "inputFacets", "outputFacets")
        for pair in dataset.get(key, {}).items()
    ]
    assert {name for name, _ in parts} == set(facets)
    for name, value in parts:
        assert value["_schemaURL"] == facets[name]._get_schema()  # type: ignore[attr-defined]
        facets[name](**{k: v for k, v in value.items() if not k.startswith("_")})
    client.RunEvent(
        eventTime=said["eventTime"],
        producer=said["producer"],
        run=client.Run(runId=said["run"]["runId"]),
        job=client.Job(**said["job"]),
    )
    counts = Manifest.load(signed.release).counts
    rows = [d["outputFacets"]["outputStatistics"]["rowCount"] for d in said["outputs"]]
    assert rows == [counts.keep, counts.review, counts.quarantine]


def test_the_report_names_the_threats(signed: Ran) -> None:
    page = (signed.release / "report.html").read_text()
    assert "AML.T0020, LLM04:2025" in page
