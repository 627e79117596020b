"""A process that serves, files that are dropped, and kills in between: what becomes of each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.product import COMMAND
from pipelines.ledger import Ledger

#: The dataset whose source is watched, and the one with a schedule.
NAME, CLOCK = "drops", "clock"
CRON = "0 2 * * *"
#: Rows of a file.
ROWS = 60
#: Seconds that the process may take to start.
START = 180.0
#: Seconds that the server's database may be locked by others.
BUSY = 30.0

_ROOT = Path(__file__).resolve().parent.parent
_READY = "serving; runs are shown at "
_PLAN = """\
[dataset]
name = "{name}"
source = "{source}"
store = "store"
{rest}
[roles]
label = "y"
[policy]
budget = 1.0
[sanitizers]
use = ["conflicts"]
[risks]
use = "off"
"""


@dataclass
class Serving:
    """``sanitize serve`` of two plans, one that watches and one with a schedule.

    Parameters
    ----------
    folder : Path
        Holds the plans, the data and the store.
    settle : float
        Seconds that a file must not change.
    environment : dict of str to str
    """

    folder: Path
    settle: float = 1.0
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    starts: int = field(default=0, init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def prepare(self) -> None:
        """Write the plans, and the data of the one with a schedule."""
        self.inbox.mkdir(parents=True)
        (self.folder / "clock.csv").write_text(table(0))
        watched = f"grow = true\n[arrivals]\nsettle = {self.settle}"
        timed = f'[schedule]\ncron = "{CRON}"'
        for name, source, rest in ((NAME, "inbox", watched), (CLOCK, "clock.csv", timed)):
            text = _PLAN.format(name=name, source=source, rest=rest)
            (self.folder / f"{name}.toml").write_text(text)
        # Every process that comes of this one is known by it.
        self.environment["SANITIZE_STORE"] = str(self.store)
        self.environment["PYTHONPATH"] = str(_ROOT)

    @property
    def inbox(self) -> Path:
        """Where files are dropped."""
        return self.folder / "inbox"

    @property
    def store(self) -> Path:
        """The root of the store."""
        return self.folder / "store"

    @property
    def ledger(self) -> Ledger:
        """What is known of the arrivals."""
        return Ledger(self.store / NAME / "arrivals")

    @property
    def said(self) -> str:
        """What the process that was started last has said."""
        log = self._log()
        return log.read_text() if log.exists() else ""

    @property
    def page(self) -> str:
        """The address of the page."""
        return self.said.split(_READY)[1].split()[0]

    def start(self) -> None:
        """Start to serve, without waiting until it does."""
        self.starts += 1
        with self._log().open("wb") as log:
            self._process = self.other(stdout=log)

    def other(self, **how: Any) -> subprocess.Popen[bytes]:
        """The same command once more."""
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, "serve", f"{NAME}.toml", f"{CLOCK}.toml"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **how,
        )

    def ready(self) -> None:
        """Wait until it serves."""
        wait(lambda: _READY in self.said, START, lambda: f"{self.process.poll()}: {self.said}")

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process that was started last."""
        if self._process is None:
            raise RuntimeError("nothing was started")
        return self._process

    def kill(self, *, group: bool) -> None:
        """Kill the process with ``kill -9``, alone or with its whole group."""
        if group:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Let nothing live on, whatever has happened."""
        if self._process is not None and self._process.poll() is None:
            self.kill(group=True)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30.0) -> int:
        """Ask the process to end, and return its exit status."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def ask(self, what: str, query: dict[str, Any]) -> list[dict[str, Any]]:
        """Ask the Prefect server for what it knows of a kind."""
        found: list[dict[str, Any]] = self.post(f"{what}/filter", query)
        return found

    def post(self, path: str, value: dict[str, Any]) -> Any:
        """Ask the Prefect server for something; again where it is busy, as its client does."""
        until = time.monotonic() + BUSY
        while True:
            try:
                return self._post(path, value)
            except urllib.error.HTTPError as error:
                if error.code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > until:
                    raise
            time.sleep(0.5)

    def _post(self, path: str, value: dict[str, Any]) -> Any:
        address, kind = f"{self.page}/api/{path}", {"Content-Type": "application/json"}
        request = urllib.request.Request(address, json.dumps(value).encode(), kind)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def runs(self, dataset: str, *states: str) -> list[dict[str, Any]]:
        """The runs of a dataset that the Prefect server knows, in some states."""
        chosen = {"state": {"type": {"any_": list(states)}}} if states else {}
        deployment = {"name": {"any_": [dataset]}}
        return self.ask("flow_runs", {"flow_runs": chosen, "deployments": deployment})

    def _log(self) -> Path:
        return self.folder / f"serve-{self.starts}.log"


def table(seed: int, rows: int = ROWS) -> str:
    """A small table with two classes, as CSV; another one for every seed."""
    rng = np.random.default_rng(seed)
    lines = ["name,a,b,y"]
    for i in range(rows):
        a, b = rng.normal(2.0 * (i % 2)), rng.normal()
        lines.append(f"r{seed}-{i},{a:.4f},{b:.4f},{'no' if i % 2 else 'yes'}")
    return "\n".join(lines) + "\n"


def wait(done: Callable[[], bool], seconds: float, told: Callable[[], str]) -> None:
    """Wait until something is so.

    Raises
    ------
    TimeoutError
        If it is not so in time.
    """
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            raise TimeoutError(told())
        time.sleep(0.1)
