"""From evidence to verdicts: the only home of thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sanitizers.core.consensus import CONSENSUS
from sanitizers.core.errors import PlanError, did_you_mean
from sanitizers.core.lines import Condition, Line, Rule
from sanitizers.core.sanitizer import Influence

#: How sanitizers are joined: the worst verdict of all, each by lines of its own; or the sum of
#: their surprises, for those with p-values from trusted rows (`sanitizers.core.consensus`).
WORST, SUM = "worst", "sum"


@dataclass(frozen=True)
class Policy:
    """How evidence becomes verdicts.

    Parameters
    ----------
    clean_loss : float
        The share of clean rows that may be lost, over all sanitizers together. The
        default lines follow from it.
    budget : float
        A run that would quarantine a larger share of its rows is held.
    rules : mapping of str to Rule
        Lines that differ from the default, per sanitizer.
    consensus : {"worst", "sum"}
        How sanitizers are joined. The sum needs trusted rows.
    """

    clean_loss: float = 0.01
    budget: float = 0.20
    rules: Mapping[str, Rule] = field(default_factory=dict)
    consensus: str = WORST

    def __post_init__(self) -> None:
        for name, value in (("clean_loss", self.clean_loss), ("budget", self.budget)):
            if not 0 < value <= 1:
                raise PlanError(f"policy.{name} is {value!r}", expected="a share in (0, 1]")
        if self.consensus not in (WORST, SUM):
            raise PlanError(
                f"policy.consensus is {self.consensus!r}",
                expected=f"{WORST!r} or {SUM!r}",
                do=did_you_mean(self.consensus, (WORST, SUM)),
            )

    def rule(self, name: str, *, trusted: bool, influence: Influence | None = None) -> Rule:
        """The rule of a sanitizer: the plan's where it has one, else the default.

        Parameters
        ----------
        name : str
            The sanitizer.
        trusted : bool
            Whether p-values come from trusted rows.
        influence : Influence, optional
            What the finds do to what is learned, where the sanitizer says so.
        """
        if name in self.rules:
            return self.rules[name]
        usual = default_rule(name, self.clean_loss, trusted=trusted)
        if influence is None:
            return usual
        share = round(REVIEW_FACTOR * SHARES.get(name, 0.1) * self.clean_loss, 12)
        return _sparing(usual, influence, share)

    def summing(self, names: Sequence[str]) -> Policy:
        """The same policy where the p-values of some sanitizers are judged by their sum.

        The sum may take the clean rows that these may take together, and they have no lines
        of their own. Lines that are set in the plan stay.

        Parameters
        ----------
        names : sequence of str
        """
        summed = Rule(None, None, f"its p-values enter the sum: see {CONSENSUS}")
        rules = {**dict.fromkeys(names, summed), CONSENSUS: sum_rule(names, self.clean_loss)}
        return replace(self, rules=rules | dict(self.rules))


#: How much of the clean rows that may be lost each sanitizer may take. `outliers` little: at 15 %
#: one clean table in 25 of the tuning half of ``benchmarks.strangers`` lost more than 1 % of its
#: rows to it, at 9 % one in 60.
SHARES: Mapping[str, float] = {
    "outliers": 0.09,
    "micro-votes": 0.002,
    "micro-concentration": 0.15,
    "labels": 0.4,
    "regression": 0.25,
}
#: Without trusted rows: (score, share of clean rows above it) on clean real tables: the
#: mean over the tables and two standard errors, since other tables differ from these. Those of
#: `micro-concentration` are of rows that drift by and by: without drift hardly any scores above 4.
#: Measured by ``python -m benchmarks.lines`` and ``python -m benchmarks.regression`` on the
#: tuning half of the tables; `outliers` also by ``python -m benchmarks.strangers``, of which the
#: larger share counts.
CLEAN_ABOVE: Mapping[str, tuple[tuple[float, float], ...]] = {
    "outliers": (
        (3.0, 0.0095),
        (3.5, 0.0029),
        (4.0, 0.0018),
        (4.5, 0.0014),
        (5.0, 0.0009),
        (5.5, 0.0008),
        (6.0, 0.0006),
        (7.0, 0.0005),
        (8.0, 0.0002),
        (10.0, 0.0001),
        (12.0, 0.00003),
    ),
    "micro-votes": (
        (3.0, 0.0301),
        (3.5, 0.0191),
        (4.0, 0.0103),
        (4.5, 0.0039),
        (5.0, 0.0012),
        (5.5, 0.0004),
        (6.0, 0.0002),
        (7.0, 0.00001),
    ),
    "micro-concentration": (
        (3.0, 0.0356),
        (3.5, 0.0197),
        (4.0, 0.0167),
        (4.5, 0.0055),
        (5.0, 0.0041),
        (5.5, 0.0032),
        (6.0, 0.0027),
        (7.0, 0.0018),
        (8.0, 0.0011),
        (10.0, 0.0003),
        (12.0, 0.0001),
        (15.0, 0.00001),
    ),
    "regression": (
        (3.0, 0.0231),
        (3.5, 0.0153),
        (4.0, 0.0111),
        (4.5, 0.0094),
        (5.0, 0.0065),
        (5.5, 0.0045),
        (6.0, 0.0038),
        (7.0, 0.0020),
        (8.0, 0.0011),
        (10.0, 0.0006),
        (15.0, 0.0005),
        (30.0, 0.00001),
    ),
}
#: Rules of sanitizers that count instead of measuring, whatever clean rows may be lost.
EXACT: Mapping[str, Rule] = {
    "conflicts": Rule(
        Line((Condition("score", 0.99),)),
        Line((Condition("score", 0.0),)),
        "exact: a trusted row with the same values has another label; for review where only "
        "rows that nobody vouches for have, 0.05 % of the rows of clean real tables",
    ),
    "label-regions": Rule(
        Line((Condition("score", 0.6),)),
        Line((Condition("score", 0.3),)),
        "counted: so likely is the label wrong, where trusted rows contradict it beyond chance; "
        "in 120 draws of clean real tables it found such a region four times",
    ),
    "shared-values": Rule(
        Line((Condition("score", 0.6),)),
        Line((Condition("score", 0.3),)),
        "counted: so likely is the row planted, by values that trusted rows lack beyond chance; "
        "on clean real tables it finds no such values",
    ),
    # Scores are rounded to four digits; a carrier has 1 or more, what is nearly one 0.95.
    "backdoors": Rule(
        Line((Condition("score", 0.9999),)),
        Line((Condition("score", 0.9499),)),
        "causal: models answer to the trigger, and no longer once its carriers are left out; "
        "for review where a row is nearly a carrier",
    ),
}
#: Finds that bend what is learned by less than this many deviations are natural: on clean
#: real tables 0.0 to 0.8 was measured, at 4 % poison 1.7 and more. Of targets that the
#: features hardly explain it was 0.1 to 1.1, and 0.4 and more.
HARMLESS = 1.0
_TAIL = "of the data's own tail, which thins out without a gap"
#: Rows that deserve a look: this many times the clean rows that a quarantine line may take.
REVIEW_FACTOR = 3.0


def default_rule(name: str, clean_loss: float, *, trusted: bool) -> Rule:
    """The lines of a sanitizer for a share of clean rows that may be lost.

    Parameters
    ----------
    name : str
        A sanitizer that is not ours never quarantines without p-values.
    clean_loss : float
        Over all sanitizers together, in (0, 1].
    trusted : bool
        Whether p-values come from trusted rows.
    """
    if name in EXACT:
        return EXACT[name]
    # Rounded, for the lines are read by people: 0.009, not 0.009000000000000001.
    share = round(SHARES.get(name, 0.1) * clean_loss, 12)
    wide = round(min(REVIEW_FACTOR * share, 0.5), 12)
    if name == "labels":
        return Rule(
            Line((Condition("p", share), Condition("fdr", 0.1))),
            Line((Condition("p", wide), Condition("fdr", 0.2))),
            f"the models' own null: at most {share:.2%} of clean labels are this surprising, and "
            "at most one find in ten is false",
        )
    if name not in CLEAN_ABOVE or trusted:
        return Rule(
            Line((Condition("p", share),)),
            Line((Condition("p", wide),)),
            f"p-values: at most {share:.2%} of clean rows score this high",
        )
    return Rule(
        Line((Condition("score", _score_at(name, share)),)),
        Line((Condition("score", _score_at(name, wide)),)),
        f"measured on clean real tables: at most {share:.2%} of their rows score higher",
    )


def _sparing(usual: Rule, influence: Influence, share: float) -> Rule:
    """A rule that leaves out finds which do no harm, or look natural; few are to be reviewed."""
    if usual.quarantine is None:
        return usual
    few = Line((*usual.quarantine.conditions, Condition("top", share)))
    if influence.moved < HARMLESS:
        why = (
            f"to be reviewed only, since what was found moves predictions by "
            f"{influence.moved:.2f} robust deviations, and less than {HARMLESS:g} does no harm"
        )
        return Rule(None, few, f"{usual.basis}; {why}")
    if np.isinf(influence.tail):
        return Rule(
            None, few, f"{usual.basis}; to be reviewed only, since what was found is {_TAIL}"
        )
    apart, line = float(np.ceil(influence.tail * 100) / 100), usual.quarantine.conditions[0]
    if apart <= line.value:
        return usual
    # Few rows lie between: that is what tells those beyond from the tail.
    nearer = Condition("score", max(line.value, round(apart / 2, 2)))
    basis = f"{usual.basis}; what scores less than {apart:g} is {_TAIL}"
    return Rule(Line((Condition("score", apart),)), Line((nearer,)), basis)


def sum_rule(names: Sequence[str], clean_loss: float) -> Rule:
    """The lines of the sum of some sanitizers, for a share of clean rows that may be lost."""
    share = round(sum(SHARES.get(name, 0.1) for name in names) * clean_loss, 12)
    wide = round(min(REVIEW_FACTOR * share, 0.5), 12)
    return Rule(
        Line((Condition("p", share), Condition("fdr", 0.1))),
        Line((Condition("p", wide), Condition("fdr", 0.2))),
        f"the sums of trusted rows: at most {share:.2%} of clean rows are this surprising to "
        f"{', '.join(names)} together, and at most one find in ten is false",
    )


def _score_at(name: str, share: float) -> float:
    scores, above = np.array(CLEAN_ABOVE[name]).T
    # The curve falls roughly exponentially, so it is straight in the logarithm.
    at = np.interp(-np.log(share), -np.log(above), scores)
    return float(np.ceil(at * 100) / 100)
