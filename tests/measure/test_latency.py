from __future__ import annotations

import dataclasses
import functools
import gc
import itertools
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity

from compress.calling import pairs
from compress.errors import MeasureError, ModelError
from compress.measure import children, latency
from compress.measure.children import Children, Conditions
from compress.system.cpu import cpu_class
from tests.workloads import tiny_net

IMAGE = torch.zeros(1, 3, 8, 8)
# No longer than thirty pairs take.
QUICK = latency.Effort(seconds=0.0)


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
        monkeypatch.setattr(pairs, "time", SimpleNamespace(perf_counter=lambda: next(readings) * seconds))

    return fake


def nothing() -> None:
    """A call that does nothing."""


class Fails(nn.Module):
    """Cannot run."""

    def forward(self, _x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("cannot run")


def conditions(**changes):
    """The tiny network, as a fresh process would find it."""
    return dataclasses.replace(Conditions(model_factory=tiny_net, example_input=IMAGE), **changes)


def timer(times):
    """Tells these times, one at each call."""
    return functools.partial(next, iter(times))


class Weather:
    """Processes that take a second for a pair on a clock of their own, and remember whose turn it was."""

    def __init__(self, processes, pair_s=0.01):
        self.now = 0.0
        self.turns = []
        self.takers = [functools.partial(self.take, index) for index in range(processes)]
        self.pair_s = pair_s

    def take(self, index, count):
        self.turns.append(index)
        self.now += count * self.pair_s
        return ((1.0, 1.0 + index),) * count

    def runs(self, seconds, enough=None):
        effort = latency.Effort(seconds=seconds, enough=enough, clock=lambda: self.now)
        return latency.take_runs(self.takers, 1e3 * self.pair_s, seconds, effort)


def test_processes_take_turns():
    """Every process takes ten pairs and waits for the others, so that a burst hits all of them alike."""
    weather = Weather(3)
    runs = weather.runs(0.0)
    assert weather.turns == [0, 1, 2] * 3
    assert runs == (((1.0, 1.0),) * 30, ((1.0, 2.0),) * 30, ((1.0, 3.0),) * 30)


@pytest.mark.parametrize(("pair_s", "expected"), [(0.01, 160), (1.0, 30), (1e-6, 400), (0.05, 30)])
def test_as_many_pairs_as_the_time_allows(pair_s, expected):
    """No turn is begun that would not end in time; but 30 pairs are taken however long they take, and 400 suffice."""
    weather = Weather(3, pair_s)
    runs = weather.runs(5.0)
    assert [len(run) for run in runs] == [expected] * 3
    assert expected == 30 or weather.now <= 5.0


def test_measuring_ends_once_it_is_enough():
    """It is asked at 30, 60, 120, 240 pairs and not in between, and the first yes ends it."""
    asked = []

    def enough(runs):
        asked.append([len(run) for run in runs])
        return len(asked) == 3

    runs = Weather(2).runs(1000.0, enough)
    assert asked == [[30, 30], [60, 60], [120, 120]]
    assert [len(run) for run in runs] == [120, 120]


def test_all_looks_together_take_the_time_of_a_test():
    """The first look takes half of it and may end early; what is left of it goes to the second, whatever it finds."""
    now, enough = [100.0], bool
    efforts = latency.looks(10.0, enough, clock=lambda: now[0])
    first = next(efforts)
    assert (first.seconds, first.enough) == (5.0, enough)
    now[0] += 3.0
    second = next(efforts)
    assert (second.seconds, second.enough) == (7.0, None)
    now[0] += 9.0
    assert next(efforts).seconds == 0.0


def test_looks_that_are_taken_before_any_doubt_have_half_each():
    """Time for a second look comes on top of theirs."""
    now, enough = [100.0], bool
    efforts = latency.looks(10.0, enough, clock=lambda: now[0], first=3)
    for _ in range(3):
        effort = next(efforts)
        assert (effort.seconds, effort.enough) == (5.0, enough)
        now[0] += 5.0
    assert next(efforts).seconds == 5.0


def test_a_clock_that_stands_still_measures_nothing(ticking):
    """No time passed is no measurement, whatever came out of it."""
    ticking(0.0)
    with pytest.raises(
        MeasureError, match=r"^time per image, CPU: the clock reported no time for some forward passes$"
    ):
        latency.cpu_latency(tiny_net(), tiny_net(), conditions(), effort=QUICK)


@pytest.mark.parametrize("pairs", [(), ((1.0, 0.0),), ((1.0, 2.0), (-1.0, 2.0))])
def test_times_that_cannot_be_are_no_measurement(pairs):
    """No pair at all, no time, or time that ran backwards."""
    with pytest.raises(MeasureError, match="the clock reported no time"):
        latency.time_measurement("cpu_latency_ms", [pairs], "cpu-avx2-1t")


def test_a_measurement_is_made_of_its_pairs():
    """Medians of each model over all processes, all pairs in order, and where one process's end."""
    runs = [((1.0, 2.0), (3.0, 3.0), (2.0, 9.0)), ((4.0, 4.0),)]
    measured = latency.time_measurement("cpu_latency_ms", runs, "cpu-avx2-1t", ["said"])
    assert (measured.metric, measured.dense, measured.compressed) == ("cpu_latency_ms", 2.5, 3.5)
    assert measured.pairs == (*runs[0], *runs[1])
    assert measured.runs == tuple(runs)
    assert measured.ratio == pytest.approx(2**0.5)
    assert (measured.device, measured.notes) == ("cpu-avx2-1t", ("said",))


def test_in_this_process_there_is_one_run_with_threads_pinned(monkeypatch):
    """Without children all pairs come from here; the class of device tells the threads that both models ran with."""
    seen = []
    monkeypatch.setattr(latency, "ready", lambda *_: lambda _inputs: seen.append(torch.get_num_threads()))
    measured = latency.cpu_latency(tiny_net(), tiny_net(), conditions(threads=2), effort=QUICK)
    assert set(seen) == {2}
    assert measured.device == cpu_class(2)
    assert [len(run) for run in measured.runs] == [30]


def test_dense_and_compressed_are_not_mixed_up(monkeypatch):
    """Arguments are (compressed, dense); a pair's first time is the dense one's, here twice as long."""
    monkeypatch.setattr(latency, "ready", lambda model, _conditions: model.classifier.out_features)
    monkeypatch.setattr(latency, "warmed", lambda run, _inputs: run)
    monkeypatch.setattr(latency, "elapsed_ms", float)
    measured = latency.cpu_latency(tiny_net(num_classes=2), tiny_net(num_classes=5), conditions(), effort=QUICK)
    assert set(measured.pairs) == {(5.0, 2.0)}


def test_a_real_measurement_has_as_many_pairs_as_asked_for():
    """Without time to spare there are 30 pairs, all positive, and models end up in eval mode."""
    compressed, dense = tiny_net(width=2).train(), tiny_net().train()
    measured = latency.cpu_latency(compressed, dense, conditions(), effort=QUICK)
    assert len(measured.pairs) == 30
    assert min(map(min, measured.pairs)) > 0
    assert not compressed.training
    assert not dense.training


def test_threads_are_as_before_afterwards():
    """The process has its own number of threads again, after a measurement and where a model cannot run."""
    torch.set_num_threads(2)
    latency.cpu_latency(tiny_net(), tiny_net(), conditions(), effort=QUICK)
    threads = [torch.get_num_threads()]
    with pytest.raises(ModelError, match="cannot run"):
        latency.cpu_latency(Fails(), tiny_net(), conditions(), effort=QUICK)
    assert [*threads, torch.get_num_threads()] == [2, 2]


def test_both_models_run_under_the_runtime_asked_for(monkeypatch):
    """What is timed is what the runtime made of each model."""
    prepared = []

    def prepare(model, example_input, *, runtime):
        prepared.append((model, example_input.tensors[0].shape, runtime))
        return model.eval()

    monkeypatch.setattr(children, "prepare", prepare)
    dense, compressed = tiny_net(), tiny_net()
    latency.cpu_latency(compressed, dense, conditions(runtime="inductor"), effort=QUICK)
    latency.cpu_time(compressed, dense, conditions(runtime="inductor"))
    assert prepared == [(dense, IMAGE.shape, "inductor"), (compressed, IMAGE.shape, "inductor")] * 2


def test_cpu_time_is_positive_and_paired():
    """The profiler gives 30 pairs of operations' time, all positive, and the process its threads back."""
    torch.set_num_threads(2)
    measured = latency.cpu_time(tiny_net(width=2), tiny_net(), conditions())
    assert (measured.metric, measured.device) == ("cpu_time_ms", cpu_class(1))
    assert len(measured.pairs) == 30
    assert min(map(min, measured.pairs)) > 0
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "executorch"])
def test_a_profiler_that_sees_nothing_measures_nothing(runtime):
    """Under a runtime outside PyTorch there is no operation to count, whatever the models are."""
    measured = latency.cpu_time(tiny_net(width=2), tiny_net(), conditions(runtime=runtime))
    assert (measured.metric, measured.compressed, measured.inapplicable) == ("cpu_time_ms", None, True)
    assert measured.unmeasured == "torch.profiler sees nothing of what the recipe's runtime executes"


