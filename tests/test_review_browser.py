"""The review in a real browser: what people do in it, and what data cannot do to them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.report import render
from pipelines.report_data import gather
from pipelines.review.app import make_app
from pipelines.review.guard import Guard
from pipelines.review.pages import FORMULA
from pipelines.review.serve import browse_to
from pipelines.review.users import ADMIN, Users, add_user
from pipelines.rulings import Rulings
from pipelines.store import Store
from pipelines.verify import verify
from sanitizers.core.data import ROW_ID, Roles
from tests.browsing import browser, faults, served, watching
from tests.hostile import CORPUS, SVG
from tests.report_run import make_run
from tests.review_store import open_store, publish_rows, table
from tests.staged import run_stages
from tests.test_trigger_runs import FINDER, RECALLER, job, write
from tests.triggers import images, stamped

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["browser"]


@dataclass(frozen=True)
class Live:
    """The review of a store, being served."""

    store: Store
    home: str
    guard: Guard

    @property
    def entrance(self) -> str:
        return f"{self.home}/enter?token={self.guard.token}"

    def rulings(self, dataset: str) -> list[tuple[str, int]]:
        found = Rulings.of(self.store, dataset).read()
        return [(ruling.verdict, len(ruling.row_ids)) for ruling in found]


def live(store: Store, users: Users | None = None) -> Iterator[Live]:
    guard = Guard(0, users, who="ann")
    app = make_app(store, guard)
    with served(app) as home:
        yield Live(store, home, guard)
    app.app.state.desk.close()  # type: ignore[attr-defined]


@pytest.fixture
def loans(tmp_path: Path) -> Iterator[Live]:
    yield from live(open_store(tmp_path / "store", rows=300))


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Images, some of which carry a trigger that is known."""
    folder = tmp_path_factory.mktemp("pets")
    source = write(folder / "a.npz", images(40), [*["bag"] * 30, *["coat"] * 10])
    run_stages(job(folder / "store", source, FINDER))
    pictures = np.concatenate([stamped(images(12, seed=5)), images(20, seed=6)])
    labels = [*["bag"] * 12, *["coat"] * 20]
    ran = run_stages(job(folder / "store", write(folder / "b.npz", pictures, labels), RECALLER))
    yield from live(ran.work.job.store)


def words(page: Page) -> str:
    return " ".join(page.inner_text("main").split())


def test_from_the_queue_to_a_release(browser: Browser, loans: Live) -> None:
    with watching(browser, loans.home) as seen:
        page = seen.page
        page.goto(loans.entrance)
        assert "wait for a ruling" in words(page)
        first = page.locator("#one ~ ol .entry").first
        row_id = first.locator("input[name=id]").get_attribute("value")
        first.locator(".why a").click()
        assert page.inner_text("h1") == row_id
        assert "this row" in (page.locator("svg.chart").first.text_content() or "")
        page.fill("input[name=why]", "a typing error, mended by hand")
        page.click("button[value=keep]")
        # The next row is there at once, and says what became of the last one.
        assert page.inner_text("h1") != row_id
        assert "1 row ruled keep" in words(page)
        page.click("nav >> text=Publish")
        assert "a typing error, mended by hand" in words(page)
        page.click("main button")
        assert "Published as version 1.1.0" in words(page)
        seen.check()
    assert loans.rulings("loans") == [("keep", 1)]
    release = loans.store.releases("loans")[-1]
    clean = [*(release / "clean").glob("*.parquet")]
    assert row_id in {i for p in clean for i in pq.read_table(p).column(ROW_ID).to_pylist()}
    assert verify(release).ok


def test_with_the_keyboard_alone(browser: Browser, loans: Live) -> None:
    with watching(browser, loans.home) as seen:
        page = seen.page
        page.goto(f"{loans.home}/enter?token={loans.guard.token}")
        page.goto(f"{loans.home}/d/loans?sanitizer=outliers")
        ids = [i.get_attribute("value") for i in page.locator("input[name=id]").all()]
        groups = page.locator("#together ~ ol .entry").count()
        keys = page.keyboard
        for _ in range(groups + 2):
            keys.press("j")
        keys.press("k")
        with page.expect_navigation():
            keys.press("a")
        assert "1 row ruled keep" in words(page)
        # The row that moved up is the next one to look at.
        here = page.locator(".entry.here input[name=id]")
        assert here.get_attribute("value") == ids[1]
        with page.expect_navigation():
            keys.press("q")
        with page.expect_navigation():
            keys.press("u")
        assert page.inner_text("h1") == ids[1]
        assert "Taken back on 1 row" in words(page)
        with page.expect_navigation():
            keys.press("q")
        with page.expect_navigation():
            keys.press("Escape")
        with page.expect_navigation():
            keys.press("?")
        assert "undo my last ruling" in words(page)
        seen.check()
    told = [ruling.row_ids[0] for ruling in Rulings.of(loans.store, "loans").read()]
    assert told == [ids[0], ids[1], ids[1], ids[1]]
    verdicts = [verdict for verdict, _ in loans.rulings("loans")]
    assert verdicts == ["keep", "quarantine", "none", "quarantine"]


