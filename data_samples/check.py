"""Compare the release of a sample with the truth about its poison.

Reads the JSON object of ``sanitize run --json`` from standard input.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

TRUTH = Path(__file__).resolve().parent / "bikes_poisoned.truth.csv"
PLACES = ("clean", "review", "quarantine")


def count(release: Path, kinds: dict[str, str]) -> Counter[tuple[str, str]]:
    """Count the rows of a release by kind (``""`` for a clean row) and by place.

    Parameters
    ----------
    release : Path
    kinds : dict of str to str
        The kind of poison by row id.
    """
    seen: Counter[tuple[str, str]] = Counter()
    for place in PLACES:
        for file in sorted((release / place).glob("*.parquet")):
            ids = pq.read_table(file, columns=["row_id"]).column("row_id").to_pylist()
            seen.update((kinds.get(row_id, ""), place) for row_id in ids)
    return seen


def main() -> None:
    """Print what was found, what was lost, and where the report is."""
    result = json.load(sys.stdin)
    if not result.get("release"):
        sys.exit(f"nothing was published; the report: {result.get('report')}")
    with TRUTH.open(newline="") as file:
        kinds = {row["id"]: row["kind"] for row in csv.DictReader(file)}
    seen = count(Path(result["release"]), kinds)
    print(f"\n{'rows':<16}{'all':>8}{'quarantine':>12}{'review':>8}{'kept':>8}")
    for kind, name in (("flip", "flipped labels"), ("cluster", "slipped in"), ("", "clean")):
        clean, review, quarantine = (seen[kind, place] for place in PLACES)
        total = clean + review + quarantine
        print(f"{name:<16}{total:>8}{quarantine / total:>12.1%}{review / total:>8.1%}", end="")
        print(f"{clean / total:>8.1%}")
    print(f"\nreport: {Path(result['report']).resolve()}")


if __name__ == "__main__":
    main()
