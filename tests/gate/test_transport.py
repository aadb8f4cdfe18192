from __future__ import annotations

import dataclasses

import pytest

from compress.gate.judge import judge
from compress.gate.limits import Limit
from compress.gate.recording import Provenance
from compress.gate.transport import pack, unpack
from compress.gate.verdict import Verdict
from compress.results import Measurement
from tests.gate.samples import DATA, PROVENANCE, baseline_of, latency, memory, params, top1

LIMITS = {
    "num_params": Limit(metric="num_params", max_ratio=0.5, where="r.toml"),
    "top1_error": Limit(metric="top1_error", max_increase=0.01),
    "cpu_latency_ms": Limit(metric="cpu_latency_ms", max_ratio=0.8),
}


@pytest.mark.parametrize(
    "measurement",
    [
        params(),
        memory(),
        latency(),
        top1([1], [2, 3]),
        Measurement(metric="macs", unmeasured="no reason", info={"a": 1.5}),
    ],
    ids=lambda measurement: measurement.metric,
)
def test_a_verdict_arrives_as_it_was(tmp_path, measurement):
    """Numbers, bits, intervals, limit and checks are the same on the other side; the baseline stays where it is."""
    verdict = judge(
        measurement,
        recipe="structured",
        limit=LIMITS.get(measurement.metric),
        baseline=baseline_of(tmp_path, params(), top1([1], [2])),
        data_sha256=DATA,
    )
    sent = dataclasses.replace(verdict, baseline=None)
    assert unpack(Verdict, pack(sent)) == sent


def test_a_provenance_arrives_as_it_was():
    """Tables within tables are rebuilt as what they were."""
    assert unpack(Provenance, pack(PROVENANCE)) == PROVENANCE