def test_one_decision_for_a_group_but_for_exceptions(browser: Browser, loans: Live) -> None:
    # All of it works without a script.
    with watching(browser, loans.home, java_script_enabled=False) as seen:
        page = seen.page
        page.goto(loans.entrance)
        page.click("#together ~ ol a >> nth=0")
        assert "15 rows held for one thing" in words(page)
        assert "stand out" in words(page)
        spared = page.locator("input[name=except]").first
        row_id = spared.get_attribute("value")
        spared.check()
        page.click("button[value=quarantine]")
        assert "14 rows ruled quarantine" in words(page)
        assert "1 waits for a ruling" in words(page)
        page.click("text=Undo")
        page.goto(f"{loans.home}/d/loans/rulings")
        assert "14 rows ann" in words(page)
        assert not seen.alarms
    (ruling, undone) = Rulings.of(loans.store, "loans").read()
    assert row_id not in ruling.row_ids
    assert set(undone.row_ids) == set(ruling.row_ids)
    assert "2024-03 or north" in ruling.group


def test_a_trigger_is_one_decision(browser: Browser, pets: Live) -> None:
    with watching(browser, pets.home) as seen:
        page = seen.page
        page.goto(pets.entrance)
        page.click("#together ~ ol a >> nth=0")
        assert "12 rows held for one thing" in words(page)
        assert page.locator("img.stamp").count() == 3
        for picture in page.locator(".thumb").all():
            picture.scroll_into_view_if_needed()
        page.wait_for_function(
            "() => [...document.images].every(image => image.complete && image.naturalWidth)"
        )
        page.click("button[value=quarantine]")
        assert "12 rows ruled quarantine" in words(page)
        page.locator(".entry a").first.click()
        image = page.locator("img.whole")
        sent = page.request.get(f"{pets.home}{image.get_attribute('src')}")
        assert sent.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(sent.body())).format == "PNG"
        seen.check()
    assert pets.rulings("mine") == [("quarantine", 12)]


def test_two_people_who_differ_are_shown(browser: Browser, loans: Live) -> None:
    with watching(browser, loans.home) as seen:
        page = seen.page
        page.goto(loans.entrance)
        row_id = page.locator("#one ~ ol input[name=id]").first.get_attribute("value")
        assert row_id is not None
        log = Rulings.of(loans.store, "loans")
        log.add([row_id], "keep", who="bob", why="fine")
        log.add([row_id], "quarantine", who="cem", why="not fine")
        page.goto(f"{loans.home}/d/loans/row?id={row_id}")
        assert "Two people differ. cem ruled quarantine, and bob keep" in words(page)
        page.goto(f"{loans.home}/d/loans/rulings")
        assert "People differ on 1 row" in words(page)
        seen.check()


def test_a_row_that_nothing_holds_can_be_held_by_a_person(browser: Browser, loans: Live) -> None:
    clean = next((loans.store.releases("loans")[-1] / "clean").glob("*.parquet"))
    row_id = pq.read_table(clean).column(ROW_ID)[7].as_py()
    with watching(browser, loans.home) as seen:
        page = seen.page
        page.goto(loans.entrance)
        page.goto(f"{loans.home}/d/loans/row?id={row_id}")
        assert "No sanitizer holds this row" in words(page)
        assert not page.locator("button[value=keep]").count()
        page.click("button[value=quarantine]")
        assert page.inner_text("h1") == row_id
        assert "ruled quarantine by ann" in words(page)
        page.click("nav >> text=Publish")
        page.click("main button")
        # A row has left the clean ones.
        assert "Published as version 2.0.0" in words(page)
        seen.check()
    assert loans.rulings("loans") == [("quarantine", 1)]


