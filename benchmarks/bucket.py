"""Machines that are lost in the middle of a run, and others that go on from the bucket."""

from __future__ import annotations

import argparse
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import fsspec

from benchmarks.killing import AFTER, NAME, ROWS, SHARDS, STAGES, START, Bench, Undisturbed, reached
from benchmarks.results import Cell, Grid, mean, publish, say
from pipelines.bucket import Bucket
from pipelines.carrying import release_at
from pipelines.manifest import MANIFEST
from pipelines.mirror import work_folder
from pipelines.verify import verify

#: What the server and its clients are told.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
#: Seconds in which the server answers.
ANSWERS = 30.0
NOTES = (
    f"`sanitize run` on {SHARDS} files of {ROWS:,} rows, with a store in an S3 server (moto) on "
    "this machine. Each run is killed with `kill -9` at a random moment of the time that an "
    "undisturbed one takes, or of one of its stages in turn; what it had on its disk is lost. The "
    "same command on a machine that knows nothing but the bucket runs to the end. It waits for the "
    "lease of the dead one first, for a minute at most.",
    "*Partial*: releases in the bucket with a manifest that do not verify, looked at after every "
    "kill and at the end. *Other*: runs that came to another digest than the undisturbed one.",
)


@dataclass(frozen=True)
class FarBench(Bench):
    """A plan whose runs have a store in a bucket, each on a machine of its own.

    Parameters
    ----------
    url : str
        Of the store.
    """

    url: str = ""

    def said(self, store: Path) -> str:
        return self.url

    def machine(self, name: str) -> Path:
        """The folder of the store on a machine of a name."""
        return work_folder(self.url, self.folder / name)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder)) as environment:
        bench = FarBench(Path(folder), environment, "s3://lake/undisturbed")
        bench.prepare()
        usual = Undisturbed.measure(bench, bench.machine("undisturbed"))
        say(f"undisturbed: {usual.seconds:.1f} s; {usual.stages}")
        counts = dict.fromkeys((START, *STAGES, AFTER), 0)
        broken, ends, seconds = 0, Counter[bool](), []
        for number, moment in enumerate(usual.moments(given.kills, random.Random(given.seed))):
            one = replace(bench, url=f"s3://lake/{number}")
            first = one.machine(f"first-{number}")
            moment.kill(one.start(first), first, group=True)
            counts[reached(first)] += 1
            broken += _partial(one)
            began = time.monotonic()
            ends[one.finish(one.machine(f"second-{number}")) == usual.digest] += 1
            seconds.append(time.monotonic() - began)
            broken += _partial(one)
            say(f"{number}: {moment}, {broken} partial, {ends}, {seconds[-1]:.0f} s to go on")
    killed: list[list[Cell]] = [[stage, count] for stage, count in counts.items()]
    end: list[list[Cell]] = [[ends.total(), ends[True], ends[False], broken, mean(seconds)]]
    columns = ["runs", "same", "other", "partial", "seconds to go on, the wait included"]
    grids = [
        Grid(f"undisturbed, a run takes {usual.seconds:.1f} s", ["killed in", "kills"], killed),
        Grid("runs that another machine ended", columns, end),
    ]
    command = f"python -m benchmarks.bucket --kills {given.kills} --seed {given.seed}"
    raw = {"kills": counts, "same": ends[True], "other": ends[False], "partial": broken}
    publish("bucket", command, grids, NOTES, raw | {"seconds": seconds})


def _partial(bench: FarBench) -> int:
    """How many releases of the bucket are there and not whole."""
    found = 0
    releases = f"{bench.url}/{NAME}/releases"
    for name in Bucket.open(releases).names(""):
        version, _, file = name.partition("/")
        if file == MANIFEST:
            with release_at(f"{releases}/{version}") as release:
                found += not verify(release).ok
    return found


@contextmanager
def _server(folder: Path) -> Iterator[dict[str, str]]:
    """An S3 server with an empty bucket; yields the environment of its clients."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log)
    os.environ |= {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    try:
        until = time.monotonic() + ANSWERS
        while True:
            try:
                fsspec.filesystem("s3", skip_instance_cache=True).mkdir("lake")
                break
            except Exception:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
        yield dict(os.environ)
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
