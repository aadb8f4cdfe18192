"""Messages are compared whole: they are what a reader of a failed build sees."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from compress.gate.judge import judge
from compress.gate.limits import Limit
from compress.results import Measurement
from tests.gate.samples import DEVICE, baseline_of, held, latency, memory, params, top1

NODE = "benchmarks/test_size.py::test_size[structured]"
RECIPE = "recipes/structured.toml"


@pytest.fixture
def baseline(tmp_path):
    """A baseline of each kind, under a short path."""
    constant = ((5.0, 4.0),) * 10
    times = Measurement(metric="cpu_latency_ms", dense=5.0, compressed=4.0, device=DEVICE, pairs=constant)
    read = baseline_of(tmp_path, params(), memory(), times, top1([], range(10)))
    return dataclasses.replace(read, path=Path("baselines/digits.json"))


def test_regression_of_both_sides(baseline):
    """Values, both bounds, and what to run or change."""
    limit = Limit(metric="num_params", max_ratio=0.65, where=RECIPE)
    verdict = held(params(4_300_000), limit=limit, baseline=baseline)
    assert (
        verdict.message(NODE)
        == """\
num_params of recipe 'structured' REGRESSED, compared with the same model

  parameters  4,300,000, dense 6,402,564, -32.8 %
  limit       at most 0.65 x dense = 4,161,666 (recipes/structured.toml): exceeded by 138,334
  baseline    4,089,523 (baselines/digits.json): exceeded by 210,477 (+5.1 %)

To look further, run: pytest 'benchmarks/test_size.py::test_size[structured]' --benchmark-compare --compress-partial
To accept it on purpose, change the limit of num_params in recipes/structured.toml
To make it the new baseline, run: pytest 'benchmarks/test_size.py::test_size[structured]' \
--benchmark-save=digits and review the change of baselines/digits.json"""
    )


def test_undecided_time(baseline):
    """The interval is shown with its pairs, and what it takes to decide."""
    pairs = ((5.0, 4.0), (5.0, 5.5)) * 10
    times = Measurement(metric="cpu_latency_ms", dense=5.0, compressed=4.75, device=DEVICE, pairs=pairs)
    limit = Limit(metric="cpu_latency_ms", max_ratio=1.0, where=RECIPE)
    verdict = held(times, limit=limit, baseline=baseline)
    assert (
        verdict.message()
        == """\
cpu_latency_ms of recipe 'structured' is INCONCLUSIVE, compared with the same model

  time per image, CPU  4.75 ms, dense 5.00 ms, x0.938 (99 % interval x0.800 to x1.100, 20 pairs), on cpu-avx2-1t
  limit                at most 1 x dense (recipes/structured.toml): undecided, the interval reaches across it
  baseline             x0.800 + 2.5 %, halfway to the 5 % that must be found (baselines/digits.json): \
undecided, the interval reaches across it

To look further, run: pytest benchmarks -k structured --benchmark-compare --compress-partial
To decide it takes more pairs or a quieter machine"""
    )


def test_undecided_error():
    """An error that chance explains asks for more examples."""
    limit = Limit(metric="top1_error", max_increase=0.01, where=RECIPE)
    verdict = judge(top1(range(20), range(20, 50)), recipe="structured", limit=limit)
    assert (
        verdict.message()
        == """\
top1_error of recipe 'structured' is INCONCLUSIVE

  top-1 error  6.00 %, dense 4.00 %, +2.00 pt
  limit        at most dense + 1.00 pt = 5.00 % (recipes/structured.toml): +2.00 pt, 30 lost and 20 gained of \
500 examples, p = 0.1: beyond the margin, but chance may explain it
  note         500 examples cannot tell it from chance: the minimum detectable effect at 10.0 % flips is 3.52 pt

To look further, run: pytest benchmarks -k structured
To decide it takes more test examples"""
    )


def test_unmeasured():
    """A missing value says why, and how to see it again."""
    missing = Measurement(metric="cuda_latency_ms", unmeasured="there is no CUDA device")
    verdict = judge(missing, recipe="a b")
    assert (
        verdict.message()
        == """\
cuda_latency_ms of recipe 'a b' was NOT MEASURED

  time per image, CUDA  no value
  measurement           there is no CUDA device

To look further, run: pytest benchmarks -k 'a b'"""
    )


def test_passed(baseline):
    """A pass needs no advice, but its notes are kept; bytes are spelled out."""
    verdict = held(memory(40_000_000), baseline=baseline)
    assert (
        verdict.message(NODE)
        == """\
cpu_peak_bytes of recipe 'structured' passed, compared with the same model

  runtime memory, CPU  40.0 MB (40,000,000 bytes), dense 58.7 MB (58,660,000 bytes), -31.8 %, on cpu-avx2-1t
  baseline             46,980,096 bytes + 5 % (baselines/digits.json): held
  note                 baseline is stale: 40,000,000 bytes against 46,980,096 bytes, record the gain with \
--benchmark-save"""
    )


def test_one_model_without_value():
    """The value that there is is shown."""
    verdict = judge(Measurement(metric="macs", dense=1000.0), recipe="structured")
    assert "  MACs per image  no value, dense 1,000\n" in verdict.message()


def test_limit_without_file_is_found_by_its_recipe():
    """A limit made in code has no file; the recipe's name stands for it."""
    limit = Limit(metric="num_params", max_ratio=0.5)
    verdict = judge(params(), recipe="structured", limit=limit)
    assert "To accept it on purpose, change the limit of num_params in recipe 'structured'" in verdict.message()


def test_time_far_beyond_its_baseline(baseline):
    """A decided time offers to become the new baseline."""
    verdict = held(latency(0.95), baseline=baseline)
    said = verdict.message()
    assert "x0.800 + 2.5 %, halfway to the 5 % that must be found (baselines/digits.json): exceeded, all of the" in said
    assert "--benchmark-save=digits" in verdict.message()
