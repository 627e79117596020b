"""The plan: everything that decides what a run will say, from a TOML file or from flags."""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from pipelines.disk import canonical
from pipelines.names import checked_name, name_from
from pipelines.plan_parts import (
    OFF,
    ArrivalsPart,
    DatasetPart,
    EncodersPart,
    NotifyPart,
    Part,
    PolicyPart,
    RisksPart,
    RolesPart,
    RulePart,
    SanitizersPart,
    SchedulePart,
)
from sanitizers.core.errors import PlanError, did_you_mean

if TYPE_CHECKING:
    from sanitizers.core.policy import Policy
    from sanitizers.encoders import ImageEncoder
    from sanitizers.risks import RiskSettings

#: The store where neither the plan nor the command names one.
STORE = "sanitized"
#: The environment variable that names a store.
STORE_VARIABLE = "SANITIZE_STORE"

_EXPECTED = {
    "string_type": "a string",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list of strings",
    "tuple_type": "a list of strings",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "dict_type": "a table",
    "string_too_short": "a string that is not empty",
}


class Plan(Part):
    """A whole plan, checked.

    Parameters
    ----------
    dataset : DatasetPart
    roles : RolesPart
    encoders : EncodersPart
    policy : PolicyPart
    sanitizers : SanitizersPart
    risks : RisksPart
    notify : NotifyPart
    schedule : SchedulePart, optional
        When it is run by the clock; never, by default.
    arrivals : ArrivalsPart, optional
        How its source is watched; not at all, by default.
    """

    dataset: DatasetPart
    roles: RolesPart = RolesPart()
    encoders: EncodersPart = EncodersPart()
    policy: PolicyPart = PolicyPart()
    sanitizers: SanitizersPart = SanitizersPart()
    risks: RisksPart = RisksPart()
    notify: NotifyPart = NotifyPart()
    schedule: SchedulePart | None = None
    arrivals: ArrivalsPart | None = None

    @classmethod
    def read(cls, path: Path, over: Mapping[str, Mapping[str, object]] | None = None) -> Self:
        """Read a plan file; paths in it are relative to it.

        Parameters
        ----------
        path : Path
        over : mapping, optional
            Tables whose keys replace those of the file, from the command line.

        Raises
        ------
        PlanError
            If the file, a key, a type or a value is wrong.
        """
        raw = _read_toml(path)
        dataset = raw.get("dataset")
        if isinstance(dataset, dict):
            dataset.setdefault("name", name_from(path.name))
            for key in ("source", "trusted", "store", "triggers"):
                if isinstance(dataset.get(key), str) and dataset[key] != OFF:
                    dataset[key] = beside(path.parent, dataset[key])
        for table, values in (over or {}).items():
            if isinstance(raw.setdefault(table, {}), dict):
                raw[table] |= values
        return cls.make(raw, said_by=f"{path}: ")

    @classmethod
    def make(cls, raw: Mapping[str, object], *, said_by: str = "") -> Self:
        """Check a plan that is already a mapping of tables.

        Parameters
        ----------
        raw : mapping
        said_by : str
            What an error starts with, for instance the name of the plan file.
        """
        try:
            plan = cls.model_validate(raw)
            plan._check()
        except ValidationError as error:
            raise _readable(error, said_by) from None
        except PlanError as error:
            raise PlanError(said_by + error.found, expected=error.expected, do=error.do) from None
        return plan

    @property
    def store(self) -> str:
        """The folder or URL of the store: the plan's, the environment's, or ``./sanitized``."""
        given = self.dataset.store or os.environ.get(STORE_VARIABLE) or STORE
        return given if "://" in given else os.path.normpath(given)

    def core_policy(self) -> Policy:
        """The policy that `decide` works by."""
        from sanitizers.core.lines import Line, Rule
        from sanitizers.core.policy import Policy

        def line(name: str, verdict: str, text: str | None) -> Line | None:
            try:
                return Line.parse(text) if text else None
            except PlanError as error:
                where = f"[policy.rules.{name}] {verdict}: "
                raise PlanError(where + error.found, expected=error.expected) from None

        rules = {
            name: Rule(
                quarantine=line(name, "quarantine", part.quarantine),
                review=line(name, "review", part.review),
            )
            for name, part in self.policy.rules.items()
        }
        part = self.policy
        return Policy(part.clean_loss, part.budget, rules, part.consensus)

    def encoder(self) -> ImageEncoder | None:
        """What makes features of images; None where none is to be made."""
        from sanitizers.encoders import image_encoder

        use, settings = self.encoders.use, self.encoders.settings
        for name in settings:
            if name != use:
                raise PlanError(
                    f"[encoders.{name}] has settings, and [encoders] use is {use!r}",
                    do=f'say use = "{name}", or leave them out',
                )
        if use == OFF:
            return None
        try:
            return image_encoder(use, settings.get(use))
        except PlanError as error:
            where = f"[encoders] {error.found}"
            raise PlanError(where, expected=error.expected, do=error.do) from None

    def risk_settings(self) -> RiskSettings:
        """What is looked for in columns and batches."""
        from sanitizers.risks import RISKS, RiskSettings

        use = RISKS if self.risks.use is None else self.risks.use
        try:
            return RiskSettings(use, self.risks.sample)
        except PlanError as error:
            raise PlanError(
                f"[risks] {error.found}", expected=error.expected, do=error.do
            ) from None

    def decides(self) -> dict[str, object]:
        """Everything of the plan that decides what a run will say; no path, no store.

        What the sources and the trusted rows hold enters a run's key by their
        digests instead.
        """
        apart = {"dataset", "notify", "schedule", "arrivals"}
        whole = self.model_dump(mode="json", exclude=apart)
        whole["policy"].pop("fail_on")
        return whole

    @property
    def digest(self) -> str:
        """SHA-256 of what the plan decides, in hex."""
        return hashlib.sha256(canonical(self.decides())).hexdigest()

    def check_vouched(self, *, audited: bool) -> None:
        """Refuse a sum that there are no trusted rows to calibrate on.

        Parameters
        ----------
        audited : bool
            Whether people have kept rows in an audit.

        Raises
        ------
        PlanError
        """
        from sanitizers.core.policy import SUM

        vouched = self.dataset.trusted or self.roles.trusted or audited
        if self.policy.consensus == SUM and not vouched:
            raise PlanError(
                f"[policy] consensus is {SUM!r}, and nobody vouches for any row",
                expected="trusted rows, which the sum is calibrated on",
                do="name a file of them in [dataset], or a column in [roles], as `trusted`, or "
                "keep rows of the audit in `sanitize review`",
            )

    def _check(self) -> None:
        checked_name(self.dataset.name)
        if self.roles.label and self.roles.target:
            raise PlanError(
                f"[roles] has a label, {self.roles.label!r}, and a target, {self.roles.target!r}",
                expected="one of them",
                do="a label is a class, a target is a number",
            )
        self.core_policy()
        if not self.dataset.audited:
            self.check_vouched(audited=False)
        self.encoder()
        self.risk_settings()
        self._check_notify()
        for part in (self.schedule, self.arrivals):
            if part is not None:
                part.check()
        if self.arrivals is not None and self.arrivals.marker and "://" in self.dataset.source:
            raise PlanError(
                "[arrivals] marker is true, and the source is a URL, whose markers are not read",
                do="leave it out: a file counts as whole when it does not change any more",
            )

    def _check_notify(self) -> None:
        from pipelines.occasions import EVENTS

        for when in self.notify.when:
            if when not in EVENTS:
                raise PlanError(f"[notify] when names {when!r}", do=did_you_mean(when, EVENTS))


