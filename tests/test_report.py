"""The report says what happened, in plain words, and nothing that rows want it to say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.alarms import Alarms, Cut, SliceCount
from pipelines.manifest import Counts
from pipelines.report import MAX_BYTES, prose, render, write_report
from pipelines.report_data import gather
from pipelines.report_facts import Previous, RunFacts, SanitizerCard
from pipelines.report_text import (
    Text,
    cut,
    line_in_words,
    probability,
    sentence,
    share,
    spelled,
    visible,
)
from sanitizers.core.data import Roles
from sanitizers.core.policy import Policy
from sanitizers.core.promise import MEASURED, Promise, promise
from sanitizers.risks import ALARM
from tests.report_run import make_run

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    "</style><script>alert(1)</script>",
    "</title><iframe src=javascript:alert(1)>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "<!-- --><b onclick=x>",
    "&lt;script&gt;&#60;script&#62;",
    "a\u202eevil\u202c\u2066b\u200bc\ufeff",
    "line\nbreak\ttab\x00nul\x1b[31mred",
    "\x7f\x85\u2028\u2029\U000e0041",
    "<" * 300,
)
TAGS = """
html head meta title style body main header nav section article figure figcaption h1 h2 h3 p a
strong small span bdi i br code pre ol li dl dt dd div table thead tbody tr th td details summary
svg rect path text
"""
ATTRIBUTES = """
lang charset http-equiv content name id class href aria-label aria-hidden role colspan
viewbox preserveaspectratio x y width height d
"""


class Page(HTMLParser):
    """The elements of a page, and its text without what was spelled out."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.parts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.parts).split())


def page(facts: RunFacts) -> str:
    return render(gather(facts))


def text(facts: RunFacts) -> str:
    return Page(page(facts)).text


@pytest.fixture
def facts(tmp_path: Path) -> RunFacts:
    return make_run(tmp_path, unreadable=["1,2,3", "4"])


def told(names: Sequence[str]) -> tuple[Alarms, Promise]:
    """Alarms and a promise in which everything that could have a name has one of these."""
    # Times are never texts of the data: they are written by us.
    times = tuple(SliceCount(str(i), str(i + 1), 5, 1, 1, ALARM) for i in range(3))
    sources = tuple(SliceCount(name, name, 5, 1, 1, ALARM) for name in names)
    cuts = {"time": Cut(names[0], times, 0, 0.1), "source": Cut(names[1], sources, 0, 0.1)}
    other = replace(MEASURED[0], command=names[1])
    note = Promise(0.01, 3, dict.fromkeys(names, 0.1), (other,), 1, names[0])
    return Alarms(cuts, ()), note


@pytest.fixture
def hostile(tmp_path: Path) -> RunFacts:
    made = make_run(
        tmp_path,
        texts=HOSTILE,
        columns=HOSTILE,
        files=HOSTILE[:3],
        unreadable=HOSTILE,
        held=HOSTILE[0],
        version=None,
    )
    cards = {n: SanitizerCard(*[HOSTILE[i] for i in (0, 1, 2)]) for n in made.cards}
    alarms, promised = told(HOSTILE)
    return replace(
        made,
        alarms=alarms,
        promise=promised,
        roles_notes=HOSTILE,
        plan={HOSTILE[0]: {HOSTILE[1]: list(HOSTILE)}},
        not_run=[(h, h) for h in HOSTILE],
        cards=cards,
        skipped={"outliers": [(h, h) for h in HOSTILE]},
        release=HOSTILE[1],
        created=HOSTILE[0],
        run=HOSTILE[1],
        tool_version=HOSTILE[2],
        previous=Previous(HOSTILE[0], Counts(1, 1, 0, 0, 0)),
    )


def test_a_published_run_says_so_with_counts_that_add_up(facts: RunFacts) -> None:
    said, counts = text(facts), facts.decision
    assert "Published as version 1.2.0." in said
    assert f"Of {counts.rows:,} rows, {counts.keep:,} (" in said
    assert f"{counts.review:,} ({share(counts.review, counts.rows)}) wait for a person" in said
    assert "2 of them because they could not be read" in said
    assert counts.keep + counts.review + counts.quarantine == counts.rows


