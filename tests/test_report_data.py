"""The numbers of a report are those of a slow, obvious count over all rows."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines import report_counts, report_swaps
from pipelines.ingest import UNREADABLE, ColumnProfile
from pipelines.report import render
from pipelines.report_counts import TimeCounts, ValueCounts, time_counts
from pipelines.report_data import gather
from pipelines.report_facts import RunFacts
from pipelines.report_limits import limits
from pipelines.report_rows import UNREADABLE_REASONS, worst_rows
from pipelines.report_scan import WORST, Candidate, histogram, scan_scores, take
from pipelines.report_text import Text, moment, value_text, visible
from pipelines.shards import shard_name
from sanitizers.core.data import Roles
from sanitizers.core.errors import IntegrityError
from sanitizers.core.verdicts import KEEP, QUARANTINE, REVIEW
from tests.report_run import make_run


def evidence(
    root: Path, *shards: list[float] | NDArray[np.float64]
) -> tuple[list[Path], list[int]]:
    """Write the scores of shards, NaN where a sanitizer abstained."""
    paths = [root / shard_name(i, "evidence") for i in range(len(shards))]
    for path, scores in zip(paths, shards, strict=True):
        values = np.asarray(scores, dtype=np.float64)
        pq.write_table(pa.table({"score": pa.array(values, mask=np.isnan(values))}), path)
    return paths, [len(s) for s in shards]


def whole(facts: RunFacts, folder: Path, kind: str) -> pa.Table:
    names = [shard_name(i, kind) for i in range(len(facts.ingested.shards))]
    return pa.concat_tables([pq.read_table(folder / name) for name in names])


@pytest.fixture
def facts(tmp_path: Path) -> RunFacts:
    return make_run(tmp_path, unreadable=["1,2,3", "4", "5"])


SCORES = {
    "even": np.linspace(0, 1, 500),
    "one value": np.full(70, 0.25),
    "one row": np.array([3.0]),
    "votes": np.repeat([0.0, 0.1, 0.2, 1.0], [400, 90, 9, 1]),
    "far tail": np.concatenate([np.linspace(-1, 1, 900), [50.0, 1e6, 1e12]]),
    "largest": np.concatenate([np.linspace(0, 1, 50), [1.7e308, -1.7e308]]),
    "gaps": np.where(np.arange(300) % 3 == 0, np.nan, np.arange(300.0)),
}


@pytest.mark.parametrize("name", list(SCORES))
def test_every_score_is_in_one_bar_on_its_side_of_the_lines(name: str, tmp_path: Path) -> None:
    scores = SCORES[name]
    files, rows = evidence(tmp_path, scores[:40], scores[40:])
    known = scores[~np.isnan(scores)]
    line = float(np.quantile(known, 0.9))
    chart = histogram(files, rows, scan_scores(files, rows), [line])
    assert chart is not None
    assert sum(chart.counts) == len(known)
    bars = list(zip(chart.edges, chart.edges[1:], chart.counts, strict=False))
    assert all(left < right for left, right, _ in bars)
    assert sum(n for _, right, n in bars if right > line) == (known > line).sum()


def test_rows_on_a_line_have_a_bar_below_it(tmp_path: Path) -> None:
    scores = np.array([0.0] * 90 + [0.5] * 10)
    files, rows = evidence(tmp_path, scores)
    chart = histogram(files, rows, scan_scores(files, rows), [0.0])
    assert chart is not None
    below = sum(n for n, right in zip(chart.counts, chart.edges[1:], strict=True) if right <= 0.0)
    assert (below, sum(chart.counts)) == (90, 100)


def test_bars_are_those_of_a_slow_count(tmp_path: Path) -> None:
    scores = SCORES["far tail"]
    files, rows = evidence(tmp_path, scores)
    chart = histogram(files, rows, scan_scores(files, rows), [0.5, 60.0])
    assert chart is not None
    assert {0.5, 60.0} <= set(chart.edges)
    for i, (left, right, n) in enumerate(
        zip(chart.edges, chart.edges[1:], chart.counts, strict=False)
    ):
        first = scores == left if i == 0 else np.zeros(len(scores), bool)
        assert n == (first | ((scores > left) & (scores <= right))).sum()


def test_the_axis_reaches_a_line_that_is_not_too_far(tmp_path: Path) -> None:
    files, rows = evidence(tmp_path, SCORES["even"])
    near = histogram(files, rows, scan_scores(files, rows), [2.5])
    far = histogram(files, rows, scan_scores(files, rows), [1e9])
    assert near is not None
    assert far is not None
    assert near.edges[-1] > 2.5
    assert far.edges[-1] == 1.0


def test_no_score_no_chart(tmp_path: Path) -> None:
    files, rows = evidence(tmp_path, [np.nan] * 5, [])
    scan = scan_scores(files, rows)
    assert scan.worst == ()
    assert histogram(files, rows, scan, [1.0]) is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9) | st.none(), min_size=1, max_size=200), st.integers(1, 90))
def test_the_worst_are_those_of_a_slow_sort(values: list[int | None], size: int) -> None:
    scores = [np.nan if v is None else float(v) for v in values]
    with tempfile.TemporaryDirectory() as folder:
        shards = [scores[at : at + size] for at in range(0, len(scores), size)]
        scan = scan_scores(*evidence(Path(folder), *shards))
    order = sorted((-s, i) for i, s in enumerate(scores) if not np.isnan(s))[:WORST]
    assert list(scan.worst) == [Candidate(-s, i // size, i % size) for s, i in order]


def test_a_worst_row_is_the_row_that_it_says(facts: RunFacts) -> None:
    data = gather(facts)
    rows = {r["row_id"]: r for r in whole(facts, facts.ingested.folder, "rows").to_pylist()}
    verdicts = {r["row_id"]: r for r in whole(facts, facts.runs_folder, "verdicts").to_pylist()}
    for section in data.sections:
        scores = {
            r["row_id"]: r
            for r in whole(facts, facts.evidence[section.name], "evidence").to_pylist()
        }
        for worst in section.worst:
            row = rows[str(worst.row_id.text)]
            assert worst.score == scores[row["row_id"]]["score"]
            assert worst.p_value == scores[row["row_id"]]["p_value"]
            assert worst.verdict == verdicts[row["row_id"]]["verdict"]
            assert worst.row == row["__row"]
            assert worst.file.text == facts.ingested.files[row["__file"]].path
            for field in (*worst.shown, *worst.folded):
                assert field.value == value_text(row[field.column.text])


def test_roles_come_first_and_no_column_twice(tmp_path: Path) -> None:
    facts = make_run(tmp_path, features=70)
    row = gather(facts).sections[0].worst[0]
    assert [f.role for f in row.shown[:3]] == ["label", "time", "source"]
    assert len(row.shown) == 3 + 12
    assert len(row.folded) == 40
    assert row.left_out == 70 + 4 - 55
    columns = [f.column for f in (*row.shown, *row.folded)]
    assert len(set(columns)) == len(columns)


def test_the_values_of_a_row_have_an_allowance(tmp_path: Path) -> None:
    columns = [f"{i}" + "<\u202e" * 500 for i in range(60)]
    facts = make_run(tmp_path, texts=["\u202e<" * 5_000], columns=columns)
    row = gather(facts).sections[0].worst[0]
    fields = (*row.shown, *row.folded)
    assert 3 <= len(fields) < 40
    assert sum(len(visible(f.column)) + len(visible(f.value)) for f in fields) <= 6_000
    assert row.left_out == 64 - len(fields)


def test_long_classes_are_cut(tmp_path: Path) -> None:
    by_class = gather(make_run(tmp_path, texts=["z" * 500])).breakdowns[0]
    assert by_class.worst[0].value == Text("z" * 60, 440)


def test_a_row_under_the_line_gets_a_sentence_of_its_sanitizer(facts: RunFacts) -> None:
    section = next(s for s in gather(facts).sections if s.name == "micro-votes")
    under = next(w for w in section.worst if w.score <= 0.9)
    assert str(under.sentence.text).startswith(f"Scores {under.score:.3g}, ")
    silent = gather(replace(facts, reasons={}))
    section = next(s for s in silent.sections if s.name == "micro-votes")
    assert section.worst[0].sentence.text == ""


def test_verdicts_by_class_are_those_of_a_slow_count(facts: RunFacts) -> None:
    classes = whole(facts, facts.ingested.folder, "rows").column("class").to_pylist()
    verdicts = whole(facts, facts.runs_folder, "verdicts").column("verdict").to_pylist()
    slow = Counter(zip(classes, verdicts, strict=True))
    by_class = next(b for b in gather(facts).breakdowns if b.role == "label")
    for value in by_class.worst:
        found = (value.keep, value.review, value.quarantine)
        assert found == tuple(slow[value.value.text, v] for v in (KEEP, REVIEW, QUARANTINE))
    assert sum(v.rows for v in by_class.worst) == facts.ingested.rows


def drawn(facts: RunFacts, quarantine: float, review: float) -> RunFacts:
    """The same run with other lines."""
    lines = (replace(t, quarantine=quarantine, review=review) for t in facts.decision.thresholds)
    return replace(facts, decision=replace(facts.decision, thresholds=tuple(lines)))


def test_labels_and_the_ones_that_models_would_give_are_those_of_a_slow_count(
    facts: RunFacts,
) -> None:
    given = whole(facts, facts.ingested.folder, "rows").column("class").to_pylist()
    said = whole(facts, facts.evidence["labels"], "evidence")
    slow = {
        QUARANTINE: Counter[tuple[str | None, str | None]](),
        REVIEW: Counter[tuple[str | None, str | None]](),
    }
    for label, row in zip(given, said.to_pylist(), strict=True):
        if label != row["hint"] and row["score"] > 0.1:
            slow[QUARANTINE if row["score"] > 0.2 else REVIEW][label, row["hint"]] += 1
    found = gather(drawn(facts, 0.2, 0.1)).swaps
    assert found is not None
    pairs = [(s.given.text, s.instead.text) for s in found.most]
    assert [(s.quarantine, s.review) for s in found.most] == [
        (slow[QUARANTINE][pair], slow[REVIEW][pair]) for pair in pairs
    ]
    assert found.pairs == len(slow[QUARANTINE] | slow[REVIEW])
    assert found.rows == (slow[QUARANTINE] + slow[REVIEW]).total()


def test_where_no_label_is_over_a_line_no_pair_is_told(facts: RunFacts) -> None:
    calm = drawn(facts, 2.0, 2.0)
    assert gather(calm).swaps is None
    assert "Models would say" not in render(gather(calm))


def test_a_flood_of_pairs_is_cut_and_said_so(
    facts: RunFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_swaps, "_MOST", 6)
    monkeypatch.setattr(report_swaps, "PAIRS", 2)
    flooded = drawn(facts, 0.2, 0.1)
    found = gather(flooded).swaps
    assert found is not None
    assert (len(found.most), found.partial) == (2, True)
    assert "The first 2 of more than" in render(gather(flooded))


def test_a_class_of_one_bad_row_does_not_come_first() -> None:
    counts = ValueCounts()
    values = ["rare"] + ["bad"] * 100 + ["good"] * 900 + [None] * 10
    verdicts = [QUARANTINE] + [QUARANTINE] * 60 + [KEEP] * 40 + [KEEP] * 910
    counts.add(pa.chunked_array([values]), pa.chunked_array([verdicts]))
    worst = counts.worst(20)
    assert [w[0] for w in worst] == ["bad", "rare", "good", None]
    assert worst[0] == ("bad", 40, 0, 60)


def test_a_flood_of_values_does_not_hide_the_bad_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_counts, "MOST_VALUES", 100)
    counts = ValueCounts()
    for shard in range(10):
        values = [f"{shard}-{i}" for i in range(150)] + ["bad"] * 5
        verdicts = [KEEP] * 150 + [QUARANTINE] * 5
        counts.add(pa.chunked_array([values]), pa.chunked_array([verdicts]))
    assert counts.partial
    assert counts.values <= 100
    assert counts.worst(1) == [("bad", 0, 0, 50)]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([True, False, None]),
        pa.array([1, 2, None]),
        pa.array([1.5, float("nan"), None]),
        pa.array(["a", "b", None]).dictionary_encode(),
        pa.array([0, 1, None], pa.timestamp("us")),
    ],
)
def test_values_of_any_plain_type_are_counted(values: pa.Array) -> None:
    counts = ValueCounts()
    counts.add(pa.chunked_array([values]), pa.chunked_array([[KEEP, KEEP, REVIEW]]))
    assert counts.values == 3


def test_columns_that_cannot_be_counted_are_told(tmp_path: Path) -> None:
    facts = make_run(tmp_path, roles=Roles(label="class", time="note"))
    for shard in facts.ingested.shards:
        path = facts.ingested.folder / shard.name
        table = pq.read_table(path)
        nested = pa.array([[1]] * table.num_rows)
        pq.write_table(
            table.set_column(table.schema.get_field_index("class"), "class", nested), path
        )
    data = gather(facts)
    assert data.breakdowns == ()
    assert data.timeline is None
    assert len(data.uncounted) == 2
    assert "no order in time" in render(data)


def test_every_row_is_in_one_bar_over_time(facts: RunFacts) -> None:
    timeline = gather(facts).timeline
    assert timeline is not None
    bins = timeline.bins
    assert sum(bins.keep) + sum(bins.review) + sum(bins.quarantine) == facts.ingested.rows
    assert (timeline.missing, timeline.outside) == (0, 0)
    times = (
        whole(facts, facts.ingested.folder, "rows").column("at").cast(pa.int64()).to_numpy() / 1e6
    )
    slow, _ = np.histogram(times, np.array([*bins.edges[:-1], np.inf]))
    assert [sum(n) for n in zip(bins.keep, bins.review, bins.quarantine, strict=True)] == list(slow)


def test_absurd_and_missing_times_do_not_flatten_the_others(tmp_path: Path) -> None:
    days = [20_000 + i % 100 for i in range(2_000)]
    column = pa.array([*days, 2_900_000, -700_000, None], pa.date32())
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"at": column}), path)
    counts = time_counts([path], [len(column)], "at")
    assert counts is not None
    times = np.array([*(d * 86400.0 for d in days), 2.9e6 * 86400, -7e5 * 86400, np.nan])
    counts.add(times, pa.chunked_array([[KEEP] * len(times)]))
    assert (counts.missing, counts.outside) == (1, 2)
    assert counts.edges[-1] - counts.edges[0] < 200 * 86400
    assert sum(counts.bins.keep) == len(times) - 1


@pytest.mark.parametrize(
    ("values", "kind", "width"),
    [
        (np.arange(2010.0, 2020.0), pa.int64(), 1.0),
        (np.arange(0.0, 40 * 86400, 3600), pa.timestamp("us"), 86400.0),
        (np.array([5.0, 5.0]), pa.float64(), 1.0),
        (np.array([0.0, 1e15]), pa.timestamp("us"), 1e15 / 48),
    ],
)
def test_bins_over_time_are_readable(
    values: NDArray[np.float64], kind: pa.DataType, width: float
) -> None:
    edges = TimeCounts(values, kind).edges
    assert np.diff(edges) == pytest.approx(width)
    assert edges[0] <= values.min()
    assert edges[-1] > values.max()


@pytest.mark.parametrize(
    ("days", "first", "bars"),
    [(365, "2023-03-01", 13), (365 * 10, "2023-01-01", 41), (365 * 40, "2023-01-01", 41)],
)
def test_bins_over_long_times_are_those_of_the_calendar(days: int, first: str, bars: int) -> None:
    start = np.datetime64("2023-03-15").astype("datetime64[s]").astype(np.float64)
    edges = TimeCounts(start + 86400 * np.arange(days + 1.0), pa.timestamp("us")).edges
    assert len(edges) - 1 == bars
    assert edges[0] == np.datetime64(first).astype("datetime64[s]").astype(np.float64)
    assert edges[-2] <= start + 86400 * days < edges[-1]
    assert all(moment(edge).endswith("-01") for edge in edges)


def test_unreadable_rows_are_counted_by_reason(tmp_path: Path) -> None:
    facts = make_run(tmp_path, unreadable=[f"raw {i}" for i in range(50)])
    found = gather(facts).unreadable
    assert found.rows == 50
    assert sum(n for _, n in found.reasons) == 50
    assert len(found.first) == 20
    assert found.first[3].raw.text == "raw 3"


def test_a_flood_of_reasons_is_summed_up(tmp_path: Path) -> None:
    facts = make_run(tmp_path, rows=10, unreadable=["x"] * 3000)
    path = facts.ingested.folder / UNREADABLE
    table = pq.read_table(path)
    many = pa.array([f"reason {i}" for i in range(3000)])
    pq.write_table(table.set_column(table.schema.get_field_index("reason"), "reason", many), path)
    found = gather(facts).unreadable
    assert len(found.reasons) == UNREADABLE_REASONS - (found.other_reasons > 2000)
    assert sum(n for _, n in found.reasons) + found.other_reasons == 3000


def test_the_report_does_not_hang_on_the_sharding(facts: RunFacts, tmp_path: Path) -> None:
    one = replace(
        facts,
        ingested=replace(
            facts.ingested,
            folder=tmp_path / "one",
            shards=(replace(facts.ingested.shards[0], rows=facts.ingested.rows),),
        ),
        runs_folder=tmp_path / "one",
        evidence={name: tmp_path / "one" / name for name in facts.evidence},
    )
    (tmp_path / "one").mkdir()
    shutil.copy(facts.ingested.folder / UNREADABLE, tmp_path / "one")
    pq.write_table(
        whole(facts, facts.ingested.folder, "rows"), tmp_path / "one" / shard_name(0, "rows")
    )
    pq.write_table(
        whole(facts, facts.runs_folder, "verdicts"), tmp_path / "one" / shard_name(0, "verdicts")
    )
    for name, folder in facts.evidence.items():
        one.evidence[name].mkdir()
        pq.write_table(
            whole(facts, folder, "evidence"), one.evidence[name] / shard_name(0, "evidence")
        )
    assert render(gather(one)) == render(gather(facts))


@pytest.mark.parametrize("kind", ["evidence", "verdicts"])
def test_files_of_two_runs_are_refused(facts: RunFacts, kind: str) -> None:
    folder = facts.runs_folder if kind == "verdicts" else facts.evidence["labels"]
    path = folder / shard_name(1, kind)
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(IntegrityError, match="99 rows; expected 100, as in its shard"):
        gather(facts)


def test_take_reads_the_rows_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": list(range(10_000))}), path)
    positions = np.array([0, 4095, 4096, 9_999])
    assert take(path, ["a"], positions).column("a").to_pylist() == positions.tolist()


def test_limits_name_what_stays_invisible(facts: RunFacts) -> None:
    roles = Roles(features=("x0",), text="note", image="class")
    told = {
        limit.title: limit
        for limit in limits(
            replace(facts, roles=roles, skipped={"labels": [("x0", "every value is missing")]})
        )
    }
    assert "No trusted rows: the weaker mode" in told
    assert "cluster of poison" in told["micro-concentration did not run"].text
    for role in ("label", "time", "source"):
        assert f"No column has the role {role}" in told
    assert told["The text column was carried through and not scanned"].columns == ("note",)
    assert told["The image column was carried through and not scanned"].columns == ("class",)
    assert told["5 columns without a role"].columns == ("x1", "x2", "x3", "from", "at")
    assert told["1 column skipped: every value is missing"].columns == ("x0",)
    assert any(title.startswith("micro-votes gave no score for") for title in told)


def test_a_scanned_column_and_trusted_rows_are_no_limit(facts: RunFacts) -> None:
    scanned = replace(
        facts,
        roles=replace(facts.roles, text="note"),
        needs={"labels": frozenset({"text"})},
        trusted_rows=9,
    )
    titles = [limit.title for limit in limits(scanned)]
    assert not any("text" in t or "trusted" in t or "without a role" in t for t in titles)


def test_many_columns_without_a_role_are_counted(facts: RunFacts) -> None:
    columns = tuple(ColumnProfile(f"c{i}", "int64", 0, 1) for i in range(100))
    told = limits(replace(facts, ingested=replace(facts.ingested, columns=columns)))
    limit = next(t for t in told if "without a role" in t.title)
    assert (len(limit.columns), limit.more) == (12, 88)


def test_no_candidates_no_rows(facts: RunFacts) -> None:
    assert worst_rows(facts, {"labels": ()}) == {"labels": ()}