def store_root(said: str | None) -> str:
    """The folder or URL of the store that a command means: what it says, or a plan would."""
    return Plan.make({"dataset": {"name": "any", "source": "any", "store": said}}).store


def beside(folder: Path, path: str) -> str:
    """Read a path relative to a folder; absolute ones and URLs stay as they are."""
    return path if "://" in path else str(folder / Path(path).expanduser())


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        plans = [p.name for p in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        raise PlanError(f"no plan {str(path)!r}", do=did_you_mean(path.name, plans)) from None
    except UnicodeDecodeError:
        raise PlanError(f"{path}: not UTF-8", expected="a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"{path}: not TOML: {error}") from None
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {error.strerror}") from None


def _readable(error: ValidationError, said_by: str) -> PlanError:
    """Say the first thing that is wrong, with its table and key."""
    first = error.errors(include_url=False)[0]
    where = [str(part) for part in first["loc"]]
    table, key = _place(where)
    if first["type"] == "extra_forbidden":
        found = f"{table} {key!r} is not known" if table else f"[{key}] is not a table of a plan"
        return PlanError(said_by + found, do=did_you_mean(key, _known(where[:-1])))
    if first["type"] == "missing":
        return PlanError(said_by + (f"{table} {key} is missing" if table else f"no [{key}]"))
    found = f"{table} {key}".strip() + f" is {first['input']!r}"
    return PlanError(said_by + found, expected=_EXPECTED.get(first["type"], first["msg"]))


def _place(where: list[str]) -> tuple[str, str]:
    where = [part for part in where if part != "settings"]
    numbered = len(where) > 1 and where[-1].isdigit()
    if numbered:
        where = where[:-1]
    table = f"[{'.'.join(where[:-1])}]" if len(where) > 1 else ""
    return table, where[-1]


def _known(table: list[str]) -> tuple[str, ...]:
    parts: dict[tuple[str, ...], type[Part]] = {
        (): Plan,
        ("dataset",): DatasetPart,
        ("roles",): RolesPart,
        ("encoders",): EncodersPart,
        ("policy",): PolicyPart,
        ("risks",): RisksPart,
        ("schedule",): SchedulePart,
        ("arrivals",): ArrivalsPart,
        ("notify",): NotifyPart,
    }
    return tuple(parts.get(tuple(table), RulePart).model_fields)
