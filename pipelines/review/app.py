"""The review as a web application: pages to look at, and forms to rule with."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse

from pipelines.review.auditing import router as audits
from pipelines.review.desk import Desk
from pipelines.review.filters import STATES, Filter, filter_of
from pipelines.review.guard import ENTER, SIGN_IN, STYLE, Guard, Guarded
from pipelines.review.pages import keys, moment_of, page, sheet, style
from pipelines.review.queue import GROUPS, ROWS
from pipelines.review.row import gather_row
from pipelines.review.ruling import router as rulings
from pipelines.review.seating import NotAllowedError, desk_of, guard_of, seat_of, session_of
from pipelines.store import Store
from sanitizers.core.errors import PlanError, SanitizeError, StoreError

#: Rows of a sheet, at most.
SHEET = 1_000_000
#: Pixels at the longer side of a picture, in a list and on the page of its row.
SMALL, LARGE = 96, 768

router = APIRouter()


def make_app(store: Store, guard: Guard, dataset: str | None = None) -> Guarded:
    """Make the application.

    Parameters
    ----------
    store : Store
    guard : Guard
        Who may come in.
    dataset : str, optional
        The one dataset to look at; all of the store where none is given.

    Returns
    -------
    Guarded
        An ASGI application.
    """
    return guarded(Desk(store, dataset), guard)


def guarded(desk: Desk, guard: Guard) -> Guarded:
    """Make the application for datasets that are looked at already, as `make_app` does."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.desk, app.state.guard = desk, guard
    app.include_router(router)
    app.include_router(rulings)
    app.include_router(audits)
    app.add_exception_handler(SanitizeError, _told)
    app.add_exception_handler(404, partial(_plain, "There is no such page."))
    app.add_exception_handler(405, partial(_plain, "This page takes no such request."))
    return Guarded(app, guard)


@router.get(ENTER)
def enter(request: Request, token: str = "") -> Response:
    """Come in with the token of the printed address."""
    user = guard_of(request).enter(token)
    if user is None:
        return PlainTextResponse("Open the address that 'sanitize review' has printed.\n", 401)
    if request.headers.get("sec-fetch-site", "none") in {"none", "same-origin"}:
        return guard_of(request).welcome(user, RedirectResponse("/", 303))
    return guard_of(request).welcome(user, page("entered", None))


@router.get(SIGN_IN)
def sign_in_page(request: Request) -> Response:
    """Show the form to sign in."""
    if guard_of(request).users is None:
        return RedirectResponse("/", 303)
    return page("sign_in", request.state.session, failed="", name="")


@router.post(SIGN_IN)
def sign_in(request: Request) -> Response:
    """Sign in with a name and a password."""
    guard, form = guard_of(request), request.state.form
    name, password = (form.get(key, [""])[0] for key in ("name", "password"))
    came = request.client.host if request.client else ""
    if guard.users is None:
        return PlainTextResponse("This server has no users.\n", 403)
    if not guard.attempts.allow(came, name):
        told = "Too many attempts. Wait five minutes."
        return page("sign_in", None, 429, failed=told, name=name)
    with guard.hashing:
        user = guard.users.sign_in(name, password)
    if user is None:
        return page("sign_in", None, 403, failed="The name or the password is wrong.", name=name)
    guard.attempts.forget(came, name)
    return guard.welcome(user, RedirectResponse("/", 303))


@router.post("/sign-out")
def sign_out(request: Request) -> Response:
    """End the session."""
    guard = guard_of(request)
    guard.sessions.close(guard.secret(request.headers))
    response = RedirectResponse(SIGN_IN if guard.users else "/", 303)
    response.delete_cookie(guard.cookie, path="/", secure=guard.secure, httponly=True)
    return response


@router.get(STYLE)
def style_sheet() -> Response:
    """Give the style."""
    return Response(style(), media_type="text/css")


@router.get("/keys.js")
def script() -> Response:
    """Give the script for the keyboard."""
    return Response(keys(), media_type="text/javascript")


@router.get("/")
def datasets(request: Request) -> Response:
    """List the datasets, or show the only one."""
    desk = desk_of(request)
    names = desk.datasets()
    if len(names) == 1:
        return RedirectResponse(f"/d/{names[0]}", 303)
    return page("datasets", session_of(request), found=desk.overview())


