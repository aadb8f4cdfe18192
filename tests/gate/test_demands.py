from __future__ import annotations

import pytest

from compress.errors import ConfigError
from compress.gate.checks import Side, Status
from compress.gate.demands import Excuse, Gap, Rules, demand_comparison, describe, missing, parse_excuse
from compress.gate.limits import Limit
from compress.results import METRICS
from tests.gate.samples import baseline_of, held, memory, params

MEMORY = Gap(why="w", metric="cpu_peak_bytes", recipe="half", test="b/test_m.py::test_memory[half]")


@pytest.mark.parametrize(
    ("text", "covers"),
    [
        ("cpu_peak_bytes", True),
        ("cpu_peak_bytes:half", True),
        ("cpu_peak_bytes:other", False),
        ("num_params", False),
        ("b/test_m.py::test_memory", True),
        ("b/test_m.py::test_memory[half]", True),
        ("b/test_m.py::test_memory[other]", False),
        ("b/test_m.py::test_mem", False),
    ],
)
def test_an_excuse_covers_what_it_names(text, covers):
    """A metric of any recipe, of one recipe, or a test of any recipe or of one; never more."""
    assert parse_excuse(text).covers(MEMORY) is covers
    rules = Rules(excuses=(parse_excuse(text),))
    assert (rules.excuse(MEMORY) is not None) is covers


def test_an_excuse_of_nothing_known_is_refused():
    """A name that is mistyped would excuse nothing and look as if it did."""
    with pytest.raises(ConfigError, match=r"'cpu_peak' is unknown, .*\(excuse 'cpu_peak:half'\)"):
        parse_excuse("cpu_peak:half", METRICS)
    assert parse_excuse("macs", METRICS) == Excuse(text="macs", metric="macs")


def test_a_verdict_that_was_compared_stays_as_it_is(tmp_path):
    """Rules are for what was not."""
    verdict = held(params(), baseline=baseline_of(tmp_path, params()))
    assert demand_comparison(verdict, Rules(require_baseline=True)) is verdict
    reported = held(params())
    assert demand_comparison(reported, Rules(require_baseline=True)) is reported, "no comparison was asked for"


@pytest.mark.parametrize(
    ("max_ratio", "required", "status"),
    [
        (None, False, Status.NOT_MEASURED),
        (0.9, False, Status.PASSED),
        (0.9, True, Status.NOT_MEASURED),
        (0.1, True, Status.REGRESSED),
    ],
)
def test_without_a_baseline_of_this_device_a_limit_may_be_enough(tmp_path, max_ratio, required, status):
    """Held against nothing is not measured; a broken limit weighs more than a missing baseline."""
    limit = None if max_ratio is None else Limit(metric="cpu_peak_bytes", max_ratio=max_ratio)
    verdict = held(memory(), limit=limit, baseline=baseline_of(tmp_path, memory(device="cpu-other-1t")))
    demanded = demand_comparison(verdict, Rules(require_baseline=required))
    assert demanded.status is status
    if status is Status.NOT_MEASURED:
        assert demanded.checks[-1].side is Side.BASELINE
        assert "not for cpu-avx2-1t but 47.0 MB on cpu-other-1t: not compared; record it" in demanded.reasons[-1]


def test_what_is_guarded_and_was_not_measured_is_missing(tmp_path):
    """By the baseline or by a limit, of the recipes that the run is confined to, in the order of the metrics."""
    baseline = baseline_of(tmp_path, params(), memory())
    verdicts = [held(params())]
    limits = {"structured": ("macs", "num_params", "cuda_peak_bytes")}
    found = missing(verdicts, limits=limits, baseline=baseline, recipes=None, cuda=False)
    assert [gap.metric for gap in found] == ["macs", "cpu_peak_bytes"]
    assert found[1].why == f"it stands in {baseline.path}, and no test measured it"
    with_cuda = missing(verdicts, limits=limits, baseline=baseline, recipes=None, cuda=True)
    assert [gap.metric for gap in with_cuda] == ["macs", "cpu_peak_bytes", "cuda_peak_bytes"]
    assert missing([], limits={}, baseline=baseline, recipes=["other"], cuda=True) == []
    assert missing([], limits={}, baseline=None, recipes=None, cuda=True) == []


def test_gaps_of_one_reason_are_one_line():
    """Metrics of a recipe stand together, and tests, and recipes of which the same is missing."""
    gaps = [
        Gap(why="w", metric="macs", recipe="half"),
        MEMORY,
        Gap(why="w", metric="macs", recipe="other"),
        Gap(why="did not run", test="t.py::test_a"),
        Gap(why="did not run", test="t.py::test_b"),
        Gap(why="none", recipe="third"),
        Gap(why="nothing"),
        Gap(why="nobody has macs of 'a'", metric="macs", recipe="a"),
        Gap(why="nobody has macs of 'b'", metric="macs", recipe="b"),
    ]
    assert describe(gaps) == [
        "macs, cpu_peak_bytes of half: w",
        "macs of other: w",
        "t.py::test_a, t.py::test_b: did not run",
        "recipe third: none",
        "this run: nothing",
        "macs of a, b: nobody has it",
    ]
    assert describe(gaps[3:5] * 2 + [Gap(why="did not run", test=name) for name in "cde"], most=2) == [
        "t.py::test_a, t.py::test_b and 3 more: did not run"
    ]
