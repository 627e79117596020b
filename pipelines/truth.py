"""The truth about a poisoned file: a small CSV file beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sanitizers.core.errors import InputError, did_you_mean

#: The ending of a truth, in the place of that of the poisoned file.
ENDING = ".truth.csv"
#: The columns of a truth: the place of a poisoned row among the rows of the file, from 0;
#: the id that a run gives it; the kind of poison; whether the row was added; and the label
#: or the target that it had before.
COLUMNS = ("row", "row_id", "kind", "added", "was")
#: A larger file is no truth.
MAX_BYTES = 1024 * 2**20


@dataclass(frozen=True)
class Truth:
    """What is known of the poison in a file.

    Parameters
    ----------
    path : Path
    rows : ndarray of int64, shape (k,)
    ids : tuple of str
        Empty strings where a row has none.
    kinds : tuple of str
    added : ndarray of bool, shape (k,)
    """

    path: Path
    rows: NDArray[np.int64]
    ids: tuple[str, ...]
    kinds: tuple[str, ...]
    added: NDArray[np.bool_]

    def files(self) -> list[Path]:
        """The files beside the truth of which it may be the truth."""
        if not self.path.name.endswith(ENDING):
            return []
        stem = self.path.name.removesuffix(ENDING)
        beside = sorted(self.path.parent.glob("*"))
        return [p for p in beside if p.stem == stem and p.is_file() and p != self.path]


def truth_path(file: Path) -> Path:
    """Where the truth of a poisoned file lies."""
    return file.with_name(file.stem + ENDING)


def truth_bytes(truth: pa.Table, ids: Sequence[str]) -> bytes:
    """The text of a truth.

    Parameters
    ----------
    truth : pyarrow.Table
        Of ``sanitizers.poisons.TRUTH_SCHEMA``.
    ids : sequence of str
        Of all rows of the poisoned file.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS)
    for line in truth.to_pylist():
        added = "true" if line["added"] else "false"
        lines.writerow([line["row"], ids[line["row"]], line["kind"], added, line["was"]])
    return text.getvalue().encode()


def read_truth(path: Path) -> Truth:
    """Read a truth.

    A file without the column ``added`` counts rows without ``was`` as added; one of
    ``id`` instead of ``row_id`` is understood.

    Raises
    ------
    InputError
        If the file is missing, or is no truth.
    """
    lines = _read(path)
    if not lines:
        raise InputError(f"{path} has no poisoned row", expected="at least one")
    rows, ids, kinds, added = [], [], [], []
    for number, line in enumerate(lines, 2):
        rows.append(_row(path, number, line.get("row")))
        ids.append(line.get("row_id") or line.get("id") or "")
        kinds.append(line["kind"] or "poison")
        said = (line.get("added") or "").casefold()
        added.append(said == "true" if said else not line.get("was"))
    if len(set(rows)) < len(rows):
        raise InputError(f"{path} names a row twice", expected="each row once")
    return Truth(path, np.array(rows, np.int64), tuple(ids), tuple(kinds), np.array(added))


def origins(added: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """For each row of a poisoned file the clean row that it was; -1 where it was added.

    Parameters
    ----------
    added : ndarray of int64
        Rows that were added.
    rows : int
        Of the poisoned file.
    """
    is_new = np.zeros(rows, dtype=bool)
    is_new[added] = True
    return np.where(is_new, -1, np.cumsum(~is_new) - 1)


def _read(path: Path) -> list[dict[str, str]]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} is larger than {MAX_BYTES // 2**20} MiB", expected="a truth")
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True, restval="")
            missing = [c for c in ("row", "kind") if c not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{path} has no column {missing[0]!r}", expected="what 'sanitize attack' wrote"
                )
            return list(reader)
    except FileNotFoundError:
        beside = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
        raise InputError(f"no truth {str(path)!r}", do=did_you_mean(path.name, beside)) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not CSV in UTF-8: {error}") from None


def _row(path: Path, number: int, text: str | None) -> int:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 15:
        raise InputError(
            f"{path}, line {number}: row is {str(text)[:40]!r}", expected="a whole number, from 0"
        )
    return int(text)
