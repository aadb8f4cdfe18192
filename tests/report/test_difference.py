from __future__ import annotations

from pathlib import Path

import pytest

from compress.gate.baseline import Entry
from compress.gate.difference import compare_baselines
from compress.report.difference import diff_markdown, diff_terminal
from tests.gate.entries import baseline, latency, memory, params, top1
from tests.gate.samples import DEVICE


@pytest.fixture
def difference():
    """One entry of every trend."""
    gone = Entry(metric="macs", dense=9, compressed=8)
    before = baseline(params(4_089_523), memory(50_000), latency(0.80), top1([1, 2]), gone, path=Path("a.json"))
    new = Entry(metric="file_bytes", dense=9, compressed=16_201_060)
    same = Entry(metric="num_nonzero_params", dense=9, compressed=7)
    after = baseline(params(4_000_000), memory(50_500), latency(0.88), top1(range(2, 9)), new, path=Path("b.json"))
    for file in (before, after):
        file.recipes["structured"]["num_nonzero_params"] = {"": same}
    return compare_baselines(before, after)


def test_markdown_marks_what_is_worse_and_what_is_better(difference):
    """Each entry that changed has a row with both values and a word; what is the same has none."""
    assert (
        diff_markdown(difference)
        == f"""\
| recipe     | criterion           | device      |           before |            after | change                     | \
                 |
| ---------- | ------------------- | ----------- | ---------------: | ---------------: | -------------------------- | \
---------------- |
| structured | parameters          |             |        4,089,523 |        4,000,000 | -2.2 %                     | \
better           |
| structured | MACs per image      |             |                8 |                  |                            | \
GONE             |
| structured | file size           |             |                  | 16,201,060 bytes |                            | \
new              |
| structured | top-1 error         |             |           0.40 % |           1.40 % | +1.00 pt, 6 lost, 1 gained | \
WORSE            |
| structured | runtime memory, CPU | {DEVICE} |     50,000 bytes |     50,500 bytes | +1.0 %                     | \
within tolerance |
| structured | time per image, CPU | {DEVICE} | x0.800 (4.00 ms) | x0.880 (4.00 ms) | +10.0 %                    | \
WORSE            |

- a.json -> b.json: 2 WORSE, 1 GONE, 1 better, 1 new, 1 within tolerance, 1 same
"""
    )


def test_what_is_the_same_is_shown_on_request(difference):
    """Everything is one row more, here and there."""
    assert diff_markdown(difference, everything=True).count("\n| structured") == 7
    assert "non-zero parameters" in diff_terminal(difference, everything=True, width=160)
    assert "non-zero parameters" not in diff_terminal(difference, width=160)


def test_a_terminal_shows_the_same_in_plain_ascii(difference):
    """Without colour there is no escape, and no line is wider than the terminal."""
    assert max(map(len, diff_terminal(difference, width=60).splitlines())) <= 60
    text = diff_terminal(difference, width=160)
    assert text.isascii()
    assert "\x1b" not in text
    for part in ("x0.800 (4.00 ms)", "+1.00 pt, 6 lost, 1 gained", "WORSE", "GONE", "better", "new"):
        assert part in text
    assert "\x1b[1;31mWORSE" in diff_terminal(difference, width=160, color=True)


def test_two_equal_files_have_no_table():
    """Nothing changed is one line."""
    file = baseline(params(5), path=Path("a.json"))
    assert diff_markdown(compare_baselines(file, file)) == "- a.json -> a.json: 1 same\n"
    assert diff_terminal(compare_baselines(file, file)) == "a.json -> a.json: 1 same\n"


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (params(50, dense=100), params(50, dense=90), "dense model only"),
        (latency(0.8, compressed=4.0), latency(0.8, compressed=8.0), "no change of the ratio"),
        (params(0), params(1), "from 0"),
    ],
)
def test_a_change_that_is_no_percentage_has_words(before, after, change):
    """A quotient of nothing, and a change that the gate does not look at."""
    assert change in diff_markdown(compare_baselines(baseline(before), baseline(after)))