def test_a_held_run_says_why_and_what_to_do(tmp_path: Path) -> None:
    said = text(make_run(tmp_path, held="45 of 100 rows would be quarantined", version=None))
    assert "Held. Nothing was published." in said
    assert "45 of 100 rows would be quarantined." in said
    assert "raise --budget" in said
    assert "would be kept" in said
    assert "sanitize verify" not in said


def test_each_sanitizer_is_told_with_its_line_and_its_measurement(facts: RunFacts) -> None:
    said = text(facts)
    assert "when the score is above 9 ( score > 9 )" in said
    assert "fewer than 0.2 % of clean rows are expected to score this high" in said
    assert "Default, measured on five clean tables without trusted rows." in said
    assert "Injected rows that resemble nothing in the data" in said
    assert "covered by micro-concentration )" in said


def test_the_worst_row_is_told_with_its_place_and_its_values(facts: RunFacts) -> None:
    row = gather(facts).sections[0].worst[0]
    said = text(facts)
    assert f"{row.row_id.text} {row.file.text} , row {row.row}" in said
    assert row.sentence.text
    assert " ".join(row.sentence.text.split()) in said


def test_what_was_not_seen_is_told(facts: RunFacts) -> None:
    said = text(facts)
    assert "No trusted rows: the weaker mode" in said
    assert "micro-concentration did not run No column has the role time or source." in said
    assert "1 column without a role" in said


def test_trusted_rows_are_told(tmp_path: Path) -> None:
    said = text(make_run(tmp_path, trusted_rows=300))
    assert "300 rows that a person vouches for were used." in said
    assert "weaker mode" not in said


def test_the_promise_stands_beside_its_measurement(facts: RunFacts) -> None:
    lines = list(facts.decision.thresholds)
    rows = facts.ingested.rows
    said = text(replace(facts, promise=promise(Policy(), lines, rows=rows, trusted=False)))
    assert (
        "At most 1 % of the clean rows, over all sanitizers together: 3 of these 300 rows" in said
    )
    measured = MEASURED[0]
    mean, worst = f"{100 * measured.mean:.3g} %", f"{100 * measured.worst:.3g} %"
    assert f"Without trusted rows: {mean} on the mean of {measured.tables} clean" in said
    assert f"and {worst} on the worst, by python -m benchmarks.clean ." in said
    assert f"With trusted rows: {100 * MEASURED[1].mean:.3g} %" in said
    assert f"About {round(300 * measured.mean)} of these 300 rows in quarantine" in said
    assert "May lose" in said


def test_without_a_measurement_the_promise_stands_alone_and_says_why(facts: RunFacts) -> None:
    policy = Policy(clean_loss=0.005)
    lines = facts.decision.thresholds
    said = text(replace(facts, promise=promise(policy, lines, rows=300, trusted=False)))
    assert "At most 0.5 % of the clean rows" in said
    assert "No measurement stands beside this promise: the measurement is of a clean_loss" in said
    assert "on the mean of" not in said
    assert "Expected" not in said


def test_slices_of_time_and_sources_in_alarm_are_shown(facts: RunFacts) -> None:
    days = [
        SliceCount(f"2024-01-{i + 1:02d}", f"2024-01-{i + 1:02d}", 15, 0, 1, "") for i in range(20)
    ]
    days[4] = replace(days[4], quarantine=9, severity="alarm")
    source = SliceCount("low", "low", 60, 0, 20, "warning")
    found = Alarms(
        {"time": Cut("at", tuple(days), 0, 0.066), "source": Cut("from", (source,), 4, 0.0)}, ()
    )
    said, html = text(replace(facts, alarms=found)), page(replace(facts, alarms=found))
    assert "In the median slice 6.6 % of the rows are in quarantine" in said
    assert html.count('class="b"') == 1
    assert "low warning 5" in said or "low warning 6" in said
    calm = Alarms({"time": Cut("at", (SliceCount("a", "b", 9, 0, 0, ""),), 0, 0.0)}, ())
    assert "In the median slice" not in text(replace(facts, alarms=calm))
    assert "In the median slice" not in text(facts)


