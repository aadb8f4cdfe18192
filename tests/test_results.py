from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.results import METRICS, Environment, Kind, Measurement, Unit


def test_metrics_are_keyed_by_their_names():
    """The key in recipes and baselines is the metric's own name, and titles tell rows apart."""
    assert all(name == metric.name for name, metric in METRICS.items())
    assert len({metric.title for metric in METRICS.values()}) == len(METRICS)


def test_names_carry_their_units():
    """A reader of a baseline knows the unit from the key."""
    suffixes = {Unit.BYTES: "_bytes", Unit.FRACTION: "_error", Unit.MILLISECONDS: "_ms"}
    for metric in METRICS.values():
        assert metric.name.endswith(suffixes.get(metric.unit, "")), metric.name


def test_kinds_agree_with_units_and_devices():
    """Times and memory belong to a device and have a tolerance; errors and counts hold everywhere."""
    for metric in METRICS.values():
        bound = metric.kind in (Kind.TIME, Kind.MEMORY)
        assert bool(metric.device) == bound, metric.name
        assert not bound or metric.tolerance > 0, metric.name
        assert (metric.unit is Unit.MILLISECONDS) == (metric.kind is Kind.TIME), metric.name
        assert (metric.unit is Unit.FRACTION) == metric.is_quality, metric.name
        assert not metric.device or metric.name.startswith(f"{metric.device}_")


def test_what_is_counted_has_no_tolerance():
    """One parameter more is a change of the model."""
    assert {metric.tolerance for metric in METRICS.values() if metric.unit is Unit.COUNT} == {0.0}


@given(
    dense=st.floats(1e-3, 1e9),
    compressed=st.floats(0, 1e9),
)
def test_ratio_is_compressed_over_dense(dense, compressed):
    """Below 1 is smaller."""
    assert Measurement(metric="macs", dense=dense, compressed=compressed).ratio == compressed / dense


@pytest.mark.parametrize(("dense", "compressed"), [(None, 1.0), (1.0, None), (0.0, 1.0), (None, None)])
def test_ratio_without_two_values_is_none(dense, compressed):
    """What cannot be divided has no ratio, and raises nothing."""
    assert Measurement(metric="macs", dense=dense, compressed=compressed).ratio is None


def test_ratio_of_times_is_the_median_over_pairs():
    """A clock that drifts leaves the ratio of pairs alone, where that of the medians would be off."""
    pairs = ((1.0, 0.5), (2.0, 1.0), (4.0, 8.0))
    measurement = Measurement(metric="cpu_latency_ms", dense=2.0, compressed=2.0, device="cpu", pairs=pairs)
    assert measurement.ratio == 0.5


def test_measurements_are_frozen():
    """A number does not change after it was measured."""
    measurement = Measurement(metric="macs", dense=1.0, compressed=1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        measurement.dense = 2.0


def test_environment_survives_json():
    """An environment is plain text that goes to JSON and back unchanged."""
    environment = Environment(python="3.11.9", torch="2.15.0", cpu="Test CPU", cpu_class="cpu-avx2-1t")
    assert Environment(**json.loads(json.dumps(dataclasses.asdict(environment)))) == environment


@pytest.mark.parametrize("module", ["compress.results", "compress.gate.judge", "compress.report.terminal"])
def test_numbers_need_no_torch(module):
    """Results, gate and reports load without torch, so that a plugin costs nothing where it is not used."""
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def timed(*runs):
    """A time measured in so many processes."""
    pairs = tuple(pair for run in runs for pair in run)
    return Measurement(metric="cpu_latency_ms", pairs=pairs, run_lengths=tuple(map(len, runs)))


def test_pairs_are_told_apart_by_process():
    """Each run is one process's, in order; without lengths all pairs are one run, and without pairs there is none."""
    runs = (((1.0, 2.0),), ((3.0, 4.0), (5.0, 6.0)))
    assert timed(*runs).runs == runs
    assert Measurement(metric="cpu_latency_ms", pairs=runs[1]).runs == (runs[1],)
    assert Measurement(metric="cpu_latency_ms").runs == ()


def test_every_process_weighs_the_same_in_a_ratio():
    """However many pairs each took: the ratio is the geometric mean of their medians."""
    assert timed(((1.0, 2.0),) * 9, ((1.0, 0.5),)).ratio == pytest.approx(1.0)
    assert timed(((1.0, 2.0),), ((1.0, 8.0), (1.0, 8.0), (1.0, 99.0))).ratio == pytest.approx(4.0)
