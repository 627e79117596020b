"""``sanitize attack`` and ``sanitize score``: files in, truth out, and the truth found again."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.cli import command
from pipelines.decide import Decision, verdicts_file
from pipelines.disk import make_folder, write_json, write_table
from pipelines.ingest import ingest
from pipelines.manifest import Run
from pipelines.publish import publish
from pipelines.readers.sources import identify
from pipelines.store import Store, key_of
from pipelines.writers import default_name
from sanitizers.core.data import ROW_ID, Roles
from sanitizers.poisons.laws import MIXED_ROLES, mixed_data
from tests.spine import CREATED, SALT, verdict_table

ROLES = Roles(label="y", features=("x", "w", "city"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 200))
    city = rng.choice(["Rome", "Oslo; N", 'the "Hague"'], 200)
    lines = ["id,x,w,city,when,y"]
    for i in range(200):
        label = "up" if x[i] + w[i] > 0 else "down"
        quoted = '"' + city[i].replace('"', '""') + '"'
        number = "" if i == 7 else f"{x[i]:.2f}"
        lines.append(f"r{i:03d},{number},{w[i]:.3f},{quoted},2024-01-01T{i % 24:02d}:00:00,{label}")
    (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip()


def attack(*words: str) -> int:
    return command(["attack", "mine.csv", "--poison", "flip-random", "--rate", "0.1", *words])


def truth_of(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def release(
    root: Path,
    file: Path,
    verdicts: Sequence[str],
    roles: Roles = ROLES,
    id_column: str | None = None,
) -> Path:
    """Publish the rows of a file with these verdicts, as a run would."""
    store = Store.open(root, SALT)
    key = key_of(str(file), list(verdicts), id_column)
    read = ingest(file, store.inputs("war", key), salt=store.salt, id_column=id_column)
    run = Run("war", key, CREATED, key, {}, {"roles": asdict(roles)}, ())
    part = store.run("war", key)
    make_folder(part)
    ids = read.shard_files()[0].read([ROW_ID]).column(ROW_ID)
    write_table(verdict_table(ids, list(verdicts)), verdicts_file(part, 0))
    keep, review, quarantine = (list(verdicts).count(v) for v in ("keep", "review", "quarantine"))
    decision = Decision(len(ids), keep, review, quarantine, 0, (), {})
    write_json(part / "decision.json", asdict(decision))
    run.write(part)
    report = part / "report.html"
    report.write_text("<!doctype html>")
    made = publish(store, run, read, decision, lambda version, created: report)
    assert made.folder is not None
    return made.folder


def judged(truth: Sequence[dict[str, str]], rows: int) -> list[str]:
    """Verdicts that find all poison but the first row, and lose one clean row."""
    bad = [int(line["row"]) for line in truth]
    out = ["quarantine" if row in bad else "keep" for row in range(rows)]
    out[bad[0]] = "keep"
    out[next(row for row in range(rows) if row not in bad)] = "quarantine"
    return out


# ------------------------------------------------------------- attack


def test_an_attack_writes_a_copy_and_its_truth(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attack("--label", "y", "--id", "id", "--seed", "3", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "file": "mine.poisoned.csv",
        "truth": "mine.poisoned.truth.csv",
        "rows": 200,
        "poison": 20,
    }
    before = (folder / "mine.csv").read_text().splitlines()
    after = (folder / "mine.poisoned.csv").read_text().splitlines()
    changed = [
        i - 1 for i, (a, b) in enumerate(zip(before, after, strict=True)) if _cells(a) != _cells(b)
    ]
    truth = truth_of("mine.poisoned.truth.csv")
    assert [int(line["row"]) for line in truth] == changed
    for line in truth:
        row = int(line["row"])
        assert (line["row_id"], line["kind"], line["added"]) == (
            f"r{row:03d}",
            "flip-random",
            "false",
        )
        assert before[row + 1].endswith(line["was"])


def _cells(line: str) -> list[str]:
    return next(csv.reader([line]))


def test_the_same_seed_writes_the_same_bytes(folder: Path) -> None:
    for out in ("one.csv", "two.csv"):
        assert attack("--label", "y", "--seed", "5", "--out", out) == 0
    assert attack("--label", "y", "--seed", "6", "--out", "three.csv") == 0
    one, two, three = (
        ((folder / f"{n}.csv").read_bytes(), (folder / f"{n}.truth.csv").read_bytes())
        for n in ("one", "two", "three")
    )
    assert one == two
    assert one != three


@pytest.mark.parametrize("name", ["far-corner", "skew-batch", "duplicate-flood", "trigger"])
def test_added_rows_read_like_the_others(folder: Path, name: str) -> None:
    words = ["attack", "mine.csv", "--poison", name, "--rate", "0.05", "--label", "y"]
    assert command([*words, "--time", "when"]) == 0
    rows = [_cells(line) for line in (folder / "mine.poisoned.csv").read_text().splitlines()]
    bad = {int(line["row"]) for line in truth_of("mine.poisoned.truth.csv")}
    assert len(rows) == 211
    clean = [_cells(line) for line in (folder / "mine.csv").read_text().splitlines()]
    assert [row for i, row in enumerate(rows, -1) if i not in bad] == clean
    for i in bad:
        _, x, _, city, when, label = rows[i + 1]
        assert city in {"Rome", "Oslo; N", 'the "Hague"'}
        assert label in {"up", "down"}
        assert "T" in when
        assert len(x.partition(".")[2]) <= 2


def test_parquet_stays_parquet_with_its_types(folder: Path) -> None:
    table = mixed_data(0)
    pq.write_table(table, "rows.parquet")
    features = ",".join(MIXED_ROLES.features)
    words = "attack rows.parquet --poison gradient --rate 0.05 --target price --id key --time day"
    assert command([*words.split(), "--features", features, "--set", "steps=5"]) == 0
    done = pq.read_table("rows.poisoned.parquet")
    assert done.num_rows == 420
    assert done.schema.names == table.schema.names
    assert done.schema.field("money").type == table.schema.field("money").type
    assert done.schema.field("since").type == table.schema.field("since").type


def test_gzipped_and_tab_separated_files(folder: Path) -> None:
    text = (folder / "mine.csv").read_text().replace('"', "").replace(",", "\t")
    with gzip.open("tabs.tsv.gz", "wt") as file:
        file.write(text)
    words = "attack tabs.tsv.gz --poison flip-pair --rate 0.1 --label y"
    assert command(words.split()) == 0
    before, after = text.splitlines(), (folder / "tabs.poisoned.tsv").read_text().splitlines()
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 20


def test_values_that_look_missing_stay_what_they_are(folder: Path) -> None:
    rows = "".join(f'{i},"NA",{"ab"[i % 2]}\n{i},,{"ab"[i % 2]}\n' for i in range(60))
    (folder / "odd.csv").write_text(f"x,note,y\n{rows}")
    words = "attack odd.csv --poison flip-random --rate 0.1 --label y"
    assert command(words.split()) == 0
    text = (folder / "odd.poisoned.csv").read_text()
    assert text.count('"NA"') == text.count(",,") == 60


def test_names_of_copies(folder: Path) -> None:
    Path("a.b.txt").write_text("x,y\n1,2\n")
    Path("c.jsonl").write_text('{"x": 1}\n')
    for path, name in [
        ("mine.csv", "mine.poisoned.csv"),
        ("a.b.txt", "a.b.poisoned.csv"),
        ("c.jsonl", "c.poisoned.parquet"),
    ]:
        assert default_name(identify(Path(path), path)) == name


@pytest.mark.parametrize(
    ("words", "status", "parts"),
    [
        ("attack mine.csv --poison flip-fra --rate 0.1", 2, ["'flip-fra'", "mean 'flip-far'"]),
        ("attack mine.csv --poison flip-far", 2, ["--rate"]),
        ("attack mine.csv --poison flip-far --rate much", 2, ["--rate", "'much'"]),
        ("attack mine.csv --poison flip-far --rate 0 --label y", 2, ["rate is 0.0"]),
        ("attack mine.csv --poison flip-far --rate 0.1 --seed -1 --label y", 2, ["seed is -1"]),
        ("attack mine.csv --poison gradient --rate 0.1 --label y", 2, ["role target", "--target"]),
        ("attack mine.csv --poison flip-far --rate 0.1 --label u", 2, ["no column 'u'"]),
        ("attack mine.csv --poison flip-far --rate 0.1 --label=", 2, ["label", "not empty"]),
        ("attack mine.csv --poison flip-far --rate 0.1 --label y --target x", 2, ["one of them"]),
        ("attack mine.csv --poison flip-far --rate 0.1 --set model", 2, ["KEY=VALUE"]),
        ("attack mine.csv --poison flip-far --rate 0.1 --set modl=x", 2, ["mean 'model'"]),
        ("attack mime.csv --poison flip-far --rate 0.1", 3, ["mean 'mine.csv'"]),
        ("attack *.csv --poison flip-far --rate 0.1", 2, ["2 files", "one file at a time"]),
        ("attack bad.csv --poison flip-far --rate 0.1", 3, ["1 rows of bad.csv cannot be read"]),
        ("attack mine.csv --poison flip-far --rate 0.1 --out mine.csv --force", 2, ["clean data"]),
        ("attack mine.csv --poison flip-far --rate 0.1 --out bad.csv", 2, ["there already"]),
        ("attack mine.csv --poison flip-far --rate 0.1 --out a.xls", 2, ["a.xls", ".csv"]),
        ("attack mine.csv --poison flip-far --rate 0.1 --out no/a.csv", 2, ["no folder"]),
    ],
)
def test_bad_attacks_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: str, status: int, parts: list[str]
) -> None:
    (folder / "bad.csv").write_text("x,y\n1,a\n2,b\n3\n")
    assert command(words.split()) == status
    told = said(capsys)
    assert told.count("\n") == 0
    for part in parts:
        assert part in told
    assert not list(folder.glob("*poisoned*"))
    assert not list(folder.glob(".*"))


def test_nothing_is_replaced_unless_forced(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attack("--label", "y") == 0
    first = (folder / "mine.poisoned.csv").read_bytes()
    assert attack("--label", "y", "--seed", "9") == 2
    assert "--force" in said(capsys)
    assert (folder / "mine.poisoned.csv").read_bytes() == first
    assert attack("--label", "y", "--seed", "9", "--force") == 0
    assert (folder / "mine.poisoned.csv").read_bytes() != first


# ------------------------------------------------------------- score


@pytest.mark.parametrize("id_column", [None, "id"])
def test_a_score_is_what_was_published(
    folder: Path, capsys: pytest.CaptureFixture[str], id_column: str | None
) -> None:
    assert attack("--label", "y") == 0
    truth = truth_of("mine.poisoned.truth.csv")
    verdicts = judged(truth, 200)
    made = release(folder / "store", folder / "mine.poisoned.csv", verdicts, id_column=id_column)
    capsys.readouterr()
    words = ["score", str(made), "--truth", "mine.poisoned.truth.csv"]
    assert command([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["recall"] == pytest.approx(19 / 20)
    assert told["precision"] == pytest.approx(19 / 20)
    assert told["clean_lost"] == pytest.approx(1 / 180)
    assert [kind["kind"] for kind in told["kinds"]] == ["flip-random"]
    assert told["damage"] is None
    assert command(words) == 0
    assert "recall 95.0 %, precision 95.0 %, clean rows lost 0.56 %" in capsys.readouterr().out


def test_a_release_far_from_its_store_is_scored_by_its_ids(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attack("--label", "y") == 0
    verdicts = judged(truth_of("mine.poisoned.truth.csv"), 200)
    made = release(folder / "store", folder / "mine.poisoned.csv", verdicts)
    made.rename(folder / "1.0.0")
    words = ["score", "1.0.0", "--truth", "mine.poisoned.truth.csv"]
    assert command(words) == 0
    assert "recall 95.0 %" in capsys.readouterr().out
    assert command([*words, "--before", "mine.csv"]) == 3
    assert "a release in its store" in said(capsys)


@pytest.mark.parametrize("name", ["skew-batch", "flip-far"])
def test_damage_is_told_and_taken_back(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    words = ["attack", "mine.csv", "--poison", name, "--rate", "0.3", "--label", "y", "--id", "id"]
    assert command(words) == 0
    truth = truth_of("mine.poisoned.truth.csv")
    rows = 200 + sum(line["added"] == "true" for line in truth)
    bad = {int(line["row"]) for line in truth}
    verdicts = ["quarantine" if row in bad else "keep" for row in range(rows)]
    made = release(folder / "store", folder / "mine.poisoned.csv", verdicts, id_column="id")
    words = ["score", str(made), "--truth", "mine.poisoned.truth.csv", "--before", "mine.csv"]
    capsys.readouterr()
    assert command([*words, "--json"]) == 0
    damage = json.loads(capsys.readouterr().out)["damage"]
    assert damage["holdout"] == 50
    linear = damage["models"][0]
    if name == "skew-batch":
        # All poison was added, so that what is left is the clean data.
        assert linear["cleaned"] == linear["before"]
        assert linear["changed_cleaned"] == 0
    else:
        assert linear["poisoned"] < linear["cleaned"]
    assert command(words) == 0
    assert "50 clean rows that were held out" in capsys.readouterr().out


def test_a_release_of_another_file_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attack("--label", "y", "--seed", "1") == 0
    made = release(folder / "store", folder / "mine.csv", ["keep"] * 200)
    assert command(["score", str(made), "--truth", "mine.poisoned.truth.csv"]) == 3
    told = said(capsys).splitlines()[-1]
    assert "of the 20 rows" in told
    assert "not a release of the file that was poisoned" in told


def test_a_file_that_changed_since_is_not_taken_by_position(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attack("--label", "y", "--id", "id") == 0
    made = release(folder / "store", folder / "mine.poisoned.csv", ["keep"] * 200)
    words = ["score", str(made), "--truth", "mine.poisoned.truth.csv"]
    assert command(words) == 0
    with (folder / "mine.poisoned.csv").open("a") as file:
        file.write("r999,0.1,0.2,Rome,2024-01-01T00:00:00,up\n")
    assert command(words) == 3
    assert "not a release of the file" in said(capsys)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (None, "no truth"),
        ("", "no column 'row'"),
        ("row,kind\n", "no poisoned row"),
        ("row,kind\nx,flip\n", "line 2: row is 'x'"),
        ("row,kind\n-1,flip\n", "line 2: row is '-1'"),
        ("row,kind\n1,flip\n1,flip\n", "a row twice"),
        ("row,kind\n1,flip\n", "0 of the 1 rows"),
        ('row,kind\n1,"flip', "not CSV"),
        (b"row,kind\n1,\xff\n", "not CSV in UTF-8"),
    ],
)
def test_a_truth_that_is_none_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str | bytes | None, part: str
) -> None:
    made = release(folder / "store", folder / "mine.csv", ["keep"] * 200)
    if text is not None:
        (folder / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert command(["score", str(made), "--truth", "t.csv"]) == 3
    told = said(capsys)
    assert part in told
    assert told.count("\n") == 0


def test_other_clean_data_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert attack("--label", "y") == 0
    made = release(folder / "store", folder / "mine.poisoned.csv", ["keep"] * 200)
    lines = (folder / "mine.csv").read_text().splitlines()
    (folder / "short.csv").write_text("\n".join(lines[:-1]) + "\n")
    (folder / "other.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    capsys.readouterr()
    for name, part in [("short.csv", "has 199 rows"), ("other.csv", "rows that are not poison")]:
        words = ["score", str(made), "--truth", "mine.poisoned.truth.csv", "--before", name]
        assert command(words) == 3
        assert part in said(capsys)


def test_no_release_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "t.csv").write_text("row,kind\n1,flip\n")
    assert command(["score", "nowhere", "--truth", "t.csv"]) == 2
    assert "no release 'nowhere'" in said(capsys)
