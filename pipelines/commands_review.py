"""The command that opens the review in a browser, or adds a user to it."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from pipelines.plan import store_root
from pipelines.store import Store
from pipelines.terminal import StderrConsole, answer, plain
from sanitizers.core.errors import PlanError


def review(said: Namespace) -> int:
    """Serve the review until it is stopped, or add a user."""
    from pipelines.review.desk import Desk
    from pipelines.review.serve import Listening, ask_user
    from pipelines.review.serve import review as serve

    users = Path(said.users) if said.users else None
    if said.add_user:
        if users is None:
            raise PlanError("--add-user needs a file", do="name it with --users FILE")
        ask_user(users, said.add_user, said.role)
        answer(plain(f"{users}: {said.add_user} is a {said.role}"))
        return 0
    certificate, key = (Path(name) if name else None for name in (said.certificate, said.key))
    where = Listening(said.host, said.port, tuple(said.name or ()), certificate, key)
    where.check(users)
    store = Store.open(store_root(said.store), create=False)
    serve(
        Desk(store, said.dataset, said.held),
        where,
        users,
        console=StderrConsole(),
        browse=not said.no_open,
    )
    return 0
