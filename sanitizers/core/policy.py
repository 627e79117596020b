"""From evidence to verdicts: the only home of thresholds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sanitizers.core.calibration import benjamini_hochberg
from sanitizers.core.errors import PlanError
from sanitizers.core.sanitizer import Sanitizer

KEEP, REVIEW, QUARANTINE = "keep", "review", "quarantine"
VERDICTS = (KEEP, REVIEW, QUARANTINE)

#: Why a row is not kept: one entry per sanitizer whose line it crossed.
REASON = pa.struct(
    [
        ("sanitizer", pa.string()),
        ("score", pa.float64()),
        ("p_value", pa.float64()),
        ("threshold", pa.float64()),
        ("message", pa.string()),
    ]
)
#: One row per row of a shard, in its order; `reasons` is empty where the verdict is keep.
VERDICT_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("verdict", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        pa.field("reasons", pa.list_(REASON), nullable=False),
    ]
)

#: Rows whose scores are held in memory to draw a line, at most.
SUMMARY_ROWS = 1_000_000

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
        return cls(match[1], value)

    def __str__(self) -> str:
        if self.kind == "top":
            return f"top {100 * self.value:g}%"
        return f"{self.kind} {_OPERATOR[self.kind]} {self.value:g}"


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

    At most about `SUMMARY_ROWS` rows are held, chosen by their salted ids; counts are
    exact for all rows.
    """

    rows: int
    scored: int = 0
    abstained: int = 0
    _scores: list[NDArray[np.float64]] = field(default_factory=list)
    _p_values: list[NDArray[np.float64]] = field(default_factory=list)

    def add(
        self,
        scores: NDArray[np.float64],
        p_values: NDArray[np.float64],
        keys: NDArray[np.uint64],
    ) -> None:
        """Add the scores of a shard; NaN where null. All of shape (n,)."""
        known = ~np.isnan(scores)
        self.scored += int(known.sum())
        self.abstained += int((~known).sum())
        if self.rows > SUMMARY_ROWS:
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


def draw(name: str, rule: Rule, summary: ScoreSummary) -> Threshold:
    """Draw the lines of a rule on the scores of a run.

    Parameters
    ----------
    name : str
        The sanitizer.
    rule : Rule
    summary : ScoreSummary
    """
    scores, p_values = summary.scores, summary.p_values
    cuts: list[float | None] = []
    for line in (rule.quarantine, rule.review):
        if line is None or not len(scores):
            cuts.append(None)
        else:
            cuts.append(max(_cut(c, scores, p_values) for c in line.conditions))
    return Threshold(
        name,
        cuts[0],
        cuts[1],
        str(rule.quarantine or ""),
        str(rule.review or ""),
        rule.basis,
    )


