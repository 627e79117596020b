"""What routes ask of a request: who asks, and for which dataset."""

from __future__ import annotations

from typing import cast

from starlette.requests import Request

from pipelines.review.desk import Desk, Seat
from pipelines.review.guard import Guard
from pipelines.review.sessions import Session
from sanitizers.core.errors import PlanError


def desk_of(request: Request) -> Desk:
    """The datasets that may be looked at."""
    return cast(Desk, request.app.state.desk)


def guard_of(request: Request) -> Guard:
    """Who may come in."""
    return cast(Guard, request.app.state.guard)


def session_of(request: Request) -> Session:
    """Who asks; the guard lets nobody else through."""
    return cast(Session, request.state.session)


class NotAllowedError(PlanError):
    """A user asked for what the role does not allow."""


def form_of(request: Request) -> dict[str, str]:
    """The first value of every field of a form."""
    return {name: values[0] for name, values in request.state.form.items()}


def check_may_rule(request: Request) -> None:
    """Refuse who may look only.

    Raises
    ------
    NotAllowedError
    """
    if not session_of(request).user.may_rule:
        raise NotAllowedError("a viewer may look, and not rule")


def seat_of(request: Request, dataset: str) -> Seat:
    """The dataset that is asked for.

    Raises
    ------
    PlanError
        If there is none of that name.
    """
    return desk_of(request).seat(dataset)
