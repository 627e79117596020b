"""The queue holds every held row once, pages lose none, and rulings mean what the log says."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.audit import PURPOSE
from pipelines.review.desk import Desk, undoable
from pipelines.review.draw import Draw, write_draw
from pipelines.review.filters import ALL, Filter
from pipelines.review.held import Held
from pipelines.review.pages import cell, moment_of, sheet
from pipelines.review.queue import Queue
from pipelines.review.reading import INGEST
from pipelines.review.row import gather_row
from pipelines.ruled import publish_rulings
from pipelines.rulings import NONE, Rulings, conflicts
from pipelines.store import Store
from sanitizers.core.data import ROW_ID, Roles, mix, row_keys
from sanitizers.core.errors import PlanError
from sanitizers.core.verdicts import KEEP, QUARANTINE, REVIEW
from tests.pictures import colours, encoded
from tests.review_store import SHARED, open_store, publish_rows, table
from tests.spine import SALT
from tests.staged import run_stages
from tests.test_growing import grown, job, landing
from tests.test_growing import rows as made

__all__ = ["landing"]

EVERY = Filter(state=ALL)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that no test writes to."""
    return open_store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store", rows=200)


@pytest.fixture
def queue(store: Store) -> Iterator[Queue]:
    with opened(store) as found:
        yield found


class opened:  # noqa: N801 (used as a function)
    """A queue that is closed again."""

    def __init__(self, store: Store, dataset: str = "loans") -> None:
        self.queue = Queue(Held.of(store, dataset).index(), Rulings.of(store, dataset))

    def __enter__(self) -> Queue:
        return self.queue

    def __exit__(self, *_: object) -> None:
        self.queue.close()


def released(store: Store, dataset: str = "loans") -> dict[str, str]:
    """What the last release holds: the verdict of every row."""
    release = store.releases(dataset)[-1]
    found: dict[str, str] = {}
    for verdict in (REVIEW, QUARANTINE):
        for path in (release / verdict).glob("*.parquet"):
            ids = pq.read_table(path).column(ROW_ID).to_pylist()
            found |= dict.fromkeys(ids, verdict)
    return found


def test_the_index_holds_what_the_release_holds(kept: Store) -> None:
    with opened(kept) as queue:
        rows = [*queue.listed(EVERY, 10_000)]
    assert {row.row_id: row.verdict for row in rows} == released(kept)
    assert len({row.row_id for row in rows}) == len(rows)
    assert [row.place for row in rows] == list(range(1, len(rows) + 1))
    # Quarantine comes before review.
    verdicts = [row.verdict for row in rows]
    assert verdicts == sorted(verdicts)


def test_worst_first_within_a_sanitizer(kept: Store) -> None:
    with opened(kept) as queue:
        rows = [r for r in queue.listed(EVERY, 10_000) if r.opinions == 1]
    for name in ("outliers", "micro-concentration"):
        for verdict in (QUARANTINE, REVIEW):
            scores = [r.score for r in rows if (r.sanitizer, r.verdict) == (name, verdict)]
            known = [score for score in scores if score is not None]
            assert len(known) == len(scores) > 3
            assert known == sorted(known, reverse=True)


@pytest.mark.parametrize("size", [1, 7, 50])
def test_pages_lose_no_row_and_show_none_twice(kept: Store, size: int) -> None:
    with opened(kept) as queue:
        alone = [r.row_id for r in queue.listed(EVERY, 10_000) if r.shared is None]
        seen, after = [], 0
        while rows := queue.rows(Filter(), after, size):
            seen += [row.row_id for row in rows]
            after = rows[-1].place
        groups = queue.groups(Filter())
        together = sum(group.rows for group in groups)
    assert seen == alone
    assert len(seen) + together == len(released(kept))


