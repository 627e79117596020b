"""What others read beside a manifest: Croissant, an in-toto statement, an OpenLineage event."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

import pyarrow as pa

from pipelines.disk import canonical
from pipelines.manifest import FileEntry, Manifest
from pipelines.split import SPLITS
from pipelines.threats import threats
from sanitizers.core.data import ROW_ID
from sanitizers.risks import ALARM, WARNING

CROISSANT, STATEMENT, LINEAGE = "croissant.json", "attestation.json", "openlineage.json"
#: Where the names of datasets belong in an event.
NAMESPACE = "dataset-sanitizer"
PROJECT = "https://pypi.org/project/dataset-sanitizer"

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "recordSet": "cr:recordSet",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(manifest: Manifest, clean: pa.Schema) -> dict[str, Any]:
    """Describe the clean rows of a release in Croissant 1.1.

    Parameters
    ----------
    manifest : Manifest
    clean : pyarrow.Schema
        The columns of its clean rows.
    """
    files = [file for file in manifest.files if file.path.startswith(f"{SPLITS['keep']}/")]
    return {
        "@context": dict(_CONTEXT),
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": manifest.dataset,
        "description": (
            f"The clean rows of {manifest.dataset}: {manifest.counts.keep:,} of "
            f"{manifest.counts.rows:,} rows; the manifest beside says how they were chosen."
        ),
        "version": manifest.version,
        "datePublished": manifest.created,
        "distribution": [_file(number, file) for number, file in enumerate(files)],
        "recordSet": [_records(number, file, clean) for number, file in enumerate(files)],
    }


def _file(number: int, file: FileEntry) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": f"file-{number}",
        "name": file.path,
        "contentUrl": file.path,
        "contentSize": f"{file.bytes} B",
        "encodingFormat": "application/x-parquet",
        "sha256": file.sha256,
    }


def _records(number: int, file: FileEntry, clean: pa.Schema) -> dict[str, Any]:
    """The rows of a file."""
    key = _id(clean.get_field_index(ROW_ID), ROW_ID)
    return {
        "@type": "cr:RecordSet",
        "@id": f"rows-{number}",
        "name": file.path,
        "key": {"@id": f"rows-{number}/{key}"},
        "field": [_field(number, at, field) for at, field in enumerate(clean)],
    }


def _field(number: int, at: int, field: pa.Field) -> dict[str, Any]:
    kind, listed = field.type, False
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or _is_vector(kind):
        kind, listed = kind.value_type, True
    said: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"rows-{number}/{_id(at, field.name)}",
        "name": field.name,
        "dataType": _type(kind),
        "source": {"fileObject": {"@id": f"file-{number}"}, "extract": {"column": field.name}},
    }
    return said | ({"isArray": True, "arrayShape": "-1"} if listed else {})


def _id(at: int, name: str) -> str:
    """What a column is called among ids: its name, if that can be one."""
    return name if _PLAIN.fullmatch(name) else f"column-{at}"


def _is_vector(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind))


def _type(kind: pa.DataType) -> str:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    for fits, name in (
        (pa.types.is_boolean, "sc:Boolean"),
        (pa.types.is_integer, "sc:Integer"),
        (pa.types.is_floating, "sc:Float"),
        (pa.types.is_decimal, "sc:Float"),
        (pa.types.is_date, "sc:Date"),
        (pa.types.is_timestamp, "sc:DateTime"),
    ):
        if fits(plain):
            return name
    return "sc:Text"


def statement(manifest: Manifest) -> dict[str, Any]:
    """State what was checked of a release, in the form of in-toto (test-result).

    Checks that set rows aside, and warnings about columns and batches, are *warned*. None
    has failed: a run that does is held, and makes no release.
    """
    told = {f.risk for f in manifest.findings if f.severity in {ALARM, WARNING}}
    warned = {c.sanitizer for c in manifest.checks if c.quarantine or c.review} | told
    passed = {check.sanitizer for check in manifest.checks} - warned
    plan = sha256(canonical(dict(manifest.plan))).hexdigest()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": file.path, "digest": {"sha256": file.sha256}} for file in manifest.files
        ],
        "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
        "predicate": {
            "result": "WARNED" if warned else "PASSED",
            "configuration": [
                {"name": "plan", "digest": {"sha256": plan}},
                *(
                    {"name": file.path, "digest": {"sha256": file.sha256}}
                    for file in manifest.source.files
                ),
            ],
            "passedTests": sorted(passed),
            "warnedTests": sorted(warned),
            "failedTests": [],
            "annotations": {"threats": threats(passed | warned), "tool": manifest.tool.version},
        },
    }


def lineage(manifest: Manifest, clean: pa.Schema) -> dict[str, Any]:
    """Say what became of which files, as an OpenLineage event.

    Parameters
    ----------
    manifest : Manifest
    clean : pyarrow.Schema
        The columns of its clean rows.
    """
    producer = f"{PROJECT}/{manifest.tool.version}"

    def facet(name: str, version: str, **said: object) -> dict[str, Any]:
        schema = f"https://openlineage.io/spec/facets/{version}/{name}.json#/$defs/{name}"
        return {"_producer": producer, "_schemaURL": schema, **said}

    fields = [{"name": field.name, "type": str(field.type)} for field in clean]
    return {
        "eventType": "COMPLETE",
        "eventTime": manifest.created,
        "producer": producer,
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
        # The same release is the same run, whoever tells of it.
        "run": {"runId": str(uuid.uuid5(uuid.NAMESPACE_URL, _name(manifest)))},
        "job": {"namespace": NAMESPACE, "name": f"sanitize.{manifest.dataset}"},
        "inputs": [
            {
                "namespace": "file",
                "name": file.path,
                "inputFacets": {
                    "dataQualityMetrics": facet(
                        "DataQualityMetricsInputDatasetFacet",
                        "1-0-3",
                        rowCount=file.rows + file.unreadable,
                        bytes=file.bytes,
                        columnMetrics={},
                    )
                },
            }
            for file in manifest.source.files
        ],
        "outputs": [
            {
                "namespace": NAMESPACE,
                "name": f"{manifest.dataset}/{folder}",
                "facets": {
                    "version": facet(
                        "DatasetVersionDatasetFacet", "1-0-1", datasetVersion=manifest.version
                    ),
                    "schema": facet("SchemaDatasetFacet", "1-2-0", fields=fields),
                },
                "outputFacets": {
                    "outputStatistics": facet(
                        "OutputStatisticsOutputDatasetFacet", "1-0-2", **dict(sizes)
                    )
                },
            }
            for folder, sizes in _outputs(manifest)
        ],
    }


def _outputs(manifest: Manifest) -> Iterator[tuple[str, dict[str, int]]]:
    for folder in SPLITS.values():
        files = [file for file in manifest.files if file.path.startswith(f"{folder}/")]
        rows = sum(file.rows or 0 for file in files)
        size = sum(file.bytes for file in files)
        yield folder, {"rowCount": rows, "size": size, "fileCount": len(files)}


def _name(manifest: Manifest) -> str:
    return f"{PROJECT}/{manifest.dataset}/{manifest.version}/{manifest.run}"