def test_provenance(facts: RunFacts) -> None:
    said = text(facts)
    for part in ("ab" * 32, "0123456789abcdef", "ef" * 8, "cd" * 32, "dataset-sanitizer 0.1.0"):
        assert part in said
    assert "sanitize verify store/loans/releases/1.2.0" in said
    assert "sanitize explain loans ROW_ID" in said
    assert "policy.clean_loss 0.01" in said


def test_the_release_before_is_told(facts: RunFacts) -> None:
    before = Previous("1.1.0", Counts(200, 190, 6, 4, 0))
    said = text(replace(facts, previous=before))
    assert "The release before this one, 1.1.0, had 200 rows: 190 kept" in said


def test_a_run_without_roles_rows_or_sanitizers_has_a_report(tmp_path: Path) -> None:
    made = make_run(tmp_path, rows=0, roles=Roles())
    bare = replace(made, evidence={}, cards={}, not_run=(("labels", "no column has a role"),))
    said = text(replace(bare, decision=replace(made.decision, found={}, thresholds=())))
    assert "No sanitizer ran on this data." in said
    assert "Of 0 rows, 0 (0 %) were kept" in said


def test_rows_put_no_element_and_no_attribute_into_the_page(hostile: RunFacts) -> None:
    found = Page(page(hostile))
    assert set(found.tags) <= set(TAGS.split())
    assert {name for _, name, _ in found.attributes} <= set(ATTRIBUTES.split())
    assert all(v.startswith("#") for _, name, v in found.attributes if name == "href")
    assert {tag for tag, name, _ in found.attributes if name == "href"} == {"a"}


def test_hostile_values_make_the_same_page_as_calm_ones(hostile: RunFacts, tmp_path: Path) -> None:
    def shape(html: str) -> list[str]:
        return [tag for tag in Page(html).tags if tag != "i"]

    calm = make_run(
        tmp_path / "calm",
        texts=[f"t{i:02}" for i in range(len(HOSTILE))],
        columns=[f"c{i:02}" for i in range(len(HOSTILE))],
        files=("a", "b", "c"),
        unreadable=["raw"] * len(HOSTILE),
        held="why",
        version=None,
    )
    words = ["word"] * len(HOSTILE)
    alarms, promised = told([f"t{i:02}" for i in range(len(HOSTILE))])
    calm = replace(
        calm,
        alarms=alarms,
        promise=promised,
        cards={n: SanitizerCard("s", "t", "b") for n in calm.cards},
        roles_notes=words,
        plan={"a": {"b": words}},
        not_run=[(w, w) for w in words],
        skipped={"outliers": [(f"c{i:02}", f"why{i}") for i in range(len(HOSTILE))]},
        release="somewhere",
        previous=Previous("1.0.0", Counts(1, 1, 0, 0, 0)),
    )
    assert shape(page(hostile)) == shape(page(calm))


def test_no_hidden_character_reaches_the_page(hostile: RunFacts) -> None:
    html = page(hostile)
    assert not re.search(
        "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]", html
    )
    assert "<i>U+202E</i>" in html
    assert "<i>U+1B</i>" not in html
    assert "<i>U+001B</i>" in html
    assert "<i>\\n</i>" in html


def test_nothing_is_loaded_from_anywhere(hostile: RunFacts) -> None:
    html = page(hostile)
    style = html.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in html
    assert html.index("Content-Security-Policy") < html.index("<title>")


def test_the_same_run_gives_the_same_bytes(facts: RunFacts, tmp_path: Path) -> None:
    assert page(facts) == page(facts)
    other = page(replace(facts, created="2027-01-01T00:00:00+00:00"))
    assert other.replace("2027-01-01T00:00:00", "2026-01-02T03:04:05") == page(facts)


def test_huge_and_hostile_rows_stay_under_the_limit(tmp_path: Path) -> None:
    texts = ["\u202e<" * 5_000, "&" * 10_000, "\U000e0041\x00" * 5_000]
    columns = [f"{i}" + '"<' * 500 for i in range(60)]
    html = page(make_run(tmp_path, texts=texts, columns=columns, files=texts, unreadable=texts * 9))
    assert len(html.encode()) <= MAX_BYTES


