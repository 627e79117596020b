"""The audit: rows that were drawn at random, one after the other, and what people say of them."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from pipelines.review.pages import address, page
from pipelines.review.row import gather_row
from pipelines.review.seating import check_may_rule, form_of, seat_of, session_of
from pipelines.rulings import MOST_TEXT
from sanitizers.core.consensus import TRUSTED_LEAST
from sanitizers.core.errors import PlanError
from sanitizers.core.verdicts import KEEP, QUARANTINE

#: Why, where a person gives no reason of their own.
WHY = {
    KEEP: "drawn at random, looked at, and found right",
    QUARANTINE: "drawn at random, looked at, and found wrong",
}

router = APIRouter()


@router.get("/d/{dataset}/audit")
def audit(request: Request, dataset: str) -> Response:
    """Show the row that is due."""
    seat = seat_of(request, dataset)
    with seat.queue.fresh() as waiting:
        due, found = seat.due, None
        if due is not None:
            known, history = waiting.row(due.row_id), waiting.history(due.row_id)
            found = gather_row(seat.held, due.row_id, known, history, due)
        done, kept = seat.audited
    return page(
        "audit",
        session_of(request),
        seat=seat,
        d=found,
        row_id=due.row_id if due else "",
        ruled_on=done,
        kept=kept,
        least=TRUSTED_LEAST,
        done=request.query_params.get("done", ""),
    )


@router.post("/d/{dataset}/audit")
def rule_drawn(request: Request, dataset: str) -> Response:
    """Rule on the row that is due, and on no other: who could pass over rows would choose."""
    seat, form = seat_of(request, dataset), form_of(request)
    check_may_rule(request)
    verdict = form.get("say", "")
    if verdict not in WHY:
        raise PlanError(f"no ruling {verdict!r} in an audit", expected=", ".join(WHY))
    if form.get("key") != seat.held.key:
        raise PlanError("the data have changed since this page was made", do="look at it again")
    with seat.queue.fresh() as waiting:
        due = seat.due
        if due is None or form.get("id") != due.row_id:
            raise PlanError(
                "this row is not the next one of the audit",
                do="go back to the audit; somebody else may have ruled on it meanwhile",
            )
        why = form.get("why", "").strip()[:MOST_TEXT] or WHY[verdict]
        who, values = session_of(request).user.name, seat.values_of(due)
        waiting.rule([due.row_id], verdict, who=who, why=why, group="", drawn=values)
    return RedirectResponse(address(dataset, to="/audit", done=f"{verdict}-1"), 303)