def test_groups_hold_what_is_shared_and_tell_what_stands_out(kept: Store) -> None:
    with opened(kept) as queue:
        groups = {group.sanitizer: group for group in queue.groups(Filter())}
        found = groups["micro-concentration"]
        members = queue.members(Filter(state=ALL, group=found.shared))
    assert set(groups) == {"micro-concentration", INGEST}
    assert groups[INGEST].rows == 3
    assert SHARED in found.reason
    assert len(members) == found.rows
    odd = [found.is_odd(row) for row in members]
    assert 0 < sum(odd) == found.exceptions < found.rows / 2
    assert odd == sorted(odd, reverse=True)
    assert found.label == "high"


@pytest.mark.parametrize(
    "chosen",
    [
        Filter(state=ALL, verdict=REVIEW),
        Filter(state=ALL, label="low"),
        Filter(state=ALL, source="north", verdict=QUARANTINE),
        Filter(state=ALL, sanitizer="micro-concentration"),
        Filter(state=ALL, since=1_710_000_000.0, until=1_720_000_000.0),
        Filter(state="ruled"),
        Filter(label="there is none"),
    ],
    ids=str,
)
def test_a_filter_takes_the_rows_that_it_says(kept: Store, chosen: Filter) -> None:
    with opened(kept) as queue:
        every = [*queue.listed(EVERY, 10_000)]
        taken = {row.row_id for row in queue.listed(chosen, 10_000)}
        held_by = {
            n: {r.row_id for r in queue.listed(Filter(ALL, sanitizer=n), 10_000)}
            for n in ("outliers", "micro-concentration")
        }
        assert queue.count(chosen) == len(taken)

    def fits(row: object) -> bool:
        plain = ("verdict", "label", "source")
        said = all(getattr(chosen, n) in ("", getattr(row, n)) for n in plain)
        when = row.time  # type: ignore[attr-defined]
        within = chosen.since is None or (when is not None and chosen.since <= when)
        until = chosen.until is None or (when is not None and when < chosen.until)
        by = not chosen.sanitizer or row.row_id in held_by[chosen.sanitizer]  # type: ignore[attr-defined]
        return said and within and until and by and chosen.state != "ruled"

    assert taken == {row.row_id for row in every if fits(row)}
    parts = [set(rows) for rows in held_by.values()]
    assert len(parts[0] | parts[1]) == len(every) - 3


def test_a_ruling_stands_and_can_be_taken_back(store: Store, queue: Queue) -> None:
    first = queue.rows(Filter())[0]
    waits = queue.count(Filter())
    queue.rule([first.row_id], KEEP, who="ann", why="fine", group="")
    assert queue.count(Filter()) == waits - 1
    again = queue.row(first.row_id)
    assert again is not None
    assert (again.ruled, again.who) == (KEEP, "ann")
    queue.rule([first.row_id], NONE, who="ann", why="no", group="")
    assert queue.count(Filter()) == waits
    assert [r.verdict for r in queue.history(first.row_id)] == [KEEP, NONE]


def test_a_row_that_could_not_be_read_cannot_be_kept(queue: Queue) -> None:
    bad = next(row for row in queue.listed(EVERY, 1_000) if row.is_unreadable)
    good = queue.rows(Filter())[0]
    with pytest.raises(PlanError, match="1 of these rows could not be read"):
        queue.rule([good.row_id, bad.row_id], KEEP, who="ann", why="fine", group="")
    assert not queue.said.rulings
    queue.rule([bad.row_id], QUARANTINE, who="ann", why="broken", group="")


acts = st.lists(
    st.tuples(
        st.lists(st.integers(0, 5), min_size=1, max_size=4),
        st.sampled_from((KEEP, QUARANTINE, NONE)),
        st.sampled_from(("ann", "bob", "cem")),
        st.booleans(),
    ),
    max_size=8,
)


