"""A job whose inputs are ingested: who looks at what, and the names of all that is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from pipelines.alarms import ALARMS_FORMAT, NO_ALARMS, Alarms, is_watched
from pipelines.base import Base
from pipelines.combine import sum_key
from pipelines.decide import Decision, run_key
from pipelines.embedded import with_embeddings
from pipelines.examine import evidence_key
from pipelines.growing import repeats
from pipelines.ingest import Ingested
from pipelines.known import known_triggers
from pipelines.manifest import REPORT, Audited
from pipelines.outcome import Outcome
from pipelines.plan_parts import OFF
from pipelines.planted import planted
from pipelines.recipes import Chosen, choose
from pipelines.risks import Looked, Reference, risks_key
from pipelines.roles import InferredRoles, infer_roles
from pipelines.seen import (
    MadeFeatures,
    any_looks_at,
    looked_at,
    looks_at,
    resolved,
    seen_roles,
)
from sanitizers.core.consensus import CONSENSUS, Consensus, check_trusted
from sanitizers.core.data import Dataset, Roles
from sanitizers.core.errors import PlanError
from sanitizers.core.keepsake import Keepsake
from sanitizers.core.policy import SUM
from sanitizers.core.promise import Promise, promise
from sanitizers.core.sanitizer import Recalling, Sanitizer, Witness
from sanitizers.risks import CROWDING, PLANTED, RISKS, Finding, in_order

if TYPE_CHECKING:
    from pipelines.job import Job


@dataclass(frozen=True)
class Work:
    """A job whose inputs are ingested.

    Parameters
    ----------
    job : Job
    keys : mapping of str to str
        The keys of the inputs.
    data : Ingested
    vouched : Ingested or None
        The rows that people vouch for; there may be none of them left.
    """

    job: Job
    keys: Mapping[str, str]
    data: Ingested
    vouched: Ingested | None

    @property
    def trusted(self) -> Ingested | None:
        """The rows that people vouch for, but for those of a column; None where there are none."""
        return self.vouched if self.vouched and self.vouched.shards else None

    @property
    def audited(self) -> Audited | None:
        """How many of these they kept in an audit; None where they kept none."""
        found = self.vouched
        return Audited(found.audited, found.lost) if found and found.audited + found.lost else None

    @cached_property
    def inferred(self) -> InferredRoles:
        """The roles of the columns, and how they were found."""
        if self.base is not None:
            return InferredRoles(self.base.roles, (f"roles: those of release {self.base.version}",))
        return infer_roles(self.data.columns, self.job.plan.roles, self.data.rows)

    @property
    def roles(self) -> Roles:
        """The roles of the columns."""
        return self.inferred.roles

    @property
    def notes(self) -> tuple[str, ...]:
        """The roles in words, one line each: those that were given, and those that were found."""
        given = self.job.plan.roles.model_dump(exclude_defaults=True)
        said = (f"{role}: {_listed(columns)} (given)" for role, columns in given.items())
        if self.made is None:
            return (*said, *self.inferred.notes)
        encoder = f"features: made of the images by the encoder {self.made.name}"
        return (*said, *self.inferred.notes, encoder)

    @cached_property
    def base(self) -> Base | None:
        """The release that the rows join."""
        return Base.load(self.job.store, self.job.name, self.data.onto) if self.data.onto else None

    @cached_property
    def chosen(self) -> Chosen:
        """The sanitizers that run, and those that do not."""
        seen = seen_roles(self.job.plan, self.roles)
        return choose(self.job.plan, seen, lambda: self.left, trusted=self.trusted is not None)

    @cached_property
    def made(self) -> MadeFeatures | None:
        """The features that are made of the images; None where nobody looks at such."""
        if not any_looks_at(self.chosen.run.values(), "features"):
            return None
        job = self.job
        return MadeFeatures.of(job.plan, self.roles, self.data, self.trusted, job.store)

    @cached_property
    def plain(self) -> Dataset:
        """The rows as they came."""
        return self.data.dataset(self.roles, self.job.store.salt, self.trusted)

    @cached_property
    def dataset(self) -> Dataset:
        """The rows as sanitizers see them that look at features."""
        return with_embeddings(self.plain, self.made.folders) if self.made else self.plain

    def dataset_for(self, recipe: Sanitizer) -> Dataset:
        """The rows as a sanitizer sees them."""
        return self.dataset if looks_at(recipe, "features") else self.plain

    @cached_property
    def left(self) -> tuple[Keepsake, ...]:
        """The triggers that earlier releases have confirmed, and those that are given."""
        given = self.job.plan.dataset.triggers
        return known_triggers(self.job.store, self.job.name, self.data.digest, given)

    @cached_property
    def known(self) -> tuple[Keepsake, ...]:
        """The same, where a sanitizer applies them."""
        given = self.job.plan.dataset.triggers
        if any(isinstance(recipe, Recalling) for recipe in self.chosen.run.values()):
            return self.left
        if given not in (None, OFF):
            raise PlanError(
                f"triggers are given in {given}, and no sanitizer that runs looks for any",
                do="leave them out, or name 'backdoors' in [sanitizers] use",
            )
        return ()

    @cached_property
    def evidence_keys(self) -> dict[str, str]:
        """For each sanitizer the key of its evidence; and that of their sum, if it is to judge."""
        salt = self.job.store.salt
        keys = {}
        for name, recipe in self.chosen.run.items():
            made = self.made.keys if self.made and looks_at(recipe, "features") else ()
            keys[name] = evidence_key(
                recipe, self.data, self.roles, salt, self.trusted, self.known, made
            )
        if self.job.plan.policy.consensus != SUM:
            return keys
        check_trusted(self.trusted_rows)
        return {**keys, CONSENSUS: sum_key(keys)}

    @cached_property
    def evidence(self) -> dict[str, Path]:
        """For each sanitizer the folder of its evidence; and that of their sum."""
        return {n: self.job.store.evidence(self.job.name, k) for n, k in self.evidence_keys.items()}

    @property
    def witnesses(self) -> dict[str, Witness]:
        """Who can say what the evidence means: the sanitizers, and the sum of them."""
        found: dict[str, Witness] = dict(self.chosen.run)
        return {**found, CONSENSUS: Consensus()} if CONSENSUS in self.evidence_keys else found

    @cached_property
    def reference(self) -> Reference | None:
        """The release that new rows are held against."""
        if self.base is not None:
            earlier = {self.data.folder / shard.name: shard.sha256 for shard in self.data.earlier}
            return Reference(self.base.version, earlier)
        return Reference.before(self.job.store, self.job.name, self.data.digest)

    @cached_property
    def risks_key(self) -> str | None:
        """The key of the findings about columns and batches; None where none are sought."""
        settings, salt = self.job.plan.risk_settings(), self.job.store.salt
        if not settings.use:
            return None
        made = self.made.keys if self.made else ()
        return risks_key(settings, self.data, self.roles, salt, self.reference, made)

    @cached_property
    def looked(self) -> Looked:
        """What was looked for in columns and batches, and found."""
        if self.risks_key is None:
            return Looked((), None, 0.0, ())
        return Looked.load(self.job.store.evidence(self.job.name, self.risks_key))

    @property
    def watched(self) -> bool:
        """Whether crowds of finds in time or from a source are looked for."""
        return is_watched(self.job.plan.risk_settings(), self.roles)

    @cached_property
    def alarms(self) -> Alarms:
        """Where the finds crowd, once verdicts are decided."""
        return Alarms.load(self.folder) if self.watched else NO_ALARMS

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """All that was found of columns, batches, groups, times and sources, the gravest first."""
        told = [*self.looked.findings, *self.alarms.findings, *self.planted]
        told += repeats(self.data) if "duplicates" in self.job.plan.risk_settings().use else ()
        return in_order(told, RISKS)

    @property
    def suspects(self) -> bool:
        """Whether a sanitizer runs that tells of groups which look planted, and it may."""
        able = (r.search for r in self.chosen.run.values() if isinstance(r, Recalling))
        return any(able) and PLANTED in self.job.plan.risk_settings().use

    @cached_property
    def planted(self) -> tuple[Finding, ...]:
        """The groups of rows that look planted, without proof."""
        return planted(self.evidence[name] for name in self.chosen.run) if self.suspects else ()

    @cached_property
    def plan(self) -> dict[str, Any]:
        """The plan as it was resolved: nothing left to infer, and no path in it."""
        found = {"roles": asdict(self.roles), "encoders": resolved(self.made)}
        return {**self.job.plan.decides(), **found}

    @cached_property
    def key(self) -> str:
        """The key of the run."""
        policy = self.job.plan.core_policy()
        evidence = dict(self.evidence_keys)
        if self.risks_key:
            evidence["risks"] = self.risks_key
        if self.watched:
            evidence[CROWDING] = f"format {ALARMS_FORMAT}"
        return run_key(self.data, self.roles, evidence, policy, self.plan, self.trusted)

    @cached_property
    def folder(self) -> Path:
        """Where the verdicts of the run lie."""
        return self.job.store.run(self.job.name, self.key)

    @property
    def report(self) -> Path:
        """Where the report of the run lies; a release has a copy."""
        return self.folder / REPORT

    @cached_property
    def decision(self) -> Decision:
        """What was decided, held where the plan is to fail on what was found."""
        fail_on = self.job.plan.policy.fail_on
        return Decision.load(self.folder).failing_on(fail_on, self.findings)

    @cached_property
    def promise(self) -> Promise:
        """What the policy promises of clean rows, and what was measured of it."""
        return promise(
            self.job.plan.core_policy(),
            self.decision.thresholds,
            rows=self.data.rows,
            trusted=self.trusted_rows > 0,
            settings=self.job.plan.sanitizers.settings,
            vectors=bool(self.made or self.roles.embedding),
        )

    @cached_property
    def trusted_rows(self) -> int:
        """How many rows a person vouches for."""
        rows = self.trusted.rows if self.trusted else 0
        if self.roles.trusted is None:
            return rows
        columns = (s.read([self.roles.trusted])[0] for s in self.data.shard_files())
        return rows + sum(pc.sum(column).as_py() or 0 for column in columns)

    @property
    def unscanned(self) -> tuple[str, ...]:
        """The columns that no sanitizer looked at: no feature, no answer, no time, no source."""
        roles = self.roles
        seen = {*roles.features, roles.label, roles.target, roles.time, roles.source}
        for recipe in self.chosen.run.values():
            found = looked_at(recipe, roles, self.made) & {"image", "embedding"}
            seen |= {getattr(roles, role) for role in found}
        known = seen | {roles.id, roles.trusted}
        return tuple(c.name for c in self.data.columns if c.name not in known)

    def outcome(self, release: Path | None, *, already: bool = False) -> Outcome:
        """What came of the run."""
        done = Outcome.of(
            self.job.name,
            self.decision,
            self.chosen.not_run,
            findings=self.findings,
            unscanned=self.unscanned,
            trusted=self.trusted is not None or self.roles.trusted is not None,
            release=release,
            report=self.report,
            already=already,
            onto=self.data.onto,
        )
        return self.job.placed(done)


def _listed(columns: str | Sequence[str]) -> str:
    return columns if isinstance(columns, str) else ", ".join(columns)
