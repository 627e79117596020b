"""Forms: ruling on a row or a group, taking it back, and publishing what was ruled."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from pipelines.explain import explain
from pipelines.review.desk import UNDO, undoable
from pipelines.review.filters import OPEN, Filter, filter_of
from pipelines.review.pages import address, moment_of, page, row_address
from pipelines.review.seating import (
    NotAllowedError,
    check_may_rule,
    form_of,
    seat_of,
    session_of,
)
from pipelines.ruled import publish_rulings
from pipelines.rulings import MOST_TEXT, NONE
from sanitizers.core.errors import PlanError
from sanitizers.core.verdicts import KEEP, QUARANTINE

#: Why, where a person gives no reason of their own.
WHY = {
    KEEP: "looked at, and found good",
    QUARANTINE: "looked at, and found bad",
    NONE: "taken back",
}
#: Rulings of a page.
SHOWN = 100
#: Rows of a group, at most.
MOST_IN_GROUP = 1_000_000

router = APIRouter()


@router.post("/d/{dataset}/rule")
def rule(request: Request, dataset: str) -> Response:
    """Rule on one row, and go on to the next."""
    seat, form = seat_of(request, dataset), form_of(request)
    check_may_rule(request)
    row_id, chosen = form["id"], _filter(form)
    verdict = _verdict(form)
    with seat.queue.fresh() as waiting:
        known = waiting.row(row_id)
        if known is None:
            # Whatever sanitizers say of it, a person may hold a row of this release.
            explain(seat.held.store, dataset, row_id, seat.held.version)
        waiting.rule([row_id], verdict, who=_who(request), why=_why(form, verdict), group="")
        if known is None or form.get("to") != "next":
            return _back(dataset, chosen, form, verdict, 1)
        then = waiting.next(chosen, known.place)
    if then is None:
        return RedirectResponse(address(dataset, chosen, done=f"{verdict}-1"), 303)
    return RedirectResponse(
        address(dataset, chosen, "/row", id=then.row_id, done=f"{verdict}-1"), 303
    )


@router.post("/d/{dataset}/rule-group")
def rule_group(request: Request, dataset: str) -> Response:
    """Rule on all rows of a group that nobody has ruled on, but for exceptions."""
    seat, form = seat_of(request, dataset), form_of(request)
    check_may_rule(request)
    if form.get("key") != seat.held.key:
        raise PlanError("the data have changed since this page was made", do="look at it again")
    verdict = _verdict(form)
    spared = set(request.state.form.get("except", []))
    # What is to be taken back is what was ruled; else what was not.
    state = "ruled" if verdict == NONE else OPEN
    with seat.queue.fresh() as waiting:
        rows = waiting.ids(Filter(state=state, group=form["group"]), MOST_IN_GROUP)
        ids = [row_id for row_id in rows if row_id not in spared]
        if not ids:
            raise PlanError("no row of this group waits for a ruling", do="go back to the queue")
        told = waiting.groups(Filter(state="all", group=form["group"]))[0].reason
        why = _why(form, verdict)
        done = waiting.rule(ids, verdict, who=_who(request), why=why, group=told[:MOST_TEXT])
    to = address(dataset, None, "/group", group=form["group"], done=f"{verdict}-{done}")
    return RedirectResponse(to, 303)


@router.post("/d/{dataset}/undo")
def undo(request: Request, dataset: str) -> Response:
    """Take back the last ruling of the one who asks."""
    seat, form = seat_of(request, dataset), form_of(request)
    check_may_rule(request)
    with seat.queue.fresh() as waiting:
        last = undoable(seat, _who(request))
        if last is None:
            return RedirectResponse(address(dataset, _filter(form), done="nothing-0"), 303)
        ids = waiting.said.rows_of(last.number)
        group = f"{UNDO}{last.number}"
        waiting.rule(ids, NONE, who=_who(request), why=_why({}, NONE), group=group)
    chosen = _filter(form)
    if last.drawn is not None:
        return RedirectResponse(address(dataset, to="/audit", done="none-1"), 303)
    if len(ids) == 1:
        return RedirectResponse(address(dataset, chosen, "/row", id=ids[0], done="none-1"), 303)
    return RedirectResponse(address(dataset, chosen, done=f"none-{len(ids)}"), 303)


@router.get("/d/{dataset}/rulings")
def log(request: Request, dataset: str, skip: int = 0) -> Response:
    """Show the log of rulings, the last first, and where people disagree."""
    seat = seat_of(request, dataset)
    skip = max(skip, 0)
    with seat.queue.fresh() as waiting:
        told = list(reversed(waiting.said.rulings))
        some = told[skip : skip + SHOWN]
        rows = {ruling.number: waiting.said.rows_of(ruling.number, 3) for ruling, _ in some}
        conflicts = waiting.said.conflicts()
    return page(
        "rulings",
        session_of(request),
        seat=seat,
        told=some,
        rows=rows,
        every=len(told),
        skip=skip,
        shown=SHOWN,
        conflicts=conflicts,
    )


@router.get("/d/{dataset}/publish")
def publish_page(request: Request, dataset: str) -> Response:
    """Show what the next release would obey."""
    seat = seat_of(request, dataset)
    with seat.queue.fresh():
        pending = seat.pending
    return page("publish", session_of(request), seat=seat, pending=pending, made="")


@router.post("/d/{dataset}/publish")
def publish(request: Request, dataset: str) -> Response:
    """Publish the last release again, with the rulings that have come since."""
    session = session_of(request)
    if not session.user.may_publish:
        raise NotAllowedError("only an admin may publish")
    seat = seat_of(request, dataset)
    _, manifest, _ = publish_rulings(seat.held.store, dataset)
    again = seat_of(request, dataset)
    return page("publish", session, seat=again, pending=[], made=manifest.version)


def _filter(form: dict[str, str]) -> Filter:
    since, until = (moment_of(form.get(name, "")) for name in ("since", "until"))
    return filter_of({n: v for n, v in form.items() if n != "group"}, since, until)


def _verdict(form: dict[str, str]) -> str:
    verdict = form.get("say", "")
    if verdict not in WHY:
        raise PlanError(f"no ruling {verdict!r}", expected=", ".join(WHY))
    return verdict


def _why(form: dict[str, str], verdict: str) -> str:
    return form.get("why", "").strip()[:MOST_TEXT] or WHY[verdict]


def _who(request: Request) -> str:
    return session_of(request).user.name


def _back(dataset: str, chosen: Filter, form: dict[str, str], verdict: str, rows: int) -> Response:
    """To the page that the form was on."""
    done = f"{verdict}-{rows}"
    if form.get("to") == "row":
        where = row_address(dataset, form["id"], chosen)
        return RedirectResponse(f"{where}&done={done}", 303)
    after = form.get("after", "")
    return RedirectResponse(
        address(dataset, chosen, after=after if after.isdigit() else "", done=done), 303
    )