@settings(max_examples=25, deadline=None)
@given(acts=acts)
def test_the_tables_say_what_the_log_says(
    tmp_path_factory: pytest.TempPathFactory,
    kept: Store,
    acts: list[tuple[list[int], str, str, bool]],
) -> None:
    log = Rulings.of(Store.open(tmp_path_factory.mktemp("log")), "rows")
    queue = Queue(Held.of(kept, "loans").index(), log)
    ids = [row.row_id for row in queue.rows(Filter(), limit=6)]
    for rows, verdict, who, by_others in acts:
        named = [ids[row] for row in rows]
        if by_others:
            log.add(named, verdict, who=who, why="so")
            with queue.fresh():
                pass
        else:
            queue.rule(named, verdict, who=who, why="so", group="")
    standing = {row: ruling.verdict for row, ruling in log.standing().items()}
    told = {r.row_id: r.ruled for r in queue.listed(Filter(state="ruled"), 100)}
    assert told == standing
    assert set(queue.said.conflicts()) == set(conflicts(log.read()))
    for row_id in ids:
        numbers = [ruling.number for ruling in queue.history(row_id)]
        assert numbers == [r.number for r in log.read() if row_id in r.row_ids]
    queue.close()


def test_undo_goes_back_step_by_step(store: Store) -> None:
    desk = Desk(store)
    seat = desk.seat("loans")
    ids = [row.row_id for row in seat.queue.rows(Filter(), limit=3)]
    for row_id in ids[:2]:
        seat.queue.rule([row_id], KEEP, who="ann", why="fine", group="")
    seat.queue.rule([ids[2]], KEEP, who="bob", why="fine", group="")
    undone = []
    while (last := undoable(seat, "ann")) is not None:
        rows = seat.queue.said.rows_of(last.number)
        undone += rows
        group = f"undo of ruling {last.number}"
        seat.queue.rule(rows, NONE, who="ann", why="no", group=group)
    assert undone == [ids[1], ids[0]]
    assert [r.row_id for r in seat.queue.listed(Filter(state="ruled"), 9)] == [ids[2]]
    desk.close()


def test_a_row_page_knows_all_that_explain_knows(kept: Store) -> None:
    held = Held.of(kept, "loans")
    with opened(kept) as queue:
        row = queue.rows(Filter())[0]
        found = gather_row(held, row.row_id, row, queue.history(row.row_id))
        bad = next(r for r in queue.listed(EVERY, 1_000) if r.is_unreadable)
        broken = gather_row(held, bad.row_id, bad, [])
    assert found.known.row_id == row.row_id
    assert found.heard[0].opinion.message == row.message
    assert found.heard[0].chart is not None
    assert sum(found.heard[0].chart.counts) == 600
    assert {field.column.text for field in found.fields} == set(table(1).column_names)
    distances = [near.distance for near in found.neighbours]
    assert distances == sorted(distances)
    assert row.row_id not in [near.row_id for near in found.neighbours]
    assert broken.known.message
    assert not broken.neighbours


def test_neighbours_are_the_nearest_rows(kept: Store) -> None:
    held = Held.of(kept, "loans")
    with opened(kept) as queue:
        row = queue.rows(Filter())[0]
        found = gather_row(held, row.row_id, row, [])
    part = held.parts[0]
    data = part.ingested.dataset(part.roles, kept.salt)
    batches = [*data.batches()]
    own = next(
        b.X[b.row_ids.to_pylist().index(row.row_id)]
        for b in batches
        if row.row_id in b.row_ids.to_pylist()
    )
    far = sorted(
        (float(((x - own) ** 2).sum() ** 0.5), i)
        for b in batches
        for x, i in zip(b.X, b.row_ids.to_pylist(), strict=True)
        if i != row.row_id
    )
    assert [near.row_id for near in found.neighbours] == [i for _, i in far[:6]]


def test_images_are_painted_anew(tmp_path: Path) -> None:
    store = Store.open(tmp_path, bytes(32))
    rows = table(40)
    pictures = [encoded(colours(seed=i), "JPEG", comment=b"<script>") for i in range(40)]
    rows = rows.append_column("picture", pa.array(pictures, pa.binary()))
    roles = Roles(label="class", image="picture", features=("x", "y", "flood"))
    publish_rows(store, rows, dataset="pets", roles=roles)
    desk = Desk(store)
    seat = desk.seat("pets")
    row = seat.queue.rows(Filter())[0]
    painted = seat.picture(row.row_id, 4)
    assert painted is not None
    with Image.open(io.BytesIO(painted)) as found:
        assert (found.format, max(found.size)) == ("PNG", 4)
    assert b"<script>" not in painted
    assert seat.picture("there is no such row", 4) is None
    page = gather_row(seat.held, row.row_id, row, [])
    assert page.has_image
    assert "picture" not in {field.column.text for field in page.fields}
    desk.close()


