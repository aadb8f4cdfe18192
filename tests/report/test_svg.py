from __future__ import annotations

import xml.etree.ElementTree as ET

import hypothesis.strategies as st
import pytest
from hypothesis import given

from compress.report.svg import LogScale, Picture, Scale, as_file, element, log_scale_of, scale_of, write_ticks

NUMBERS = st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6)


def test_text_and_attributes_are_escaped():
    """Whatever stands in a name, it stays text."""
    written = element("text", {"x": 1.0, "class": 'a"b'}, "<script>&", element("title", None, "<"))
    assert written == '<text x="1" class="a&#34;b">&lt;script&gt;&amp;<title>&lt;</title></text>'


@given(st.lists(NUMBERS, min_size=1, max_size=6), st.integers(2, 8))
def test_ticks_lie_on_the_axis(values, count):
    """Few, round, rising, and within the axis, which holds every value."""
    scale = scale_of(values)
    ticks = scale.ticks(count)
    assert 1 <= len(ticks) <= count + 1
    assert ticks == sorted(set(ticks))
    slack = 1e-6 * (scale.high - scale.low) + 1e-11
    assert all(scale.low - slack <= tick <= scale.high + slack for tick in ticks)
    assert all(0 <= scale(value) <= 1 for value in values)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, ["0", "2", "4", "6", "8", "10"]),
        (0.61, 1.02, ["0.7", "0.8", "0.9", "1.0"]),
        (0, 0.012, ["0.0000", "0.0025", "0.0050", "0.0075", "0.0100"]),
        (-1, 1, ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
        (0, 4000, ["0", "1,000", "2,000", "3,000", "4,000"]),
    ],
)
def test_ticks_are_round_and_equally_long(low, high, expected):
    """As many decimals as their step needs, all alike."""
    assert write_ticks(Scale(low=low, high=high).ticks(5)) == expected


def test_an_axis_begins_no_lower_than_its_floor():
    """An error's axis does not begin below zero, however small the errors."""
    assert scale_of([0.1, 5.0], floor=0.0).low == 0.0
    assert scale_of([0.0], floor=0.0) == Scale(low=0.0, high=0.08)


@given(
    st.lists(st.just(0.0) | st.floats(1e-4, 100), min_size=2, max_size=8).filter(
        lambda values: max(values) > 10 * min(filter(None, values), default=100)
    ),
    st.integers(4, 8),
)
def test_a_logarithmic_axis_holds_every_value(values, count):
    """Greater values lie higher, zero at the low end; ticks are few, rising, on the axis, and named right."""
    scale = log_scale_of(values)
    places = [scale(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 <= place <= 1 for place in places)
    assert min(scale(value) for value in values if value) > 0, "zero is told from the least other value"
    ticks, names = zip(*scale.labelled(count), strict=True)
    assert 1 <= len(ticks) <= 2 * count + 1
    assert list(ticks) == sorted(set(ticks))
    assert all(scale.low <= tick <= scale.high for tick in ticks)
    written = [(tick, name) for tick, name in zip(ticks, names, strict=True) if name != "0"]
    assert all(float(name) == tick for tick, name in written)
    assert (names[0] == "0") == (0 in values)


@pytest.mark.parametrize(
    ("low", "high", "has_zero", "expected"),
    [
        (0.4, 90, False, ["0.5", "1", "2", "5", "10", "20", "50"]),
        (0.4, 90, True, ["0", "1", "2", "5", "10", "20", "50"]),
        (1, 12, False, ["1", "2", "5", "10"]),
        (0.0008, 110, False, ["0.001", "0.01", "0.1", "1", "10", "100"]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_those_people_count_in(low, high, has_zero, expected):
    """1, 2 and 5 of every power of ten, over many of them the powers alone; none so near to zero that names collide."""
    assert [name for _, name in LogScale(low=low, high=high, has_zero=has_zero).labelled(5)] == expected


def test_a_file_stands_for_itself():
    """Well-formed, with its size, its colours for light and dark, and no reference to anything elsewhere."""
    picture = Picture(content=[element("circle", {"cx": "50%", "cy": 5, "r": 2})], height=40, left=10, words="a dot")
    text = as_file([picture.placed(x=0, y=0, width=100)], width=100, height=50)
    root = ET.fromstring(text)  # noqa: S314 - written just now
    assert root.attrib["viewBox"] == "0 0 100 50"
    assert "prefers-color-scheme: dark" in text
    assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    inner = root.find("{http://www.w3.org/2000/svg}svg")
    assert inner is not None
    assert (inner.attrib["x"], inner.attrib["width"]) == ("10", "90")


def test_a_picture_says_what_it_shows():
    """On a page it is an image with a description, as wide as its place less the room around it."""
    written = Picture(content=[], height=40, left=10, right=5, words='"a" < b').__html__()
    assert 'role="img" aria-label="&#34;a&#34; &lt; b"' in written
    assert "width:calc(100% - 15px)" in written