@router.get("/help")
def help_page(request: Request) -> Response:
    """Say how to use it."""
    return page("help", session_of(request), names=desk_of(request).datasets())


@router.get("/d/{dataset}")
def queue(request: Request, dataset: str, after: int = 0, skip: int = 0) -> Response:
    """Show the queue."""
    seat, chosen = seat_of(request, dataset), asked(request)
    with seat.queue.fresh() as waiting:
        groups = waiting.groups(chosen, max(skip, 0), GROUPS + 1)
        rows = waiting.rows(chosen, max(after, 0), ROWS + 1)
        return page(
            "queue",
            session_of(request),
            seat=seat,
            chosen=chosen,
            left=waiting.count(chosen),
            groups=groups[:GROUPS],
            more_groups=len(groups) > GROUPS,
            rows=rows[:ROWS],
            more_rows=len(rows) > ROWS,
            after=after,
            skip=skip,
            facets=waiting.facets(),
            times=waiting.times(),
            states=STATES,
            done=request.query_params.get("done", ""),
        )


@router.get("/d/{dataset}/row")
def row(request: Request, dataset: str, row_id: Annotated[str, Query(alias="id")]) -> Response:
    """Show everything that is known of a row."""
    seat, chosen = seat_of(request, dataset), asked(request)
    with seat.queue.fresh() as waiting:
        known = waiting.row(row_id)
        found = gather_row(
            seat.held, row_id, known, waiting.history(row_id), seat.draw.find(row_id)
        )
        place = known.place if known else 0
        return page(
            "row",
            session_of(request),
            seat=seat,
            chosen=chosen,
            row_id=row_id,
            d=found,
            next=waiting.next(chosen, place),
            before=waiting.before(chosen, place),
            done=request.query_params.get("done", ""),
        )


@router.get("/d/{dataset}/group")
def group(request: Request, dataset: str, group: str, skip: int = 0) -> Response:
    """Show the rows of a group, those first that stand out."""
    seat = seat_of(request, dataset)
    every = Filter(state="all", group=group)
    with seat.queue.fresh() as waiting:
        found = waiting.groups(every)
        if not found:
            raise PlanError("there is no such group", do="go back to the queue")
        members = waiting.members(every, max(skip, 0), ROWS + 1)
        return page(
            "group",
            session_of(request),
            seat=seat,
            chosen=asked(request),
            g=found[0],
            rows=members[:ROWS],
            more=len(members) > ROWS,
            skip=skip,
            trigger=seat.trigger(members[0].part, found[0].message),
            done=request.query_params.get("done", ""),
        )


@router.get("/d/{dataset}/image")
def image(
    request: Request, dataset: str, row_id: Annotated[str, Query(alias="id")], small: bool = False
) -> Response:
    """Give the image of a row, painted anew."""
    painted = seat_of(request, dataset).picture(row_id, SMALL if small else LARGE)
    if painted is None:
        return PlainTextResponse("This row has no image that can be shown.\n", 404)
    return Response(painted, media_type="image/png")


@router.get("/d/{dataset}/held.csv")
def held_csv(request: Request, dataset: str) -> Response:
    """Give the rows of a filter as a sheet."""
    seat, chosen = seat_of(request, dataset), asked(request)
    rows = seat.queue.listed(chosen, SHEET)
    name = f'attachment; filename="{dataset}-held.csv"'
    return StreamingResponse(
        sheet(rows), media_type="text/csv; charset=utf-8", headers={"content-disposition": name}
    )


def asked(request: Request) -> Filter:
    """The filter that the words of an address say."""
    said = dict(request.query_params)
    since, until = (said.get(name, "") for name in ("since", "until"))
    return filter_of(said, moment_of(since), moment_of(until, after=True))


def _told(request: Request, error: Exception) -> Response:
    """Say what is wrong, on a page."""
    missing = 400 if request.method == "POST" else 404
    known: dict[type[Exception], int] = {
        PlanError: missing,
        NotAllowedError: 403,
        StoreError: 503,
    }
    status = known.get(type(error), 500)
    session = getattr(request.state, "session", None)
    return page("fault", session, status, said=str(error))


def _plain(text: str, request: Request, error: Exception) -> Response:
    return PlainTextResponse(f"{text}\n", getattr(error, "status_code", 400))
