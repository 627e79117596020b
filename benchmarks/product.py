"""The whole product run as its user would: ``sanitize run FILE``, in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

#: The command ``sanitize``, of this Python.
COMMAND = "import sys; from pipelines.cli import main; sys.exit(main())"
#: Seconds between two looks at the memory of the processes.
PAUSE = 0.1


@dataclass(frozen=True)
class Outcome:
    """What a run said, and what it took.

    Parameters
    ----------
    result : dict
        The object of ``--json``.
    release : dict
        The manifest of the release; empty where nothing was published.
    seconds : float
    cpu_seconds : float
        Of all its processes; what a machine that is busy otherwise does not add to.
    peak_mb : float
        The largest sum of the resident memory of all its processes, shared pages
        counted for each.
    own_peak_mb : float
        The peak of the largest single process, as the kernel counts it.
    sanitizers : dict of str to tuple
        For each sanitizer its start and end, in seconds since the start.
    """

    result: dict[str, Any]
    release: dict[str, Any]
    seconds: float
    cpu_seconds: float
    peak_mb: float
    own_peak_mb: float
    sanitizers: dict[str, tuple[float, float]]

    def record(self) -> dict[str, Any]:
        """What is kept of the run: counts and times, no folder of this machine."""
        counts = {k: v for k, v in self.result.items() if isinstance(v, bool | int)}
        checks = [
            {k: check[k] for k in ("sanitizer", "scored", "review", "quarantine")}
            for check in self.release.get("checks", ())
        ]
        times = {k: v for k, v in asdict(self).items() if k not in ("result", "release")}
        return {"counts": counts, "checks": checks, **times}

    @property
    def sanitizing(self) -> float:
        """Seconds during which at least one sanitizer was at work."""
        total, until = 0.0, 0.0
        for start, end in sorted(self.sanitizers.values()):
            total += max(0.0, end - max(start, until))
            until = max(until, end)
        return total


def run(file: Path, *options: str) -> Outcome:
    """Run the default pipeline on a file, with a new store that is thrown away.

    Parameters
    ----------
    file : Path
    *options : str
        Further words of the command line.
    """
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        store = Path(folder) / "store"
        words = ["run", str(file), "--store", str(store), "--json", *options]
        command = [sys.executable, "-c", COMMAND, *words]
        began, started, cpu = time.time(), time.perf_counter(), _cpu_of_children()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        watch = _Watch(process.pid)
        watch.start()
        out, err = process.communicate()
        seconds = time.perf_counter() - started
        watch.stop()
        if process.returncode not in (0, 1):
            sys.exit(f"sanitize run {file.name} ended with {process.returncode}:\n{err[-3000:]}")
        result = json.loads(out)
        manifest = Path(result["manifest"]) if result.get("manifest") else None
        return Outcome(
            result=result,
            release=json.loads(manifest.read_bytes()) if manifest else {},
            seconds=seconds,
            cpu_seconds=_cpu_of_children() - cpu,
            peak_mb=watch.peak / 2**20,
            own_peak_mb=watch.largest / 2**20,
            sanitizers=_sanitizers(store, began),
        )


def _sanitizers(store: Path, began: float) -> dict[str, tuple[float, float]]:
    """When each sanitizer worked: its marker is written at the end, and says how long it took."""
    found = {}
    for marker in store.glob("*/evidence/*/evidence.json"):
        said = json.loads(marker.read_bytes())
        end = marker.stat().st_mtime - began
        found[str(said["sanitizer"])] = (end - float(said["seconds"]), end)
    return found


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class _Watch(threading.Thread):
    """Looks at the memory of a process and its children until it is stopped."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.largest = 0
        self._pid = pid
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(PAUSE):
            try:
                process = psutil.Process(self._pid)
                family = [process, *process.children(recursive=True)]
            except psutil.Error:
                return
            sizes = [size for member in family if (size := _resident(member))]
            self.peak = max(self.peak, sum(sizes))
            self.largest = max(self.largest, *sizes, 0)

    def stop(self) -> None:
        """Stop looking."""
        self._done.set()
        self.join()


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
