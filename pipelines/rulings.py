"""Rulings: what people decide about rows, in a log that only grows and shows tampering.

A ruling never changes evidence. The next publish obeys it, and a later ruling on the same row
stands before an earlier one; one that says ``none`` takes back what stood.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pipelines.disk import canonical, make_folder, writing
from pipelines.store import Store
from sanitizers.core.errors import IntegrityError, PlanError, StoreError, did_you_mean
from sanitizers.core.verdicts import KEEP, QUARANTINE

#: What a ruling may say; ``none`` takes back an earlier one.
NONE = "none"
SAYINGS = (KEEP, QUARANTINE, NONE)
#: Rows of one ruling, characters of its texts, and bytes of its line, at most.
MOST_ROWS, MOST_TEXT, MOST_LINE = 100_000, 2_000, 256 * 2**20
#: Seconds that a ruling waits for another one that is being written.
WAIT = 10.0
#: What the first ruling follows.
START = "0" * 64

_TAIL = 64 * 1024


@dataclass(frozen=True)
class Ruling:
    """What a person decided about some rows.

    Parameters
    ----------
    number : int
        Its place in the log, from 1.
    row_ids : tuple of str
    verdict : str
        ``keep``, ``quarantine``, or ``none``, which takes back what stood.
    who, why : str
    when : str
        UTC, ISO 8601.
    group : str
        What the rows have in common, where they were ruled together; else empty.
    before : str
        The digest of the ruling before.
    digest : str
        SHA-256 of all the others, in hex.
    drawn : str or None
        Of a row that was drawn in an audit the digest of its values, as they were seen; None
        of rows that people have chosen themselves.
    """

    number: int
    row_ids: tuple[str, ...]
    verdict: str
    who: str
    why: str
    when: str
    group: str
    before: str
    digest: str = ""
    drawn: str | None = None

    @property
    def sentence(self) -> str:
        """What was ruled, by whom and why, in words."""
        where = " in an audit" if self.drawn else ""
        return f"{self.who} ruled {self.verdict}{where} on {self.when[:10]}: {self.why}"

    def sealed(self) -> Self:
        """The same, with its digest."""
        value = {k: v for k, v in self._fields().items() if k != "digest"}
        return replace(self, digest=hashlib.sha256(canonical(value)).hexdigest())

    def line(self) -> bytes:
        """Its line in the log."""
        return canonical(self._fields()) + b"\n"

    def _fields(self) -> dict[str, Any]:
        value = asdict(self)
        # Rulings of before there were audits stay as they were written.
        if self.drawn is None:
            del value["drawn"]
        return value


@dataclass(frozen=True)
class Rulings:
    """The log of the rulings on one dataset.

    Parameters
    ----------
    path : Path
    store : Store, optional
        Whose log it is; a copy in a release belongs to none, and is only read.
    """

    path: Path
    store: Store | None = None

    @classmethod
    def of(cls, store: Store, dataset: str) -> Self:
        """The log of a dataset; there may be none yet."""
        return cls(store.rulings(dataset), store)

    def renew(self) -> None:
        """Have the log as it is now, where people rule on other machines too."""
        if self.store is not None:
            self.store.renew(self.path)

    def add(
        self,
        row_ids: Sequence[str],
        verdict: str,
        *,
        who: str,
        why: str,
        group: str = "",
        drawn: str | None = None,
    ) -> Ruling:
        """Append a ruling, and see it on the disk.

        Only the end of the log is read, so that a ruling takes no longer where there are many.

        Parameters
        ----------
        row_ids : sequence of str
        verdict : {"keep", "quarantine", "none"}
        who, why : str
        group : str
            What the rows have in common.
        drawn : str, optional
            Of the one row, where an audit has drawn it, the digest of its values.

        Raises
        ------
        PlanError
            If there is no row, too many, no such verdict, or a text is missing or too long.
        IntegrityError
            If the end of the log is not as it was written.
        """
        _check(row_ids, verdict, who, why, group)
        if drawn is not None and (len(row_ids) != 1 or verdict == NONE or not drawn):
            raise PlanError("an audit rules on one row at a time, and knows its values")
        make_folder(self.path.parent)
        with self._alone():
            last = self._last()
            number, before = (last.number + 1, last.digest) if last else (1, START)
            when = datetime.now(UTC).isoformat(timespec="seconds")
            given = tuple(dict.fromkeys(row_ids))
            ruling = Ruling(
                number, given, verdict, who, why, when, group, before, drawn=drawn
            ).sealed()
            line = ruling.line()
            if len(line) > MOST_LINE:
                raise PlanError(f"the ids of {len(given):,} rows are too long for one ruling")
            with writing(self.path), self.path.open("ab") as file:
                # What a power cut left of a line was never a ruling: nobody was told of it.
                file.truncate(self._whole())
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        return ruling

    def read(self) -> Iterator[Ruling]:
        """All rulings, the first one first, each held against the one before.

        Raises
        ------
        IntegrityError
            If a ruling was changed, left out, moved or added by hand.
        """
        if not self.path.is_file():
            return
        before, number = START, 0
        with self.path.open("rb") as file:
            while (line := file.readline(MOST_LINE + 1)).endswith(b"\n"):
                number += 1
                ruling = self._parse(line, number)
                if (ruling.number, ruling.before) != (number, before):
                    raise self._broken(number, "does not follow the one before")
                before = ruling.digest
                yield ruling
        if len(line) > MOST_LINE:
            raise self._broken(number + 1, "is longer than any")

    def standing(self) -> dict[str, Ruling]:
        """For each row the ruling that stands: the last one, unless it takes back.

        Raises
        ------
        IntegrityError
            As `read` does.
        """
        return {row: last for row, last in self.last().items() if last.verdict != NONE}

    def last(self) -> dict[str, Ruling]:
        """For each row that was ever ruled on the last ruling, also one that takes back.

        Raises
        ------
        IntegrityError
            As `read` does.
        """
        return {row_id: ruling for ruling in self.read() for row_id in ruling.row_ids}

    def copy(self) -> bytes:
        """The bytes of all whole rulings, for a release to hold."""
        return self.path.read_bytes()[: self._whole()] if self.path.is_file() else b""

    @property
    def head(self) -> str:
        """The digest of the last ruling, which stands for the whole log."""
        last = self._last()
        return last.digest if last else START

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self.store is None:
            raise StoreError(f"{self.path} is a copy of a log", do="rule in the store")
        with self.store.editing(self.path, WAIT, "another ruling is being written"):
            yield

    def _last(self) -> Ruling | None:
        """The last ruling; the lines before it are not read."""
        end = self._whole()
        if not end:
            return None
        step = _TAIL
        with self.path.open("rb") as file:
            while True:
                file.seek(max(0, end - step))
                tail = file.read(end - file.tell())
                if tail.count(b"\n", 0, -1) or step >= end:
                    break
                step *= 8
        return self._parse(tail[:-1].rpartition(b"\n")[2] + b"\n", None)

    def _whole(self) -> int:
        """Bytes of the log, but for what may follow its last whole line."""
        size = self.path.stat().st_size if self.path.is_file() else 0
        end, step = size, _TAIL
        while end:
            start = max(0, end - step)
            with self.path.open("rb") as file:
                file.seek(start)
                at = file.read(end - start).rfind(b"\n")
            if at >= 0:
                return start + at + 1
            end = start
        return 0

    def _parse(self, line: bytes, number: int | None) -> Ruling:
        try:
            ruling = _ruling(json.loads(line))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._broken(number, "is malformed") from None
        if ruling.sealed() != ruling or ruling.line() != line:
            raise self._broken(number, "was changed after it was written")
        return ruling

    def _broken(self, number: int | None, how: str) -> IntegrityError:
        which = "the last ruling" if number is None else f"ruling {number}"
        return IntegrityError(
            f"{which} in {self.path} {how}", do="put back a copy of the log that was intact"
        )


def conflicts(rulings: Iterator[Ruling]) -> Mapping[str, tuple[Ruling, Ruling]]:
    """The rows on which two people rule differently: what stands, and what it overruled.

    Parameters
    ----------
    rulings : iterator of Ruling
        In the order of the log.
    """
    by_person: dict[str, dict[str, Ruling]] = {}
    for ruling in rulings:
        for row_id in ruling.row_ids:
            said = by_person.setdefault(row_id, {})
            said.pop(ruling.who, None)
            if ruling.verdict != NONE:
                said[ruling.who] = ruling
    found = {}
    for row_id, said in by_person.items():
        latest = list(reversed(said.values()))
        others = [ruling for ruling in latest[1:] if ruling.verdict != latest[0].verdict]
        if others:
            found[row_id] = (latest[0], others[0])
    return found


def _check(row_ids: Sequence[str], verdict: str, who: str, why: str, group: str) -> None:
    if verdict not in SAYINGS:
        raise PlanError(f"no verdict {verdict!r}", do=did_you_mean(verdict, SAYINGS))
    if not 0 < len(row_ids) <= MOST_ROWS:
        raise PlanError(f"a ruling on {len(row_ids):,} rows", expected=f"1 to {MOST_ROWS:,}")
    if not who.strip() or not why.strip():
        raise PlanError("a ruling without a name or a reason", expected="who decides, and why")
    for text in (who, why, group):
        if len(text) > MOST_TEXT:
            raise PlanError(
                f"a text of {len(text):,} characters in a ruling", expected=f"at most {MOST_TEXT:,}"
            )


def _ruling(value: dict[str, Any]) -> Ruling:
    texts: tuple[str, ...] = ("verdict", "who", "why", "when", "group", "before", "digest")
    if "drawn" in value:
        texts = (*texts, "drawn")
    if set(value) != {"number", "row_ids", *texts} or value["verdict"] not in SAYINGS:
        raise ValueError
    if not all(isinstance(value[name], str) for name in texts):
        raise TypeError
    if type(value["number"]) is not int or not isinstance(value["row_ids"], list):
        raise TypeError
    if not value["row_ids"] or not all(isinstance(row, str) for row in value["row_ids"]):
        raise TypeError
    if "drawn" in value and (len(value["row_ids"]) != 1 or value["verdict"] == NONE):
        raise ValueError
    return Ruling(row_ids=tuple(value.pop("row_ids")), **value)