def test_what_was_published_is_not_pending(store: Store) -> None:
    desk = Desk(store)
    seat = desk.seat("loans")
    ids = [row.row_id for row in seat.queue.rows(Filter(), limit=2)]
    seat.queue.rule(ids, KEEP, who="ann", why="fine", group="")
    assert [n for _, n in seat.pending] == [2]
    publish_rulings(store, "loans")
    after = desk.seat("loans")
    assert after.held.version != seat.held.version
    assert not after.pending
    assert not set(ids) & set(released(store))
    after.queue.rule(ids[:1], QUARANTINE, who="bob", why="no", group="")
    assert [n for _, n in after.pending] == [1]
    desk.close()


def test_a_run_that_was_held_can_be_looked_at(tmp_path: Path) -> None:
    store = Store.open(tmp_path, bytes(32))
    publish_rows(store, table(100), budget=0.01)
    assert not store.releases("loans")
    held = Held.of(store, "loans")
    assert held.version is None
    with opened(store) as queue:
        assert queue.count(Filter()) == held.counts[0] > 5
    # A release of other rows does not hide it from those who ask for it.
    publish_rows(store, table(100, seed=1), budget=0.99)
    assert Held.of(store, "loans").version == "1.0.0"
    assert Held.of(store, "loans", held=True).key == held.key


def test_a_release_that_has_grown_is_reviewed_as_a_whole(landing: Path) -> None:
    far = [made(0), made(1)]
    for frame in far:
        frame.loc[:4, "a"] = [900.0, -800.0, 700.0, -600.0, 500.0]
    far[0].to_csv(landing / "a.csv", index=False)
    store = run_stages(job(landing)).work.job.store
    ran = grown(landing, "b.csv", far[1])
    held = Held.of(store, "g")
    assert [part.version for part in held.parts] == ["1.1.0", "1.0.0"]
    with opened(store, "g") as queue:
        found = [*queue.listed(EVERY, 10_000)]
        old = next(row for row in found if row.part == 1)
        page = gather_row(held, old.row_id, old, [])
    assert {row.row_id: row.verdict for row in found} == released(store, "g")
    assert {row.part for row in found} == {0, 1}
    assert (page.known.file, page.known.version) == ("a.csv", "1.0.0")
    assert all(heard.chart for heard in page.heard if heard.opinion.score is not None)
    assert ran.release.name == "1.1.0"


def test_the_datasets_that_can_be_looked_at(store: Store) -> None:
    publish_rows(store, table(100), dataset="other")
    store.dataset("empty").mkdir()
    held = len(released(store))
    assert Desk(store).overview()[0] == ("loans", "1.0.0", held, 203)
    assert [name for name, *_ in Desk(store).overview()] == ["loans", "other"]
    assert [name for name, *_ in Desk(store, "other").overview()] == ["other"]


def test_a_damaged_index_is_made_again(store: Store) -> None:
    path = Held.of(store, "loans").index()
    path.write_bytes(bytes(100) + path.read_bytes()[100:])
    desk = Desk(store)
    assert desk.seat("loans").queue.count(Filter()) == len(released(store))
    desk.close()


def test_there_must_be_something_to_review(tmp_path: Path) -> None:
    store = Store.open(tmp_path, bytes(32))
    with pytest.raises(PlanError, match="no dataset"):
        Held.of(store, "loans")
    publish_rows(store, table(100))
    with pytest.raises(PlanError, match="every run of 'loans' was published"):
        Held.of(store, "loans", held=True)
    with pytest.raises(PlanError, match="no dataset"):
        Desk(store, "loans").seat("other")


@pytest.mark.parametrize(
    "text", ["=1+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1", "+cmd|'x'!A1"]
)
def test_no_cell_of_a_sheet_is_a_formula(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["-1.5", "+1", "1e5", "", "a = b", "x\n=1"])
def test_other_cells_stay_as_they_are(text: str) -> None:
    assert cell(text) == text


