"""The review of a release with 1,000,000 held rows: pages, filters, rulings, publishing."""

from __future__ import annotations

import argparse
import resource
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import httpx
import numpy as np
import uvicorn
from numpy.typing import NDArray

from benchmarks.results import Cell, Grid, mean, publish, say
from benchmarks.scale import make
from pipelines.decide import checks, decide
from pipelines.examine import examine
from pipelines.ingest import ingest
from pipelines.manifest import Run
from pipelines.publish import publish as publish_run
from pipelines.review.desk import Desk, Seat
from pipelines.review.filters import Filter
from pipelines.review.guard import Guard
from pipelines.ruled import publish_rulings
from pipelines.store import Store
from sanitizers.core.data import Batch, Dataset, Roles
from sanitizers.core.lines import Line, Rule
from sanitizers.core.policy import Policy

#: Rows in all for each row that is held.
SPARE = 1.05
#: Times that a page is asked for.
TIMES = 9
KEY, RUN, DATASET = "a" * 16, "b" * 16, "made"
COLUMNS = tuple(f"x{i}" for i in range(20))
NOTES = (
    "Made rows, those of `benchmarks.scale`, 20 columns and a label. Two stand-ins for sanitizers "
    "put all but 5 % of them over a line, so that the release holds as many as are to be reviewed; "
    "one of them gives hints that rows share, so that there are groups. Ingest, evidence, verdicts "
    "and release are made by the pipeline.",
    "Seconds as a client on the same machine waits, over HTTP, for the whole page. *First visit* "
    "makes the index of the held rows; *after a new start* is a server that finds it there, and "
    "counts from the sitting down to the last byte. The other lines are medians "
    f"of {TIMES}, with the worst beside them.",
    "Lines to hold: the first page in 1 s after the first visit, a ruling in 0.1 s, publishing "
    "rulings in 10 s.",
)


@dataclass(frozen=True)
class StandIn:
    """A column is the score; some of another are a hint that rows share."""

    column: str
    shared: bool = False
    name: ClassVar[str] = "stand-in"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def fit(self, data: Dataset) -> StandIn:
        """There is nothing to learn."""
        return self

    @property
    def null(self) -> None:
        """Nothing is known of clean rows."""

    def score(self, batch: Batch) -> NDArray[np.float64]:
        """The column."""
        return np.asarray(batch.table.column(self.column).to_numpy(), dtype=np.float64)

    def hint(self, batch: Batch) -> list[str | None]:
        """One of twenty slices, where rows share any."""
        slices = np.abs(batch.table.column("x2").to_numpy() * 4).astype(int) % 20
        return [f"slice {s} of 20" if self.shared else None for s in slices.tolist()]

    def reason(self, score: float, hint: str | None) -> str:
        """Say what a sanitizer might."""
        where = f" in {hint}" if hint else ", most of all in column 'x3'"
        return f"it lies {score:.1f} robust standard deviations from the others{where}"


def make_release(root: Path, held: int) -> Store:
    """Publish a release that holds so many rows, about.

    Parameters
    ----------
    root : Path
    held : int
    """
    rows = int(held * SPARE)
    file = root / "rows.parquet"
    make(file, rows)
    store = Store.open(root / "store", bytes(32))
    data = ingest(file, store.inputs(DATASET, KEY), salt=store.salt)
    file.unlink()
    roles = Roles(label="label", features=COLUMNS)
    recipes = {"outliers": StandIn("x0"), "micro-concentration": StandIn("x1", shared=True)}
    folders = {}
    for number, (name, recipe) in enumerate(recipes.items()):
        folder = store.evidence(DATASET, f"{number:016d}")
        folders[name] = examine(recipe, data.dataset(roles, store.salt), folder).folder
        say(f"{name}: examined")
    most = Rule(Line.parse("top 30%"), Line.parse(f"top {100 / SPARE:.4f}%"))
    few = Rule(Line.parse("top 0.5%"), Line.parse("top 1%"))
    rules = {"outliers": most, "micro-concentration": few}
    folder = store.run(DATASET, RUN)
    decision = decide(data, roles, folders, Policy(budget=1.0, rules=rules), recipes, folder)
    told = {name: path.name for name, path in folders.items()}
    found = checks(decision, recipes, {})
    run = Run(DATASET, RUN, "2026-01-01T00:00:00+00:00", KEY, told, {"roles": asdict(roles)}, found)
    run.write(folder)
    report = folder / "report.html"
    report.write_text("<!doctype html>")
    publish_run(store, run, data, decision, lambda version, created: report)
    say(f"published: {decision.review + decision.quarantine:,} rows held")
    return store


