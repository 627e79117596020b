"""The tables of a plan: their keys, the types of these, and what they mean."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from sanitizers.core.errors import PlanError, did_you_mean


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


#: What a plan says where it wants none of what there is by default.
OFF = "off"
#: Fields of a cron schedule, and the longest time that arrivals may be told to wait, in seconds.
CRON_FIELDS, DAY = 5, 86_400.0

Text = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Text, ...], BeforeValidator(_as_tuple)]


class Part(BaseModel):
    """A table of a plan: nothing but its own keys, each of its own type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DatasetPart(Part):
    """``[dataset]``: what is sanitized, and where the result goes.

    Parameters
    ----------
    name : str
        Names the dataset in the store.
    source : str
        A file, a folder, a glob, or a URL that fsspec reads; in a plan file relative to that file.
    trusted : str, optional
        A file of rows that a person vouches for.
    audited : bool
        Rows that people have kept in an audit (``sanitize review``) are trusted rows too.
    store : str, optional
        The folder under which evidence and releases lie.
    grow : bool
        Rows of files that are new in the source join the last release: only they are
        scanned, beside a sample of its clean rows. By default every run scans all.
    triggers : str, optional
        A release, or its folder of triggers, whose triggers are looked for too, besides
        those that earlier releases of the dataset have confirmed. ``off`` looks for none.
    """

    name: Text
    source: Text
    trusted: Text | None = None
    audited: bool = True
    store: Text | None = None
    grow: bool = False
    triggers: Text | None = None


class RolesPart(Part):
    """``[roles]``: which column plays which part. What is not said is inferred.

    Parameters
    ----------
    id, label, target, text, prompt, response, image, embedding, time, source : str, optional
        One column each.
    trusted : str, optional
        A boolean column: true where a person vouches for the row.
    features : tuple of str
        The columns that models learn from; by default all that are left.
    ignore : tuple of str
        Columns that no model may learn from.
    """

    id: Text | None = None
    label: Text | None = None
    target: Text | None = None
    text: Text | None = None
    prompt: Text | None = None
    response: Text | None = None
    image: Text | None = None
    embedding: Text | None = None
    time: Text | None = None
    source: Text | None = None
    trusted: Text | None = None
    features: Names = ()
    ignore: Names = ()


class RulePart(Part):
    """``[policy.rules.NAME]``: the lines of one sanitizer, such as ``p <= 0.002``."""

    quarantine: Text | None = None
    review: Text | None = None


class PolicyPart(Part):
    """``[policy]``: what may be lost, and when a run is held.

    Parameters
    ----------
    clean_loss : float
        The share of clean rows that may be lost, over all sanitizers together.
    budget : float
        A run that would quarantine a larger share of its rows is held.
    fail_on : tuple of str
        ``review``, ``quarantine`` or the name of a sanitizer: a run in which these
        find a row is held. ``risks``: one with an alarm about a column or a batch. The
        name of a risk: one with any finding of it.
    rules : mapping of str to RulePart
        Lines that replace the measured ones, per sanitizer.
    consensus : str
        ``worst``: each sanitizer has lines of its own, and the worst verdict counts.
        ``sum``: the surprises of those with p-values from trusted rows are summed, and
        trusted rows say how rare such a sum is; the others keep their own lines. Needs
        at least 100 trusted rows. On tables that took no part in choosing it, with 300
        (``python -m benchmarks.trusted``), the sum lost 0.19 % of the rows of clean tables
        and held 0.33 %, the worst verdict 0.36 % and 0.70 %. Of a mix of shifts, triggers
        and floods both found 58 %; of targets made to bend a regression, which one
        sanitizer sees and the others do not, 72 % and 97 %. So sum where clean rows and
        reviews are dear, or where poison is faint to many sanitizers; else stay with the
        worst verdict.
    """

    clean_loss: float = 0.01
    budget: float = 0.20
    fail_on: Names = ()
    rules: dict[str, RulePart] = {}
    consensus: Text = "worst"


def _off(value: object) -> object:
    return () if value == OFF else _as_tuple(value)


class RisksPart(Part):
    """``[risks]``: what is looked for in columns and batches.

    Parameters
    ----------
    use : tuple of str, or ``"off"``, optional
        By default every risk that there is.
    sample : int
        Rows that are looked at, at most.
    """

    use: Annotated[tuple[Text, ...] | None, BeforeValidator(_off)] = None
    sample: int = 20_000


