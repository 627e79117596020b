"""Where shards are worked on: in this process, in several, or on a Ray cluster.

A runner decides how soon a run ends and never what it says: the same work on the same shards,
each written by whoever did it, whole or not at all.
"""

from pipelines.runners.choice import RUNNER_VARIABLE, check_runner, find_runner, opened
from pipelines.runners.runner import LOCAL, Local, Runner, check_written, require_folder

__all__ = [
    "LOCAL",
    "RUNNER_VARIABLE",
    "Local",
    "Runner",
    "check_runner",
    "check_written",
    "find_runner",
    "opened",
    "require_folder",
]
