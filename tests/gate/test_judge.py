from __future__ import annotations

import pytest

from compress.errors import ConfigError
from compress.gate.checks import Side, Status
from compress.gate.judge import judge
from compress.gate.limits import Limit
from compress.results import METRICS, Measurement
from tests.gate.samples import DEVICE, baseline_of, held, latency, memory, params, top1

RATIO = Limit(metric="num_params", max_ratio=0.65, where="r.toml")
NO_SLOWER = Limit(metric="cpu_latency_ms", max_ratio=1.0, where="r.toml")


def statuses(verdict):
    """Each side's status."""
    return {check.side: check.status for check in verdict.checks}


def test_both_sides_must_hold(tmp_path):
    """A count passes only within its limit and its baseline; either alone fails it."""
    baseline = baseline_of(tmp_path, params(4_089_523))
    assert held(params(4_089_523), limit=RATIO, baseline=baseline).status is Status.PASSED
    worse = held(params(4_100_000), limit=RATIO, baseline=baseline)
    assert statuses(worse) == {Side.LIMIT: Status.PASSED, Side.BASELINE: Status.REGRESSED}
    assert worse.status is Status.REGRESSED
    bad_baseline = baseline_of(tmp_path / "bad", params(6_000_000))
    broken = held(params(5_000_000), limit=RATIO, baseline=bad_baseline)
    assert statuses(broken) == {Side.LIMIT: Status.REGRESSED, Side.BASELINE: Status.PASSED}
    assert broken.status is Status.REGRESSED


def test_another_class_of_device_is_information_only(tmp_path):
    """Another machine's figures are shown and not compared; the limit still holds."""
    baseline = baseline_of(tmp_path, memory(1_000), latency(0.7, device="cpu-avx512-2t"))
    limit = Limit(metric="cpu_peak_bytes", max_ratio=0.5)
    verdict = held(memory(46_980_000, device="cpu-other"), limit=limit, baseline=baseline)
    assert statuses(verdict) == {Side.LIMIT: Status.REGRESSED}
    assert verdict.notes == (
        f"{baseline.path} has cpu_peak_bytes of 'structured' not for cpu-other but 1.0 kB on {DEVICE}: not compared",
    )
    times = held(latency(0.9), limit=NO_SLOWER, baseline=baseline)
    assert statuses(times) == {Side.LIMIT: Status.PASSED}
    assert " but x0.70" in times.notes[0]
    assert times.notes[0].endswith("on cpu-avx512-2t: not compared")


def test_device_metric_without_any_entry_is_not_gated(tmp_path):
    """Where no machine recorded it, it is reported only, and that is said."""
    baseline = baseline_of(tmp_path, params())
    verdict = held(memory(), baseline=baseline)
    assert (verdict.status, verdict.gated) == (Status.PASSED, False)
    assert verdict.notes == (
        f"{baseline.path} has no cpu_peak_bytes of 'structured' for any class of device: not compared",
    )


def test_missing_baseline_entry_is_not_measured(tmp_path):
    """A new metric does not pass because nobody recorded it."""
    baseline = baseline_of(tmp_path, memory())
    verdict = held(params(), limit=RATIO, baseline=baseline)
    assert statuses(verdict) == {Side.LIMIT: Status.PASSED, Side.BASELINE: Status.NOT_MEASURED}
    assert verdict.reasons == (
        f"no baseline entry for num_params of 'structured' in {baseline.path}; record it with --benchmark-save",
    )
    assert held(params(), baseline=baseline, recipe="new").status is Status.NOT_MEASURED


def test_other_test_data_is_not_measured(tmp_path):
    """Against a baseline of other test data nothing can be said, times included."""
    baseline = baseline_of(tmp_path, params(), latency())
    said = (
        f"{baseline.path} was recorded on other test data (sha256 0123456789ab, now ffffffffffff); "
        "record it again with --benchmark-save"
    )
    for measurement in (params(), latency()):
        verdict = judge(measurement, recipe="structured", baseline=baseline, data_sha256="f" * 64)
        assert (verdict.status, verdict.reasons) == (Status.NOT_MEASURED, (said,))
    unknown = judge(params(), recipe="structured", baseline=baseline)
    assert "now unknown" in unknown.reasons[0]


def test_other_number_of_examples_is_not_measured(tmp_path):
    """Half of the test data is not the test data."""
    baseline = baseline_of(tmp_path, top1([], [1]))
    verdict = held(top1([], [1], n=400), baseline=baseline)
    assert verdict.reasons == (
        f"{baseline.path} was recorded on 500 examples, now 400; record it again with --benchmark-save",
    )


def test_broken_limit_outweighs_a_missing_entry(tmp_path):
    """What is known to be worse is called so, even where something else is unknown."""
    baseline = baseline_of(tmp_path, memory())
    verdict = held(params(6_000_000), limit=RATIO, baseline=baseline)
    assert verdict.status is Status.REGRESSED
    assert len(verdict.reasons) == 2


def test_missing_entry_outweighs_an_undecided_limit(tmp_path):
    """What is missing fails, what is undecided may be measured again."""
    baseline = baseline_of(tmp_path, params())
    undecided = held(latency(1.0, noise=0.03), limit=NO_SLOWER, baseline=baseline)
    assert undecided.status is Status.INCONCLUSIVE
    other = judge(latency(1.0, noise=0.03), recipe="x", limit=NO_SLOWER, baseline=baseline, data_sha256="0")
    assert other.status is Status.NOT_MEASURED


def test_held_against_nothing_is_only_reported():
    """Without limit and baseline there is a value, and no claim that it passed anything."""
    verdict = held(params())
    assert (verdict.status, verdict.gated, verdict.reasons) == (Status.PASSED, False, ())
    assert verdict.notes == ("held against nothing, only reported: there is no limit, and no baseline to compare with",)


def test_a_limit_of_other_classes_of_device_is_not_held():
    """What it would forbid there is no regression here, and it is said that nothing was held."""
    limit = Limit(metric="cpu_latency_ms", max_ratio=0.8, devices=("cpu-amx*",))
    here, there = held(latency(1.2), limit=limit), held(latency(1.2, device="cpu-amx_int8-1t"), limit=limit)
    assert (here.status, here.gated) == (Status.PASSED, False)
    assert f"its limit is for cpu-amx*, not for {DEVICE}: not held" in here.notes
    assert there.status is Status.REGRESSED


def test_limit_of_another_metric_is_refused():
    """A limit cannot be held against what it does not speak of."""
    with pytest.raises(ConfigError, match="a limit holds for its own metric, got that of num_params for top1_error"):
        held(top1([], []), limit=RATIO)


def test_unknown_metric_is_refused():
    """A measurement of something unknown is a mistake, not a pass."""
    with pytest.raises(ConfigError, match=r"metric 'watts' is unknown"):
        held(Measurement(metric="watts", dense=1, compressed=1))


SAMPLES = {
    "num_params": params(),
    "cpu_peak_bytes": memory(),
    "cpu_latency_ms": latency(),
    "top1_error": top1(range(10), range(12)),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_what_was_just_recorded_passes(tmp_path, name):
    """A run compared with its own recording passes, whatever its kind of metric."""
    baseline = baseline_of(tmp_path, SAMPLES[name])
    verdict = held(SAMPLES[name], baseline=baseline)
    assert verdict.status is Status.PASSED
    assert verdict.gated
    assert verdict.metric is METRICS[name]