def _gather(value: object) -> object:
    # In TOML the settings of one of several are a table beside `use`, which reads better
    # than one more level; here they have a field of their own.
    if not isinstance(value, dict) or "settings" in value:
        return value
    known = {k: v for k, v in value.items() if k == "use"}
    return {**known, "settings": {k: v for k, v in value.items() if k != "use"}}


class EncodersPart(Part):
    """``[encoders]``: how images become features, and ``[encoders.NAME]``: its settings.

    Parameters
    ----------
    use : str
        ``auto``: ``pretrained`` where it is installed, else ``pixels``. Or one of these,
        ``trained``, ``timm:NAME``, ``hf:NAME``; ``off`` makes none.
    settings : mapping of str to dict
    """

    use: Text = "auto"
    settings: dict[str, dict[str, Any]] = {}

    _gathered = model_validator(mode="before")(_gather)


class SanitizersPart(Part):
    """``[sanitizers]``: which run, and ``[sanitizers.NAME]``: their settings.

    Parameters
    ----------
    use : tuple of str, optional
        By default every sanitizer whose roles are there.
    settings : mapping of str to dict
    """

    use: Names | None = None
    settings: dict[str, dict[str, Any]] = {}

    _gathered = model_validator(mode="before")(_gather)


class NotifyPart(Part):
    """``[notify]``: who is told of a run, and when. It changes nothing of what a run says.

    Parameters
    ----------
    when : tuple of str
        ``held``: nothing was published. ``trigger``: a backdoor trigger was confirmed.
        ``more-than-usual``: the share in quarantine is above three times the median of
        earlier releases, of which there are three at least, and above 1 %.
    block : str, optional
        A notification block of Prefect, as ``slack-webhook/alerts``. Without one nobody is
        written to, and only the events are sent.
    """

    when: Names = ("held", "trigger", "more-than-usual")
    block: Annotated[str, Field(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")] | None = None


class SchedulePart(Part):
    """``[schedule]``: when `sanitize serve` runs the plan by the clock.

    Parameters
    ----------
    cron : str
        Minute, hour, day of the month, month, day of the week; as ``0 2 * * *``.
    timezone : str
        The time zone in which that is meant, as ``Europe/Berlin``.
    """

    cron: Text
    timezone: Text = "UTC"

    def check(self) -> None:
        """Refuse what is no schedule.

        Raises
        ------
        PlanError
        """
        from zoneinfo import ZoneInfo, available_timezones

        from cronsim import CronSim, CronSimError

        try:
            if len(self.cron.split()) != CRON_FIELDS:
                raise CronSimError(f"it has {len(self.cron.split())} fields")
            next(CronSim(self.cron, datetime.now(UTC)))
        except (CronSimError, StopIteration) as error:
            raise PlanError(
                f"[schedule] cron is {self.cron!r}: {str(error) or 'it never comes'}",
                expected="minute, hour, day, month, day of the week, as '0 2 * * *'",
            ) from None
        try:
            ZoneInfo(self.timezone)
        except (ValueError, OSError, KeyError):
            raise PlanError(
                f"[schedule] timezone is {self.timezone!r}",
                do=did_you_mean(self.timezone, available_timezones()),
            ) from None


class ArrivalsPart(Part):
    """``[arrivals]``: how `sanitize serve` watches the source of the plan.

    Parameters
    ----------
    settle : float
        Seconds for which the size and the time of a file must not change until it counts
        as whole. A file beside it with its name and ``.done``, or ``_SUCCESS`` in its
        folder, says so at once.
    poll : float
        Seconds between two listings of the source; events of the file system come sooner,
        where there are any.
    marker : bool
        Whether only such a marker says that a file is whole.
    """

    settle: float = 2.0
    poll: float = 5.0
    marker: bool = False

    def check(self) -> None:
        """Refuse times that are none.

        Raises
        ------
        PlanError
        """
        for name, seconds, least in (("settle", self.settle, 0.0), ("poll", self.poll, 0.1)):
            if not least <= seconds <= DAY:
                raise PlanError(
                    f"[arrivals] {name} is {seconds}", expected=f"{least} to {DAY:.0f} seconds"
                )
