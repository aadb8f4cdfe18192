"""A fake device stands in for the real one: a clock that every call moves on, and events that read it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from compress.errors import MeasureError
from compress.measure import cuda, latency
from compress.measure.nvml import GpuState

ALONE = GpuState(sm_clock_mhz=1980.0, memory_clock_mhz=2619.0, power_limit_w=700.0, slowed_by=(), num_others=0)
X = torch.arange(4.0).reshape(1, 4)


class Event:
    """Reads the device's clock when the device comes to it."""

    def __init__(self, device) -> None:
        self.device = device
        self.at = None

    def record(self) -> None:
        self.at = self.device.now_ms

    def synchronize(self) -> None:
        self.device.log.append("waited")

    def elapsed_time(self, end) -> float:
        return end.at - self.at


@dataclass
class Fake:
    """A device on which a call takes as long as the model says, whatever the host's clock does.

    Attributes:
        now_ms: its clock.
        states: what NVML says, one answer after the other, the last for ever.
        log: what happened, in order.
        captured: how many graphs.
    """

    now_ms: float = 0.0
    states: list = field(default_factory=lambda: [ALONE])
    log: list = field(default_factory=list)
    captured: int = 0

    def device(self) -> cuda.Device:
        """It, as the measurements see it."""
        return cuda.Device(
            name="cpu",
            new_event=lambda: Event(self),
            capture=self.capture,
            synchronize=lambda: self.log.append("idle"),
            cache_bytes=lambda: 100,
            state=lambda: self.states.pop(0) if len(self.states) > 1 else self.states[0],
            device_class=lambda: "cuda-sm90",
        )

    def capture(self, call):
        """Replays the call, in half of the time: launching costs nothing."""
        call()
        self.captured += 1

        def replay():
            before = self.now_ms
            result = call()
            self.now_ms = before + (self.now_ms - before) / 2
            return result

        return replay


class Takes(nn.Module):
    """Takes so many milliseconds of the device's time, and remembers its inputs."""

    def __init__(self, fake, milliseconds) -> None:
        super().__init__()
        self.fake, self.milliseconds, self.seen = fake, milliseconds, []

    def forward(self, x):
        self.fake.now_ms += self.milliseconds
        self.fake.log.append("called")
        self.seen.append((x.data_ptr(), x.clone()))
        return x + 1


@pytest.fixture
def fake():
    """A device that nobody else uses."""
    return Fake()


def effort(pairs=30):
    """As many pairs as asked for, however long they take."""
    return latency.Effort(seconds=0.0 if pairs == 30 else 1e9, enough=lambda runs: len(runs[0]) >= pairs)


@pytest.mark.parametrize(
    ("measure", "metric", "expected"),
    [(cuda.cuda_device_time, "cuda_device_ms", (3.0, 2.0)), (cuda.cuda_graph_time, "cuda_graph_ms", (1.5, 1.0))],
)
def test_time_between_events_is_the_device_s(fake, measure, metric, expected):
    """Each pair is what the device's clock says, dense first; a replay is timed and not what was captured."""
    dense, compressed = Takes(fake, 3.0), Takes(fake, 2.0)
    measured = measure(compressed, dense, X, effort=effort(), device=fake.device())
    assert (measured.metric, measured.device) == (metric, "cuda-sm90")
    assert len(measured.pairs) == 30
    assert set(measured.pairs) == {expected}
    assert measured.notes == ()
    assert measured.info == {"sm_clock_mhz": 1980.0, "memory_clock_mhz": 2619.0, "power_limit_w": 700.0}


