"""Stores for the tests of the review: a table with a group, and images with a trigger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.decide import checks, decide
from pipelines.examine import examine
from pipelines.manifest import Run
from pipelines.publish import publish
from pipelines.store import Store, key_of
from sanitizers.core.data import Batch, Dataset, Roles
from sanitizers.core.lines import Line, Rule
from sanitizers.core.policy import Policy
from tests.spine import CREATED, SALT, hand_in

CLASSES, SOURCES = ("low", "middle", "high"), ("north", "south")
#: What the rows of the group of `made` have in common.
SHARED = "2024-03 or north"


@dataclass(frozen=True)
class MarkedScorer:
    """Scores a column, and gives a hint that rows share."""

    column: str
    shared: str
    null: None = None

    def score(self, batch: Batch) -> NDArray[np.float64]:
        column = batch.table.column(self.column)
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)

    def hint(self, batch: Batch) -> list[str | None]:
        return [self.shared or None] * len(batch)


@dataclass(frozen=True)
class Marked:
    """The value of a column is the score; its name is that of a sanitizer of ours."""

    column: str
    shared: str = ""
    name: ClassVar[str] = "marked"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def fit(self, data: Dataset) -> MarkedScorer:
        return MarkedScorer(self.column, self.shared)

    def reason(self, score: float, hint: str | None) -> str:
        return f"is at home in {hint} ({score:.3g})" if hint else f"its value is {score:.3g}"


def table(rows: int, seed: int = 0) -> pa.Table:
    """Rows with numbers, a class, a source, a time and a note."""
    rng = np.random.default_rng(seed)
    flood = np.zeros(rows)
    flood[: rows // 20] = 1 + rng.random(rows // 20)
    # Of the rows of the group one in five stands out.
    crowd = np.where(np.arange(rows) % 5 > 0, "high", "low")
    start = np.datetime64("2024-01-01")
    return pa.table(
        {
            "x": rng.normal(size=rows),
            "y": rng.normal(size=rows),
            "flood": flood,
            "class": np.where(flood > 0, crowd, rng.choice(CLASSES, rows)),
            "from": rng.choice(SOURCES, rows),
            "at": start + np.arange(rows).astype("timedelta64[D]").astype("timedelta64[s]"),
            "note": [f"note {i}" for i in range(rows)],
        }
    )


def publish_rows(
    store: Store,
    rows: pa.Table,
    *,
    dataset: str = "loans",
    roles: Roles | None = None,
    ids: Sequence[str] | None = None,
    shard_rows: int = 200,
    unreadable: int = 0,
    above: float = 1.5,
    shared: str = SHARED,
    budget: float = 0.9,
) -> Path:
    """Publish rows of which some are held by `outliers`, and some by `micro-concentration`."""
    roles = roles or Roles(label="class", source="from", time="at", features=("x", "y", "flood"))
    key = key_of(dataset, rows.schema.to_string(), repr(rows.to_pydict()), list(ids or ()))
    data = hand_in(
        store.inputs(dataset, key), rows, shard_rows=shard_rows, ids=ids, unreadable=unreadable
    )
    recipes = {"outliers": Marked("x"), "micro-concentration": Marked("flood", shared)}
    folders = {}
    for name, recipe in recipes.items():
        folder = store.evidence(dataset, key_of(key, name))
        folders[name] = examine(recipe, data.dataset(roles, SALT), folder).folder
    strict = Rule(Line.parse(f"score > {above}"), Line.parse(f"score > {above * 0.7}"))
    group = Rule(Line.parse("score > 1.2"), Line.parse("score > 0.9"))
    rules = {"outliers": strict, "micro-concentration": group}
    run_key = key_of(key, above, budget)
    folder = store.run(dataset, run_key)
    policy = Policy(budget=budget, rules=rules)
    decision = decide(data, roles, folders, policy, recipes, folder)
    told = {name: path.name for name, path in folders.items()}
    plan = {"roles": asdict(roles)}
    run = Run(dataset, run_key, CREATED, key, told, plan, checks(decision, recipes, {}))
    run.write(folder)
    report = folder / "report.html"
    report.write_text("<!doctype html><p>a report")
    made = publish(store, run, data, decision, lambda version, created: report)
    return made.folder or folder


def open_store(root: Path, rows: int = 600, unreadable: int = 3) -> Store:
    """A store with one dataset, ``loans``, and one release of it."""
    store = Store.open(root, SALT)
    publish_rows(store, table(rows), unreadable=unreadable)
    return store
