"""Readers: one module per family of formats, all giving blocks of rows with positions."""

from __future__ import annotations

from pathlib import Path

from pipelines.readers.arrays import ArraysReader
from pipelines.readers.blocks import Reader
from pipelines.readers.columnar import ArrowReader, ParquetReader
from pipelines.readers.delimited import DelimitedReader
from pipelines.readers.folders import FolderReader
from pipelines.readers.objects import ObjectsReader
from pipelines.readers.sources import Source, unpacked


def open_reader(source: Source, work: Path) -> Reader:
    """The reader of a file.

    Parameters
    ----------
    source : Source
    work : Path
        A folder for what has to be unpacked; the caller removes it.
    """
    if source.format == "imagefolder":
        return FolderReader(source.name, source.path)
    if source.format == "csv":
        return DelimitedReader(source)
    if source.format == "jsonl":
        return ObjectsReader(source)
    path = unpacked(source, work)
    if source.format == "parquet":
        return ParquetReader(source.name, path)
    if source.format == "arrow":
        return ArrowReader(source.name, path)
    return ArraysReader(source.name, path, work)
