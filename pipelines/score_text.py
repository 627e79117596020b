"""A score in words, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.score import Scored
from sanitizers.scorecard import Damage, Tally


def lines(scored: Scored) -> Iterator[str]:
    """The lines of a score: counts by kind, the shares, and the damage where it was asked for.

    Parameters
    ----------
    scored : Scored
    """
    card = scored.card
    yield f"{scored.dataset} {scored.version}"
    yield f"{'':<18}{'rows':>10}{'quarantine':>14}{'review':>10}{'kept':>10}"
    for tally in (*card.kinds, card.clean):
        yield _counted(tally)
    yield ""
    yield (
        f"recall {_share(card.recall)}, precision {_share(card.precision)}, "
        f"clean rows lost {_share(card.lost, 2)}"
    )
    if scored.damage is not None:
        yield ""
        yield from _harmed(scored.damage)


def _counted(tally: Tally) -> str:
    parts = (tally.quarantine, tally.review, tally.keep)
    shares = [_share(part / tally.rows) if tally.rows else "-" for part in parts]
    kind = tally.kind if len(tally.kind) < 18 else f"{tally.kind[:16]}…"
    return f"{kind:<18}{tally.rows:>10,}{shares[0]:>14}{shares[1]:>10}{shares[2]:>10}"


def _harmed(damage: Damage) -> Iterator[str]:
    yield f"{'trained on':<28}{'clean':>12}{'poisoned':>12}{'cleaned':>12}"
    for model in damage.models:
        values = (model.before, model.poisoned, model.cleaned)
        name = f"{model.model}: {model.measure}"
        yield f"{name:<28}" + "".join(f"{value:>12.4g}" for value in values)
        moved = (model.changed_poisoned, model.changed_cleaned)
        said = "median change" if model.measure == "rmse" else "answers changed"
        yield f"{'  ' + said:<40}" + "".join(f"{_share(value):>12}" for value in moved)
    yield f"measured on {damage.holdout:,} clean rows that were held out"


def _share(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f} %"