def test_a_page_that_would_be_too_large_shows_fewer_rows(
    facts: RunFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = page(facts)
    monkeypatch.setattr("pipelines.report.MAX_BYTES", len(whole.encode()) - 1)
    less = page(facts)
    assert len(less) < len(whole)
    assert "Fewer rows than usual are shown" in less


def test_write_report_writes_the_page_whole(facts: RunFacts, tmp_path: Path) -> None:
    given_facts = {name: getattr(facts, name) for name in facts.__dataclass_fields__}
    path = write_report(tmp_path / "report.html", **given_facts)
    assert path.read_text() == page(facts)
    assert [p.name for p in tmp_path.iterdir() if "report" in p.name] == ["report.html"]


def test_the_card_comes_from_the_docstring() -> None:
    class Made:
        """What the score
        says.

        Threat: rows that
        somebody made.

        Blind spots: all others.

        Parameters
        ----------
        none
        """

    expected = SanitizerCard("What the score says.", "rows that somebody made.", "all others.")
    assert SanitizerCard.of(Made) == SanitizerCard.of(Made()) == expected
    assert SanitizerCard.of(object()).threat == ""


def _without_spelled(html: str) -> Iterator[str]:
    for part in re.split(r"<i>[^<]*</i>", html):
        yield from Page(f"<p>{part}</p>").parts


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_what_is_shown_is_the_text_without_what_hides(value: str) -> None:
    shown = "".join(_without_spelled(visible(value)))
    kept = iter(value)
    assert all(character in kept for character in shown)  # in this order
    assert all(c.isprintable() or c.isspace() for c in shown)
    if value.isascii() and value.isprintable() and value:
        assert shown == value


@pytest.mark.parametrize(
    ("value", "html"),
    [
        (None, "<i>missing</i>"),
        ("", "<i>empty</i>"),
        ("a&b", "a&amp;b"),
        ("\x00" * 40 + "x", "<i>U+0000 ×40</i>x"),
        ("a\u0335\u0336\u0337\u0338b", "a\u0335\u0336\u0337<i>U+0338</i>b"),
        ("\u3164", "<i>U+3164</i>"),
        (cut("abcd", 2), "ab <i>… 2 more characters</i>"),
        (Text("\ud800"), "<i>U+D800</i>"),
    ],
)
def test_visible(value: Text | str | None, html: str) -> None:
    assert visible(value) == html


def test_spelled_is_plain_text() -> None:
    assert spelled("<b>\u202e") == "<b>U+202E"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("score > 0.5", "the score is above 0.5"),
        ("p <= 0.002", "fewer than 0.2 % of clean rows are expected to score this high"),
        ("fdr <= 0.1", "at most 10 % of the rows found are expected to be clean"),
        ("top 0.3%", "the row is among the worst 0.3 % of all rows"),
        ("no line at all", "no line at all"),
    ],
)
def test_lines_in_words(line: str, words: str) -> None:
    assert line_in_words(line) == words


def test_lines_of_two_conditions_name_both() -> None:
    words = line_in_words("fdr <= 0.1 and score > 2")
    assert words.endswith("expected to be clean, and the score is above 2")


@pytest.mark.parametrize(
    ("part", "whole", "written"),
    [
        (0, 0, "0 %"),
        (0, 5, "0 %"),
        (5, 5, "100 %"),
        (1, 10**6, "< 0.01 %"),
        (10**6 - 1, 10**6, "> 99.99 %"),
        (1, 3, "33.3 %"),
        (1, 100, "1.00 %"),
    ],
)
def test_shares_never_hide_a_row(part: int, whole: int, written: str) -> None:
    assert share(part, whole) == written


def test_small_words() -> None:
    assert probability(None) == "unknown"
    assert probability(0.0) == "< 1e-300"
    assert prose("<b> use `a<b` or ``c``, <i>") == (
        "&lt;b&gt; use <code>a&lt;b</code> or <code>c</code>, &lt;i&gt;"
    )
    assert sentence("one thing") == "One thing."
    assert sentence("Two things!") == "Two things!"
    assert sentence("") == ""
