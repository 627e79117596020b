"""Every benchmark, one after the other."""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks.results import say

NAMES = (
    "clean",
    "trusted",
    "vouching",
    "audit",
    "quality",
    "flips",
    "ceiling",
    "transitions",
    "regions",
    "slices",
    "lines",
    "regression",
    "regression_contenders",
    "warfarin",
    "risks",
    "risks_planted",
    "alarms",
    "embeddings",
    "backdoors",
    "backdoor_contenders",
    "known_triggers",
    "review",
    "batches",
    "additions",
    "proof",
    "scale",
    "speed",
    "runners",
    "kills",
    "bucket",
    "arrivals",
    "prefect_share",
)


def main() -> None:
    """Run them; end with the status of the first that failed."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for name in NAMES:
        say(f"== {name}")
        status = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False)
        if status.returncode:
            sys.exit(status.returncode)


if __name__ == "__main__":
    main()
