from __future__ import annotations

import itertools
import statistics
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity

from compress.errors import MeasureError
from compress.measure import latency
from compress.measure.environment import cpu_class
from tests.workloads import tiny_net

IMAGE = torch.zeros(1, 3, 8, 8)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def ticking(monkeypatch):
    """Puts a clock in the place of the host's that moves on by so many seconds whenever it is read."""

    def fake(seconds: float) -> None:
        readings = itertools.count()
        monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: next(readings) * seconds))

    return fake


def nothing() -> None:
    """A call that does nothing."""


class Fails(nn.Module):
    """Cannot run."""

    def forward(self, _x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("cannot run")


def test_pairs_alternate_their_order():
    """Dense first, compressed first, dense first, ...; and every pair holds the dense one's time first."""
    called = []

    def clock(call):
        call()
        return {"dense": 10.0, "compressed": 20.0}[called[-1]] + len(called)

    pairs = latency.take_pairs(lambda: called.append("dense"), lambda: called.append("compressed"), 3, clock)
    assert called == ["dense", "compressed", "compressed", "dense", "dense", "compressed"]
    assert pairs == ((11.0, 22.0), (14.0, 23.0), (15.0, 26.0))


def test_a_drifting_clock_favours_neither():
    """Of equal models on a machine that slows down steadily, the median ratio is 1 where a fixed order's is not."""
    times = itertools.count(100)
    pairs = latency.take_pairs(nothing, nothing, 30, lambda _: float(next(times)))
    assert statistics.median(b / a for a, b in pairs) == pytest.approx(1.0, abs=5e-4)
    assert statistics.median(b / a for a, b in zip(range(100, 160, 2), range(101, 160, 2), strict=True)) > 1.005


def test_a_call_is_timed_in_milliseconds(ticking):
    """The host's clock tells seconds, figures are milliseconds."""
    ticking(0.25)
    assert latency.elapsed_ms(nothing) == pytest.approx(250.0)


@pytest.mark.parametrize(
    ("seconds_each", "seconds", "expected"),
    [(0.01, 2.0, 100), (0.01, 0.0, 30), (1.0, 5.0, 30), (1e-6, 60.0, 400), (0.01, 8.2, 400)],
)
def test_as_many_pairs_as_fit_within_bounds(ticking, seconds_each, seconds, expected):
    """As many as the time allows at both models' speed, never fewer than 30 nor more than 400."""
    ticking(seconds_each)
    assert latency.num_pairs(nothing, nothing, seconds) == pytest.approx(expected, abs=1)
    assert latency.MIN_PAIRS <= latency.num_pairs(nothing, nothing, seconds) <= latency.MAX_PAIRS


def test_a_clock_that_stands_still_measures_nothing(ticking):
    """No time passed is no measurement, whatever came out of it."""
    ticking(0.0)
    with pytest.raises(
        MeasureError, match=r"^time per image, CPU: the clock reported no time for some forward passes$"
    ):
        latency.cpu_latency(tiny_net(), tiny_net(), IMAGE, threads=1, seconds=0.1)


@pytest.mark.parametrize("pairs", [(), ((1.0, 0.0),), ((1.0, 2.0), (-1.0, 2.0))])
def test_times_that_cannot_be_are_no_measurement(pairs):
    """No pair at all, no time, or time that ran backwards."""
    with pytest.raises(MeasureError, match="the clock reported no time"):
        latency.time_measurement("cpu_latency_ms", pairs, "cpu-avx2-1t")


def test_cpu_latency_is_made_of_its_pairs():
    """Medians of each model, all pairs in order, and the class of device with the threads used."""

    def take(dense, compressed, count):
        assert dense().shape == compressed().shape == (1, 3)
        assert 30 <= count <= 400
        assert torch.get_num_threads() == 2
        return ((1.0, 2.0), (3.0, 3.0), (2.0, 9.0))

    measured = latency.cpu_latency(tiny_net(), tiny_net(), IMAGE, threads=2, seconds=0.01, take=take)
    assert (measured.metric, measured.dense, measured.compressed) == ("cpu_latency_ms", 2.0, 3.0)
    assert measured.pairs == ((1.0, 2.0), (3.0, 3.0), (2.0, 9.0))
    assert measured.ratio == 2.0
    assert measured.device == cpu_class(2)


def test_dense_and_compressed_are_not_mixed_up():
    """Arguments are (compressed, dense); what is called first is the dense one."""
    compressed, dense = tiny_net(num_classes=2), tiny_net(num_classes=5)
    shapes = []

    def take(first, second, _):
        shapes.extend(call().shape[1] for call in (first, second))
        return ((1.0, 1.0),)

    latency.cpu_latency(compressed, dense, IMAGE, threads=1, seconds=0.0, take=take)
    assert shapes == [5, 2]


def test_a_real_measurement_has_as_many_pairs_as_asked_for():
    """Without time to spare there are 30 pairs, all positive, and models end up in eval mode."""
    compressed, dense = tiny_net(width=2).train(), tiny_net().train()
    measured = latency.cpu_latency(compressed, dense, IMAGE, threads=1, seconds=0.0)
    assert len(measured.pairs) == 30
    assert min(map(min, measured.pairs)) > 0
    assert not compressed.training
    assert not dense.training


def test_threads_are_as_before_afterwards():
    """The process has its own number of threads again, after a measurement and where a model cannot run."""

    def take(*_):
        threads.append(torch.get_num_threads())
        return ((1.0, 1.0),)

    threads = []
    torch.set_num_threads(2)
    latency.cpu_latency(tiny_net(), tiny_net(), IMAGE, threads=1, seconds=0.0, take=take)
    threads.append(torch.get_num_threads())
    with pytest.raises(RuntimeError, match="cannot run"):
        latency.cpu_latency(Fails(), tiny_net(), IMAGE, threads=1, seconds=0.0)
    assert [*threads, torch.get_num_threads()] == [1, 2, 2]


def test_cpu_time_is_positive_and_paired():
    """The profiler gives 30 pairs of operations' time, all positive, and the process its threads back."""
    torch.set_num_threads(2)
    measured = latency.cpu_time(tiny_net(width=2), tiny_net(), IMAGE, threads=1)
    assert (measured.metric, measured.device) == ("cpu_time_ms", cpu_class(1))
    assert len(measured.pairs) == 30
    assert min(map(min, measured.pairs)) > 0
    assert torch.get_num_threads() == 2


def test_profiled_calls_are_told_apart():
    """Whichever of a pair ran first, a call's operations stay with its model: three dense, one compressed."""
    dense, compressed = nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU()), nn.ReLU()
    calls = [latency.forward(model, IMAGE, "cpu") for model in (dense, compressed)]
    pairs = latency._profiled_pairs(*calls, [ProfilerActivity.CPU], lambda call: len(call.cpu_children))
    assert pairs == ((3, 1),) * 30


def test_a_call_runs_without_gradients_after_a_warm_up():
    """What is timed is inference, and the first calls, which are slower, are over before."""
    grads = []
    model = nn.Linear(2, 2)
    model.register_forward_hook(lambda *_: grads.append(torch.is_grad_enabled()))
    call = latency.forward(model, torch.zeros(1, 2), "cpu")
    assert grads == [False] * latency.WARMUP_CALLS
    assert not call().requires_grad
