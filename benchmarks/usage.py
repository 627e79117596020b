"""What this process has taken of the machine."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path


def peak_mb() -> float:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Linux hands `ru_maxrss` of the process that started this one down to it.
        peak_kb = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE)
        if peak_kb:
            return int(peak_kb[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, the others kilobytes.
    return float(peak / (2**20 if sys.platform == "darwin" else 2**10))


def cpu_seconds() -> float:
    """Seconds of all processors, by this process and by those that it started and that ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