# ------------------------------------------------------------------ what data cannot do


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A dataset of which every name and every value attacks; every row is held."""
    store = Store.open(tmp_path_factory.mktemp("hostile"), bytes(32))
    n = len(CORPUS)
    rows = table(n).drop_columns(["class", "from", "note", "x"])
    rows = rows.append_column("x", pa.array(np.linspace(2, 3, n)))
    rows = rows.append_column("picture", pa.array([SVG] * n, pa.binary()))
    shifted = [[*CORPUS[i:], *CORPUS[:i]] for i in range(10)]
    names = (CORPUS[0], *CORPUS[4:7], *CORPUS[34:40])
    for name, values in zip(names, shifted, strict=True):
        rows = rows.append_column(name, pa.array(values))
    roles = Roles(
        label=names[0],
        source=names[1],
        text=names[2],
        response=names[3],
        image="picture",
        time="at",
        features=("x", "y", "flood"),
    )
    ids = [f"{text}{i}" for i, text in enumerate(CORPUS)]
    publish_rows(store, rows, roles=roles, ids=ids, shared=CORPUS[3])
    for marker in (store.root / "loans" / "inputs").glob("*/*.json"):
        known = json.loads(marker.read_text())
        known["files"][0]["path"] = f"in/{CORPUS[2]}.csv"
        marker.write_text(json.dumps(known))
    Rulings.of(store, "loans").add(ids[:3], "keep", who=CORPUS[1], why=CORPUS[4], group=CORPUS[9])
    yield from live(store)


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) == len(set(CORPUS)) >= 200


def test_nothing_of_hostile_rows_runs_in_the_review(browser: Browser, hostile: Live) -> None:
    with watching(browser, hostile.home) as seen:
        page = seen.page
        page.goto(hostile.entrance)
        address, shown = "/d/loans?state=all", 0
        while True:
            page.goto(f"{hostile.home}{address}")
            seen.check()
            shown += page.locator("#one ~ ol .entry, #one + ol .entry").count()
            found = page.locator("a[rel=next]")
            if not found.count():
                break
            address = str(found.get_attribute("href"))
        assert shown == len(CORPUS)
        page.goto(f"{hostile.home}/d/loans")
        page.click("#together ~ ol a >> nth=0")
        seen.check()
        for there in (
            "/audit",
            "/rulings",
            "/publish",
            "?label=%3Cscript%3Epwned(1)%3C/script%3E",
            "/row?id=",
        ):
            page.goto(f"{hostile.home}/d/loans{there}")
            seen.check()


def test_nothing_of_a_hostile_row_runs_on_its_page(browser: Browser, hostile: Live) -> None:
    with watching(browser, hostile.home) as seen:
        page = seen.page
        page.goto(hostile.entrance)
        # Every tenth row has the texts of ten in its columns, so that each is shown.
        for i in range(0, len(CORPUS), 10):
            row_id = quote(f"{CORPUS[i]}{i}", safe="")
            page.goto(f"{hostile.home}/d/loans/row?id={row_id}")
            assert "Why it is held" in page.inner_text("main")
            seen.check()


def test_an_svg_is_never_sent(browser: Browser, hostile: Live) -> None:
    with watching(browser, hostile.home) as seen:
        seen.page.goto(hostile.entrance)
        sent = seen.page.request.get(
            f"{hostile.home}/d/loans/image", params={"id": f"{CORPUS[7]}7"}
        )
        assert sent.status == 404
        assert b"<svg" not in sent.body()


def test_no_formula_in_a_sheet(browser: Browser, hostile: Live) -> None:
    with watching(browser, hostile.home) as seen:
        seen.page.goto(hostile.entrance)
        sent = seen.page.request.get(f"{hostile.home}/d/loans/held.csv?state=all")
        text = sent.text()
    assert sent.headers["content-type"].startswith("text/csv")
    assert "attachment" in sent.headers["content-disposition"]
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert len(cells) > 10 * len(CORPUS)
    assert not [c for c in cells if c.startswith(FORMULA)]


def test_nothing_of_hostile_rows_runs_in_the_report(browser: Browser, tmp_path: Path) -> None:
    facts = make_run(
        tmp_path / "run",
        rows=len(CORPUS),
        texts=CORPUS,
        columns=CORPUS[:12],
        files=CORPUS[12:15],
        unreadable=CORPUS,
        held=CORPUS[3],
        version=None,
    )
    path = tmp_path / "report.html"
    path.write_text(render(gather(facts)), encoding="utf-8")
    with watching(browser, "file://") as seen:
        seen.page.goto(path.as_uri())
        seen.page.evaluate(
            "() => { for (const d of document.querySelectorAll('details')) d.open = true }"
        )
        seen.check()


# ------------------------------------------------------------------ for everybody


def test_an_audit_with_the_keyboard_and_without_scripts(browser: Browser, loans: Live) -> None:
    for scripts in (True, False):
        with watching(browser, loans.home, java_script_enabled=scripts) as seen:
            page = seen.page
            page.goto(loans.entrance)
            page.goto(f"{loans.home}/d/loans")
            page.click(".invite a")
            first = page.locator("input[name=id]").get_attribute("value")
            for key, name in (("a", "keep"), ("q", "quarantine")):
                with page.expect_navigation():
                    page.keyboard.press(key) if scripts else page.click(f"button[value={name}]")
                assert f"1 row ruled {name}" in words(page)
            assert "of 300" in words(page)
            for _ in range(2):
                with page.expect_navigation():
                    page.keyboard.press("u") if scripts else page.click("main >> text=/^Undo/")
            assert page.locator("input[name=id]").get_attribute("value") == first
            assert not seen.alarms
    verdicts = [verdict for verdict, _ in loans.rulings("loans")]
    assert verdicts == ["keep", "quarantine", "none", "none"] * 2


def test_axe_finds_no_serious_fault(browser: Browser, pets: Live) -> None:
    found = {}
    with watching(browser, pets.home) as seen:
        page = seen.page
        page.goto(pets.entrance)
        page.goto(f"{pets.home}/d/mine?state=all")
        group = page.locator("#together ~ ol a").first.get_attribute("href") or ""
        page.goto(f"{pets.home}{group}")
        row = page.locator(".entry a").first.get_attribute("href") or ""
        others = ("/d/mine/audit", "/d/mine/rulings", "/d/mine/publish", "/help", "/d/nothing")
        for there in ("/d/mine?state=all", group, row, *others):
            page.goto(f"{pets.home}{there}")
            found[there] = faults(page)
            page.emulate_media(color_scheme="dark")
            found[f"{there}, dark"] = faults(page, "color-contrast")
            page.emulate_media(color_scheme="light")
    assert not any(found.values()), found


def test_axe_finds_no_serious_fault_on_a_phone(browser: Browser, loans: Live) -> None:
    found = {}
    narrow = {"width": 390, "height": 800}
    with watching(browser, loans.home, color_scheme="dark", viewport=narrow) as seen:
        page = seen.page
        page.goto(loans.entrance)
        page.click("summary")
        found["queue"] = faults(page)
        page.click("#one ~ ol .why a >> nth=0")
        found["row"] = faults(page)
        page.click("button[value=keep]")
        found["next"] = faults(page)
        page.goto(f"{loans.home}/d/loans/audit")
        page.click("summary")
        found["audit"] = faults(page)
        page.goto(f"{loans.home}/d/loans/publish")
        found["publish"] = faults(page)
    assert not any(found.values()), found


def test_axe_finds_no_serious_fault_in_a_report(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    facts = make_run(tmp_path / "run", unreadable=["1,2,3"])
    path.write_text(render(gather(facts)), encoding="utf-8")
    with watching(browser, "file://") as seen:
        seen.page.goto(path.as_uri())
        assert not faults(seen.page)
        seen.page.emulate_media(color_scheme="dark")
        assert not faults(seen.page, "color-contrast")


def test_the_address_is_opened_by_way_of_a_file(
    browser: Browser, loans: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("webbrowser.open", asked.append)
    browse_to(loans.entrance, tmp_path)
    assert loans.guard.token not in asked[0]
    with watching(browser, loans.home) as seen:
        seen.page.goto(asked[0])
        seen.page.wait_for_url(f"{loans.home}/d/loans")
        assert "wait for a ruling" in words(seen.page)


def test_signing_in(browser: Browser, tmp_path: Path) -> None:
    add_user(tmp_path / "users.toml", "ann", ADMIN, "a long enough password")
    store = open_store(tmp_path / "store", rows=100)
    for one in live(store, Users.read(tmp_path / "users.toml")):
        with watching(browser, one.home) as seen:
            page = seen.page
            page.goto(f"{one.home}/d/loans")
            assert page.inner_text("h1") == "Sign in"
            assert not faults(page)
            for password in ("wrong", "a long enough password"):
                page.fill("input[name=name]", "ann")
                page.fill("input[name=password]", password)
                page.click("button")
            assert page.inner_text("h1") == "loans"
            page.click("text=Leave, ann")
            assert page.inner_text("h1") == "Sign in"
            seen.check()


@pytest.mark.parametrize("width", [320, 1200])
def test_no_page_is_wider_than_the_screen(browser: Browser, hostile: Live, width: int) -> None:
    with watching(browser, hostile.home, viewport={"width": width, "height": 800}) as seen:
        page = seen.page
        page.goto(hostile.entrance)
        group = page.locator("#together ~ ol a").first.get_attribute("href") or ""
        page.goto(f"{hostile.home}{group}")
        row = page.locator(".entry a").first.get_attribute("href") or ""
        for there in (
            "/d/loans?state=all",
            group,
            row,
            "/d/loans/audit",
            "/d/loans/rulings",
            "/d/loans/publish",
            "/help",
        ):
            page.goto(f"{hostile.home}{there}")
            wide = page.evaluate("() => document.documentElement.scrollWidth")
            assert wide <= width, there
