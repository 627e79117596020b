"""What people do with releases: rule, publish, compare, export and sign."""

from __future__ import annotations

import getpass
import json
from argparse import Namespace
from pathlib import Path

from pipelines.plan import Plan, store_root
from pipelines.store import Store
from pipelines.terminal import StderrConsole, answer, plain


def rule(said: Namespace) -> int:
    """Decide about rows, for the next publish to obey."""
    from pipelines.explain import explain
    from pipelines.rulings import Rulings

    store = Store.open(store_root(said.store), create=False)
    dataset = store.known(said.dataset)
    rows = [explain(store, dataset, row_id).row_id for row_id in said.row_ids]
    who = said.who or getpass.getuser()
    done = Rulings.of(store, dataset).add(rows, said.verdict, who=who, why=said.why)
    what = f"{len(rows):,} row{'' if len(rows) == 1 else 's'}"
    told = f"taken back for {what}" if done.verdict == "none" else f"{done.verdict}: {what}"
    answer(plain(f"ruling {done.number} by {who}: {told}; 'sanitize publish {dataset}' obeys it"))
    return 0


def publish(said: Namespace) -> int:
    """Publish the last release again, with the rulings that have come since."""
    from pipelines.progress import show
    from pipelines.ruled import publish_rulings

    store, dataset = _dataset(said)
    console = StderrConsole()
    console.quiet = said.quiet
    with show(console, quiet=said.quiet) as progress:
        release, manifest, already = publish_rulings(store, dataset, progress=progress)
    ruled, counts = manifest.ruled, manifest.counts
    if already:
        told = f"nothing to do: release {manifest.version} obeys all rulings"
    else:
        moved = ruled.moved if ruled else 0
        told = f"{dataset}: published {manifest.version}, {moved:,} rows moved as people have ruled"
    console.print(plain(told), soft_wrap=True)
    if ruled and ruled.unknown:
        console.print(f"{ruled.unknown:,} ruled rows are not in this release", soft_wrap=True)
    console.print(plain(f"clean rows  {release / 'clean'}"), soft_wrap=True)
    if said.json:
        value = {"dataset": dataset, "version": manifest.version, "rows": counts.rows}
        value |= {"keep": counts.keep, "review": counts.review, "quarantine": counts.quarantine}
        answer(json.dumps(value | {"release": str(release), "already": already}))
    return 0


def export(said: Namespace) -> int:
    """Write what is known of every row as one table."""
    from pipelines.export import export

    store = Store.open(store_root(said.store), create=False)
    done = export(store, said.dataset, Path(said.out))
    if said.json:
        answer(json.dumps({k: str(v) if k == "file" else v for k, v in vars(done).items()}))
    else:
        answer(plain(f"{done.file}: {done.rows:,} rows, {done.label_issues:,} label issues"))
    return 0


def compare(said: Namespace) -> int:
    """Say what changed from one release to another."""
    from pipelines.carrying import release_at
    from pipelines.comparing import compare, write_comparison

    with release_at(said.old) as old, release_at(said.new) as new:
        found = compare(old, new)
    answer(f"{found.old.dataset} {found.old.version} and {found.new.version}")
    answer(f"  {found.same:,} rows lie where they lay")
    for change in found.changes:
        answer(
            f"  {change.rows:,} rows: {change.old or 'not there'} to {change.new or 'not there'}"
        )
    for key, before, after in found.settings:
        answer(plain(f"  {key}: {before}, now {after}"))
    if said.out:
        answer(plain(f"page: {write_comparison(found, Path(said.out))}"))
    return 0


def history(said: Namespace) -> int:
    """Write the page of a dataset's releases."""
    from pipelines.history import write_history

    store = Store.open(store_root(said.store), create=False)
    answer(plain(str(write_history(store, said.dataset, Path(said.out) if said.out else None))))
    return 0


def keygen(said: Namespace) -> int:
    """Make the key that the store signs its releases with."""
    from pipelines.signing import PRIVATE, Key, make_key

    path = make_key(Store.open(store_root(said.store)))
    answer(plain(f"key {Key.read(path).id}: from now on every release is signed"))
    answer(plain(f"give {path} to those who verify; keep {path.with_name(PRIVATE)} to yourself"))
    return 0


def _dataset(said: Namespace) -> tuple[Store, str]:
    """The store and the dataset that a plan, or a name, means."""
    if said.dataset.endswith(".toml"):
        plan = Plan.read(Path(said.dataset))
        store = Store.open(said.store or plan.store, create=False)
        return store, store.known(plan.dataset.name)
    store = Store.open(store_root(said.store), create=False)
    return store, store.known(said.dataset)
