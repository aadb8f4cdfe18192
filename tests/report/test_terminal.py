from __future__ import annotations

import re

import pytest

from compress.report.table import Cell, Row, Table, build_table
from compress.report.terminal import render_terminal
from tests.gate.samples import ENVIRONMENT
from tests.report.samples import verdicts

NARROW = """\
compared with the same model in baselines/digits.json, counts and bytes held
exactly

criterion                  dense   structured
------------------------------------------------------------------------
parameters             6,402,564   4,089,523 (-36.1 %)  ok
top-1 error               2.00 %      3.20 % (+1.20 pt) inconclusive [1]
runtime memory, CPU      58.7 MB   not run
time per image, CPU      5.00 ms     4.10 ms (x0.78)    ok
time per image, CUDA               NOT MEASURED [4]

criterion                  dense   int8
-------------------------------------------------------------------
parameters             6,402,564   not run
top-1 error               2.00 %    2.10 % (+0.10 pt) ok
runtime memory, CPU      58.7 MB   47.0 MB (-19.9 %)  not gated [2]
time per image, CPU      5.00 ms   6.00 ms (x1.20)    REGRESSED [3]
time per image, CUDA               NOT MEASURED [4]

workload: digits
environment: Python 3.11.9, torch 2.15.0, Test CPU (cpu-avx2-1t)
verdicts: 1 REGRESSED, 2 NOT MEASURED, 1 inconclusive, 3 ok, 1 not gated, 2 not
run
[1] inconclusive: top-1 error (structured): limit: at most dense + 1.00 pt =
3.00 % (r.toml): +1.20 pt, 32 lost and 20 gained of 1,000 examples, p = 0.063:
beyond the margin, but chance may explain it; 1,000 examples cannot tell it from
chance: the minimum detectable effect at 5.2 % flips is 1.79 pt
[2] not gated: runtime memory, CPU (int8): held against nothing, only reported:
there is no limit, and no baseline to compare with
[3] REGRESSED: time per image, CPU (int8): limit: at most 1 x dense (r.toml):
exceeded, all of the interval lies above it
[4] NOT MEASURED: time per image, CUDA (structured, int8): there is no CUDA
device
"""

WIDE = """\
compared with the same model in baselines/digits.json, counts and bytes held exactly

criterion                  dense   structured                              int8
-----------------------------------------------------------------------------------------------------------
parameters             6,402,564   4,089,523 (-36.1 %)  ok                 not run
top-1 error               2.00 %      3.20 % (+1.20 pt) inconclusive [1]    2.10 % (+0.10 pt) ok
runtime memory, CPU      58.7 MB   not run                                 47.0 MB (-19.9 %)  not gated [2]
time per image, CPU      5.00 ms     4.10 ms (x0.78)    ok                 6.00 ms (x1.20)    REGRESSED [3]
time per image, CUDA               NOT MEASURED [4]                        NOT MEASURED [4]
"""


@pytest.fixture
def table(tmp_path):
    """A table with every outcome."""
    return build_table(verdicts(tmp_path), workload="digits", environment=ENVIRONMENT)


def test_eighty_columns(table):
    """Recipes that do not fit beside one another stand below one another, criterion and dense model repeated."""
    assert render_terminal(table) == NARROW


def test_wide(table):
    """Where there is room all recipes stand side by side."""
    assert render_terminal(table, width=120).startswith(WIDE)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(table, width):
    """Whatever the width, nothing is cut off by the terminal, no mark is lost, and all is ASCII."""
    text = render_terminal(table, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert text.isascii()
    assert len(re.findall(r"REGRESSED\s+\[3\]", text)) == 1


def test_colour_adds_escapes_and_nothing_else(table):
    """With colours the same text comes, with ANSI escapes around the marks."""
    colored = render_terminal(table, color=True)
    assert "\x1b[1;31mREGRESSED [3]\x1b[0m" in colored
    plain = re.sub(r"\x1b\[[0-9;]*m", "", colored)
    assert [line.rstrip() for line in plain.splitlines()] == render_terminal(table).splitlines()


def test_environment_variables_change_nothing(table, monkeypatch):
    """The same verdicts give the same text wherever they are rendered."""
    expected = render_terminal(table)
    for name, value in {"COLUMNS": "33", "NO_COLOR": "1", "FORCE_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    assert render_terminal(table) == expected


def test_text_is_never_markup():
    """Brackets in a recipe's name are no style."""
    row = Row(title="parameters", dense="2", cells=(Cell(value="1", change="", mark="ok"),))
    assert "[red]" in render_terminal(Table(recipes=("[red]",), rows=(row,)))


def test_empty_table():
    """Without verdicts the head stands alone."""
    assert render_terminal(Table(recipes=(), rows=())) == "criterion   dense\n-----------------\n"
