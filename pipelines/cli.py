"""The command ``sanitize``: words in, exit status out, every error one line."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pipelines.arguments import parse
from pipelines.interrupts import Terminated, leave_now, watching
from sanitizers.core.errors import PlanError, SanitizeError, StoreError

#: Where a fault of ours is described, under the store.
LAST_ERROR = "last-error.txt"

_INTERRUPTED = 130
_TERMINATED = 143


def main() -> int:
    """Run the command that the process was started with.

    Returns
    -------
    int
        The exit status; see ``sanitize --help``.
    """
    with watching(_leave) as watch:
        status = command(sys.argv[1:])
        if watch.signal or status in {_INTERRUPTED, _TERMINATED}:
            # A thread that still fits a model would keep the interpreter from ending.
            leave_now(watch.status or status)
    return status


def command(argv: Sequence[str]) -> int:
    """Run one command and say what went wrong, if anything did, in one line.

    Parameters
    ----------
    argv : sequence of str
        Without the name of the program.

    Returns
    -------
    int
        The exit status.
    """
    said: Namespace | None = None
    try:
        said = parse(argv)
        return _dispatch(said)
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 0
    except KeyboardInterrupt:
        return _stopped("Ctrl-C", _INTERRUPTED)
    except Terminated:
        return _stopped("SIGTERM", _TERMINATED)
    except BrokenPipeError:
        return _no_reader()
    except Exception as error:
        return _failed(error, said)


def _dispatch(said: Namespace) -> int:
    from pipelines import commands, commands_release, commands_review

    if said.version:
        return commands.version()
    acts = {
        "run": commands.run,
        "check": commands.check,
        "serve": commands.serve,
        "status": commands.status,
        "rule": commands_release.rule,
        "publish": commands_release.publish,
        "compare": commands_release.compare,
        "history": commands_release.history,
        "export": commands_release.export,
        "keygen": commands_release.keygen,
        "review": commands_review.review,
        "verify": commands.verify,
        "explain": commands.explain,
        "attack": commands.attack,
        "score": commands.score,
        "list": commands.list_recipes,
    }
    if said.command is None:
        raise PlanError("no command", do="see 'sanitize --help'")
    return acts[said.command](said)


def _failed(error: Exception, said: Namespace | None) -> int:
    verbose = said is not None and said.verbose
    told = _told(error)
    if verbose:
        traceback.print_exception(error)
    if told is not None:
        _say(str(told))
        return told.exit_status
    where = "" if verbose else f"; the traceback is in {_write_down(error, said)}"
    _say(f"a fault of sanitize, please report it: {type(error).__name__}: {error}{where}")
    return SanitizeError.exit_status


def _told(error: BaseException) -> SanitizeError | None:
    """The error as one meant for people, or None where it is a fault of ours."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, MemoryError):
        return SanitizeError("not enough memory", do="close other programs, or take fewer columns")
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in {errno.ENOSPC, errno.EDQUOT}:
            return StoreError(
                "no space left on the disk", do="free some, and run the same command again"
            )
    return error if isinstance(error, SanitizeError) else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _write_down(error: Exception, said: Namespace | None) -> Path:
    """Keep the traceback of a fault, in the store or where temporary files go."""
    text = "".join(traceback.format_exception(error))
    store = Path(getattr(said, "store", None) or os.environ.get("SANITIZE_STORE") or "sanitized")
    if store.is_dir():
        with suppress(OSError):
            path = store / LAST_ERROR
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
            return path
    handle, name = tempfile.mkstemp(prefix="sanitize-error-", suffix=".txt")
    with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return Path(name)


def _stopped(by: str, status: int) -> int:
    _say(f"stopped by {by}; the same command again goes on where this one stopped")
    return status


def _leave(status: int) -> None:
    """End at once, from the thread that watches for signals."""
    _stopped("Ctrl-C" if status == _INTERRUPTED else "SIGTERM", status)
    leave_now(status)


def _no_reader() -> int:
    from pipelines.terminal import silence

    silence(sys.stdout.fileno())
    return 0


def _say(text: str) -> None:
    from pipelines.terminal import plain

    with suppress(OSError):
        print(plain(f"sanitize: {text}"), file=sys.stderr, flush=True)
