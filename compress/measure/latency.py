"""How long a forward pass takes, dense and compressed called in turn.

One model's milliseconds say more about the neighbours on a shared machine than about the model; the ratio of two
models called in turn says little about anything else. So every figure here is a series of pairs, whose order
alternates: a drifting clock, or a cache left warm by the first call, then favours neither.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from compress.errors import MeasureError
from compress.measure.environment import cpu_class, cuda_class
from compress.results import METRICS, Measurement

Pairs = tuple[tuple[float, float], ...]
Call = Callable[[], object]
TakePairs = Callable[[Call, Call, int], Pairs]

MIN_PAIRS = 30
MAX_PAIRS = 400
WARMUP_CALLS = 5
_RANGE = "compress.measure: one forward pass"


def cpu_latency(
    compressed: nn.Module,
    dense: nn.Module,
    example_input: Tensor,
    *,
    threads: int,
    seconds: float,
    take: TakePairs | None = None,
) -> Measurement:
    """Milliseconds of one forward pass on the CPU.

    Args:
        compressed, dense: the models; moved to the CPU and put into eval mode.
        example_input: ``[n, ...]``, what both are called with.
        threads: how many threads an operation may use.
        seconds: about how long to go on.
        take: calls both in turn, :func:`take_pairs` if not given.
    """
    with pinned_threads(threads):
        first, second = forward(dense, example_input, "cpu"), forward(compressed, example_input, "cpu")
        pairs = (take or take_pairs)(first, second, num_pairs(first, second, seconds))
    return time_measurement("cpu_latency_ms", pairs, cpu_class(threads))


def cuda_latency(
    compressed: nn.Module, dense: nn.Module, example_input: Tensor, *, seconds: float, take: TakePairs | None = None
) -> Measurement:
    """Milliseconds of one forward pass on the CUDA device, until the host has seen it end; see :func:`cpu_latency`."""
    first, second = forward(dense, example_input, "cuda"), forward(compressed, example_input, "cuda")
    pairs = (take or take_pairs)(first, second, num_pairs(first, second, seconds))
    return time_measurement("cuda_latency_ms", pairs, cuda_class())


def cpu_time(compressed: nn.Module, dense: nn.Module, example_input: Tensor, *, threads: int) -> Measurement:
    """Milliseconds of CPU time of one forward pass, summed over all operations that torch.profiler records."""
    with pinned_threads(threads):
        first, second = forward(dense, example_input, "cpu"), forward(compressed, example_input, "cpu")
        pairs = _profiled_pairs(first, second, [ProfilerActivity.CPU], _cpu_ms)
    return time_measurement("cpu_time_ms", pairs, cpu_class(threads))


def cuda_time(compressed: nn.Module, dense: nn.Module, example_input: Tensor) -> Measurement:
    """Milliseconds of CUDA kernels of one forward pass, summed over all that torch.profiler records."""
    first, second = forward(dense, example_input, "cuda"), forward(compressed, example_input, "cuda")
    pairs = _profiled_pairs(first, second, [ProfilerActivity.CPU, ProfilerActivity.CUDA], _cuda_ms)
    return time_measurement("cuda_time_ms", pairs, cuda_class())


def forward(model: nn.Module, example_input: Tensor, device: str) -> Call:
    """A call of ``model`` without arguments, on ``device``, that returns when the result is there."""
    model = model.to(device).eval()
    inputs = example_input.to(device)

    def call() -> object:
        with torch.inference_mode():
            output = model(inputs)
        if device == "cuda":
            torch.cuda.synchronize()
        return output

    for _ in range(WARMUP_CALLS):
        call()
    return call


def elapsed_ms(call: Call) -> float:
    """Milliseconds that one call takes by the host's clock."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def take_pairs(dense: Call, compressed: Call, count: int, clock: Callable[[Call], float] = elapsed_ms) -> Pairs:
    """``count`` pairs of (dense, compressed) as ``clock`` sees them, the dense one first in every other pair."""
    pairs = []
    for i in range(count):
        if i % 2 == 0:
            dense_ms, compressed_ms = clock(dense), clock(compressed)
        else:
            compressed_ms, dense_ms = clock(compressed), clock(dense)
        pairs.append((dense_ms, compressed_ms))
    return tuple(pairs)


def num_pairs(dense: Call, compressed: Call, seconds: float) -> int:
    """How many pairs fit into ``seconds``: never fewer than 30, for an interval needs them; never more than 400."""
    once = statistics.median(elapsed_ms(dense) + elapsed_ms(compressed) for _ in range(3)) / 1e3
    if once <= 0:
        # The clock stands still, which the pairs will show.
        return MIN_PAIRS
    return max(MIN_PAIRS, min(MAX_PAIRS, int(seconds / once)))


def time_measurement(metric: str, pairs: Pairs, device_class: str) -> Measurement:
    """The medians of ``pairs``, and the pairs themselves for the ratio and its interval.

    Raises:
        MeasureError: if a call took no time, as a clock that stands still reports.
    """
    if not pairs or min(map(min, pairs)) <= 0:
        raise MeasureError(f"{METRICS[metric].title}: the clock reported no time for some forward passes")
    return Measurement(
        metric=metric,
        dense=statistics.median(dense for dense, _ in pairs),
        compressed=statistics.median(compressed for _, compressed in pairs),
        device=device_class,
        pairs=pairs,
    )


@contextmanager
def pinned_threads(threads: int) -> Iterator[None]:
    """Run operations on ``threads`` threads of this process."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _profiled_pairs(
    dense: Call, compressed: Call, activities: Sequence[ProfilerActivity], read_ms: Callable[[FunctionEvent], float]
) -> Pairs:
    """Pairs of calls taken under one profiler, whose start costs far more than a forward pass."""
    # Read when the profiler first starts: its progress messages would go to the user's terminal otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    numbers = itertools.count()

    def marked(call: Call) -> float:
        with record_function(_RANGE):
            call()
        return next(numbers)

    with profile(activities=activities, acc_events=True) as profiler:
        order = take_pairs(dense, compressed, MIN_PAIRS, clock=marked)
    ranges = [event for event in profiler.events() or () if event.name == _RANGE]
    return tuple((read_ms(ranges[int(first)]), read_ms(ranges[int(second)])) for first, second in order)


def _cpu_ms(call: FunctionEvent) -> float:
    """All operations within the range; what the range spent itself is Python's time between them."""
    return float(call.cpu_time_total - call.self_cpu_time_total) / 1e3


def _cuda_ms(call: FunctionEvent) -> float:
    """All kernels launched within the range."""
    return float(call.device_time_total) / 1e3