@dataclass
class Visit:
    """A browser at a server, both in this process, with a socket between them."""

    desk: Desk
    client: httpx.Client
    server: uvicorn.Server
    csrf: str

    @classmethod
    def begin(cls, store: Store) -> Visit:
        """Start a server, and come in."""
        from pipelines.review.app import guarded

        desk, guard = Desk(store), Guard(0, who="ann")
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        config = uvicorn.Config(guarded(desk, guard), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True).start()
        while not server.started:
            time.sleep(0.01)
        home = f"http://127.0.0.1:{bound.getsockname()[1]}"
        client = httpx.Client(base_url=home, timeout=600)
        client.get("/enter", params={"token": guard.token})
        session = guard.sessions.find(client.cookies[guard.cookie])
        return cls(desk, client, server, session.csrf if session else "")

    def page(self, **words: object) -> float:
        """Seconds until a page of the queue is there."""
        there = str(words.pop("to", ""))
        started = time.perf_counter()
        answer = self.client.get(
            f"/d/{DATASET}{there}", params={n: str(v) for n, v in words.items()}
        )
        seconds = time.perf_counter() - started
        if answer.status_code != httpx.codes.OK:
            raise RuntimeError(f"{answer.status_code}: {answer.text[:500]}")
        return seconds

    def send(self, to: str, /, **fields: object) -> float:
        """Seconds until a form is answered."""
        given = {"csrf": self.csrf} | {name: str(value) for name, value in fields.items()}
        started = time.perf_counter()
        answer = self.client.post(f"/d/{DATASET}{to}", data=given)
        seconds = time.perf_counter() - started
        if answer.status_code != httpx.codes.SEE_OTHER:
            raise RuntimeError(f"{answer.status_code}: {answer.text[:500]}")
        return seconds

    def end(self) -> None:
        """Stop the server."""
        self.client.close()
        self.server.should_exit = True
        time.sleep(0.5)
        self.desk.close()


def measure(root: Path, held: int) -> dict[str, Any]:
    """Make a release, and look through it.

    Parameters
    ----------
    root : Path
    held : int
        Rows.
    """
    store = make_release(root, held)
    before = _memory()
    visit = Visit.begin(store)
    found: dict[str, Any] = {"first visit": [visit.page()]}
    say(f"first visit: {found['first visit'][0]:.1f} s")
    visit.end()
    found["after a new start"] = []
    for _ in range(3):
        visit = Visit.begin(store)
        found["after a new start"].append(visit.page())
        visit.end()
    visit = Visit.begin(store)
    visit.page()
    found |= _pages(visit)
    found |= _rulings(visit)
    waits = visit.desk.seat(DATASET).queue.count(Filter())
    visit.end()
    started = time.perf_counter()
    _, manifest, _ = publish_rulings(store, DATASET)
    found["publishing the rulings"] = [time.perf_counter() - started]
    index = sum(path.stat().st_size for path in (store.dataset(DATASET) / "review").rglob("*"))
    return {
        "seconds": found,
        "held": manifest.counts.review + manifest.counts.quarantine,
        "waiting": waits,
        "moved": manifest.ruled.moved if manifest.ruled else 0,
        "index MB": index / 1e6,
        "memory before MB": before,
        "memory after MB": _memory(),
    }


def _pages(visit: Visit) -> dict[str, list[float]]:
    queue = visit.desk.seat(DATASET).queue
    rows = queue.rows(Filter(), limit=400)[::40]
    far = queue.rows(Filter(), 900_000 if queue.count(Filter()) > 900_000 else 0, 1)[0].place
    group = queue.groups(Filter())[0].shared
    asked: dict[str, Callable[[int], float]] = {
        "first page": lambda i: visit.page(),
        "a page in the last tenth": lambda i: visit.page(after=far + i),
        "one class": lambda i: visit.page(label="class2"),
        "one sanitizer": lambda i: visit.page(sanitizer="micro-concentration"),
        "one class, for review": lambda i: visit.page(label="class1", verdict="review"),
        "a group": lambda i: visit.page(to="/group", group=group),
        "a row": lambda i: visit.page(to="/row", id=rows[i].row_id),
        "a row of the audit": lambda i: visit.page(to="/audit"),
    }
    return {name: [act(i) for i in range(TIMES)] for name, act in asked.items()}


def _rulings(visit: Visit) -> dict[str, list[float]]:
    queue, seat = visit.desk.seat(DATASET).queue, visit.desk.seat(DATASET)
    groups = queue.groups(Filter())
    rows = queue.rows(Filter(), limit=2 * TIMES)
    found = {
        "a ruling": [
            visit.send("/rule", id=row.row_id, say="keep", to="next") for row in rows[:TIMES]
        ],
        "undo": [visit.send("/undo")],
        "a ruling of the audit": [_audit(visit, seat) for _ in range(TIMES)],
        "a ruling on a group": [
            visit.send("/rule-group", group=g.shared, key=seat.held.key, say="quarantine")
            for g in groups[:3]
        ],
        "first page after rulings": [visit.page() for _ in range(TIMES)],
    }
    say(f"groups of {', '.join(str(g.rows) for g in groups[:3])} rows")
    return found


def _audit(visit: Visit, seat: Seat) -> float:
    due = seat.due
    if due is None:
        raise RuntimeError("no row of the audit is left")
    return visit.send("/audit", id=due.row_id, key=seat.held.key, say="keep")


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _grid(found: dict[str, Any]) -> Grid:
    rows: list[list[Cell]] = []
    for name, times in found["seconds"].items():
        ordered = sorted(times)
        rows.append([name, round(ordered[len(ordered) // 2] * 1000), round(ordered[-1] * 1000)])
    return Grid(f"{found['held']:,} rows are held", ["what", "ms", "worst ms"], rows)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--held", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the rows and the store lie meanwhile")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = measure(Path(folder), given.held)
    plain = ("index MB", "moved", "memory before MB", "memory after MB")
    told = Grid("besides", ["what", "figure"], [[n, round(found[n])] for n in plain])
    notes = (*NOTES, f"The mean ruling took {1000 * mean(found['seconds']['a ruling']):.0f} ms.")
    publish("review", "python -m benchmarks.review", [_grid(found), told], notes, found)


if __name__ == "__main__":
    main()
