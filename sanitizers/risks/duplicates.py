"""Rows that come more than once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sanitizers.core.kernels import nearest_distances
from sanitizers.risks.finding import NOTE, WARNING, Finding
from sanitizers.risks.look import Look

#: Shares of rows: that repeat, that are one content (of so many rows), that contradict.
SHARE, FLOOD, FLOOD_ROWS, CONFLICTS = 0.01, 0.05, 20, 0.005
#: Rows whose nearest neighbour is sought, and the share of near ones that is told.
QUERIES, NEAR_SHARE = 2_000, 0.1
#: A neighbour is near below this part of the median distance.
NEAR = 0.1


def duplicates(look: Look) -> Iterator[Finding]:
    """Find how many rows agree with an earlier one in every feature and in their label.

    Measured on 24 clean real tables: 6 repeat 1 % of their rows or more (up to 9.7 %),
    and one, mammography, 30 %. Its most frequent content makes up 30 % of the rows, that
    of the others at most 1.5 %: a line of 5 % for a flood leaves room.
    """
    found = look.contents
    share = found.repeats / max(found.rows, 1)
    if share < SHARE:
        return
    flood = found.most / max(found.rows, 1)
    severity = WARNING if flood >= FLOOD and found.most >= FLOOD_ROWS else NOTE
    often = f"; the most frequent content comes {found.most:,} times" if found.most > 2 else ""
    yield Finding(
        "duplicates",
        severity,
        "rows",
        flood if severity == WARNING else share,
        FLOOD if severity == WARNING else SHARE,
        f"{share:.1%} of the rows repeat an earlier row in every feature and answer{often}",
        {"repeats": found.repeats, "rows": found.rows, "most": found.most},
    )


def conflicts(look: Look) -> Iterator[Finding]:
    """Find rows that agree in every feature and have different labels.

    Measured on 18 clean real tables: 5 have such rows, at most 0.2 % of them but for
    mammography (30 %, one content that is 30 % of the table). Copies of rows with
    another label, as an attacker makes them, reach the line of 0.5 % at 0.25 % of the rows.
    """
    found = look.contents
    if not found.conflicts:
        return
    share = found.conflicts / max(found.rows, 1)
    yield Finding(
        "conflicts",
        WARNING if share >= CONFLICTS else NOTE,
        str(look.data.roles.label),
        share,
        CONFLICTS if share >= CONFLICTS else 0.0,
        f"{found.conflicts:,} rows in {found.groups:,} groups agree in every feature and have "
        f"different labels, for instance {', '.join(found.examples[:3])}",
        {"rows": found.conflicts, "groups": found.groups, "row_ids": list(found.examples)},
    )


def near_duplicates(look: Look) -> Iterator[Finding]:
    """Find how many rows have a neighbour much nearer than rows usually have.

    Among the rows of the sample: in data of many more rows it is a lower bound.

    Measured: 15.8 % in spambase, below 10 % in 23 other clean tables. It is natural, so
    never more than a note.
    """
    sample = look.sample
    if len(sample) < 100 or not sample.X.shape[1]:
        return
    near = nearest_distances(sample.X[:QUERIES], sample.X, 2)[:, 1].astype(np.float64)
    # Equal rows are counted elsewhere.
    apart = near[near > 0]
    if not len(apart):
        return
    share = float((apart < NEAR * np.median(apart)).sum() / len(near))
    if share >= NEAR_SHARE:
        yield Finding(
            "near-duplicates",
            NOTE,
            "rows",
            share,
            NEAR_SHARE,
            f"{share:.1%} of the rows nearly repeat another row; folds that part such rows "
            "let models look at the answers",
            {"rows": len(sample)},
        )
