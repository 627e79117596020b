"""The words of the command line: what may be said, how it is explained, what is wrong with it.

The parser is argparse's: it starts in 10 ms where Typer takes 100, and with a few lines of
ours its errors are one line with the nearest word that would have been right.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from pipelines.help_texts import EPILOG, EXAMPLES
from sanitizers.core.errors import PlanError, did_you_mean

COMMANDS = {
    "run": "sanitize a dataset: a plan, or a data file with no plan at all",
    "check": "say everything that is wrong with a plan before any data is read",
    "status": "say how datasets stand: releases, what is held, what waits, who is at work",
    "serve": "run plans by the clock and when data arrive, until stopped; shown on a page",
    "review": "look at what is held, and rule, in the browser",
    "rule": "decide about rows: keep, quarantine, or none to take a decision back",
    "publish": "publish the last release again, with the rulings that have come since",
    "compare": "say what changed from one release to another, and write it as a page",
    "history": "write the page of a dataset's releases, with the trend of each sanitizer",
    "export": "write what is known of every row as one table, as label tools do",
    "keygen": "make the key that a store signs its releases with",
    "verify": "check a release: digests, row conservation, missing and extra files",
    "explain": "say everything that is known of one row",
    "attack": "poison a copy of a data file in a known way, and keep the truth",
    "score": "compare a release with the truth: recall, clean rows lost, damage",
    "list": "list the sanitizers and the poisons, one line each",
}

_ROLES = {
    "label": "column of the class",
    "target": "column of the number to predict",
    "text": "column of text (carried through; not scanned yet)",
    "image": "column of images, or of their paths relative to the folder of the table",
    "id": "column that names a row; without one a row is named by its content",
    "embedding": "column of vectors that models learn from",
    "time": "column of when a row arrived",
    "source": "column of where a row came from",
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and of the kind that every other error is."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong instead of printing a usage and leaving.

        Raises
        ------
        PlanError
            Always.
        """
        raise PlanError(message.replace("argument ", "", 1), do=f"see '{self.prog} --help'")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the words of a command.

    Parameters
    ----------
    argv : sequence of str
        Without the name of the program.

    Raises
    ------
    PlanError
        If a command or an option is not known, or something is missing.
    SystemExit
        After ``--help`` and ``--version``.
    """
    parser, commands = _build()
    if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
        raise PlanError(f"no command {argv[0]!r}", do=did_you_mean(argv[0], COMMANDS))
    if not argv:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    said, left = parser.parse_known_args(argv)
    if left:
        raise _unknown(left, commands[said.command] if said.command else parser)
    return said


def _unknown(left: Sequence[str], parser: argparse.ArgumentParser) -> PlanError:
    options = [word.split("=")[0] for word in left if word.startswith("-")]
    if not options:
        return PlanError(f"{left[0]!r} is one word too many", do=f"see '{parser.prog} --help'")
    # argparse keeps its actions in a private list and has no public way to name them.
    known = [o for action in parser._actions for o in action.option_strings]
    near = did_you_mean(options[0], [o for o in known if o.startswith("--")])
    return PlanError(
        f"no option {options[0]!r}",
        do=near if near.startswith("did") else f"see '{parser.prog} --help'",
    )


def _build() -> tuple[Parser, dict[str, argparse.ArgumentParser]]:
    parser = Parser(
        prog="sanitize",
        description="Find poisoned and corrupted rows in a dataset, set them aside, "
        "and publish what is left.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="say the version and leave")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    made: dict[str, argparse.ArgumentParser] = {}
    for name, line in COMMANDS.items():
        made[name] = commands.add_parser(
            name,
            help=line,
            description=line[0].upper() + line[1:] + ".",
            epilog=EXAMPLES[name],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
    _add_run(made["run"])
    made["check"].add_argument("plan", metavar="PLAN.toml")
    made["status"].add_argument("dataset", metavar="DATASET", nargs="?", help="default: all")
    _add_store(made["status"])
    made["status"].add_argument("--json", action="store_true", help="one JSON object")
    _add_serve(made["serve"])
    _add_review(made["review"])
    made["verify"].add_argument("release", metavar="RELEASE", help="the folder of a release")
    made["verify"].add_argument(
        "--key", metavar="FILE", help="the public key that has to have signed it"
    )
    made["verify"].add_argument(
        "--source", metavar="DATA", help="the input: read it again, and compare every row"
    )
    _add_store(made["keygen"])
    made["compare"].add_argument("old", metavar="RELEASE", help="the folder of a release")
    made["compare"].add_argument("new", metavar="RELEASE", help="the folder of a later one")
    made["compare"].add_argument("--out", metavar="FILE", help="write a page")
    made["history"].add_argument("dataset", metavar="DATASET")
    made["history"].add_argument(
        "--out", metavar="FILE", help="default: index.html in the folder of the dataset"
    )
    _add_store(made["history"])
    made["export"].add_argument("dataset", metavar="DATASET")
    made["export"].add_argument(
        "--out", metavar="FILE", required=True, help="ends in .csv or .parquet"
    )
    _add_store(made["export"])
    made["export"].add_argument("--json", action="store_true", help="one JSON object")
    made["explain"].add_argument("dataset", metavar="DATASET")
    made["explain"].add_argument("row_id", metavar="ROW_ID")
    _add_store(made["explain"])
    made["explain"].add_argument(
        "--release", metavar="VERSION", help="speak of this release; default: of the latest run"
    )
    made["explain"].add_argument("--json", action="store_true", help="one JSON object")
    _add_rule(made["rule"])
    _add_publish(made["publish"])
    _add_attack(made["attack"])
    _add_score(made["score"])
    for command in made.values():
        command.add_argument("--verbose", action="store_true", help="show logs and tracebacks")
    return parser, made


def _add_store(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--store", metavar="PLACE", help="folder or URL; default: $SANITIZE_STORE, else ./sanitized"
    )


def _add_roles(parser: argparse.ArgumentParser) -> argparse._ActionsContainer:
    roles = parser.add_argument_group("columns (what is not said is inferred)")
    for role, help_text in _ROLES.items():
        roles.add_argument(f"--{role}", metavar="COLUMN", help=help_text)
    roles.add_argument("--features", metavar="A,B", help="columns that models learn from")
    roles.add_argument("--ignore", metavar="A,B", help="columns that no model may learn from")
    return roles


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plans", metavar="PLAN.toml", nargs="+")
    parser.add_argument(
        "--port", type=int, metavar="N", help="of the page (4200, or another where that is taken)"
    )
    _add_runner(parser)


def _add_runner(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--runner",
        metavar="WHERE",
        help="where shards are scored: local, processes[:N], ray[:N], ray://HOST:PORT; default "
        "$SANITIZE_RUNNER, else local",
    )


def _add_rule(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("row_ids", metavar="ROW_ID", nargs="+")
    parser.add_argument("verdict", choices=("keep", "quarantine", "none"))
    parser.add_argument("--why", metavar="TEXT", required=True, help="kept with the ruling")
    parser.add_argument("--who", metavar="NAME", help="default: the name of your account")
    _add_store(parser)


def _add_publish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET|PLAN.toml")
    _add_store(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")


def _add_review(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", nargs="?", help="default: all")
    _add_store(parser)
    parser.add_argument(
        "--port", type=int, metavar="N", help="4250, or another where that is taken"
    )
    parser.add_argument("--no-open", action="store_true", help="do not open the browser")
    parser.add_argument(
        "--held", action="store_true", help="the last run that was held, not the last release"
    )
    shared = parser.add_argument_group("a shared server")
    shared.add_argument("--users", metavar="FILE", help="who may sign in; read at the start")
    shared.add_argument("--add-user", metavar="NAME", help="ask for a password, and leave")
    shared.add_argument("--role", metavar="viewer|reviewer|admin", default="viewer")
    shared.add_argument(
        "--host", metavar="ADDRESS", default="127.0.0.1", help="listen here (127.0.0.1)"
    )
    shared.add_argument(
        "--name",
        metavar="HOST",
        action="append",
        help="a name by which browsers may call this host; may be said more than once",
    )
    shared.add_argument("--certificate", metavar="FILE", help="for HTTPS")
    shared.add_argument("--key", metavar="FILE", help="of the certificate")


def _add_attack(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="one file, taken for clean")
    attack = parser.add_argument_group("attack")
    attack.add_argument(
        "--poison", metavar="NAME", required=True, help="one of those that 'sanitize list' names"
    )
    attack.add_argument(
        "--rate", type=float, metavar="SHARE", required=True, help="poison per clean row, as 0.1"
    )
    attack.add_argument(
        "--seed", type=int, metavar="N", default=0, help="the same seed, the same poison (0)"
    )
    attack.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        help="a setting of the poison, as model=trees; may be said more than once",
    )
    _add_roles(parser)
    result = parser.add_argument_group("result")
    result.add_argument("--out", metavar="FILE", help="default: NAME.poisoned.ENDING, here")
    result.add_argument("--force", action="store_true", help="replace files that are there")
    result.add_argument("--json", action="store_true", help="one JSON object on standard output")


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("release", metavar="RELEASE", help="the folder of a release")
    parser.add_argument(
        "--truth", metavar="FILE", required=True, help="what 'sanitize attack' wrote"
    )
    parser.add_argument(
        "--before", metavar="DATA", help="the clean data: train models, and say the damage"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        metavar="PLAN.toml|DATA",
        help="a plan; or a file, a folder (of tables, or one of images per class), a quoted glob, "
        "or a URL",
    )
    roles = _add_roles(parser)
    roles.add_argument(
        "--trusted", metavar="DATA|COLUMN", help="rows that you vouch for: a file, or true/false"
    )
    roles.add_argument(
        "--triggers",
        metavar="RELEASE|off",
        help="look for the backdoor triggers of this release too, besides those of earlier ones "
        "of the dataset; off: for none of either",
    )
    growing = parser.add_argument_group("new data")
    growing.add_argument(
        "--grow",
        action="store_true",
        default=None,
        help="files that no release holds join the last release; only their rows are scanned",
    )
    growing.add_argument(
        "--full", action="store_true", help="where the dataset grows: scan everything anew"
    )
    images = parser.add_argument_group("images")
    images.add_argument(
        "--encoder",
        metavar="NAME",
        help="how images become features: pixels, pretrained, trained, timm:NAME, hf:NAME, off; "
        "default auto: pretrained where it is installed, else pixels",
    )
    images.add_argument(
        "--device", metavar="auto|cpu|cuda", default="auto", help="what encoders compute on (auto)"
    )
    policy = parser.add_argument_group("policy")
    policy.add_argument(
        "--clean-loss", type=float, metavar="SHARE", help="clean rows that may be lost (0.01)"
    )
    policy.add_argument(
        "--budget", type=float, metavar="SHARE", help="hold a run that sets aside more (0.2)"
    )
    policy.add_argument(
        "--fail-on",
        metavar="WHAT",
        action="append",
        help="hold a run in which this is found: review, quarantine, a sanitizer, risks (any "
        "alarm about columns or batches), or one of the risks",
    )
    policy.add_argument("--use", metavar="A,B", help="run these sanitizers only")
    result = parser.add_argument_group("result")
    _add_store(result)
    result.add_argument("--name", help="the dataset's name in the store")
    result.add_argument("--salt", metavar="HEX", help="the salt of a new store, to repeat a run")
    result.add_argument(
        "--wait",
        type=_seconds,
        metavar="SECONDS",
        default=600.0,
        help="for another run of the dataset that is at work (600); 0: do not wait",
    )
    _add_runner(result)
    result.add_argument("--json", action="store_true", help="one JSON object on standard output")
    result.add_argument("--quiet", action="store_true", help="say nothing but errors")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds
