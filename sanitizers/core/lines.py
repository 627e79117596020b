"""Lines on scores: how they are written, and how they are drawn on the scores of a run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sanitizers.core.calibration import benjamini_hochberg
from sanitizers.core.errors import PlanError
from sanitizers.core.kernels import robust_scale

#: Rows whose scores are held in memory to draw a line, at most.
SUMMARY_ROWS = 1_000_000
#: The highest scores of all rows, which are held besides.
SUMMARY_TOP = 10_000

_CONDITION = re.compile(r"(score|p|fdr|mad|top)\s*(<=|>)?\s*([0-9.eE+-]+)\s*(%?)")
_OPERATOR = {"score": ">", "p": "<=", "fdr": "<=", "mad": ">", "top": None}


@dataclass(frozen=True)
class Condition:
    """One condition on the scores of one sanitizer.

    Parameters
    ----------
    kind : {"score", "p", "fdr", "mad", "top"}
        ``score > v``: an absolute line. ``p <= v``: the share `v` of clean rows is
        lost. ``fdr <= v``: the share `v` of the rows found are clean
        (Benjamini-Hochberg). ``mad > v``: `v` robust standard deviations above the
        median of all scores. ``top v%``: the worst share `v` of the rows.
    value : float
    """

    kind: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read a condition such as ``p <= 0.002`` or ``top 0.3%``.

        Raises
        ------
        PlanError
            If it is none.
        """
        match = _CONDITION.fullmatch(text.strip())
        if match is None or match[2] != _OPERATOR[match[1]]:
            raise PlanError(
                f"{text!r} is not a line",
                expected="'score > 0.5', 'p <= 0.002', 'fdr <= 0.1', 'mad > 6' or 'top 0.3%'",
            )
        try:
            value = float(match[3]) / (100 if match[4] else 1)
        except ValueError:
            raise PlanError(f"{match[3]!r} in the line {text!r} is not a number") from None
        if match[1] in {"p", "fdr", "top"} and not 0 < value < 1:
            raise PlanError(f"the line {text!r} is out of range", expected="a share in (0, 1)")
        if not np.isfinite(value):
            raise PlanError(f"the line {text!r} is out of range", expected="a finite number")
        return cls(match[1], value)

    def __str__(self) -> str:
        unit, sign = (100, "%") if self.kind == "top" else (1, "")
        # As short as can be, and yet read back as the same number.
        texts = (f"{unit * self.value:.{digits}g}" for digits in range(6, 18))
        exact = (f"{text}{sign}" for text in texts if float(text) / unit == self.value)
        parts = (self.kind, _OPERATOR[self.kind], next(exact, repr(self.value)))
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Line:
    """Conditions that must all hold for a row to be over the line."""

    conditions: tuple[Condition, ...]

    @classmethod
    def parse(cls, text: str) -> Line:
        """Read conditions joined by ``and``."""
        return cls(tuple(Condition.parse(part) for part in re.split(r"\s+and\s+", text.strip())))

    def __str__(self) -> str:
        return " and ".join(str(c) for c in self.conditions)


@dataclass(frozen=True)
class Rule:
    """The lines of one sanitizer.

    Parameters
    ----------
    quarantine, review : Line or None
        None draws no such line.
    basis : str
        From which measurement the lines come, a sentence for the report.
    """

    quarantine: Line | None
    review: Line | None
    basis: str = "set in the plan"


@dataclass(frozen=True)
class Threshold:
    """The lines of one sanitizer, drawn on the scores of one run.

    Parameters
    ----------
    sanitizer : str
    quarantine, review : float or None
        Rows with a score *above* it get the verdict. None: no such line.
    quarantine_line, review_line : str
        The lines in words, as in a plan; empty where there is none.
    basis : str
        From which measurement the lines come.
    """

    sanitizer: str
    quarantine: float | None
    review: float | None
    quarantine_line: str
    review_line: str
    basis: str


@dataclass
class ScoreSummary:
    """What drawing a line needs of all scores of a sanitizer, gathered shard by shard.

    At most about `SUMMARY_ROWS` rows are held, chosen by their salted ids, and the
    `SUMMARY_TOP` rows with the highest scores; counts are exact for all rows.
    """

    rows: int
    scored: int = 0
    abstained: int = 0
    _scores: list[NDArray[np.float64]] = field(default_factory=list)
    _p_values: list[NDArray[np.float64]] = field(default_factory=list)
    _top: NDArray[np.float64] = field(default_factory=lambda: np.empty((2, 0)))

    def add(
        self,
        scores: NDArray[np.float64],
        p_values: NDArray[np.float64],
        keys: NDArray[np.uint64],
        *,
        judged: bool = True,
    ) -> None:
        """Add the scores of a shard; NaN where null. All of shape (n,).

        Rows that are not `judged` have a part in drawing the line, and are not counted.
        """
        known = ~np.isnan(scores)
        if judged:
            self.scored += int(known.sum())
            self.abstained += int((~known).sum())
        if self.rows > SUMMARY_ROWS:
            top = np.column_stack([self._top, np.stack([scores[known], p_values[known]])])
            self._top = top[:, np.argsort(-top[0], kind="stable")[:SUMMARY_TOP]]
            known &= keys < np.uint64(int(2**64 * SUMMARY_ROWS / self.rows))
        self._scores.append(scores[known])
        self._p_values.append(p_values[known])

    @property
    def scores(self) -> NDArray[np.float64]:
        """The scores held, shape (m,)."""
        return np.concatenate(self._scores) if self._scores else np.empty(0)

    @property
    def p_values(self) -> NDArray[np.float64]:
        """Their p-values, NaN where unknown, shape (m,)."""
        return np.concatenate(self._p_values) if self._p_values else np.empty(0)

    @property
    def top(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The highest scores of all rows and their p-values; empty where all rows are held."""
        return self._top[0], self._top[1]


def draw(name: str, rule: Rule, summary: ScoreSummary) -> Threshold:
    """Draw the lines of a rule on the scores of a run.

    Parameters
    ----------
    name : str
        The sanitizer.
    rule : Rule
    summary : ScoreSummary
    """
    cuts: list[float | None] = []
    for line in (rule.quarantine, rule.review):
        if line is None or not len(summary.scores):
            cuts.append(None)
        else:
            cuts.append(max(_cut(c, summary) for c in line.conditions))
    return Threshold(
        name,
        cuts[0],
        cuts[1],
        str(rule.quarantine or ""),
        str(rule.review or ""),
        rule.basis,
    )


def _cut(condition: Condition, summary: ScoreSummary) -> float:
    """The score above which a row meets the condition."""
    value, scores = condition.value, summary.scores
    if condition.kind == "score":
        return value
    if condition.kind == "top":
        worst = int(value * len(scores) + 1e-9)
        return float(np.sort(scores)[len(scores) - 1 - worst])
    if condition.kind == "mad":
        middle, spread = robust_scale(scores)
        return middle + value * spread
    level = benjamini_hochberg(summary.p_values, value) if condition.kind == "fdr" else value
    # A p-value falls as its score rises, so the line is the worst score still innocent;
    # a row without a p-value is innocent. The highest scores of all rows are looked at
    # too: a row must not be found because its like is not among those held.
    scores = np.append(scores, summary.top[0])
    p = np.append(summary.p_values, summary.top[1])
    innocent = scores[~(p <= level)]
    return float(innocent.max()) if len(innocent) else float(np.nextafter(scores.min(), -np.inf))
