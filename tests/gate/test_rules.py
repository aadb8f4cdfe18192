from __future__ import annotations

import dataclasses
import functools
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.gate.baseline import load_baseline
from compress.gate.checks import Status
from compress.gate.judge import both_runs
from compress.gate.limits import Limit
from compress.gate.rules import place_ratio
from compress.gate.statistics import RatioInterval
from compress.results import Measurement
from tests.gate.samples import DEVICE, ENVIRONMENT, baseline_of, held, latency, memory, params

NO_SLOWER = Limit(metric="cpu_latency_ms", max_ratio=1.0, where="r.toml")


def test_one_parameter_more_than_the_baseline_is_a_regression(tmp_path):
    """What is exact has no tolerance."""
    baseline = baseline_of(tmp_path, params(100))
    assert held(params(101), baseline=baseline).status is Status.REGRESSED


def test_file_size_may_grow_by_its_tolerance(tmp_path):
    """Under other libraries half a percent more bytes is the container's doing; under the same ones nothing is."""
    newer = dataclasses.replace(ENVIRONMENT, torch="2.16.0")
    baseline = baseline_of(tmp_path, Measurement(metric="file_bytes", dense=2e6, compressed=1_000_000))
    grown = {size: Measurement(metric="file_bytes", dense=2e6, compressed=size) for size in (1_005_000, 1_005_001)}
    assert held(grown[1_005_000], baseline=baseline, environment=newer).status is Status.PASSED
    assert held(grown[1_005_000], baseline=baseline).status is Status.REGRESSED
    verdict = held(grown[1_005_001], baseline=baseline, environment=newer)
    assert verdict.status is Status.REGRESSED
    assert verdict.checks[0].text == (f"1,000,000 bytes + 0.5 % ({baseline.path}): exceeded by 5,001 bytes (+0.5 %)")


def test_improvement_says_that_the_baseline_is_stale(tmp_path):
    """A gain passes, but the old baseline would let it be lost again unseen."""
    baseline = baseline_of(tmp_path, params(4_089_523))
    verdict = held(params(4_000_000), baseline=baseline)
    assert verdict.status is Status.PASSED
    assert verdict.notes == ("baseline is stale: 4,000,000 against 4,089,523, record the gain with --benchmark-save",)


def test_memory_compares_within_its_class_of_device(tmp_path):
    """On the same class of device memory may grow by 5 %, no more."""
    baseline = baseline_of(tmp_path, memory(40_000_000))
    assert held(memory(41_900_000), baseline=baseline).status is Status.PASSED
    assert held(memory(42_100_000), baseline=baseline).status is Status.REGRESSED
    assert "stale" in held(memory(30_000_000), baseline=baseline).notes[0]


@given(value=st.integers(0, 10**9))
@settings(deadline=None, max_examples=30)
def test_memory_measured_again_to_the_byte_never_regresses(tmp_path_factory, value):
    """Rounding in the file makes no alarm, even where the tolerance is less than a KiB."""
    measured = Measurement(metric="cuda_peak_bytes", dense=value, compressed=value, device="cuda-sm90")
    baseline = baseline_of(tmp_path_factory.mktemp("memory"), measured)
    assert held(measured, baseline=baseline).status is Status.PASSED


@pytest.mark.parametrize(
    ("ratio", "status"), [(0.8, Status.PASSED), (1.0, Status.INCONCLUSIVE), (1.2, Status.REGRESSED)]
)
def test_time_has_three_outcomes_against_its_limit(ratio, status):
    """Only an interval wholly on one side of the bound decides."""
    assert held(latency(ratio, noise=0.03), limit=NO_SLOWER).status is status


@pytest.mark.parametrize(
    ("ratio", "status"), [(0.8, Status.PASSED), (0.82, Status.INCONCLUSIVE), (0.84, Status.REGRESSED)]
)
def test_time_has_three_outcomes_against_its_baseline(tmp_path, ratio, status):
    """The bound is the recorded ratio and half of the 5 % that must be found: 0.82 for 0.8."""
    baseline = baseline_of(tmp_path, latency(0.8, noise=0.0))
    assert held(latency(ratio, noise=0.02, seed=1), baseline=baseline).status is status