def test_a_sheet_holds_every_row_and_quotes_it(kept: Store) -> None:
    with opened(kept) as queue:
        rows = [*queue.listed(EVERY, 10_000)]
        text = "".join(sheet(rows))
    found = [*csv.DictReader(io.StringIO(text))]
    assert [row["row_id"] for row in found] == [row.row_id for row in rows]
    assert all(line.startswith('"') for line in text.splitlines())


def test_days_are_read_as_they_are_meant() -> None:
    assert moment_of("1970-01-02") == 86_400
    assert moment_of("1970-01-02", after=True) == 2 * 86_400
    assert moment_of("3.5", after=True) == 3.5
    assert moment_of("soon") is None


# ------------------------------------------------------------------ the draw of an audit


def test_a_draw_is_of_all_rows_and_hangs_on_neither_shards_nor_order(tmp_path: Path) -> None:
    whole = table(300)
    ids = [f"r{i}" for i in range(300)]
    back = whole.take(pa.array(range(299, -1, -1)))
    orders = []
    ways = (("a", whole, ids, 300), ("b", whole, ids, 7), ("c", back, ids[::-1], 50))
    for name, rows, named, size in ways:
        store = Store.open(tmp_path / name, SALT)
        publish_rows(store, rows, ids=named, shard_rows=size, unreadable=3)
        held = Held.of(store, "loans")
        drawn = held.draw().rows
        orders.append([row.row_id for row in drawn])
        for row in drawn[:20]:
            shard = held.parts[row.part].ingested.shard_files()[row.shard]
            assert shard.row(row.position).column(ROW_ID)[0].as_py() == row.row_id
        # Fewer rows are the first ones of more.
        write_draw(held.parts, tmp_path / f"{name}.parquet", most=11)
        assert list(Draw.read(tmp_path / f"{name}.parquet").rows) == list(drawn[:11])
    assert orders[0] == orders[1] == orders[2]
    assert sorted(orders[0]) == sorted(ids)


def test_a_draw_is_keyed_by_the_salt_and_is_even() -> None:
    ids = [f"r{i}" for i in range(20_000)]
    first, other = (mix(row_keys(ids, salt), PURPOSE) for salt in (bytes(32), SALT))
    chosen = [set(np.argsort(keys)[:300].tolist()) for keys in (first, other)]
    assert len(chosen[0] & chosen[1]) < 30
    # Of each tenth of the rows about as many are drawn as of any other.
    tenths = np.bincount(np.array(sorted(chosen[0])) // 2_000, minlength=10)
    assert ((tenths - 30) ** 2 / 30).sum() < 28


def test_an_audit_goes_on_where_it_was(store: Store) -> None:
    desk = Desk(store)
    seat = desk.seat("loans")
    order = [row.row_id for row in seat.draw.rows]
    held = set(released(store))
    assert held & set(order)
    assert set(order) - held
    for row_id in order[:5]:
        assert seat.due is not None
        assert seat.due.row_id == row_id
        verdict = QUARANTINE if row_id == order[2] else KEEP
        values = seat.values_of(seat.due)
        seat.queue.rule([row_id], verdict, who="ann", why="so", group="", drawn=values)
    assert seat.audited == (5, 4)
    # What others rule meanwhile, and what is taken back, is seen.
    Rulings.of(store, "loans").add([order[1]], NONE, who="bob", why="no")
    with seat.queue.fresh():
        assert seat.due is not None
        assert seat.due.row_id == order[1]
    assert seat.audited == (4, 3)
    again = Desk(store)
    assert again.seat("loans").audited == (4, 3)
    again.close()
    desk.close()


def test_the_page_of_a_row_that_was_drawn_has_its_values(kept: Store) -> None:
    held = Held.of(kept, "loans")
    drawn = next(row for row in held.draw().rows if row.row_id not in released(kept))
    page = gather_row(held, drawn.row_id, None, [], drawn)
    assert {field.column.text for field in page.fields} == set(table(1).column_names)
    assert page.neighbours
    assert page.known.verdict == KEEP
