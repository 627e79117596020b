"""The figures beside the promise are those of the benchmarks, and stand only where they apply."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sanitizers.core.consensus import CONSENSUS
from sanitizers.core.lines import Line, Rule, Threshold
from sanitizers.core.policy import SHARES, SUM, Policy
from sanitizers.core.promise import MEASURED, Measured, Promise, promise

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
WITHOUT, WITH = MEASURED
RAN = ("outliers", "labels")


def line(name: str, quarantine: str = "score > 9", review: str = "score > 6") -> Threshold:
    return Threshold(name, 9.0, 6.0, quarantine, review, "")


def made(*names: str, policy: Policy | None = None, **more: object) -> Promise:
    given = {"rows": 10_000, "trusted": False, **more}
    return promise(policy or Policy(), [line(n) for n in names], **given)  # type: ignore[arg-type]


# ------------------------------------------------------------------ the figures


def measured_without() -> tuple[list[float], tuple[str, ...]]:
    tables = json.loads((RESULTS / "clean.json").read_bytes()).values()
    shares = [t["counts"]["quarantine"] / t["counts"]["rows"] for t in tables]
    names = [check["sanitizer"] for t in tables for check in t["checks"]]
    return shares, tuple(dict.fromkeys(name for name in names if name in SHARES))


def measured_with() -> tuple[list[float], tuple[str, ...]]:
    rows = json.loads((RESULTS / "trusted.json").read_bytes())
    shares = [row[1] for row in rows if row[0] not in {"mean", "worst"}]
    (head,) = [
        text
        for text in (RESULTS / "trusted.md").read_text().splitlines()
        if text.startswith("| table ")
    ][:1]
    columns = [cell.strip().removesuffix(" %") for cell in head.strip("|").split("|")]
    return shares, tuple(name for name in columns if name in SHARES)


@pytest.mark.parametrize("measured", MEASURED, ids=["clean", "trusted"])
def test_the_figures_are_those_of_the_benchmarks(measured: Measured) -> None:
    shares, names = measured_with() if measured == WITH else measured_without()
    figures = {
        "mean": round(sum(shares) / len(shares), 4),
        "worst": round(max(shares), 4),
        "tables": len(shares),
        "sanitizers": names,
    }
    file = "trusted" if measured == WITH else "clean"
    here = {name: getattr(measured, name) for name in figures}
    assert here == figures, (
        f"benchmarks/results/{file}.json was measured anew: in sanitizers/core/promise.py, MEASURED"
        f"[{MEASURED.index(measured)}], write "
        + ", ".join(f"{n}={v!r}" for n, v in figures.items() if here[n] != v)
    )


def test_the_measurements_keep_the_promise_on_the_mean() -> None:
    assert all(m.mean <= Policy().clean_loss for m in MEASURED)
    assert all(m.mean <= m.worst for m in MEASURED)
    assert [m.trusted for m in MEASURED] == [False, True]


# ------------------------------------------------------------------ where they stand


def test_the_default_stands_beside_its_measurement() -> None:
    said = made(*RAN)
    assert (said.clean_loss, said.most, said.note) == (0.01, 100, "")
    assert said.measured == MEASURED
    assert said.expected == round(WITHOUT.mean * 10_000)
    assert said.shares == {name: pytest.approx(SHARES[name] * 0.01) for name in RAN}


def test_with_trusted_rows_their_measurement_comes_first() -> None:
    said = made(*RAN, trusted=True)
    assert said.measured == (WITH, WITHOUT)
    assert said.expected == round(WITH.mean * 10_000)


def test_fewer_sanitizers_are_no_other_policy_and_exact_ones_take_no_share() -> None:
    said = made("labels", "conflicts")
    assert said.measured == MEASURED
    assert said.note == ""
    assert list(said.shares) == ["labels"]


RULE = Rule(Line.parse("score > 3"), None)


@pytest.mark.parametrize(
    ("policy", "more", "note"),
    [
        (Policy(clean_loss=0.005), {}, "clean_loss of 1 %, and this one is 0.5 %"),
        (Policy(rules={"outliers": RULE}), {}, "the plan sets lines of outliers"),
        (Policy(consensus=SUM), {"trusted": True}, "judged by their sum"),
        (Policy(), {"settings": {"labels": {}}}, "the plan has settings of labels"),
    ],
)
def test_another_policy_stands_alone(policy: Policy, more: dict[str, object], note: str) -> None:
    said = made(*RAN, policy=policy, **more)
    assert (said.measured, said.expected) == ((), None)
    assert note in said.note


def test_lines_and_settings_of_sanitizers_that_did_not_run_do_not_matter() -> None:
    policy = Policy(rules={"regression": RULE}, budget=0.5)
    assert made(*RAN, policy=policy, settings={"regression": {}}).measured == MEASURED


def test_sanitizers_that_were_not_measured_are_named() -> None:
    said = made(*RAN, "micro-concentration", "mine:Own")
    assert said.note == "measured without micro-concentration and mine:Own, which ran here too"
    assert said.measured == MEASURED
    alone = made("regression")
    assert (alone.measured, alone.note) == ((), "no clean tables were measured with regression")
    assert made().note == "no sanitizer ran"


def test_the_sum_may_take_what_those_may_that_it_sums() -> None:
    lines = [line("outliers", "", ""), line("labels"), line("micro-votes", "", ""), line(CONSENSUS)]
    said = promise(Policy(consensus=SUM), lines, rows=100, trusted=True)
    both = 0.01 * (SHARES["outliers"] + SHARES["micro-votes"])
    assert said.shares == pytest.approx({"labels": 0.01 * SHARES["labels"], CONSENSUS: both})


def test_a_sanitizer_that_holds_nothing_takes_no_share() -> None:
    """As one whose finds do no harm: it has a line for review, and none for quarantine."""
    said = promise(Policy(), [line("outliers"), line("regression", "")], rows=100, trusted=False)
    assert list(said.shares) == ["outliers"]


def test_a_line_set_in_the_plan_takes_no_share() -> None:
    assert set(made(*RAN, policy=Policy(rules={"outliers": RULE})).shares) == set(RAN[1:])


@pytest.mark.parametrize(("rows", "most"), [(0, 0), (99, 0), (100, 1), (6_435, 64)])
def test_the_promise_in_rows_is_rounded_down(rows: int, most: int) -> None:
    assert made(*RAN, rows=rows).most == most


def test_where_only_exact_lines_are_drawn_no_measurement_stands_beside() -> None:
    for names in (("conflicts",), ("backdoors",), ("conflicts", "backdoors")):
        alone = made(*names)
        assert (alone.measured, alone.expected, alone.shares) == ((), None, {})
        assert all(name in alone.note for name in names)


def test_a_measurement_of_tables_says_nothing_of_embeddings() -> None:
    told = made(*RAN, vectors=True)
    assert (told.measured, told.expected) == ((), None)
    assert told.note == "the measurement is of tables, and here sanitizers judge by an embedding"
    assert made(*RAN, vectors=False).measured == MEASURED