def test_fresh_processes_share_the_profiled_pairs():
    """As many from each, one process after the other, and no fewer than this process takes alone."""

    class Fresh:
        count = 2
        loaded: list[str] = []  # noqa: RUF012 - of this test alone

        def load(self, request):
            self.loaded.append(request["do"])
            return 1.0

        def take_pairs(self, index, count, *, profiled):
            assert profiled
            return ((1.0 + index, 0.5),) * count

    measured = latency.cpu_time(tiny_net(width=2), tiny_net(), conditions(), children=Fresh())
    assert Fresh.loaded == ["load"]
    assert measured.run_lengths == (16, 16)
    assert (measured.runs[0][0], measured.runs[1][0]) == ((1.0, 0.5), (2.0, 0.5))
    assert measured.notes == ()


def test_cpu_time_of_what_no_process_can_rebuild_is_taken_here():
    """And a note says so."""
    nameless = Conditions(model_factory=lambda: tiny_net(), example_input=IMAGE)  # noqa: PLW0108 - it has no name
    with Children(2) as fresh:
        measured = latency.cpu_time(tiny_net(width=2), tiny_net(), nameless, children=fresh)
    assert measured.run_lengths == (30,)
    assert measured.notes[0].startswith("measured in this process instead of 2 fresh ones: ")


