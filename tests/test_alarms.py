"""Finds that crowd in time or come from one source: the statistic, the counting, the run."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from pipelines.alarms import MARKER, Alarms, is_watched, raise_alarms
from pipelines.decide import Decision, verdicts_file
from pipelines.disk import make_folder, write_table
from pipelines.ingest import Ingested
from pipelines.job import Job
from pipelines.manifest import Manifest, Run
from pipelines.plan import Plan
from pipelines.progress import SILENT
from pipelines.slice_counts import BY_SLICE, SLICES, values_of
from pipelines.steps import decide_all, examine_with, ingest_inputs, look_for_risks, publish_rows
from pipelines.store import Store
from pipelines.work import Work
from sanitizers.catalog import SANITIZERS
from sanitizers.core.consensus import CONSENSUS
from sanitizers.core.data import ROW_ID, Roles
from sanitizers.core.errors import IntegrityError
from sanitizers.core.verdicts import KEEP, QUARANTINE, REVIEW, VERDICT_SCHEMA
from sanitizers.risks import ALARM, CROWDING, WARNING, Finding, RiskSettings
from sanitizers.risks.crowd_findings import MOST_TOLD, Judged, Slice, most_told, named, one_in, told
from sanitizers.risks.crowding import LEAST_SLICES, Usual, clumps, crowds
from tests.spine import SALT, hand_in

ROLES = Roles(time="at", source="from", features=("x",))
START = dt.datetime(2024, 2, 1)


# ------------------------------------------------------------------ the statistic


def spread(rng: np.random.Generator, rows: NDArray[np.int64], rate: float) -> NDArray[np.int64]:
    return np.asarray(rng.binomial(rows, rate), dtype=np.int64)


def test_finds_that_are_spread_evenly_are_no_crowd() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        rows = rng.integers(1, [60, 400, 5_000][seed % 3], 20)
        found = spread(rng, rows, [0.0, 0.002, 0.01, 0.2][seed % 4])
        assert not crowds(rows, found, found).crowded.any(), seed


def test_three_bad_slices_of_twenty_are_the_crowd() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        rows = rng.integers(100, 300, 20)
        bad = np.isin(np.arange(20), np.arange(3) + seed % 18)
        found = spread(rng, rows, 0.004) + np.where(bad, (0.3 * rows).astype(int), 0)
        for by_row in (found, np.zeros(20, dtype=np.int64)):
            assert crowds(rows, found, by_row).crowded.tolist() == bad.tolist()


@pytest.mark.parametrize("rate", [0.0005, 0.003, 0.05])
def test_the_usual_rate_is_the_true_one_whatever_the_sizes(rate: float) -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(10, 3_000, 20)
    rates = [Usual.of(rows, spread(rng, rows, rate)).rate for _ in range(300)]
    assert np.mean(rates) == pytest.approx(rate, rel=0.06)


def test_the_usual_rate_is_that_of_a_slow_search() -> None:
    rng = np.random.default_rng(1)
    rows, grid = rng.integers(10, 300, 15), np.geomspace(5e-3, 0.1, 1_000)
    found = spread(rng, rows, 0.02)

    def mid_p(rate: float) -> float:
        law = stats.poisson(rate * rows)
        return float(np.mean(law.cdf(found) - law.pmf(found) / 2))

    slow = next(rate for rate in grid if mid_p(rate) <= 0.5)
    assert Usual.of(rows, found).rate == pytest.approx(slow, rel=0.004)


def test_nine_bad_slices_of_twenty_do_not_move_the_usual_rate_far() -> None:
    rng = np.random.default_rng(2)
    rows = np.full(20, 500)
    found = spread(rng, rows, 0.01)
    bad = found.copy()
    bad[:9] = 400
    assert Usual.of(rows, bad).rate < 3 * Usual.of(rows, found).rate
    assert crowds(rows, bad, bad).crowded.tolist() == [True] * 9 + [False] * 11


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), max_size=30), st.data())
def test_the_order_of_slices_and_empty_ones_change_nothing(
    counts: list[tuple[int, int]], data: st.DataObject
) -> None:
    rows = np.array([max(n, k) for n, k in counts], dtype=np.int64)
    found = np.array([min(n, k) for n, k in counts], dtype=np.int64)
    order = np.array(data.draw(st.permutations(range(len(counts)))), dtype=np.int64)
    whole = crowds(rows, found, found).crowded
    assert crowds(rows[order], found[order], found[order]).crowded.tolist() == whole[order].tolist()
    more = crowds(np.append(rows, 0), np.append(found, 0), np.append(found, 0)).crowded
    assert more.tolist() == [*whole.tolist(), False]


def test_a_clump_is_no_crowd_where_slices_were_looked_at_and_is_one_elsewhere() -> None:
    rows, clump = np.full(20, 215), np.zeros(20, dtype=np.int64)
    clump[7] = 24
    assert not crowds(rows, clump, np.zeros(20, dtype=np.int64)).crowded.any()
    assert crowds(rows, clump, clump).crowded.tolist() == (clump > 0).tolist()


def test_a_clump_grows_with_its_slice_and_is_a_small_part_of_it() -> None:
    rows = np.array([1, 40, 215, 500, 1_000, 50_000])
    sizes = clumps(rows)
    assert (np.diff(sizes) >= 0).all()
    assert (sizes <= np.maximum(1, 0.05 * rows)).all()
    assert sizes[-1] == 100 * sizes[3]


def test_fewer_slices_than_three_say_nothing() -> None:
    rows = np.full(LEAST_SLICES - 1, 1_000)
    found = np.zeros(len(rows), dtype=np.int64)
    found[0] = 900
    assert not crowds(rows, found, found).crowded.any()


def test_a_source_that_is_bad_in_a_part_is_found_among_large_and_small_ones() -> None:
    rng = np.random.default_rng(3)
    rows = np.array([100_000, 20_000, 5_000, 3_000, 900, 400, 60, 9, 1, 1])
    found = spread(rng, rows, 0.003)
    for bad in range(6):
        more = found.copy()
        more[bad] += int(0.05 * rows[bad])
        assert crowds(rows, more, more).crowded.tolist() == [i == bad for i in range(10)]


# ------------------------------------------------------------------ findings in words


def slices(
    found: dict[int, int], *, rows: int = 500, count: int = 20, review: int = 0
) -> list[Slice]:
    day = dt.date(2024, 3, 1)
    return [
        Slice(
            day + dt.timedelta(3 * i),
            day + dt.timedelta(3 * i + 2),
            rows,
            review if i in found else 0,
            found.get(i, 1),
            review if i in found else 0,
            found.get(i, 1),
        )
        for i in range(count)
    ]


def test_neighbours_in_time_are_told_as_one_span_of_dates() -> None:
    (finding,) = told("time", "day", Judged.of(slices({4: 150, 5: 250, 6: 160})))
    assert (finding.risk, finding.severity) == (CROWDING, ALARM)
    assert finding.message == (
        "560 of 1,500 rows between 2024-03-13 and 2024-03-21 are in quarantine; elsewhere 1 in 500"
    )
    assert finding.subject == "day 2024-03-13 to 2024-03-21"
    assert finding.detail["slices"] == [4, 5, 6]
    assert (finding.detail["first"], finding.detail["last"]) == ("2024-03-13", "2024-03-21")
    assert finding.value == pytest.approx(560 / 1_500)
    assert finding.line < finding.value


def test_two_spans_are_two_findings_and_sources_are_told_one_by_one() -> None:
    judged = Judged.of(slices({2: 90, 3: 90, 9: 90}))
    assert [f.detail["slices"] for f in told("time", "day", judged)] == [[2, 3], [9]]
    names = [replace(s, first=f"s{i}", last=f"s{i}") for i, s in enumerate(judged.slices)]
    by_source = list(told("source", "from", Judged.of(names)))
    assert [f.subject for f in by_source] == ["s2", "s3", "s9"]
    assert by_source[0].message.startswith("90 of 500 rows of source 's2' are in quarantine;")


def test_a_crowd_of_rows_for_review_is_a_warning() -> None:
    (finding,) = told("time", "day", Judged.of(slices({4: 1, 5: 1}, review=80)))
    assert finding.severity == WARNING
    assert finding.message.startswith("162 of 1,000 rows between")
    assert "in quarantine or up for review" in finding.message


def test_the_border_of_a_span_in_alarm_is_told_with_it() -> None:
    near = slices({4: 150})
    near[5] = replace(near[5], review=90, review_by_row=90)
    assert Judged.of(near).severities[4:6] == (ALARM, WARNING)
    assert [f.severity for f in told("time", "day", Judged.of(near))] == [ALARM]


def test_rows_without_a_time_are_never_joined_to_the_last_span() -> None:
    counted = slices({19: 150})
    counted.append(Slice(None, None, 300, 0, 200, 0, 200))
    last, without = told("time", "day", Judged.of(counted))
    assert "between 2024-04-27 and 2024-04-29" in last.message
    assert without.message.startswith("200 of 300 rows without a time are in quarantine")
    assert without.subject == "no day"


def test_a_hostile_source_is_quoted_and_cut() -> None:
    counted = [replace(s, first=f"s{i}", last=f"s{i}") for i, s in enumerate(slices({}))]
    name = "\x1b[31m'" + "x" * 5_000
    counted[3] = replace(counted[3], first=name, last=name, quarantine=99, quarantine_by_row=99)
    counted[4] = replace(counted[4], first="None", last="None", quarantine=99, quarantine_by_row=99)
    first, second = told("source", "from", Judged.of(counted))
    assert len(first.message) < 250
    assert "\x1b" not in first.message
    assert "source 'None'" in second.message


def test_many_bad_sources_are_told_as_a_number() -> None:
    def made(i: int, severity: str) -> Finding:
        return Finding(CROWDING, severity, f"s{i}", 0.5, 0.1, "", {"quarantine": i})

    few = [made(i, ALARM) for i in range(MOST_TOLD)]
    assert most_told(few) == tuple(few)
    many = most_told([made(0, WARNING), *(made(i, ALARM) for i in range(MOST_TOLD + 5))])
    assert len(many) == MOST_TOLD + 1
    assert many[0].subject == f"s{MOST_TOLD + 4}"
    assert many[-1].subject == "6 more sources"


def test_three_thousand_bad_sources_of_ten_thousand_are_told_soon() -> None:
    every = [
        Slice(f"s{i}", f"s{i}", 40, 0, 30 * (i % 3 == 0), 0, 30 * (i % 3 == 0))
        for i in range(9_999)
    ]
    assert len(list(told("source", "from", Judged.of(every)))) == 3_333


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        (dt.date(2024, 3, 1), dt.date(2024, 3, 9), ("2024-03-01", "2024-03-09")),
        (START, START + dt.timedelta(9), ("2024-02-01", "2024-02-10")),
        (START, START + dt.timedelta(0, 90), ("2024-02-01 00:00:00", "2024-02-01 00:01:30")),
        (3, 17, ("3", "17")),
        (0.25, 1e6, ("0.25", "1000000")),
    ],
)
def test_values_are_told_as_the_column_has_them(
    first: object, last: object, words: tuple[str, str]
) -> None:
    assert named(first, last) == words


def test_shares_are_told_as_people_count() -> None:
    assert one_in(3, 900) == "1 in 300"
    assert one_in(0, 1_234) == "none of 1,234"
    assert one_in(2, 3_000_000) == "1 in 1,500,000"


# ------------------------------------------------------------------ counting rows


def rows(count: int = 4_000, seed: int = 0) -> pa.Table:
    """Rows at all hours of a hundred days, from ten sources, in no order."""
    rng = np.random.default_rng(seed)
    seconds = np.sort(rng.integers(0, 100 * 86_400, count))
    order = rng.permutation(count)
    table = pa.table(
        {
            "x": rng.normal(size=count),
            "at": pa.array((seconds + START.timestamp()).astype(np.int64), pa.timestamp("s")),
            "from": pa.array([f"s{i}" for i in rng.integers(0, 10, count)]),
            "place": np.arange(count),
        }
    )
    return table.take(pa.array(order))


def verdicts(table: pa.Table, words: list[str], by: str = "outliers") -> pa.Table:
    reason = {"sanitizer": by, "score": 9.0, "p_value": None, "threshold": 8.0, "message": "far"}
    return pa.table(
        {
            ROW_ID: table.column(ROW_ID),
            "verdict": pa.array(words).cast(VERDICT_SCHEMA.field("verdict").type),
            "reasons": pa.array(
                [[] if w == KEEP else [reason] for w in words], VERDICT_SCHEMA.field("reasons").type
            ),
        },
        schema=VERDICT_SCHEMA,
    )


def decided(
    folder: Path,
    table: pa.Table,
    words: list[str],
    *,
    shard_rows: int = 1_000,
    by: str = "outliers",
) -> tuple[Ingested, Path]:
    """An input and the verdicts about it, as the stages leave them."""
    ids = [f"id-{i}" for i in table.column("place").to_pylist()]
    ingested = hand_in(folder / "in", table, shard_rows=shard_rows, ids=ids)
    make_folder(folder / "run")
    for number, shard in enumerate(ingested.shard_files()):
        part = words[number * shard_rows : (number + 1) * shard_rows]
        write_table(verdicts(shard.read([ROW_ID]), part, by), verdicts_file(folder / "run", number))
    return ingested, folder / "run"


def planted(table: pa.Table, seed: int = 0, rate: float = 0.002) -> list[str]:
    """A third of the rows of slices 8 to 10 of 20 in quarantine, and few others."""
    rng = np.random.default_rng(seed)
    place = table.column("place").to_numpy()
    inside = (place >= 8 * len(place) / 20) & (place < 11 * len(place) / 20)
    hit = rng.random(len(place))[np.argsort(np.argsort(place))]
    bad = hit < np.where(inside, 0.33, rate)
    return [QUARANTINE if b else KEEP for b in bad]


def alarms(folder: Path, table: pa.Table, words: list[str], **more: object) -> Alarms:
    ingested, run = decided(folder, table, words, **more)  # type: ignore[arg-type]
    return raise_alarms(ingested, ROLES, SALT, run)


def test_a_planted_span_raises_one_finding_that_names_it(tmp_path: Path) -> None:
    table = rows()
    found = alarms(tmp_path, table, planted(table))
    (finding,) = found.findings
    assert (finding.risk, finding.severity) == (CROWDING, ALARM)
    assert set(finding.detail["slices"]) == {8, 9, 10}
    assert finding.detail["column"] == "at"
    times = table.sort_by("place").column("at").to_pylist()
    told_first, told_last = (
        dt.datetime.fromisoformat(finding.detail[k]) for k in ("first", "last")
    )
    day = dt.timedelta(1)
    assert abs(told_first - times[1_600]) < day
    assert abs(told_last - times[2_199]) < day
    assert f"between {told_first:%Y-%m-%d} and {told_last:%Y-%m-%d}" in finding.message
    cut = found.cuts["time"]
    assert sum(s.rows for s in cut.slices) == len(table)
    assert [s.severity for s in cut.slices] == [ALARM if 8 <= i <= 10 else "" for i in range(20)]
    assert found.cuts["source"].more == 0


@pytest.mark.parametrize("shard_rows", [137, 4_000])
def test_the_order_of_rows_and_shards_changes_nothing(tmp_path: Path, shard_rows: int) -> None:
    table = rows()
    words = planted(table)
    first = alarms(tmp_path / "a", table, words)
    order = np.random.default_rng(5).permutation(len(table))
    again = alarms(
        tmp_path / "b",
        table.take(pa.array(order)),
        [words[i] for i in order],
        shard_rows=shard_rows,
    )
    assert again == first


@pytest.mark.parametrize("seed", range(6))
def test_verdicts_without_a_pattern_raise_nothing(tmp_path: Path, seed: int) -> None:
    table = rows(seed=seed)
    rng = np.random.default_rng(seed)
    words = np.array([KEEP, REVIEW, QUARANTINE])[rng.choice(3, len(table), p=[0.96, 0.03, 0.01])]
    assert alarms(tmp_path, table, words.tolist()).findings == ()


def test_counts_are_those_of_a_slow_count(tmp_path: Path) -> None:
    table = rows(600)
    words = planted(table, rate=0.05)
    found = alarms(tmp_path, table, words, shard_rows=250)
    for role, column in (("time", "at"), ("source", "from")):
        for one in found.cuts[role].slices:
            values = [str(v) for v in table.column(column).to_pylist()]
            mine = [i for i, v in enumerate(values) if str(one.first) <= v <= str(one.last) + "~"]
            if role == "source":
                assert (one.rows, one.quarantine) == (
                    len(mine),
                    sum(words[i] == QUARANTINE for i in mine),
                )
    assert sum(s.quarantine for s in found.cuts["time"].slices) == words.count(QUARANTINE)
    assert len(found.cuts["time"].slices) == SLICES


def test_one_bad_source_is_told(tmp_path: Path) -> None:
    table = rows()
    bad = [f == "s3" and i % 5 == 0 for i, f in enumerate(table.column("from").to_pylist())]
    found = alarms(tmp_path, table, [QUARANTINE if b else KEEP for b in bad])
    (finding,) = [f for f in found.findings if f.detail["role"] == "source"]
    assert finding.subject == "s3"
    assert "elsewhere none of" in finding.message
    assert found.cuts["source"].slices[0].severity == ALARM


def test_what_looks_at_slices_is_held_against_the_further_line(tmp_path: Path) -> None:
    table = rows()
    place = table.column("place").to_numpy()
    words = [QUARANTINE if 1_600 <= p < 1_620 else KEEP for p in place]
    assert alarms(tmp_path / "a", table, words, by=BY_SLICE[0]).findings == ()
    assert len(alarms(tmp_path / "b", table, words).findings) == 1
    assert set(BY_SLICE) - {CONSENSUS} <= set(SANITIZERS)


@pytest.mark.parametrize(
    ("times", "first"),
    [
        (pa.array(np.arange(2_000, dtype=np.int32)).cast(pa.date32()), "1972-"),
        (pa.array(np.arange(2_000) * 10**9, pa.timestamp("ns", "Europe/Berlin")), "1970-01-01"),
        (pa.array(np.arange(2_000)), "80"),
        (pa.array(np.arange(2_000) / 4), "200"),
    ],
)
def test_any_type_of_time_is_told(tmp_path: Path, times: pa.Array, first: str) -> None:
    table = pa.table({"x": np.zeros(2_000), "at": times, "place": np.arange(2_000)})
    words = [QUARANTINE if 800 <= i < 900 and i % 3 else KEEP for i in range(2_000)]
    ingested, run = decided(tmp_path, table, words)
    (finding,) = raise_alarms(ingested, replace(ROLES, source=None), SALT, run).findings
    assert f"between {first}" in finding.message


def test_a_time_that_no_calendar_has_is_a_number() -> None:
    far = pa.chunked_array([pa.array([10**17, 0], pa.timestamp("ms", "UTC"))])
    assert values_of(far, np.array([1e14, 0.0])) == [1e14, 0.0]
    assert values_of(far.slice(1), np.array([0.0]))[0].year == 1970


def test_few_different_times_missing_ones_and_none_at_all(tmp_path: Path) -> None:
    at = [None if i % 7 == 0 else i % 3 for i in range(900)]
    table = pa.table({"at": at, "from": [None] * 900, "place": np.arange(900)})
    words = [QUARANTINE if t is None and i % 2 else KEEP for i, t in enumerate(at)]
    found = alarms(tmp_path / "a", table, words)
    (finding,) = found.findings
    assert finding.subject == "no at"
    assert [s.first for s in found.cuts["time"].slices] == ["0", "1", "2", None]
    assert [s.first for s in found.cuts["source"].slices] == [None]
    empty = alarms(tmp_path / "b", table.slice(0, 0), [])
    assert empty.findings == ()


def test_too_many_sources_are_let_go_with_nothing_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.slice_counts.MOST_SOURCES", 40)
    names = [f"s{i // 8:04d}" for i in range(4_000)]
    table = pa.table({"at": np.arange(4_000), "from": names, "place": np.arange(4_000)})
    words = [QUARANTINE if n == "s0123" else KEEP for n in names]
    found = alarms(tmp_path, table, words, shard_rows=160)
    assert [f.subject for f in found.findings if f.detail["role"] == "source"] == ["s0123"]


def test_verdicts_about_other_rows_are_refused(tmp_path: Path) -> None:
    table = rows(200)
    ingested, run = decided(tmp_path, table, [KEEP] * 200)
    write_table(verdicts(pa.table({ROW_ID: ["a"] * 200}), [KEEP] * 200), verdicts_file(run, 0))
    with pytest.raises(IntegrityError, match="other rows"):
        raise_alarms(ingested, ROLES, SALT, run)


def test_what_is_finished_is_loaded_and_what_is_damaged_refused(tmp_path: Path) -> None:
    table = rows(400)
    ingested, run = decided(tmp_path, table, [KEEP] * 400)
    first = raise_alarms(ingested, ROLES, SALT, run)
    verdicts_file(run, 0).unlink()
    assert raise_alarms(ingested, ROLES, SALT, run) == first
    (run / MARKER).write_text('{"cuts": {}, "findings": [3]}')
    with pytest.raises(IntegrityError, match="malformed"):
        Alarms.load(run)


def test_it_is_watched_where_there_is_a_time_or_a_source_and_crowds_are_sought() -> None:
    assert is_watched(RiskSettings(), ROLES)
    assert is_watched(RiskSettings((CROWDING,)), Roles(source="from"))
    assert not is_watched(RiskSettings(), Roles(features=("x",)))
    assert not is_watched(RiskSettings(("shift",)), ROLES)


# ------------------------------------------------------------------ a whole run


def work(folder: Path, **tables: dict[str, object]) -> Work:
    raw = {
        "dataset": {"name": "a", "source": str(folder / "a.csv")},
        "roles": {"label": "y", "time": "day", "source": "from"},
        "sanitizers": {"use": ["outliers"]},
        "risks": {"use": [CROWDING]},
        **tables,
    }
    job = Job(Plan.make(raw), Store.open(folder / "store", bytes(32)))
    return job.ingested(ingest_inputs(job, SILENT))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = ["day,from,a,b,y"]
    for i in range(800):
        far = 60.0 if 400 <= i < 480 and i % 4 == 0 else 0.0
        a, b = rng.normal(size=2) + far * rng.choice([-1, 1], 2)
        day = dt.date(2024, 1, 1) + dt.timedelta(i // 10)
        lines.append(f"{day},s{i % 7},{a:.5f},{b:.5f},{'no' if i % 2 else 'yes'}")
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def go(work: Work) -> Decision:
    examine_with(work, "outliers", SILENT)
    look_for_risks(work, SILENT)
    return decide_all(work, SILENT)


def test_alarms_reach_the_run_the_manifest_the_outcome_and_the_report(folder: Path) -> None:
    done = work(folder)
    assert not go(done).held
    (finding,) = done.findings
    assert finding.message.startswith(
        "20 of 80 rows between 2024-02-10 and 2024-02-17 are in quarantine; elsewhere"
    )
    outcome = publish_rows(done, SILENT)
    release = Path(str(outcome.release))
    run, manifest = Run.load(done.folder), Manifest.load(release)
    assert run.findings == manifest.findings == (finding,)
    assert run.promise == manifest.promise == done.promise
    assert manifest.promise is not None
    assert outcome.findings == ((ALARM, CROWDING, finding.message),)
    page = (release / "report.html").read_text()
    assert finding.message in page


def test_the_same_again_is_done_already_and_says_the_same(folder: Path) -> None:
    done = work(folder)
    go(done)
    outcome = publish_rows(done, SILENT)
    again = done.job.published()
    assert again is not None
    assert again.findings == outcome.findings
    assert again.already


@pytest.mark.parametrize("word", ["risks", CROWDING])
def test_a_run_can_fail_on_it(folder: Path, word: str) -> None:
    made = work(folder, policy={"fail_on": [word]})
    decision = go(made)
    assert decision.held
    assert "2024-02-10" in decision.held_because
    assert not work(folder, policy={"fail_on": ["shift"]}).decision.held


def test_a_run_that_stopped_before_its_alarms_goes_on(folder: Path) -> None:
    first = work(folder)
    go(first)
    (first.folder / MARKER).unlink()
    again = work(folder)
    assert go(again) == first.decision
    assert again.findings == first.findings


def test_switched_off_there_is_none_and_the_run_has_another_name(folder: Path) -> None:
    on, off = work(folder), work(folder, risks={"use": ["shift"]})
    assert on.key != off.key
    go(off)
    assert not (off.folder / MARKER).exists()
    assert CROWDING not in {f.risk for f in off.findings}
