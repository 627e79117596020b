from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.disk import canonical, digest_of, pretty
from pipelines.manifest import MANIFEST, FileEntry, Manifest, safe_path
from pipelines.verify import verify
from sanitizers.core.data import ROW_ID
from sanitizers.core.errors import IntegrityError, PlanError
from sanitizers.core.verdicts import KEEP, QUARANTINE, REVIEW
from tests.spine import mixed, stage

VERDICTS = [KEEP, KEEP, REVIEW, KEEP, QUARANTINE, KEEP]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = mixed(6).select(["x", "text.dotted"])
    made = stage(tmp_path_factory.mktemp("s"), table, VERDICTS, shard_rows=3, unreadable=2)
    folder = made.publish().folder
    assert folder is not None
    return folder


@pytest.fixture
def release(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "1.0.0"))


def problems(release: Path) -> str:
    found = verify(release)
    assert found.ok == (not found.problems)
    return "\n".join(found.problems)


def forge(release: Path, **changes: Any) -> None:
    """Change a manifest, and make its own digest right again, as an attacker would."""
    value = json.loads((release / MANIFEST).read_text())
    del value["digest"]
    value |= changes
    digest = sha256(canonical(value)).hexdigest()
    (release / MANIFEST).write_bytes(pretty(value | {"digest": digest}))


def relist(release: Path, path: str) -> None:
    """Make the manifest agree with a file that was changed."""
    manifest = Manifest.load(release)
    file = release / path
    rows = pq.read_metadata(file).num_rows if path.endswith("parquet") else None
    entry = FileEntry(path, file.stat().st_size, digest_of(file), rows)
    files = [entry if f.path == path else f for f in manifest.files]
    (release / MANIFEST).write_bytes(replace(manifest, files=tuple(files)).dump())


def test_a_release_is_as_it_was_published(release: Path) -> None:
    found = verify(release)
    assert found.ok
    assert found.rows == 8
    assert found.files == sum(p.is_file() for p in release.rglob("*"))


