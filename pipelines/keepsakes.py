"""Keepsakes as files: facts as JSON, arrays as NPZ, both named by the digest of what they say."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.disk import json_object, pretty, write_bytes
from pipelines.manifest import read_limited
from sanitizers.core.errors import IntegrityError
from sanitizers.core.keepsake import ARRAY_BYTES, ARRAYS, AXES, FACT_BYTES, TYPES, Keepsake, flaw

#: The format that this code writes and reads.
FORMAT = "dataset-sanitizer/keepsake/1"
#: Bytes of a header of NPY, at most; ours have 128.
_HEADER = 1024
# A time that is in no file of ours: the same arrays give the same bytes.
_NEVER = (1980, 1, 1, 0, 0, 0)
_DO = "take it from its release again; 'sanitize verify' says whether that is intact"


def files_of(digest: str) -> tuple[str, str]:
    """The names of the two files of a keepsake."""
    return f"{digest}.json", f"{digest}.npz"


def write_keepsake(folder: Path, kept: Keepsake) -> None:
    """Write a keepsake into a folder, each file whole or not at all.

    The same keepsake gives the same bytes: arrays are not compressed, and carry no time.
    """
    facts, arrays = files_of(kept.digest)
    write_bytes(folder / arrays, _packed(kept.arrays))
    value = {"format": FORMAT, "kind": kept.kind, "facts": dict(kept.facts)}
    write_bytes(folder / facts, pretty(value))


def read_keepsake(folder: Path, digest: str, origin: str = "") -> Keepsake:
    """Read a keepsake, which must be the one that its name says. It may come from a stranger.

    Parameters
    ----------
    folder : Path
    digest : str
    origin : str
        As in `Keepsake`.

    Raises
    ------
    IntegrityError
        If it is missing, malformed, too large or was changed.
    """
    paths = [folder / name for name in files_of(digest)]
    text, packed = (_read(path) for path in paths)
    value = json_object(text, paths[0])
    if set(value) != {"format", "kind", "facts"} or value["format"] != FORMAT:
        raise IntegrityError(f"{paths[0]} is malformed", expected=f"the format {FORMAT!r}", do=_DO)
    kind, facts = value["kind"], value["facts"]
    arrays = _unpacked(packed, paths[1])
    plain = isinstance(kind, str) and isinstance(facts, dict)
    if wrong := flaw(kind, facts, arrays) if plain else "it is of no kind, or has no facts":
        raise IntegrityError(f"{paths[0]} is malformed: {wrong}", do=_DO)
    kept = Keepsake(kind, facts, arrays, origin)
    if kept.digest != digest:
        raise IntegrityError(f"{folder / digest} was changed after it was written", do=_DO)
    return kept


def _read(path: Path) -> bytes:
    most = ARRAY_BYTES + 2**20 if path.suffix == ".npz" else 4 * FACT_BYTES
    if path.is_file() and not path.is_symlink() and path.stat().st_size > most:
        raise IntegrityError(f"{path} has {path.stat().st_size:,} bytes", expected=f"<= {most:,}")
    return read_limited(path)


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, array in sorted(arrays.items()):
            raw = io.BytesIO()
            np.lib.format.write_array(raw, np.ascontiguousarray(array), (1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", _NEVER)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, raw.getvalue())
    return out.getvalue()


def _unpacked(data: bytes, path: Path) -> dict[str, NDArray[Any]]:
    """Read arrays that are not compressed, so that nothing can be larger than the file."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
            if len(entries) > ARRAYS or not stored or sum(e.file_size for e in entries) > len(data):
                raise ValueError("it is no archive of a few arrays that are not compressed")
            names = [entry.filename.removesuffix(".npy") for entry in entries]
            if len(set(names)) < len(names):
                raise ValueError("it has two arrays of one name")
            pairs = zip(names, entries, strict=True)
            return {name: _array(archive.read(entry)) for name, entry in pairs}
    except (zipfile.BadZipFile, ValueError, RuntimeError, EOFError, OSError) as error:
        line = (str(error).splitlines() or [""])[0][:200]
        raise IntegrityError(f"{path} holds no plain arrays: {line}", do=_DO) from None


def _array(raw: bytes) -> NDArray[Any]:
    """Read one array; its header is believed only as far as the bytes bear it out."""
    stream = io.BytesIO(raw)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("an array is of another version of NPY")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=_HEADER)
    if dtype.str not in TYPES or fortran or len(shape) > AXES:
        raise ValueError(f"an array is of type {dtype}, and has {len(shape)} axes")
    rest = raw[stream.tell() :]
    size = dtype.itemsize
    for length in shape:
        size *= length
    if len(rest) != size:
        raise ValueError(f"an array of shape {shape} has {len(rest):,} bytes")
    return np.frombuffer(rest, dtype).reshape(shape)
