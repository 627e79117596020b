"""Classes that are rare, and groups whose labels differ."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sanitizers.core.calibration import benjamini_hochberg
from sanitizers.risks.columns import Column, categorical, kind
from sanitizers.risks.finding import NOTE, Finding
from sanitizers.risks.look import Look
from sanitizers.risks.measures import chi2

#: A class with fewer rows than this, or this share of them, is rare.
RARE_ROWS, RARE_SHARE = 30, 0.01
#: The largest class is told when it has this many times the rows of the smallest.
RATIO = 20.0
#: A column of groups has at most so many, and of each at least so many rows in the sample.
MOST_GROUPS, GROUP_ROWS = 20, 50
#: False discoveries among columns of groups; the effect (Cramer's V) that is told.
FALSE_SHARE, EFFECT = 0.01, 0.2
#: Columns that are told, the strongest.
MOST_TOLD = 5


def imbalance(look: Look) -> Iterator[Finding]:
    """Find classes of which there are few rows, counted over all rows.

    A description, not a test: 3 of 18 clean real tables have such classes. Below 30 rows
    no sanitizer can judge labels (the label check asks for 10, in its sample).
    """
    counts = look.contents.classes if look.data.roles.label else None
    if not counts or len(counts) < 2:
        return
    total, label = sum(counts.values()), str(look.data.roles.label)
    rare = sorted(
        (c for c, n in counts.items() if n < max(RARE_ROWS, RARE_SHARE * total)),
        key=lambda c: (counts[c], c),
    )
    most, least = max(counts.values()), min(counts.values())
    if rare:
        named = ", ".join(f"{c!r} ({counts[c]:,})" for c in rare[:5])
        yield Finding(
            "imbalance",
            NOTE,
            label,
            float(counts[rare[0]]),
            max(RARE_ROWS, RARE_SHARE * total),
            f"{len(rare):,} of {len(counts):,} classes are rare: {named}"
            f"{' ...' if len(rare) > 5 else ''}; little can be said about their labels",
            {"classes": {c: counts[c] for c in rare[:50]}},
        )
    elif most >= RATIO * least:
        yield Finding(
            "imbalance",
            NOTE,
            label,
            most / least,
            RATIO,
            f"the largest class has {most / least:.0f} times the rows of the smallest",
            {"largest": most, "smallest": least},
        )


def bias(look: Look) -> Iterator[Finding]:
    """Find groups whose labels differ from those of the other rows.

    Groups are the categories of features of few values, and the sources. Chi-squared per
    column, false discoveries held down over the columns; Cramer's V is the effect.

    Every column that predicts the label differs so: with V of 0.2, 8 columns in 4 of 18
    clean real tables. Which of them is a wrong no data can say, so it is a note.
    """
    label = look.classes(look.sample, GROUP_ROWS)
    if label is None:
        return
    known = label.codes >= 0
    classes = label.codes[known]
    tables = [(c, _counts(c.take(known), classes)) for c in _groups(look)]
    tested = [(c, table, *chi2(table)) for c, table in tables if len(table) > 1]
    level = benjamini_hochberg(np.array([t[3] for t in tested]), FALSE_SHARE)
    strong = [t for t in tested if t[3] <= level and t[2] >= EFFECT]
    for column, table, effect, p_value in sorted(strong, key=lambda t: (-t[2], t[0].name))[
        :MOST_TOLD
    ]:
        yield _told(column, label, table, effect, p_value)


def _groups(look: Look) -> list[Column]:
    roles, table = look.data.roles, look.sample.table
    names = [n for n in roles.features if kind(table.column(n).type) == "category"]
    columns = [categorical(table, n) for n in dict.fromkeys([*names, roles.source or ""]) if n]
    return [c for c in columns if 2 <= len(c.categories or ()) <= MOST_GROUPS]


def _counts(column: Column, classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rows by group and class; groups of few rows keep their line, with nothing in it."""
    size = len(column.categories or ())
    table = np.zeros((size, int(classes.max()) + 1))
    np.add.at(table, (column.codes, classes), 1.0)
    table[table.sum(axis=1) < GROUP_ROWS] = 0.0
    return table


def _told(
    column: Column, label: Column, table: NDArray[np.float64], effect: float, p_value: float
) -> Finding:
    """Name the group and the class that lie furthest from the other rows."""
    sizes = table.sum(axis=1, keepdims=True)
    rates = table / np.maximum(sizes, 1)
    others = (table.sum(axis=0) - table) / np.maximum(table.sum() - sizes, 1)
    apart = np.where(sizes > 0, np.abs(rates - others), 0.0)
    group, cls = np.unravel_index(int(apart.argmax()), apart.shape)
    name, answer = (column.categories or ())[group], (label.categories or ())[cls]
    return Finding(
        "bias",
        NOTE,
        column.name,
        effect,
        EFFECT,
        f"labels differ between the groups of {column.name!r}, most for {name!r}: "
        f"{rates[group, cls]:.0%} of its rows are labelled {answer!r}, and "
        f"{others[group, cls]:.0%} of the others. The world may be so, or labels may be unfair "
        "to a group; a model will learn it either way",
        {"group": name, "class": answer, "p_value": p_value, "effect": "Cramer's V"},
    )
