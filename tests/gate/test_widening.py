from __future__ import annotations

import dataclasses

import pytest

from compress.gate.baseline import load_baseline
from compress.gate.checks import Status
from compress.gate.judge import judge
from compress.gate.recording import record
from tests.gate.samples import DATA, DEVICE, ENVIRONMENT, IDENTITY, PROVENANCE, latency, memory

SLOW = latency(0.86, seed=1)
MODELS = {"structured": IDENTITY}


def recorded(path, *measurements, widen=True, models=MODELS, environment=ENVIRONMENT):
    """The entries of a baseline after measurements were recorded one after the other."""
    for measurement in measurements:
        provenance = dataclasses.replace(PROVENANCE, environment=environment)
        record(path, {"structured": [measurement]}, provenance=provenance, models=models, widen=widen)
    return load_baseline(path).entries("structured", measurements[0].metric)[DEVICE]


@pytest.fixture
def path(tmp_path):
    """Where the file will be."""
    return tmp_path / "digits.json"


def test_interval_reaches_over_both_recordings(path):
    """The ratio is that of the last one, the interval begins where the lower does and ends where the higher does."""
    before = recorded(path, latency(0.8))
    both = recorded(path, SLOW)
    assert both.ratio == pytest.approx(0.86, abs=0.005)
    assert both.ratio_interval[0] == before.ratio_interval[0] < 0.81
    assert both.ratio_interval[1] > 0.855


def test_without_the_option_a_recording_takes_the_place_of_the_one_before(path):
    """As a baseline that is recorded after an improvement must."""
    recorded(path, latency(0.8))
    assert recorded(path, SLOW, widen=False).ratio_interval[0] > 0.85


def test_drift_between_two_recordings_is_no_regression_and_more_is(path):
    """Against the first recording alone the machine's slower hour is red; against both only what is slower than it."""

    def status(ratio):
        return judge(latency(ratio, seed=2), recipe="structured", baseline=load_baseline(path), data_sha256=DATA).status

    recorded(path, latency(0.8))
    assert status(0.86) is Status.REGRESSED
    recorded(path, SLOW)
    assert status(0.86) is not Status.REGRESSED
    assert status(0.92) is Status.REGRESSED


@pytest.mark.parametrize(
    "change",
    [
        {"models": {"structured": dataclasses.replace(IDENTITY, dense="e" * 64)}},
        {"models": {"structured": dataclasses.replace(IDENTITY, recipe="6" * 64)}},
        {"models": {}},
        {"environment": dataclasses.replace(ENVIRONMENT, torch="2.16.0")},
        {"environment": dataclasses.replace(ENVIRONMENT, cpu="Another CPU")},
    ],
    ids=["dense model", "steps", "unknown model", "version", "machine"],
)
def test_a_change_is_no_drift(path, change):
    """Of another dense model, other steps, versions or another machine the old time goes."""
    recorded(path, latency(0.8))
    assert recorded(path, SLOW, **change).ratio_interval[0] > 0.85


def test_another_build_of_the_same_steps_widens(path):
    """Each class of device may build its own model: its fingerprint does not decide."""
    recorded(path, latency(0.8))
    other = {"structured": dataclasses.replace(IDENTITY, compressed="f" * 64)}
    assert recorded(path, SLOW, models=other).ratio_interval[0] < 0.81


def test_memory_is_as_it_was_measured_last(path):
    """Only times drift."""
    assert recorded(path, memory(46_980_000), memory(40_000_000)).compressed < 41_000_000
