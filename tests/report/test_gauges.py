from __future__ import annotations

import dataclasses
import re

import pytest

from compress.gate.checks import Status
from compress.gate.limits import Limit
from compress.report.gauges import draw_gauge, gauge_of, gauges_of
from compress.results import Measurement
from tests.gate.samples import baseline_of, held, latency, memory, params, top1


def test_sizes_lie_on_an_axis_of_ratios(tmp_path):
    """The value, the limit and the baseline as a ratio to the dense model, which is 1."""
    limit = Limit(metric="num_params", max_ratio=0.65)
    gauge = gauge_of(held(params(), limit=limit, baseline=baseline_of(tmp_path, params())))
    assert (gauge.place, gauge.dense) == (4_089_523 / 6_402_564, 1.0)
    assert (gauge.limit.value, gauge.limit.text) == (pytest.approx(0.65), "limit x0.65")
    assert (gauge.baseline.value, gauge.baseline.text) == (gauge.place, "baseline x0.639")
    assert (gauge.interval, gauge.processes, gauge.value, gauge.change, gauge.mark) == (
        None,
        (),
        "4,089,523",
        "-36.1 %",
        "ok",
    )


def test_times_have_their_interval(tmp_path):
    """The median of the pairs and the interval that was judged by; the baseline's tolerance is part of its bound."""
    verdict = held(latency(0.8), limit=Limit(metric="cpu_latency_ms", max_ratio=0.95))
    gauge = gauge_of(verdict)
    assert gauge.place == verdict.ratio.median
    assert gauge.interval == (verdict.ratio.low, verdict.ratio.high)
    assert gauge.confidence == "99 % interval"
    compared = gauge_of(held(latency(0.8), baseline=baseline_of(tmp_path, latency(0.9))))
    assert compared.baseline.value == pytest.approx(0.9 * 1.025, rel=1e-2)
    assert compared.baseline.text.endswith(" + 2.5 %")


def test_errors_lie_on_an_axis_of_points(tmp_path):
    """Points above the dense model, with the interval of the increase that the flips allow."""
    measurement = top1(range(10), range(5, 18))
    limit = Limit(metric="top1_error", max_increase=0.01)
    gauge = gauge_of(held(measurement, limit=limit, baseline=baseline_of(tmp_path, measurement)))
    assert (gauge.place, gauge.dense) == (pytest.approx(0.6), 0.0)
    low, high = gauge.interval
    assert low < 0.6 < high
    assert (gauge.limit.value, gauge.limit.text) == (1.0, "limit +1.00 pt")
    assert (gauge.baseline.value, gauge.baseline.text) == (
        pytest.approx(1.1),
        "baseline +0.60 pt, may rise 0.5 pt",
    )


@pytest.mark.parametrize(
    "measurement",
    [
        Measurement(metric="cuda_latency_ms", unmeasured="no CUDA device"),
        memory(),
        params(dense=0, compressed=0),
    ],
)
def test_what_has_no_place_has_no_gauge(measurement):
    """Not measured, held against nothing, or a ratio to zero."""
    limit = None if measurement.metric == "cpu_peak_bytes" else Limit(metric=measurement.metric, max_ratio=1.0)
    assert gauge_of(held(measurement, limit=limit)) is None


@pytest.mark.parametrize(("ratio", "status"), [(0.8, Status.PASSED), (1.2, Status.REGRESSED)])
def test_the_picture(ratio, status):
    """What lies beyond the limit is tinted; the picture is coloured by its status and described in words."""
    gauge = gauge_of(held(latency(ratio), limit=Limit(metric="cpu_latency_ms", max_ratio=0.95)))
    picture = draw_gauge(gauge)
    text = "".join(picture.content)
    beyond = float(re.search(r'<rect x="([\d.]+)%"[^>]*class="beyond"', text)[1])
    value = float(re.search(r'<circle cx="([\d.]+)%"', text)[1])
    assert (value > beyond) == (status is Status.REGRESSED)
    assert picture.kind == f"gauge {status}"
    assert "99 % interval" in picture.words
    assert "limit x0.95" in picture.words


def test_each_process_is_drawn():
    """All of them must lie on one side of the bound, so each has a line of its own; a single one needs none."""
    limit = Limit(metric="cpu_latency_ms", max_ratio=0.95)
    gauge = gauge_of(held(dataclasses.replace(latency(0.8), run_lengths=(20, 20, 20)), limit=limit))
    assert len(gauge.processes) == 3
    assert all(low < high for low, high in gauge.processes)
    assert "".join(draw_gauge(gauge).content).count('class="process"') == 3
    alone = gauge_of(held(latency(0.8), limit=limit))
    assert "".join(draw_gauge(alone).content).count('class="process"') == 0


def test_gauges_stand_in_the_order_of_the_metrics():
    """However the tests were ordered; of two measurements of one metric the later counts."""
    limits = {name: Limit(metric=name, max_ratio=1.0) for name in ("num_params", "cpu_latency_ms")}
    verdicts = [
        held(latency(0.9), limit=limits["cpu_latency_ms"]),
        held(params(), limit=limits["num_params"]),
        held(latency(0.7), limit=limits["cpu_latency_ms"]),
    ]
    ((recipe, gauges),) = gauges_of(verdicts).items()
    assert recipe == "structured"
    assert [gauge.title for gauge in gauges] == ["parameters", "time per image, CPU"]
    assert gauges[1].place == pytest.approx(0.7, rel=0.02)
