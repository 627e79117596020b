"""What routes ask of a request: who asks, and for which dataset."""

from __future__ import annotations

from typing import cast

from starlette.requests import Request

from pipelines.review.desk import Desk, Seat
from pipelines.review.guard import Guard
from pipelines.review.sessions import Session


def desk_of(request: Request) -> Desk:
    """The datasets that may be looked at."""
    return cast(Desk, request.app.state.desk)


def guard_of(request: Request) -> Guard:
    """Who may come in."""
    return cast(Guard, request.app.state.guard)


def session_of(request: Request) -> Session:
    """Who asks; the guard lets nobody else through."""
    return cast(Session, request.state.session)


def seat_of(request: Request, dataset: str) -> Seat:
    """The dataset that is asked for.

    Raises
    ------
    PlanError
        If there is none of that name.
    """
    return desk_of(request).seat(dataset)
