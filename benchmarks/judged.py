"""What every sanitizer and the default policy say of a dataset, in this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sanitizers.catalog import SANITIZERS, missing_roles, sanitizer
from sanitizers.core.data import Dataset, MemoryShard, Roles
from sanitizers.core.evidence import examine_batch
from sanitizers.core.lines import ScoreSummary, draw
from sanitizers.core.policy import Policy
from sanitizers.core.sanitizer import Influential, Scorer

Flags = NDArray[np.bool_]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """What one sanitizer says of the rows of a dataset.

    Parameters
    ----------
    scores : ndarray of float64, shape (n,)
        NaN where it abstained.
    p_values : ndarray of float64, shape (n,)
        NaN where no null is known.
    quarantined : ndarray of bool, shape (n,)
        Over the default line.
    """

    scores: Scores
    p_values: Scores
    quarantined: Flags


def judge(
    data: Dataset,
    names: tuple[str, ...] = (),
    clean_loss: float = Policy.clean_loss,
) -> dict[str, Judged]:
    """Examine a dataset with sanitizers that have their roles; default lines.

    Parameters
    ----------
    data : Dataset
    names : tuple of str
        None: those that a run without a plan has.
    clean_loss : float
        The share of clean rows that may be lost.
    """
    found = {}
    for name in names or SANITIZERS:
        recipe = sanitizer(name)
        if missing_roles(recipe, data.roles, named=bool(names), trusted=bool(data.trusted)):
            continue
        found[name] = judge_by(name, recipe.fit(data), data, clean_loss)
    return found


def judge_by(
    name: str, scorer: Scorer, data: Dataset, clean_loss: float = Policy.clean_loss
) -> Judged:
    """Examine a dataset with one sanitizer that is fitted; its default line."""
    parts = [(batch.keys, examine_batch(name, scorer, batch)) for batch in data.batches()]
    summary = ScoreSummary(data.rows)
    for keys, part in parts:
        summary.add(_floats(part.column("score")), _floats(part.column("p_value")), keys)
    influence = scorer.influence if isinstance(scorer, Influential) else None
    vouched = bool(data.trusted) and bool(np.isfinite(summary.p_values).any())
    rule = Policy(clean_loss).rule(name, trusted=vouched, influence=influence)
    line = draw(name, rule, summary).quarantine
    scores, p_values = (
        np.concatenate([_floats(part.column(column)) for _, part in parts])
        for column in ("score", "p_value")
    )
    return Judged(scores, p_values, scores > (np.inf if line is None else line))


def any_of(judged: Mapping[str, Judged], rows: int) -> Flags:
    """The rows that at least one sanitizer quarantines, shape (rows,)."""
    flags = [found.quarantined for found in judged.values()]
    return np.any(flags, axis=0) if flags else np.zeros(rows, dtype=bool)


def recall_at(scores: Scores, truth: Flags, loss: float) -> float:
    """The share of the poison that a ranking finds until it has lost a share of the clean rows.

    Parameters
    ----------
    scores : ndarray of float64, shape (n,)
        Higher is worse; a row without a score (NaN) is never found.
    truth : ndarray of bool, shape (n,)
    loss : float
        The share of the clean rows that may be lost, in (0, 1].

    Notes
    -----
    Among rows of one score the expectation over a random order counts, so that ties
    favour nobody.
    """
    known = np.where(np.isnan(scores), -np.inf, scores)
    values, group = np.unique(-known, return_inverse=True)
    bad = np.bincount(group[truth], minlength=len(values)).astype(float)
    good = np.bincount(group[~truth], minlength=len(values)).astype(float)
    scored = np.isfinite(values)
    bad, good = bad[scored], good[scored]
    before = np.cumsum(good) - good
    room = loss * float((~truth).sum()) - before
    # Of a group that is larger than the room that is left only a part is taken.
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(good > 0, np.clip(room / good, 0.0, 1.0), (room >= 0).astype(float))
    return float((bad * part).sum() / max(truth.sum(), 1))


def dataset(rows: pa.Table, trusted: pa.Table | None, roles: Roles) -> Dataset:
    """Make a dataset of rows and of rows that are vouched for, with ids by position."""
    shards = (MemoryShard(_with_ids(rows, "row")),)
    vouched = () if trusted is None else (MemoryShard(_with_ids(trusted, "trusted")),)
    return Dataset(shards, roles, b"bench", vouched)


def _with_ids(table: pa.Table, stem: str) -> pa.Table:
    ids = pa.array([f"{stem}-{i}" for i in range(table.num_rows)])
    return table.append_column("row_id", ids)


def _floats(column: pa.ChunkedArray) -> Scores:
    return np.asarray(column.to_numpy(), dtype=np.float64)