def test_every_byte_of_every_file_counts(release: Path) -> None:
    for path in sorted(p for p in release.rglob("*") if p.is_file()):
        data = path.read_bytes()
        for at in range(0, len(data), max(1, len(data) // 25)):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            assert not verify(release).ok, f"{path} byte {at}"
        path.write_bytes(data)
    assert verify(release).ok


def test_every_byte_of_the_manifest_counts(release: Path) -> None:
    path = release / MANIFEST
    data = path.read_bytes()
    for at in range(len(data)):
        # Spaces and line ends are where a reader of JSON would not look.
        for changed in (data[at] ^ 1, *([9] if data[at] in b" \n" and at % 5 == 0 else [])):
            path.write_bytes(data[:at] + bytes([changed]) + data[at + 1 :])
            with pytest.raises(IntegrityError):
                Manifest.load(release)
    for other in (b"", data[:-1], data + b"\n", b" " + data):
        path.write_bytes(other)
        assert not verify(release).ok


class TestFiles:
    def test_missing(self, release: Path) -> None:
        (release / "clean/part-00001.parquet").unlink()
        assert problems(release) == "clean/part-00001.parquet is missing"

    def test_extra(self, release: Path) -> None:
        (release / "clean/part-00002.parquet").touch()
        (release / ".hidden").mkdir()
        (release / ".hidden/x").touch()
        assert problems(release).splitlines() == [
            ".hidden/ is not in the manifest",
            ".hidden/x is not in the manifest",
            "clean/part-00002.parquet is not in the manifest",
        ]

    def test_longer(self, release: Path) -> None:
        with (release / "report.html").open("ab") as file:
            file.write(b"x")
        assert "report.html has" in problems(release)

    def test_changed(self, release: Path) -> None:
        path = release / "report.html"
        path.write_bytes(path.read_bytes().swapcase())
        assert "report.html was changed" in problems(release)

    def test_link(self, release: Path, tmp_path: Path) -> None:
        path = release / "report.html"
        path.rename(tmp_path / "outside")
        path.symlink_to(tmp_path / "outside")
        assert problems(release) == "report.html is a symbolic link"

    def test_link_to_a_folder(self, release: Path, tmp_path: Path) -> None:
        (release / "clean").rename(tmp_path / "outside")
        (release / "clean").symlink_to(tmp_path / "outside")
        assert "clean is a symbolic link" in problems(release)

    def test_linked_manifest(self, release: Path, tmp_path: Path) -> None:
        (release / MANIFEST).rename(tmp_path / "outside")
        (release / MANIFEST).symlink_to(tmp_path / "outside")
        assert "not a regular file" in problems(release)

    def test_pipe(self, release: Path) -> None:
        (release / "report.html").unlink()
        os.mkfifo(release / "report.html")
        assert problems(release) == "report.html is not a regular file"

    def test_folder_in_place_of_a_file(self, release: Path) -> None:
        (release / "report.html").unlink()
        (release / "report.html").mkdir()
        assert "report.html/ is not in the manifest" in problems(release)


class TestManifest:
    def test_missing(self, release: Path) -> None:
        (release / MANIFEST).unlink()
        assert "manifest.json is missing" in problems(release)

    @pytest.mark.parametrize("text", ["", "{}", "[]", "null", "{", "\x00", "[" * 9999])
    def test_malformed(self, release: Path, text: str) -> None:
        (release / MANIFEST).write_text(text)
        assert "malformed" in problems(release)
        assert len(verify(release).problems) == 1

    def test_of_another_format(self, release: Path) -> None:
        forge(release, format="dataset-sanitizer/2")
        assert "format 'dataset-sanitizer/2'" in problems(release)

    def test_with_a_wrong_type(self, release: Path) -> None:
        forge(release, version=1)
        assert "version: " in problems(release)

    def test_with_another_field(self, release: Path) -> None:
        forge(release, extra=1)
        assert "was changed" in problems(release)

    @pytest.mark.parametrize(
        "path", ["../x", "/etc/passwd", "a/../b", "", "a//b", ".hidden", "a\\b", "manifest.json"]
    )
    def test_with_a_path_that_leads_out(self, release: Path, path: str) -> None:
        forge(release, files=[{"path": path, "bytes": 1, "sha256": "0", "rows": None}])
        assert "expected plain paths" in problems(release)
        assert not safe_path(path) or path == MANIFEST

    def test_with_a_file_listed_twice(self, release: Path) -> None:
        entry = {"path": "report.html", "bytes": 1, "sha256": "0", "rows": None}
        forge(release, files=[entry, entry])
        assert "twice" in problems(release)

    def test_with_counts_that_do_not_add_up(self, release: Path) -> None:
        counts = {"rows": 8, "keep": 5, "review": 1, "quarantine": 3, "unreadable": 1}
        forge(release, counts=counts)
        found = problems(release)
        assert "counts 8 rows, and 9 by verdict" in found
        assert "clean has 4 rows, and the manifest counts 5" in found
        assert "unreadable.parquet has 2 rows, expected 1" in found

    def test_with_a_source_of_other_length(self, release: Path) -> None:
        source = {"path": "a", "sha256": "0", "bytes": 1, "rows": 7, "unreadable": 2}
        forge(release, source={"digest": "0", "files": [source]})
        assert "the source has 9 rows, and the release 8" in problems(release)


class TestContents:
    def rewrite(self, release: Path, path: str, table: pa.Table) -> str:
        pq.write_table(table, release / path)
        relist(release, path)
        return problems(release)

    def test_ids_that_repeat(self, release: Path) -> None:
        path = "clean/part-00000.parquet"
        table = pq.read_table(release / path)
        twice = table.take([0] * table.num_rows)
        assert "1 row ids occur more than once" in self.rewrite(release, path, twice)

    def test_ids_that_are_clean_and_not(self, release: Path) -> None:
        clean = pq.read_table(release / "clean/part-00000.parquet").column(ROW_ID)[0]
        path = "review/part-00000.parquet"
        table = pq.read_table(release / path)
        other = table.set_column(2, ROW_ID, pa.array([clean.as_py()]))
        assert "more than once" in self.rewrite(release, path, other)

    def test_internal_columns(self, release: Path) -> None:
        path = "clean/part-00000.parquet"
        table = pq.read_table(release / path)
        inside = table.append_column("__row_key", pa.array([1] * table.num_rows))
        assert "internal column '__row_key'" in self.rewrite(release, path, inside)

    def test_no_ids(self, release: Path) -> None:
        path = "clean/part-00000.parquet"
        table = pq.read_table(release / path).drop_columns([ROW_ID])
        assert "has no column 'row_id'" in self.rewrite(release, path, table)

    def test_parts_of_other_columns(self, release: Path) -> None:
        path = "clean/part-00001.parquet"
        table = pq.read_table(release / path).drop_columns(["x"])
        assert "has other columns than" in self.rewrite(release, path, table)

    def test_a_file_that_is_no_table(self, release: Path) -> None:
        path = "clean/part-00000.parquet"
        rows = pq.read_metadata(release / path).num_rows
        (release / path).write_bytes(b"PAR1 and then nothing")
        manifest = Manifest.load(release)
        entry = FileEntry(path, 21, digest_of(release / path), rows)
        files = tuple(entry if f.path == path else f for f in manifest.files)
        (release / MANIFEST).write_bytes(replace(manifest, files=files).dump())
        assert "cannot be read" in problems(release)


def test_what_is_no_release_is_told(release: Path) -> None:
    with pytest.raises(PlanError, match=r"did you mean '1\.0\.0'"):
        verify(release.parent / "1.0.1")
    with pytest.raises(PlanError, match="no release"):
        verify(release / "report.html")
