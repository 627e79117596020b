"""Runs a program of the benchmarks in a process of its own, for as long as it may take."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.answers import Answer, Cost
from sanitizers.core.data import Roles


@dataclass(frozen=True)
class Measured:
    """What a contender said of a table, and what that took.

    Parameters
    ----------
    answer : Answer
    cost : Cost
    """

    answer: Answer
    cost: Cost


def measure(
    contender: str,
    frame: pd.DataFrame,
    label: str,
    when: str | None = None,
    limit: float | None = None,
) -> Measured | None:
    """Run a contender on a table.

    Parameters
    ----------
    contender : str
        A key of `benchmarks.contenders.CONTENDERS`.
    frame : pandas.DataFrame
    label : str
    when : str, optional
        The column of the time.
    limit : float, optional
        Seconds after which it is ended.

    Returns
    -------
    Measured or None
        None where it did not come to an end within the limit.
    """
    features = tuple(c for c in frame.columns if c not in (label, when))
    roles = Roles(label=label, time=when, features=features)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.parquet"
        table = pa.Table.from_pandas(frame, preserve_index=False)
        said = {"label": roles.label, "time": roles.time, "features": list(features)}
        pq.write_table(table.replace_schema_metadata({"roles": json.dumps(said)}), file)
        told = in_own_process("contenders", contender, str(file), limit=limit)
        if told is None:
            return None
        return Measured(Answer.load(file.with_suffix(".npz")), Cost(**told))


def in_own_process(module: str, *words: str, limit: float | None = None) -> dict[str, Any] | None:
    """Run a module of the benchmarks, and return the object on the last line that it prints.

    Parameters
    ----------
    module : str
    *words : str
    limit : float, optional
        Seconds after which it is ended, with all that it started, and None is returned.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *words]
    pipe = subprocess.PIPE
    # A session of its own: a pool of workers must not outlive the process that started it.
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        sys.exit(f"{module} {words[0]} failed:\n{err[-3000:]}")
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    return told
