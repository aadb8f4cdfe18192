"""How long a forward pass takes on a CUDA device, in three ways; dense and compressed are called in turn in each.

*End to end*, by the host's clock, until the host has seen the result: what a caller waits for. *Device time*, between
two events on the device: what is left of it where nobody waits for the host. *Graph replay*, between two events around
a captured graph: the kernels alone, without what launching each of them costs. A smaller network is often faster only
by the last two.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn
from torch.profiler import ProfilerActivity

from compress.calling.inputs import Inputs, inputs_of
from compress.calling.pairs import Call, Timer, elapsed_ms, pair_ms, take_pairs
from compress.errors import MeasureError
from compress.measure.environment import cuda_class
from compress.measure.latency import WARMUP_CALLS, Effort, forward, profiled_pairs, take_runs, time_measurement
from compress.measure.nvml import GpuState, gpu_state, load_nvml
from compress.results import Measurement

# So many copies of a small input are as good as more.
_MAX_INPUTS = 64


class Event(Protocol):
    """A mark on the device's own time line."""

    def record(self) -> None:
        """Set it behind all that was launched so far."""

    def synchronize(self) -> None:
        """Wait until the device has come to it."""

    def elapsed_time(self, end: Any) -> float:
        """Milliseconds from this mark to ``end``."""


def _new_event() -> Event:
    event: Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    return event