def _cut(condition: Condition, scores: NDArray[np.float64], p: NDArray[np.float64]) -> float:
    """The score above which a row meets the condition."""
    value = condition.value
    if condition.kind == "score":
        return value
    if condition.kind == "top":
        return float(np.quantile(scores, 1 - value, method="higher"))
    if condition.kind == "mad":
        middle = float(np.median(scores))
        return middle + value * 1.4826 * float(np.median(np.abs(scores - middle)))
    if np.isnan(p).all():
        return float(scores.max())
    level = benjamini_hochberg(p, value) if condition.kind == "fdr" else value
    # A p-value falls as its score rises, so the line is the worst score still innocent.
    innocent = scores[~(p <= level)]
    return float(innocent.max()) if len(innocent) else float(np.nextafter(scores.min(), -np.inf))


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
    """

    clean_loss: float = 0.01
    budget: float = 0.20
    rules: Mapping[str, Rule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (("clean_loss", self.clean_loss), ("budget", self.budget)):
            if not 0 < value <= 1:
                raise PlanError(f"policy.{name} is {value!r}", expected="a share in (0, 1]")

    def rule(self, name: str, *, trusted: bool) -> Rule:
        """The rule of a sanitizer: the plan's where it has one, else the default.

        Parameters
        ----------
        name : str
            The sanitizer.
        trusted : bool
            Whether p-values come from trusted rows.
        """
        return self.rules.get(name) or default_rule(name, self.clean_loss, trusted=trusted)


#: How much of the clean rows that may be lost each sanitizer may take.
SHARES: Mapping[str, float] = {
    "outliers": 0.3,
    "micro-votes": 0.2,
    "micro-concentration": 0.2,
    "labels": 0.3,
}
#: Without trusted rows: (score, mean share of clean rows above it) on clean real tables.
#: Measured by ``python -m benchmarks.lines`` on the tuning half of the tables.
CLEAN_ABOVE: Mapping[str, tuple[tuple[float, float], ...]] = {
    "outliers": (
        (3.5, 0.0201),
        (4.0, 0.0121),
        (4.5, 0.0072),
        (5.0, 0.0044),
        (5.5, 0.0026),
        (6.0, 0.0016),
        (7.0, 0.00062),
        (8.0, 0.00014),
        (10.0, 0.00001),
    ),
    "micro-votes": (
        (3.5, 0.0072),
        (4.0, 0.0037),
        (5.0, 0.0019),
        (6.0, 0.0010),
        (7.0, 0.00045),
        (8.0, 0.00024),
        (10.0, 0.00001),
    ),
    "micro-concentration": (
        (3.5, 0.0077),
        (4.0, 0.0047),
        (4.5, 0.0031),
        (5.0, 0.0021),
        (5.5, 0.0016),
        (6.0, 0.0011),
        (7.0, 0.00057),
        (8.0, 0.00027),
        (10.0, 0.00009),
    ),
}
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
    share = SHARES.get(name, 0.1) * clean_loss
    wide = min(REVIEW_FACTOR * share, 0.5)
    if name == "labels":
        return Rule(
            Line((Condition("p", share), Condition("fdr", 0.1))),
            Line((Condition("p", wide), Condition("fdr", 0.3))),
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
        f"measured on clean real tables: {share:.2%} of clean rows score higher, on average",
    )


def _score_at(name: str, share: float) -> float:
    scores, above = np.array(CLEAN_ABOVE[name]).T
    # The curve falls roughly exponentially, so it is straight in the logarithm.
    at = np.interp(-np.log(share), -np.log(above), scores)
    return float(np.ceil(at * 100) / 100)


def judge(
    evidence: Mapping[str, pa.Table],
    thresholds: Mapping[str, Threshold],
    recipes: Mapping[str, Sanitizer],
    trusted: NDArray[np.bool_],
) -> pa.Table:
    """Give every row of a shard its verdict, the worst over all sanitizers.

    Parameters
    ----------
    evidence : mapping of str to pyarrow.Table
        For each sanitizer its evidence on the shard, all in the same order.
    thresholds : mapping of str to Threshold
    recipes : mapping of str to Sanitizer
        They say what a score means.
    trusted : ndarray of bool, shape (n,)
        Rows that a person vouches for: always kept.

    Returns
    -------
    pyarrow.Table
        `VERDICT_SCHEMA`, one row per row, in the same order.
    """
    worst = np.zeros(len(trusted), dtype=np.int8)
    rows: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    reasons: list[pa.Array] = []
    for name, table in evidence.items():
        level = _levels(table, thresholds[name])
        level[trusted] = 0
        over = np.flatnonzero(level)
        worst = np.maximum(worst, level)
        rows.append(over)
        reasons.append(_reasons(name, table, over, level, thresholds[name], recipes[name]))
    where = np.concatenate(rows)
    order = np.argsort(where, kind="stable")
    offsets = np.searchsorted(where[order], np.arange(len(trusted) + 1))
    stacked = pa.chunked_array(reasons, type=REASON).take(pa.array(order)).combine_chunks()
    listed = pa.ListArray.from_arrays(pa.array(offsets, type=pa.int32()), stacked)
    words = pa.DictionaryArray.from_arrays(pa.array(worst), pa.array(VERDICTS))
    ids = next(iter(evidence.values())).column("row_id")
    return pa.table([ids, words, listed], schema=VERDICT_SCHEMA)


def _levels(table: pa.Table, threshold: Threshold) -> NDArray[np.int8]:
    """0 keep, 1 review, 2 quarantine for every row by one sanitizer."""
    scores = table.column("score").to_numpy(zero_copy_only=False).astype(np.float64)
    level = np.zeros(len(scores), dtype=np.int8)
    for verdict, cut in ((1, threshold.review), (2, threshold.quarantine)):
        if cut is not None:
            level[scores > cut] = verdict
    return level


def _reasons(
    name: str,
    table: pa.Table,
    over: NDArray[np.int64],
    level: NDArray[np.int8],
    threshold: Threshold,
    recipe: Sanitizer,
) -> pa.Array:
    found = table.take(pa.array(over))
    scores = found.column("score").to_pylist()
    hints = found.column("hint").cast(pa.string()).to_pylist()
    cuts = [threshold.quarantine if level[row] == 2 else threshold.review for row in over]
    return pa.StructArray.from_arrays(
        [
            pa.array([name] * len(over), type=pa.string()),
            pa.array(scores, type=pa.float64()),
            found.column("p_value").combine_chunks().cast(pa.float64()),
            pa.array(cuts, type=pa.float64()),
            pa.array(
                [recipe.reason(s, h) for s, h in zip(scores, hints, strict=True)], type=pa.string()
            ),
        ],
        fields=list(REASON),
    )
