"""How often files that arrive are taken, whatever is killed, and how soon a run starts."""

from __future__ import annotations

import argparse
import random
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median

from benchmarks.database import postgres
from benchmarks.dropping import COPIES, Trial, alone, drop_and_kill
from benchmarks.results import Cell, Grid, publish, say
from benchmarks.serving import ROWS, Serving

#: Files that are dropped one by one, while nothing else is at work.
ALONE = 10
NOTES = (
    "`sanitize serve` of two plans, one that watches a folder and grows, one with a schedule, on "
    f"Prefect's own server. Files of {ROWS} rows are dropped at random moments: renamed into "
    f"place, written in two parts, or with a marker; every {COPIES}th is followed by a copy under "
    "another name and by a touch. The process is killed with `kill -9` and started again: every "
    "third time within 8 s of its start, else at a random moment of its work; half of the time "
    "alone, half with its whole group.",
    "*Published*: contents whose ledger says so; *missing*: contents that the last release does "
    "not hold; *twice*: contents that it holds twice. A content that was taken twice would also "
    "show in the rows, the row ids and the number of releases. *Left*: processes that lived on "
    "ten seconds after a kill.",
    "*To a run*: from the last byte of a file, dropped while nothing was at work, to the moment "
    "at which Prefect says that a run started; the file has to stay unchanged for the seconds "
    "under *settle* meanwhile, and the run is asked for when it has been for a quarter of them. "
    "*To a release*: until its rows were published. Line to hold: 10 s to a run.",
)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settle", type=float, default=2.0, help="seconds")
    parser.add_argument("--folder", type=Path, help="where data and stores lie meanwhile")
    parser.add_argument(
        "--postgres", action="store_true", help="not SQLite in the store, for Prefect's server"
    )
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=given.folder))
        serving = Serving(Path(folder) / "served", given.settle)
        if given.postgres:
            address = stack.enter_context(postgres())
            serving.environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = address
        serving.prepare()
        stack.callback(serving.end)
        trial = drop_and_kill(serving, given.files, given.kills, random.Random(given.seed))
        say(str(trial))
        seconds = []
        for number in range(ALONE):
            seconds.append(alone(serving, given.files + number))
            say(f"alone: {seconds[-1][0]:.1f} s to a run, {seconds[-1][1]:.1f} s to a release")
        began = time.monotonic()
        status = serving.stop(signal.SIGTERM)
        stopping = time.monotonic() - began
        say(f"stopped with status {status} in {stopping:.1f} s")
        _publish(given, trial, seconds, stopping)


def _publish(
    given: argparse.Namespace,
    trial: Trial,
    seconds: Sequence[tuple[float, float]],
    stopping: float,
) -> None:
    taken: list[Cell] = [
        trial.files,
        trial.kills,
        trial.copies,
        trial.releases,
        trial.states.get("published", 0),
        trial.missing,
        trial.twice,
        trial.left,
        trial.seconds,
    ]
    names = ("files", "kills", "copies", "releases", "published", "missing", "twice", "left", "s")
    runs, releases = zip(*seconds, strict=True)
    soon: list[Cell] = [len(runs), given.settle]
    soon += [median(runs), max(runs), median(releases), max(releases), stopping]
    name = "arrivals_postgres" if given.postgres else "arrivals"
    database = " --postgres" if given.postgres else ""
    publish(
        name,
        f"python -m benchmarks.arrivals --files {given.files} --kills {given.kills}{database}",
        [
            Grid("Each file once", names, [taken]),
            Grid(
                "From arrival to a run, s",
                (
                    "files",
                    "settle",
                    "to a run",
                    "at most",
                    "to a release",
                    "at most",
                    "SIGTERM to the end",
                ),
                [soon],
            ),
        ],
        NOTES,
        {"trial": asdict(trial), "seconds": [list(pair) for pair in seconds]},
    )
    if not trial.is_good:
        raise SystemExit(f"not every file was taken once: {trial}")


if __name__ == "__main__":
    main()
