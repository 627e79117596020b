"""A plan at work in a store: every piece of the work, named by all that decides it.

The stages are functions that know no order; the order is in `pipelines.flows`. Here is what
both a flow and a command need to know without doing any of the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from pipelines.audit import Audit
from pipelines.base import Base
from pipelines.fetch import fetch
from pipelines.growing import NewFile, files_of, new_files
from pipelines.ingested import MARKER, Ingested
from pipelines.manifest import tool
from pipelines.outcome import Outcome
from pipelines.plan import Plan
from pipelines.readers.named import NamedImages
from pipelines.readers.remote import is_url
from pipelines.readers.sources import digest_sources, find_sources, names_of
from pipelines.reading import Like
from pipelines.rulings import Rulings
from pipelines.store import Store, key_of
from pipelines.take import ALL, Take

if TYPE_CHECKING:
    from pipelines.work import Work


@dataclass(frozen=True)
class Job:
    """A plan and the store that it works in.

    Parameters
    ----------
    plan : Plan
    store : Store
    take : Take
        Which files of the source.
    """

    plan: Plan
    store: Store
    take: Take = ALL

    @classmethod
    def load(
        cls, plan: Mapping[str, object], store: str, take: Mapping[str, Any] | None = None
    ) -> Self:
        """Make a job from what a flow hands to its tasks."""
        return cls(Plan.make(plan), Store.open(store, create=False), Take.load(take or {}))

    @property
    def name(self) -> str:
        """The name of the dataset."""
        return self.plan.dataset.name

    @cached_property
    def source(self) -> str:
        """The data, as they lie here; what has changed behind a URL is fetched first."""
        return self._here(self.plan.dataset.source)

    @cached_property
    def trusted(self) -> str | None:
        """The same of the rows that a person vouches for; None where there is no such file."""
        given = self.plan.dataset.trusted
        return self._here(given) if given else None

    @cached_property
    def kept(self) -> Mapping[str, str]:
        """The rows that people kept in audits, with the digests of the values that they saw.

        None where the plan does not trust them.

        Raises
        ------
        IntegrityError
            If the log of rulings was tampered with.
        """
        if not self.plan.dataset.audited:
            return {}
        return Audit.of(Rulings.of(self.store, self.name).read()).kept

    def _here(self, source: str) -> str:
        if not is_url(source):
            return source
        return fetch(source, self.store.fetched(self.name, key_of("fetched", source)))

    @cached_property
    def base(self) -> Base | None:
        """The release that new rows join; None where the source is taken as a whole."""
        if not self.plan.dataset.grow:
            return None
        base = Base.of(self.store, self.name)
        if base is not None and self.take.full:
            base.check_whole(files_of(self.source))
            return None
        if base is not None:
            base.check_roles(self.plan.roles.model_dump(exclude_defaults=True))
        return base

    @cached_property
    def new(self) -> tuple[NewFile, ...]:
        """The files whose rows are taken, where the dataset grows; none where it does not."""
        if not self.plan.dataset.grow:
            return ()
        return new_files(files_of(self.source, self.take.only), self.base)

    def input_keys(self) -> dict[str, str]:
        """For the data, and the trusted rows, the key that names what its files hold.

        Raises
        ------
        InputError
            If there is no such file, or it cannot be read.
        PlanError
            If the plan needs trusted rows, and there are none.
        """
        self.plan.check_vouched(audited=bool(self.kept))
        keys = {"data": self.data_key}
        if self.base is not None:
            keys["data"] = key_of("joined", keys["data"], self.base.manifest.run)
        if self.trusted_key:
            keys["trusted"] = self.trusted_key
        if self.kept:
            # Which rows a column vouches for decides too, for none is taken twice.
            given, column = keys.get("trusted"), self.plan.roles.trusted
            keys["trusted"] = key_of(
                "vouched", keys["data"], given, column, sorted(self.kept.items())
            )
        return keys

    @cached_property
    def trusted_key(self) -> str | None:
        """Names the file of the rows that a person vouches for; None where there is none."""
        if not self.trusted:
            return None
        return self.input_key(_files(self.trusted, self.plan.roles.image))

    @cached_property
    def data_key(self) -> str:
        """Names the rows of the data by themselves, without the release that they join.

        The files are read once for it; one that changes afterwards is noticed when its rows are
        read.
        """
        if not self.plan.dataset.grow:
            return self.input_key(_files(self.source, self.plan.roles.image))
        files = [(file.name, file.sha256, file.bytes) for file in self.new]
        return self.input_key(files, self.like)

    @property
    def like(self) -> Like | None:
        """The columns that new rows have to have."""
        base = self.base
        return Like(f"release {base.version}", base.schema) if base else None

    def input_key(self, files: Sequence[tuple[str, str, int]], like: Like | None = None) -> str:
        """Name an input by its files: their names, digests and sizes."""
        asked = [self.plan.roles.id, self.plan.roles.image]
        schema = [like.schema.to_string()] if like else []
        return key_of("input", tool().version, list(files), asked, self.store.salt_digest, *schema)

    def published(self) -> Outcome | None:
        """The outcome of an earlier run that published exactly this; None where there is none.

        Reads the inputs once, to know them by their digests, and nothing else of size.
        """
        if self.base is not None and not self.new:
            given = self.plan.dataset.trusted or self.base.roles.trusted
            vouched = bool(given or self.base.manifest.audited)
            done = Outcome.of_release(self.base.folder, self.base.manifest, trusted=vouched)
            return self.placed(done)
        keys = self.input_keys()
        if not self.is_ingested(keys):
            return None
        from pipelines.publish import find_release

        work = self.ingested(keys)
        found = find_release(self.store, self.name, work.key, work.data.onto)
        return None if found is None else work.outcome(found[0], already=True)

    def placed(self, outcome: Outcome) -> Outcome:
        """The same outcome, with where people find the release."""
        if outcome.version is None:
            return outcome
        return replace(outcome, place=self.store.place_of(self.name, outcome.version))

    def ingested(self, keys: Mapping[str, str]) -> Work:
        """Go on where the inputs have been ingested."""
        from pipelines.work import Work

        read = {part: Ingested.load(self.store.inputs(self.name, k)) for part, k in keys.items()}
        return Work(self, dict(keys), read["data"], read.get("trusted"))

    def is_ingested(self, keys: Mapping[str, str]) -> bool:
        """Whether an earlier run has ingested these inputs."""
        folders = (self.store.inputs(self.name, key) for key in keys.values())
        return all((folder / MARKER).is_file() for folder in folders)


def _files(source: str, image: str | None) -> list[tuple[str, str, int]]:
    paths = find_sources(source)
    names = names_of(paths)
    images = NamedImages.of(paths, names, image).entry()
    named = zip(names, digest_sources(paths), strict=True)
    found = [(name, sha256, size) for name, (sha256, size) in named]
    return found + [(entry.path, entry.sha256, entry.bytes) for entry in images]
