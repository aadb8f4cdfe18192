from __future__ import annotations

import dataclasses
import math

import pytest

from compress.gate.checks import Status
from compress.gate.limits import Limit
from compress.quality import OwnMetric
from compress.results import Measurement
from tests.gate.samples import held, latency, memory, params, top1

NO_SLOWER = Limit(metric="cpu_latency_ms", max_ratio=1.0, where="r.toml")


@pytest.mark.parametrize(
    ("measurement", "said"),
    [
        (
            dataclasses.replace(latency(), pairs=()),
            "the 99 % interval of a ratio of times takes at least 8 pairs, got 0",
        ),
        (latency(pairs=7), "the 99 % interval of a ratio of times takes at least 8 pairs, got 7"),
        (
            dataclasses.replace(latency(), pairs=(*latency().pairs, (0.0, 1.0))),
            "a time must be a positive number, got (0.0, 1.0) (pair 60)",
        ),
    ],
)
def test_time_without_good_pairs_is_not_measured(measurement, said):
    """A time alone, or too few pairs, never pass."""
    verdict = held(measurement, limit=NO_SLOWER)
    assert (verdict.status, verdict.reasons) == (Status.NOT_MEASURED, (said,))


@pytest.mark.parametrize(
    ("measurement", "said"),
    [
        (Measurement(metric="cuda_latency_ms", unmeasured="there is no CUDA device"), "there is no CUDA device"),
        (Measurement(metric="macs", compressed=1.0), "the dense model has no value"),
        (Measurement(metric="macs", dense=1.0), "the compressed model has no value"),
        (params(math.nan), "the compressed model's value is nan, which num_params cannot be"),
        (params(-1), "the compressed model's value is -1, which num_params cannot be"),
        (params(dense=math.inf), "the dense model's value is inf, which num_params cannot be"),
        (
            Measurement(metric="top1_error", dense=22.9, compressed=0.2),
            "the dense model's value is 22.9, which top1_error cannot be",
        ),
        (
            memory(device=""),
            "its class of device is not known, and cpu_peak_bytes holds only within one",
        ),
        (
            dataclasses.replace(top1([], [1]), num_examples=400),
            "the results of 400 examples take 50 bytes, got 63",
        ),
        (dataclasses.replace(top1([], [1]), num_examples=0), "an error takes at least one example, got 0"),
        (
            dataclasses.replace(top1([], [1]), compressed=0.1),
            "the error 0.1 is not that of its 500 single results, 0.002",
        ),
    ],
)
def test_nothing_unmeasured_passes(measurement, said):
    """A missing or impossible value is no pass, whatever it is held against, and the reason is kept."""
    verdict = held(measurement)
    assert (verdict.status, verdict.reasons) == (Status.NOT_MEASURED, (said,))
    assert verdict.gated


def test_a_metric_of_ones_own_may_lie_below_zero():
    """A number is anything that can be read off a model; bytes and counts are none below zero."""
    number = OwnMetric(name="margin_db", measure=lambda _: -3.0, better="higher").metric
    limit = Limit(metric="margin_db", declared=number, max_drop=1.0, where="r.toml")
    measured = Measurement(metric="margin_db", declared=number, dense=-3.0, compressed=-3.5)
    assert held(measured, limit=limit).status is Status.PASSED
    assert held(dataclasses.replace(measured, compressed=-4.5), limit=limit).status is Status.REGRESSED
    below = held(Measurement(metric="macs", dense=-1.0, compressed=1.0))
    assert below.reasons == ("the dense model's value is -1.0, which macs cannot be",)
