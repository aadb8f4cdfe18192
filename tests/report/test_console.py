from __future__ import annotations

import pytest

from compress.report.console import fitted, trimmed, wrapped

LONG = "one two three four five six seven eight nine ten"


def test_a_paragraph_hangs_and_is_cut():
    """What follows the first line is indented, and what is cut off is said to be."""
    assert wrapped(LONG, width=20) == ["one two three four", "  five six seven ..."]
    assert wrapped("  int8: macs", width=20) == ["  int8: macs"]


def test_paragraphs_that_fit_are_whole():
    """Each is given as many lines as it needs, as long as all of them have room."""
    assert fitted([LONG, "short"], width=20, lines=5, last="end") == [
        ["one two three four", "  five six seven", "  eight nine ten"],
        ["short"],
        ["end"],
    ]


@pytest.mark.parametrize("lines", range(2, 12))
def test_paragraphs_take_no_more_lines_than_they_are_given(lines):
    """The first are cut to two lines, then the others are counted, and the last one always comes."""
    shown = fitted([LONG] * 9, width=20, lines=lines, last="end")
    assert sum(map(len, shown)) <= lines
    assert shown[-1] == ["end"]
    assert shown[-2] == [f"... and {9 - (len(shown) - 2)} more"]


def test_nothing_to_say_takes_no_line():
    """Neither paragraphs nor a last one are nothing at all."""
    assert fitted([], width=20, lines=3) == []


def test_trailing_blanks_are_cut():
    """A log that is compared line by line has none."""
    assert trimmed("a  \n\nb \n\n") == "a\n\nb\n"
