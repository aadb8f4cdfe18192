from __future__ import annotations

import numpy as np
import pytest

from compress.measure.latency import time_measurement
from compress.selfcheck.quiet import quietness


def measured(*sigmas, ratio=1.0, seed=0):
    """A model against itself in processes of so much noise each."""
    rng = np.random.default_rng(seed)
    runs = [
        [(2.0, 2.0 * ratio * factor) for factor in np.exp(rng.normal(0.0, sigma, size=60)).tolist()] for sigma in sigmas
    ]
    return time_measurement("cpu_latency_ms", runs, "cpu-avx2-1t")


@pytest.mark.parametrize(("sigmas", "quiet"), [((0.002,) * 3, True), ((0.002, 0.002, 0.5), False), ((0.5,) * 3, False)])
def test_a_machine_is_quiet_if_every_process_is(sigmas, quiet):
    """One process that settles nothing leaves a time undecided."""
    found = quietness(measured(*sigmas))
    assert found.quiet is quiet
    assert len(found.processes) == len(sigmas)
    assert found.low <= found.ratio <= found.high


def test_a_model_that_is_slower_than_itself_is_no_quiet_machine():
    """A place in memory can make one of two equal models slower, however little it scatters."""
    assert not quietness(measured(0.001, 0.001, 0.001, ratio=1.1)).quiet