def test_an_uncertain_baseline_leaves_more_undecided(tmp_path):
    """What a baseline's own interval cannot tell apart from it is not called regressed."""
    now = latency(0.83, noise=0.004, seed=1)
    certain = baseline_of(tmp_path, latency(0.8, noise=0.0))
    assert held(now, baseline=certain).status is Status.REGRESSED
    uncertain = baseline_of(tmp_path, latency(0.8, noise=0.05))
    verdict = held(now, baseline=uncertain)
    assert verdict.status is Status.INCONCLUSIVE
    assert re.search(
        r"^baseline: x0\.\d{3} \(x0\.7\d\d to x0\.8\d\d\) \+ 2\.5 %, halfway to the 5 %", verdict.reasons[0]
    )


def test_a_baseline_without_its_interval_is_taken_at_its_word(tmp_path):
    """A ratio that was recorded without an interval is compared as if it were certain."""
    baseline = baseline_of(tmp_path, latency(0.8, noise=0.05))
    content = json.loads(baseline.path.read_text())
    del content["recipes"]["structured"]["cpu_latency_ms"][DEVICE]["ratio_interval"]
    baseline.path.write_text(json.dumps(content))
    assert held(latency(0.84, noise=0.004), baseline=load_baseline(baseline.path)).status is Status.REGRESSED


@pytest.mark.parametrize(
    ("ratios", "status"),
    [
        ((0.8, 0.8, 0.8), Status.PASSED),
        ((0.8, 0.8, 1.2), Status.INCONCLUSIVE),
        ((1.2, 1.2, 0.8), Status.INCONCLUSIVE),
        ((1.2, 1.2, 1.2), Status.REGRESSED),
    ],
)
def test_every_process_must_agree(ratios, status):
    """One process of three that disagrees keeps a verdict from either side, and is named in it."""
    runs = [latency(ratio, seed=seed) for seed, ratio in enumerate(ratios)]
    verdict = held(functools.reduce(both_runs, runs), limit=NO_SLOWER)
    assert verdict.status is status
    assert len(re.findall(r"x\d\.\d{3}", verdict.message().partition("3 processes: ")[2].partition(")")[0])) == 3
    if status is Status.INCONCLUSIVE:
        assert "undecided, 3 processes do not all lie on one side of it" in verdict.reasons[0]


def test_ratio_not_milliseconds_is_compared(tmp_path):
    """A machine twice as slow as when the baseline was recorded changes nothing."""
    baseline = baseline_of(tmp_path, latency(0.8))
    slow = latency(0.8, seed=2)
    pairs = tuple((2 * dense, 2 * compressed) for dense, compressed in slow.pairs)
    slow = dataclasses.replace(slow, dense=2 * slow.dense, compressed=2 * slow.compressed, pairs=pairs)
    assert held(slow, baseline=baseline).status is Status.PASSED


def test_faster_than_the_baseline_is_stale(tmp_path):
    """A gain in time beyond the tolerance is told."""
    baseline = baseline_of(tmp_path, latency(0.8))
    verdict = held(latency(0.6), baseline=baseline)
    assert verdict.status is Status.PASSED
    assert verdict.notes[0].startswith("baseline is stale: x0.6")


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        ([(0.9, 0.95), (0.8, 1.0)], Status.PASSED),
        ([(0.9, 0.95), (0.99, 1.01)], Status.INCONCLUSIVE),
        ([(1.01, 1.2), (0.99, 1.2)], Status.INCONCLUSIVE),
        ([(1.01, 1.2), (1.1, 1.2)], Status.REGRESSED),
    ],
)
def test_several_runs_must_agree(ends, status):
    """Of several runs all must lie beyond the bound to fail, and all within it to pass."""
    intervals = [RatioInterval(median=low, low=low, high=high, num_pairs=30) for low, high in ends]
    assert place_ratio(intervals, 1.0) is status
