from __future__ import annotations

import dataclasses

from compress.report.pareto import Candidate, Failure, Sweep
from compress.report.sweep_table import render_sweep_markdown, render_sweep_terminal, sweep_lines


def model(recipe, error, time, size, **settings):
    """A model with a million parameters."""
    return Candidate(
        recipe=recipe, quality=error, file_bytes=size, num_params=1e6, latency_ratio=time, settings=settings
    )


SWEEP = Sweep(
    workload="digits",
    data_sha256="0" * 64,
    device="cpu-avx2-1t",
    num_examples=500,
    dense=model("dense", 0.016, 1.0, 25e6),
    candidates=(
        model("cut", 0.018, 0.8, 16e6),
        model("cut", 0.05, 0.9, 17e6, ratio=0.1),
        model("cut", 0.014, 0.7, 12e6, ratio=0.4),
        model("cut", 0.1, 0.3, 5e6, ratio=0.7),
    ),
    failures=(Failure(recipe="cut", settings={"ratio": 0.99}, reason="no channel is left"),),
)

MARKDOWN = """\
| model          |        top-1 error |   time | file size | parameters |                |
| -------------- | -----------------: | -----: | --------: | ---------: | -------------- |
| dense          |             1.60 % | x1.000 |   25.0 MB |  1,000,000 | dense, beaten  |
| cut: ratio=0.4 |  1.40 % (-0.20 pt) | x0.700 |   12.0 MB |  1,000,000 |                |
| cut: ratio=0.7 | 10.00 % (+8.40 pt) | x0.300 |    5.0 MB |  1,000,000 |                |
| cut            |  1.80 % (+0.20 pt) | x0.800 |   16.0 MB |  1,000,000 | recipe, beaten |
| cut: ratio=0.1 |  5.00 % (+3.40 pt) | x0.900 |   17.0 MB |  1,000,000 | beaten         |

- workload: digits, 500 test examples
- time: compressed / dense, called in turn, on cpu-avx2-1t
- beaten: another model is no worse in error, time and size, and better in one of them
- failed: cut: ratio=0.99: no channel is left
"""


def test_the_best_come_first():
    """After the dense model those that none beats, by their error, then the others."""
    assert render_sweep_markdown(SWEEP) == MARKDOWN


def test_the_terminal_shows_the_same():
    """Without colours in plain characters, within the width; with them the beaten ones are dim."""
    text = render_sweep_terminal(SWEEP, width=100, color=False)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 100
    for line in sweep_lines(SWEEP):
        assert all(cell in text for cell in line.cells)
    assert "\x1b[2m" in render_sweep_terminal(SWEEP, width=100, color=True)
    assert "failed: cut: ratio=0.99: no channel is left" in text


def test_a_setting_is_never_markup():
    """Brackets in a name are text to the terminal."""
    odd = dataclasses.replace(SWEEP, candidates=(model("[red]x", 0.1, 0.5, 1e6),))
    assert "[red]x" in render_sweep_terminal(odd, width=100, color=True)


def test_who_is_still_at_it_is_said():
    """Results collected while another process still runs say so."""
    text = render_sweep_markdown(dataclasses.replace(SWEEP, running=("process 7 on there",)))
    assert text.endswith("- still being tried: one by process 7 on there\n")