def _capture(call: Call) -> Call:
    """The work that ``call`` launches, as one graph to be launched again."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        # What is allocated and chosen on the first calls is no part of the graph.
        for _ in range(WARMUP_CALLS):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = call()

    def replay() -> object:
        graph.replay()
        # The graph writes there: it must not be given to anyone else.
        return kept

    return replay


def _cache_bytes() -> int:
    return int(torch.cuda.get_device_properties().L2_cache_size)


def _state() -> GpuState | str:
    nvml = load_nvml()
    if nvml is None:
        return "nvidia-ml-py is not installed (pip install 'pytest-compress[cuda]')"
    return gpu_state(nvml, str(torch.cuda.get_device_properties().uuid))


@dataclass(frozen=True, kw_only=True)
class Device:
    """What these measurements ask of a device; the defaults ask the current CUDA device.

    Attributes:
        name: as torch calls it.
        new_event: makes a mark on the device's time line.
        capture: turns a call into one that replays the work which it launches.
        synchronize: waits until the device has nothing left to do.
        cache_bytes: the size of its largest cache.
        state: its clocks and who else uses it, or why that cannot be known.
        device_class: ``cuda-sm90``.
    """

    name: str = "cuda"
    new_event: Callable[[], Event] = _new_event
    capture: Callable[[Call], Call] = _capture
    synchronize: Callable[[], None] = torch.cuda.synchronize
    cache_bytes: Callable[[], int] = _cache_bytes
    state: Callable[[], GpuState | str] = _state
    device_class: Callable[[], str] = cuda_class


CUDA = Device()


def cuda_latency(
    compressed: nn.Module, dense: nn.Module, example_inputs: Any, *, effort: Effort, device: Device = CUDA
) -> Measurement:
    """Milliseconds of one forward pass until the host has seen it end.

    Raises:
        MeasureError: if another process uses the GPU, or a clock stands still.
    """
    timers = [partial(elapsed_ms, forward(model, example_inputs, device.name)) for model in (dense, compressed)]
    return _measured("cuda_latency_ms", timers, effort, device)


def cuda_device_time(
    compressed: nn.Module, dense: nn.Module, example_inputs: Any, *, effort: Effort, device: Device = CUDA
) -> Measurement:
    """Milliseconds between two events before and after one forward pass, each on another copy of the input.

    The copies together do not fit into the device's cache, as the inputs of a model in service do not.

    Raises:
        MeasureError: if another process uses the GPU, or a clock stands still.
    """
    rotation = _rotation(inputs_of(example_inputs).to(torch.device(device.name)), device.cache_bytes())
    timers = [
        _event_timer(_on_next_input(model.to(device.name).eval(), rotation), device) for model in (dense, compressed)
    ]
    return _measured("cuda_device_ms", timers, effort, device)


def cuda_graph_time(
    compressed: nn.Module, dense: nn.Module, example_inputs: Any, *, effort: Effort, device: Device = CUDA
) -> Measurement:
    """Milliseconds between two events before and after the replay of one forward pass, captured as a CUDA graph.

    Raises:
        MeasureError: if a model cannot be captured, another process uses the GPU, or a clock stands still.
    """
    rotation = _rotation(inputs_of(example_inputs).to(torch.device(device.name)), device.cache_bytes())
    timers = [_graph_timer(model.to(device.name).eval(), rotation, device) for model in (dense, compressed)]
    return _measured("cuda_graph_ms", timers, effort, device)


def cuda_time(compressed: nn.Module, dense: nn.Module, example_inputs: Any, *, device: Device = CUDA) -> Measurement:
    """Milliseconds of CUDA kernels of one forward pass, summed over all that torch.profiler records.

    Raises:
        MeasureError: if another process uses the GPU, or the profiler saw no kernel.
    """
    first, second = (forward(model, example_inputs, device.name) for model in (dense, compressed))
    _check_alone(device.state())
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    pairs = profiled_pairs(first, second, activities, lambda call: float(call.device_time_total) / 1e3)
    return time_measurement("cuda_time_ms", [pairs], device.device_class())


def _measured(metric: str, timers: Sequence[Timer], effort: Effort, device: Device) -> Measurement:
    """Pairs of both timers, on a GPU of their own, and what state that was in."""
    dense, compressed = timers
    deadline = effort.clock() + effort.seconds
    once_ms = pair_ms(dense, compressed)
    before = device.state()
    _check_alone(before)
    runs = take_runs([partial(take_pairs, dense, compressed)], once_ms, deadline, effort)
    after = device.state()
    _check_alone(after)
    measured = time_measurement(metric, runs, device.device_class(), _notes(before, after))
    return replace(measured, info=_figures(after))


def _check_alone(state: GpuState | str) -> None:
    if isinstance(state, GpuState) and state.num_others:
        other = "another process uses" if state.num_others == 1 else f"{state.num_others} other processes use"
        raise MeasureError(f"time on a GPU is measured only while nobody else uses it: {other} it now")


def _notes(before: GpuState | str, after: GpuState | str) -> list[str]:
    if isinstance(before, str) or isinstance(after, str):
        reason = before if isinstance(before, str) else after
        return [f"clocks, throttling and other users of the GPU are not known: {reason}"]
    slowed_by = dict.fromkeys((*before.slowed_by, *after.slowed_by))
    return [f"the GPU was held back while it was measured: {', '.join(slowed_by)}"] if slowed_by else []


def _figures(state: GpuState | str) -> dict[str, float]:
    if isinstance(state, str):
        return {}
    return {
        "sm_clock_mhz": state.sm_clock_mhz,
        "memory_clock_mhz": state.memory_clock_mhz,
        "power_limit_w": state.power_limit_w,
    }


def _rotation(inputs: Inputs, cache_bytes: int) -> Iterator[Inputs]:
    """Copies for ever, as many as it takes to fill the cache twice, within reason; both models draw from the same."""
    count = math.ceil(2 * cache_bytes / max(1, sum(tensor.nbytes for tensor in inputs.tensors)))
    return itertools.cycle([inputs.copy() for _ in range(min(max(2, count), _MAX_INPUTS))])


def _on_next_input(model: nn.Module, rotation: Iterator[Inputs]) -> Call:
    """A call on the next input of ``rotation``, after a warm-up."""

    def call() -> object:
        with torch.inference_mode():
            return next(rotation).lend_to(model)

    for _ in range(WARMUP_CALLS):
        call()
    return call


def _graph_timer(model: nn.Module, rotation: Iterator[Inputs], device: Device) -> Timer:
    """Times replays; before each, and not timed, the next input is put where the graph reads it."""
    static = next(rotation).copy()

    def call() -> object:
        with torch.no_grad():
            return static.lend_to(model)

    try:
        replay = device.capture(call)
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise MeasureError(f"a forward pass cannot be captured as a CUDA graph: {reason}") from error
    return _event_timer(replay, device, before=lambda: _copy_into(static, next(rotation)))


def _copy_into(static_: Inputs, inputs: Inputs) -> None:
    for there, here in zip(static_.tensors, inputs.tensors, strict=True):
        there.copy_(here)


def _event_timer(call: Call, device: Device, before: Call | None = None) -> Timer:
    """Times a call on the device, from idle to idle; ``before`` is called first, and not timed."""

    def timer() -> float:
        if before is not None:
            before()
        device.synchronize()
        start, end = device.new_event(), device.new_event()
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    return timer
