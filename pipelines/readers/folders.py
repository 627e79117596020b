"""A folder per class: images whose label is the name of the folder that they lie in."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.readers.blocks import Block, Known, Unreadable
from pipelines.readers.inside import RefusedError, read_inside, stamp, windows
from sanitizers.core.errors import InputError
from sanitizers.core.image_columns import IMAGE_TYPE
from sanitizers.core.images import in_parallel

#: Names of the two columns.
IMAGE_COLUMN, LABEL_COLUMN = "image", "label"
#: Endings by which a file is taken for an image; whether it is one, its bytes say.
IMAGE_ENDINGS = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".svg", ".ico", ".heic", ".heif", ".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2",
    ".jxl",
})  # fmt: skip
_SPLITS = frozenset({
    "train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval",
})  # fmt: skip
# Files whose sizes are asked for at a time.
_LISTED = 10_000


def is_image_folder(folder: Path) -> bool:
    """Whether a folder holds images, at a depth at which people keep classes."""
    return any(_has_images(folder, depth) for depth in (1, 0, 2))


def image_files(folder: Path) -> Iterator[str]:
    """The images of a folder per class, relative to it and in order, class by class.

    What begins with ``.`` or ``_`` is left out, and what is no image by its ending.

    Raises
    ------
    InputError
        If images lie elsewhere than in a folder per class.
    """
    loose = next((e.name for e in _entries(folder) if _is_image(e)), None)
    classes = [e.name for e in _entries(folder) if e.is_dir()]
    if loose is not None:
        raise InputError(
            f"the image {loose!r} lies in {str(folder)!r} itself",
            expected="a folder per class, with images in it",
            do="move it into one, or name a table of paths and its column (--image)",
        )
    for label in classes:
        _check_class(folder, label)
        for entry in _entries(folder / label):
            if _is_image(entry):
                yield f"{label}/{entry.name}"


def digest_folder(folder: Path) -> tuple[str, int]:
    """A SHA-256 over the names and the contents of all images, and their bytes."""
    whole, size = hashlib.sha256(), 0
    root = _real(folder)
    for name, data in (file for window in _contents(root) for file in window):
        said = data if isinstance(data, str) else hashlib.sha256(data).hexdigest()
        whole.update(f"{name}\0{said}\n".encode("utf-8", "surrogateescape"))
        size += 0 if isinstance(data, str) else len(data)
    return whole.hexdigest(), size


def stamp_folder(folder: Path) -> str:
    """A digest of the names, sizes and times of all images."""
    whole = hashlib.sha256()
    root = _real(folder)
    for name in image_files(root):
        whole.update(f"{name}\0{stamp(root, name)}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def left_out(folder: Path) -> tuple[int, str]:
    """How many files of the classes are no images by their names, and one of them."""
    count, first = 0, ""
    for label in (e.name for e in _entries(folder) if e.is_dir()):
        for entry in _entries(folder / label):
            if not _is_image(entry) and not entry.is_dir():
                count, first = count + 1, first or f"{label}/{entry.name}"
    return count, first


@dataclass(frozen=True)
class FolderReader:
    """A folder per class.

    Parameters
    ----------
    name : str
    path : Path
    """

    name: str
    path: Path

    def survey(self) -> dict[str, Known]:
        """Two columns: the image, and the name of its folder."""
        return {IMAGE_COLUMN: Known(IMAGE_TYPE), LABEL_COLUMN: Known(pa.string())}

    def read(self, schema: pa.Schema) -> Iterator[Block]:
        """Read every file with the types of `schema`."""
        row = 0
        for window in _contents(_real(self.path)):
            yield self._block(window, schema, row)
            row += len(window)

    def _block(
        self, window: Sequence[tuple[str, bytes | str]], schema: pa.Schema, row: int
    ) -> Block:
        read = [
            (at, name, data) for at, (name, data) in enumerate(window) if isinstance(data, bytes)
        ]
        table = pa.table(
            {
                IMAGE_COLUMN: pa.array(
                    [{"bytes": data, "path": _text(name)} for _, name, data in read], IMAGE_TYPE
                ),
                LABEL_COLUMN: pa.array([_label(name) for _, name, _ in read], pa.string()),
            }
        )
        return Block(
            table.select(schema.names).cast(schema),
            np.array([row + at for at, _, _ in read], dtype=np.int64),
            tuple(
                Unreadable(row + at, _raw(name), f"image: {data}", f"{self.name}/{_text(name)}")
                for at, (name, data) in enumerate(window)
                if isinstance(data, str)
            ),
        )


def _contents(root: Path) -> Iterator[list[tuple[str, bytes | str]]]:
    """Every image with its bytes, or with the reason why it is not read; some at a time."""
    files = image_files(root)
    while names := list(islice(files, _LISTED)):
        for part in windows(root, names):
            read = in_parallel(lambda name: _content(root, name), names[part])
            yield list(zip(names[part], read, strict=True))


def _content(root: Path, name: str) -> bytes | str:
    try:
        return read_inside(root, name)
    except RefusedError as error:
        return str(error)


def _check_class(folder: Path, label: str) -> None:
    if (folder / label).is_symlink() and not _stays(folder, folder / label):
        raise InputError(
            f"the class {label!r} is a symbolic link that leads out of {str(folder)!r}",
            expected="folders of images in one folder",
            do="copy or move the images there",
        )
    deeper = _deeper(folder / label)
    if deeper is None:
        return
    if label.lower() in _SPLITS:
        raise InputError(
            f"{str(folder)!r} holds the split {label!r}, with a folder per class in it",
            expected="one split at a time",
            do=f"name {str(folder / label)!r}",
        )
    raise InputError(
        f"the image {label}/{deeper} lies too deep",
        expected=f"a folder per class in {str(folder)!r}, with images in it",
    )


def _deeper(folder: Path) -> str | None:
    """An image that lies in a folder of a folder."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_")))
        if root != str(folder):
            for name in sorted(files):
                if not name.startswith((".", "_")) and _image_name(name):
                    return os.path.relpath(os.path.join(root, name), folder)
    return None


def _stays(folder: Path, path: Path) -> bool:
    root = os.path.realpath(folder)
    return os.path.commonpath([root, os.path.realpath(path)]) == root


def _has_images(folder: Path, depth: int) -> bool:
    try:
        found = _entries(folder)
    except InputError:
        return False  # told when the images of the folder are asked for
    if depth == 0:
        return any(_is_image(entry) for entry in found)
    return any(_has_images(Path(e.path), depth - 1) for e in found if e.is_dir())


def _is_image(entry: os.DirEntry[str]) -> bool:
    return _image_name(entry.name) and not entry.is_dir()


def _image_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_ENDINGS


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, in the order of its bytes, hidden names left out."""
    try:
        with os.scandir(folder) as found:
            seen = [entry for entry in found if not entry.name.startswith((".", "_"))]
    except OSError as error:
        raise InputError(f"the folder {str(folder)!r} cannot be read: {error.strerror}") from None
    return sorted(seen, key=lambda entry: os.fsencode(entry.name))


def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))


def _raw(name: str) -> str:
    row = {IMAGE_COLUMN: {"path": _text(name)}, LABEL_COLUMN: _label(name)}
    return json.dumps(row, ensure_ascii=False)


def _label(name: str) -> str:
    return _text(name.split("/", 1)[0])


def _text(name: str) -> str:
    """A name as text; bytes that are not UTF-8 are written as they are in unreadable rows."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