def test_profiled_calls_are_told_apart():
    """Whichever of a pair ran first, a call's operations stay with its model: three dense, one compressed."""
    dense, compressed = nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU()), nn.ReLU()
    calls = [latency.forward(model, IMAGE, "cpu") for model in (dense, compressed)]
    taken = latency.profiled_pairs(*calls, [ProfilerActivity.CPU], lambda call: len(call.cpu_children))
    assert taken == ((3, 1),) * 30


@pytest.mark.parametrize("collecting", [True, False])
@pytest.mark.parametrize("failing", [True, False])
def test_garbage_is_collected_afterwards_as_before(collecting, failing):
    """While calls are timed it is, or is not, as it was before; so too after them, even if one fails."""
    seen = []

    def call() -> None:
        seen.append(gc.isenabled())
        if failing:
            raise ValueError("no such input")

    if not collecting:
        gc.disable()
    try:
        with pytest.raises(ValueError, match="no such input") if failing else nullcontext():
            latency.profiled_pairs(call, call, [ProfilerActivity.CPU], lambda _: 1.0)
        assert gc.isenabled() == collecting
    finally:
        gc.enable()
    assert set(seen) == {collecting}


def test_a_call_runs_without_gradients_after_a_warm_up():
    """What is timed is inference, and the first calls, which are slower, are over before."""
    grads = []
    model = nn.Linear(2, 2)
    model.register_forward_hook(lambda *_: grads.append(torch.is_grad_enabled()))
    call = latency.forward(model, torch.zeros(1, 2), "cpu")
    assert grads == [False] * (1 + latency.WARMUP_CALLS)  # one more makes it ready
    assert not call().requires_grad
