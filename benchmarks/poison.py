"""Two simple attacks on a table, each returning the rows and the truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.answers import Flags
from sanitizers.poisons.flips import draw_flips


def flip_labels(
    frame: pd.DataFrame, label: str, rate: float, rng: np.random.Generator
) -> tuple[pd.DataFrame, Flags]:
    """Give random rows the label of another class, drawn evenly, as ``flip-random`` does.

    Its draws come from `rng` alone, rows first; the committed samples and figures hang on them.

    Parameters
    ----------
    frame : pandas.DataFrame
    label : str
    rate : float
        The share of the rows.
    rng : numpy.random.Generator
    """
    classes = np.array(sorted(frame[label].unique()), dtype=object)
    codes = np.searchsorted(classes.astype(str), frame[label].to_numpy().astype(str))
    hit, to = draw_flips(codes, len(classes), round(rate * len(frame)), rng)
    labels = frame[label].to_numpy(dtype=object).copy()
    labels[hit] = classes[to]
    truth = np.zeros(len(frame), dtype=bool)
    truth[hit] = True
    return frame.assign(**{label: labels}), truth


def slip_cluster(
    frame: pd.DataFrame,
    rng: np.random.Generator,
    *,
    keep: tuple[str, ...] = (),
    slices: int = 20,
    attacked: int = 3,
    share: float = 0.3,
    at_a_row: bool = False,
) -> tuple[pd.DataFrame, Flags]:
    """Add a tight cluster of rows to some neighbouring slices of a table in order of time.

    ``dense-cluster`` of `sanitizers.poisons` is the same attack for a table with roles. Its
    draws are others, and the committed samples and figures hang on those made here: slices,
    hosts, then column by column the centre and the rows around it.

    Parameters
    ----------
    frame : pandas.DataFrame
        In order of time.
    rng : numpy.random.Generator
        Draws the place of the cluster, and which slices it is slipped into.
    keep : tuple of str
        Columns, such as the time, that an added row takes from the row that it is put behind.
    slices, attacked : int
        The table is cut into `slices` parts of equal size; `attacked` in a row get the cluster.
    share : float
        The share of the attacked slices that is cluster afterwards.
    at_a_row : bool
        Whether the cluster lies around a real row. Else every column has its own
        value, drawn between the column's 5 % and 95 % quantiles.

    Returns
    -------
    pandas.DataFrame
    ndarray of bool
    """
    edges = np.linspace(0, len(frame), slices + 1).astype(int)
    first = int(rng.integers(0, slices - attacked + 1))
    size = edges[first + attacked] - edges[first]
    count = round(size * share / (1 - share))
    hosts = np.sort(rng.integers(edges[first], edges[first + attacked], size=count))
    rows = frame.iloc[hosts].copy()
    row = frame.iloc[int(rng.integers(len(frame)))] if at_a_row else None
    for name in frame.columns.difference(list(keep), sort=False):
        rows[name] = _near(frame[name], None if row is None else row[name], count, rng)
    order = np.concatenate([np.arange(len(frame)), hosts + 0.5])
    whole = pd.concat([frame, rows], ignore_index=True)
    place = np.argsort(order, kind="stable")
    truth = np.arange(len(whole)) >= len(frame)
    return whole.iloc[place].reset_index(drop=True), truth[place]


def _near(
    column: pd.Series, centre: object, count: int, rng: np.random.Generator
) -> NDArray[np.generic]:
    """Values in a ball of 5 % of a column's standard deviation; one value where it is no number."""
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        value = column.iloc[int(rng.integers(len(column)))] if centre is None else centre
        return np.full(count, value, dtype=object)
    values = column.to_numpy(dtype=float)
    low, high = np.nanquantile(values, [0.05, 0.95])
    middle = rng.uniform(low, high) if centre is None else float(str(centre))
    near = rng.normal(middle, 0.05 * float(np.nanstd(values)), size=count)
    if pd.api.types.is_integer_dtype(column):
        return np.rint(near).astype(np.int64)
    return near
