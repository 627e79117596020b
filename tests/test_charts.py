"""Charts are well-formed, name what they show, and draw each bar on its side of the lines."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree as ET

import pytest

from pipelines.charts import Histogram, TimeBins, histogram_chart, meter, share_bar, time_chart
from pipelines.slice_chart import MISSING, SliceBar, slice_chart

EVEN = Histogram((0.0, 1.0, 2.0, 3.0), (1000, 10, 1))
FAR = Histogram((-1e9, 0.0, 1.0, 5.0, 1e12), (3, 1000, 10, 1), centre=0.5, unit=1.0)
BINS = TimeBins((0.0, 86400.0, 172800.0), (10, 0), (1, 0), (2, 5), True)


def bars(svg: str) -> list[ET.Element]:
    return list(ET.fromstring(svg).iter("rect"))


def texts(svg: str) -> list[str]:
    return [e.text or "" for e in ET.fromstring(svg).iter("text")]


def number(bar: ET.Element, name: str) -> float:
    return float(bar.attrib[name])


def test_bars_take_the_colour_of_their_side_of_the_lines() -> None:
    drawn = bars(histogram_chart(EVEN, 1.0, 2.0, "s"))
    assert [b.attrib["class"] for b in drawn] == ["k", "r", "q"]


def test_without_lines_no_bar_is_coloured() -> None:
    svg = histogram_chart(EVEN, None, None, "s")
    assert {b.attrib["class"] for b in bars(svg)} == {"k"}
    assert not any("above" in t for t in texts(svg))


def test_each_bar_says_its_range_and_its_count() -> None:
    titles = [b.findtext("title") for b in bars(histogram_chart(EVEN, None, None, "s"))]
    assert titles[0] == "score 0 to 1: 1,000 rows"


def test_one_row_is_seen_beside_a_thousand() -> None:
    heights = [number(b, "height") for b in bars(histogram_chart(EVEN, None, None, "s"))]
    assert heights[0] > heights[1] > heights[2] > 5


@pytest.mark.parametrize("data", [EVEN, FAR])
def test_bars_stay_inside_the_chart_and_do_not_overlap(data: Histogram) -> None:
    drawn = bars(histogram_chart(data, None, None, "s"))
    ends = [number(b, "x") + number(b, "width") for b in drawn]
    assert all(x <= 640 for x in ends)
    assert all(e <= number(b, "x") + 0.5 for e, b in zip(ends, drawn[1:], strict=False))


def test_a_far_tail_leaves_room_for_the_middle() -> None:
    drawn = bars(histogram_chart(FAR, None, None, "s"))
    assert number(drawn[2], "width") > 10


@pytest.mark.parametrize("data", [EVEN, FAR])
def test_place_and_value_are_inverse(data: Histogram) -> None:
    for score in data.edges:
        assert data.value(data.place(score)) == pytest.approx(score, rel=1e-9, abs=1e-9)


def test_a_line_beyond_the_edge_is_told_not_drawn() -> None:
    svg = histogram_chart(EVEN, None, 1e300, "s")
    assert any("beyond the right edge" in t for t in texts(svg))
    assert 'class="l"' not in svg


def test_a_line_below_all_scores_is_drawn_at_the_left() -> None:
    svg = histogram_chart(EVEN, None, -1e300, "s")
    assert 'class="l"' in svg
    assert {b.attrib["class"] for b in bars(svg)} == {"q"}


@pytest.mark.parametrize("edges", [(-0.5, 0.5), (1e-300, 2e-300), (-1e150, 1e150), (1e9, 1e9 + 1)])
def test_any_range_can_be_drawn(edges: tuple[float, float]) -> None:
    svg = histogram_chart(Histogram(edges, (1,)), None, None, "s")
    assert "nan" not in svg
    assert "inf" not in svg
    assert len(bars(svg)) == 1


def test_time_chart_counts_and_dates() -> None:
    svg = time_chart(BINS, "at")
    titles = [b.findtext("title") for b in bars(svg)]
    assert "1970-01-01 to 1970-01-02: 2 quarantine, 1 review, 10 keep" in titles
    assert "1970-01-02 to 1970-01-03: 5 quarantine, 0 review, 0 keep" in titles
    assert "100 %" in texts(svg)


def test_a_time_no_calendar_has_is_a_number() -> None:
    bins = TimeBins((1e18, 2e18), (1,), (0,), (0,), True)
    assert "1e+18" in time_chart(bins, "at")


def test_a_timeline_without_findings_is_flat() -> None:
    svg = time_chart(TimeBins((0.0, 1.0), (4,), (0,), (0,), False), "at")
    assert {b.attrib["class"] for b in bars(svg)} == {"k"}


def test_the_share_bar_keeps_a_sliver_for_one_row_of_a_million() -> None:
    drawn = bars(share_bar(999_999, 0, 1))
    assert [b.attrib["class"] for b in drawn] == ["k", "q"]
    assert number(drawn[1], "width") >= 1
    assert number(drawn[1], "x") + number(drawn[1], "width") <= 640


@pytest.mark.parametrize(("part", "width"), [(0.0, 0), (1e-9, 1), (0.25, 50), (0.5, 100)])
def test_the_meter_is_as_long_as_its_share_of_the_largest(part: float, width: float) -> None:
    assert number(bars(meter(part, 0.5, "q"))[1], "width") == width


def test_names_are_escaped_and_spelled_out() -> None:
    hostile = '"><script>alert(1)</script>\u202e\x00'
    for svg in (histogram_chart(EVEN, 1.0, 2.0, hostile), time_chart(BINS, hostile)):
        root = ET.fromstring(svg)
        assert not list(root.iter("script"))
        assert "\u202e" not in svg
        assert "U+202E" in root.attrib["aria-label"]
        assert root.findtext("title") == root.attrib["aria-label"]


def test_every_chart_says_what_it_is() -> None:
    for svg in (histogram_chart(EVEN, 1.0, 2.0, "s"), time_chart(BINS, "at"), share_bar(1, 1, 1)):
        root = ET.fromstring(svg)
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"]


def slices(*severities: str) -> list[SliceBar]:
    return [
        SliceBar(f"2024-01-{i + 1:02d}", f"2024-01-{i + 1:02d}", 100, 2, 30 if s else 1, s)
        for i, s in enumerate(severities)
    ]


def brackets(svg: str) -> list[ET.Element]:
    return [e for e in ET.fromstring(svg).iter("path") if e.attrib["class"] == "b"]


def test_a_slice_says_its_span_and_its_counts() -> None:
    (first, *_) = bars(slice_chart(slices("", "", ""), "day"))
    assert first.attrib["class"] == "q"
    assert first.findtext("title") == ("2024-01-01: 1 quarantine (1.00 %), 2 review, of 100 rows")


def test_neighbours_in_alarm_have_one_bracket_and_a_word() -> None:
    svg = slice_chart(slices("", "alarm", "alarm", "", "warning"), "day")
    assert len(brackets(svg)) == 2
    assert [t for t in texts(svg) if t in {"alarm", "warning"}] == ["alarm", "warning"]
    calm = slice_chart(slices("", "", ""), "day")
    assert not brackets(calm)
    assert "alarm" not in texts(calm)


def test_words_over_brackets_and_days_below_find_room() -> None:
    times = [f"2024-01-{i + 1:02d} 00:00:05" for i in range(20)]
    every = [SliceBar(t, t, 9, 0, 3, "alarm" if i % 2 else "") for i, t in enumerate(times)]
    every.append(SliceBar(MISSING, "", 9, 0, 3, "alarm"))
    svg = slice_chart(every, "at")
    assert len(brackets(svg)) == 11
    for mark, apart in (("c w", 60), ("c", 90)):
        found = [e for e in ET.fromstring(svg).iter("text") if e.attrib["class"] == mark]
        places = sorted(number(e, "x") for e in found)
        assert min(b - a for a, b in itertools.pairwise(places)) >= apart
    assert "2024-01-01" in texts(svg)
    assert MISSING in texts(svg)
    hours = [SliceBar(f"2024-01-01 {i:02d}:00:00", "", 9, 0, 3, "") for i in range(20)]
    assert "00:00:00" in texts(slice_chart(hours, "at"))


def test_rows_without_a_time_have_a_bracket_of_their_own() -> None:
    every = [*slices("", "alarm"), SliceBar(MISSING, "", 50, 0, 40, "alarm")]
    svg = slice_chart(every, "day")
    assert len(brackets(svg)) == 2
    assert any("no time: 40 quarantine" in (b.findtext("title") or "") for b in bars(svg))


@pytest.mark.parametrize("count", [1, 2, 20, 21])
def test_slices_are_as_high_as_their_share_and_stay_inside(count: int) -> None:
    every = [SliceBar(f"{i}", f"{i}", 10 * (i + 1), i, i + 1, "") for i in range(count)]
    drawn = [b for b in bars(slice_chart(every, "t")) if b.attrib["class"] == "q"]
    assert all(number(b, "x") >= 54 and number(b, "x") + number(b, "width") <= 628 for b in drawn)
    heights = [number(b, "height") for b in drawn]
    assert max(heights) - min(heights) < 0.2
    assert len(drawn) == count


def test_hostile_times_are_spelled_out_in_the_chart_of_slices() -> None:
    bad = '<script>\u202e"'
    svg = slice_chart([SliceBar(bad, bad + "x", 3, 1, 1, "alarm")], bad)
    assert not list(ET.fromstring(svg).iter("script"))
    assert "\u202e" not in svg