def test_a_timed_call_begins_and_ends_on_an_idle_device(fake):
    """Nothing that was launched before is timed, and nobody reads a clock that the device has not come to."""
    model = Takes(fake, 1.0)
    cuda.cuda_device_time(model, model, X, effort=effort(), device=fake.device())
    after_warm_up = fake.log[2 * latency.WARMUP_CALLS :]
    assert after_warm_up == ["idle", "called", "waited"] * (len(after_warm_up) // 3)


@pytest.mark.parametrize(("nbytes", "copies"), [(16, 13), (400, 2), (1, 64)])
def test_inputs_rotate_through_more_than_the_cache(fake, nbytes, copies):
    """Each call meets another copy, as many as fill the cache of 100 bytes twice, at least 2, at most 64."""
    model = Takes(fake, 1.0)
    x = torch.zeros(nbytes, dtype=torch.uint8)
    cuda.cuda_device_time(model, model, x, effort=effort(120), device=fake.device())
    places = [place for place, _ in model.seen]
    assert len(set(places)) == copies
    assert all(here != there for here, there in itertools.pairwise(places)), "nor do two models share one in turn"


def test_a_graph_reads_new_input_from_where_it_was_captured(fake):
    """Every replay sees one of the copies, put where the graph reads; the copying itself is not timed."""
    model = Takes(fake, 1.0)
    cuda.cuda_graph_time(model, model, X, effort=effort(), device=fake.device())
    assert fake.captured == 2
    assert len({place for place, _ in model.seen}) == 2, "one place for each of the two graphs"
    assert all(torch.equal(value, X) for _, value in model.seen)


def test_a_model_that_cannot_be_captured_is_not_measured(fake):
    """What a graph cannot hold is told in the first line of torch's own words."""

    def refuse(_call):
        raise RuntimeError("operation not permitted when stream is capturing\nCompile with TORCH_USE_CUDA_DSA")

    device = cuda.replace(fake.device(), capture=refuse)
    with pytest.raises(MeasureError) as caught:
        cuda.cuda_graph_time(Takes(fake, 1.0), Takes(fake, 1.0), X, effort=effort(), device=device)
    assert str(caught.value) == (
        "a forward pass cannot be captured as a CUDA graph: operation not permitted when stream is capturing"
    )


def test_end_to_end_is_the_host_s_time(fake, monkeypatch):
    """What the host's clock says counts, whatever the device's does."""
    monkeypatch.setattr(cuda, "elapsed_ms", lambda call: 5.0 if call() is not None else 0.0)
    measured = cuda.cuda_latency(Takes(fake, 3.0), Takes(fake, 2.0), X, effort=effort(), device=fake.device())
    assert measured.metric == "cuda_latency_ms"
    assert set(measured.pairs) == {(5.0, 5.0)}


@pytest.mark.parametrize(("others", "said"), [(1, "another process uses it now"), (3, "3 other processes use it now")])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_gpu_that_others_use_is_not_measured(fake, others, said, when):
    """Whether they were there from the beginning or came while it was measured."""
    shared = cuda.replace(ALONE, num_others=others)
    fake.states = [shared, ALONE] if when == "before" else [ALONE, shared]
    with pytest.raises(MeasureError) as caught:
        cuda.cuda_device_time(Takes(fake, 1.0), Takes(fake, 1.0), X, effort=effort(), device=fake.device())
    assert str(caught.value) == f"time on a GPU is measured only while nobody else uses it: {said}"


def test_what_held_the_gpu_back_is_noted(fake):
    """Reasons met before or after, each once; the clocks are those of the end."""
    slow = cuda.replace(ALONE, slowed_by=("power cap",), sm_clock_mhz=1200.0)
    hot = cuda.replace(slow, slowed_by=("power cap", "hardware thermal slow-down"))
    fake.states = [slow, hot]
    model = Takes(fake, 1.0)
    measured = cuda.cuda_device_time(model, model, X, effort=effort(), device=fake.device())
    assert measured.notes == ("the GPU was held back while it was measured: power cap, hardware thermal slow-down",)
    assert measured.info["sm_clock_mhz"] == 1200.0


def test_what_cannot_be_known_is_said(fake):
    """Without NVML there is a measurement, and a note that nobody looked."""
    fake.states = ["nvidia-ml-py is not installed"]
    model = Takes(fake, 1.0)
    measured = cuda.cuda_device_time(model, model, X, effort=effort(), device=fake.device())
    assert measured.info == {}
    assert measured.notes == (
        "clocks, throttling and other users of the GPU are not known: nvidia-ml-py is not installed",
    )


def test_a_device_clock_that_stands_still_measures_nothing(fake):
    """No time passed is no measurement."""
    with pytest.raises(MeasureError, match="device time per image, CUDA: the clock reported no time"):
        cuda.cuda_device_time(Takes(fake, 0.0), Takes(fake, 0.0), X, effort=effort(), device=fake.device())
