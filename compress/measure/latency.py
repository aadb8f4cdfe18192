"""How long a forward pass takes, dense and compressed called in turn.

One model's milliseconds say more about the neighbours on a shared machine than about the model; the ratio of two
models called in turn says little about anything else. So every figure here is a series of pairs, whose order
alternates: a drifting clock, or a cache left warm by the first call, then favours neither. And because a process keeps
for its life the place where its code and memory came to lie, which alone makes a model some percent faster or slower,
the pairs come from several fresh processes.
"""

from __future__ import annotations

import gc
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from compress.artifacts.runtimes import OUTSIDE_TORCH, prepare
from compress.calling.inputs import Inputs, inputs_of
from compress.calling.pairs import Call, Pairs, elapsed_ms, pair_ms, pinned_threads, take_pairs
from compress.errors import MeasureError
from compress.measure.children import Children, Conditions, RebuildError, ready, saved
from compress.results import METRICS, Measurement
from compress.system.cpu import cpu_class

Take = Callable[[int], Pairs]
Enough = Callable[[Sequence[Pairs]], bool]

MIN_PAIRS = 30
MAX_PAIRS = 400
WARMUP_CALLS = 5
# One process's pairs before the next one's turn: even, so that either model goes first equally often.
_TURN = 10
_NOT_PROFILED = "torch.profiler sees nothing of what the recipe's runtime executes"
_RANGE = "compress.measure: one forward pass"


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard to look.

    Attributes:
        seconds: how long a measurement may take in all, processes' start included; it takes longer only where 30 pairs
            in each process do.
        enough: whether the pairs of each process so far are all that is needed; None to use the time.
        clock: seconds that pass.
    """

    seconds: float = 10.0
    enough: Enough | None = None
    clock: Callable[[], float] = time.monotonic


def looks(
    seconds: float, enough: Enough | None, clock: Callable[[], float] = time.monotonic, *, first: int = 1
) -> Iterator[Effort]:
    """The effort of each look at the same models, which all together are to take ``seconds`` from now.

    The first look takes half of that at most. A second look, at what the first left in doubt, takes all that is left.
    Where ``first`` looks are taken before there is any doubt, each of them may take half, and the second comes on top.
    """
    deadline = clock() + seconds * (1 + first) / 2
    for _ in range(first):
        yield Effort(seconds=seconds / 2, enough=enough, clock=clock)
    while True:
        yield Effort(seconds=max(0.0, deadline - clock()), clock=clock)


def cpu_latency(
    compressed: nn.Module, dense: nn.Module, conditions: Conditions, *, effort: Effort, children: Children | None = None
) -> Measurement:
    """Milliseconds of one forward pass on the CPU.

    Args:
        compressed, dense: the models; without ``children`` moved to the CPU and put into eval mode.
        conditions: how a fresh process finds them, what they are called with, runtime and threads.
        effort: how long to go on.
        children: the processes to measure in, all with ``conditions.threads`` threads; None for this one. What they
            cannot rebuild is measured in this one as well, and a note says so.

    Raises:
        MeasureError: if a process fails, is killed or hangs, or a clock stands still.
    """
    deadline = effort.clock() + effort.seconds

    def elsewhere(children: Children) -> Sequence[Pairs]:
        return runs_in(children, {"dense": dense, "compressed": compressed}, conditions, effort)

    def here() -> Sequence[Pairs]:
        first, second = (partial(elapsed_ms, _forward(model, conditions)) for model in (dense, compressed))
        return take_runs([partial(take_pairs, first, second)], pair_ms(first, second), deadline, effort)

    return _measured("cpu_latency_ms", conditions, children, elsewhere, here)


def runs_in(
    children: Children,
    models: Mapping[str, nn.Module],
    conditions: Conditions,
    effort: Effort,
    *,
    slowdown: float = 0.0,
) -> tuple[Pairs, ...]:
    """The pairs that each of ``children`` takes.

    Args:
        children: fresh processes.
        models: those called "dense" and "compressed".
        conditions: how the processes find them again.
        effort: how long to go on, from now.
        slowdown: fraction by which each call of the compressed model is made to take longer, by waiting busily.

    Raises:
        MeasureError: if a process fails, is killed or hangs; a RebuildError if it cannot make a model again.
    """
    deadline = effort.clock() + effort.seconds
    with saved(models, conditions) as request:
        once_ms = children.load({"do": "load", "slowdown": slowdown, **request})
        takers = [partial(children.take_pairs, index) for index in range(children.count)]
        return take_runs(takers, once_ms, deadline, effort)


def cpu_time(
    compressed: nn.Module, dense: nn.Module, conditions: Conditions, *, children: Children | None = None
) -> Measurement:
    """Milliseconds of CPU time of one forward pass, summed over all operations that torch.profiler records.

    Nothing is measured under a runtime that runs no such operations.

    Args:
        compressed, dense: the models; without ``children`` moved to the CPU and put into eval mode.
        conditions: how a fresh process finds them, what they are called with, runtime and threads.
        children: the processes to measure in, as for :func:`cpu_latency`; they share the pairs among them.

    Raises:
        MeasureError: if a process fails, is killed or hangs.
    """
    if conditions.runtime in OUTSIDE_TORCH:
        return Measurement(metric="cpu_time_ms", unmeasured=_NOT_PROFILED, inapplicable=True)

    def elsewhere(children: Children) -> Sequence[Pairs]:
        # One process after the other, for none is to wait for another; either model goes first equally often.
        count = max(_TURN, 2 * math.ceil(MIN_PAIRS / children.count / 2))
        with saved({"dense": dense, "compressed": compressed}, conditions) as request:
            children.load({"do": "load", "slowdown": 0.0, **request})
            return [children.take_pairs(index, count, profiled=True) for index in range(children.count)]

    def here() -> Sequence[Pairs]:
        return [profiled_on_cpu(_forward(dense, conditions), _forward(compressed, conditions), MIN_PAIRS)]

    return _measured("cpu_time_ms", conditions, children, elsewhere, here)


def profiled_on_cpu(dense: Call, compressed: Call, count: int) -> Pairs:
    """So many pairs of milliseconds of CPU time, summed over the operations of a call."""
    return profiled_pairs(dense, compressed, [ProfilerActivity.CPU], _cpu_ms, count=count)


def _measured(
    metric: str,
    conditions: Conditions,
    children: Children | None,
    elsewhere: Callable[[Children], Sequence[Pairs]],
    here: Callable[[], Sequence[Pairs]],
) -> Measurement:
    """What is taken in fresh processes, or in this one where there are none or they cannot make the models again."""
    notes = []
    if children is not None and children.count:
        try:
            return time_measurement(metric, elsewhere(children), cpu_class(conditions.threads))
        except RebuildError as error:
            notes = [f"measured in this process instead of {children.count} fresh ones: {error}"]
    with pinned_threads(conditions.threads):
        runs = here()
    return time_measurement(metric, runs, cpu_class(conditions.threads), notes)


def forward(model: nn.Module, example_inputs: Any, device: str, *, runtime: str = "eager") -> Call:
    """A call of ``model`` without arguments, on ``device``, that returns when the result is there."""
    inputs = inputs_of(example_inputs).to(torch.device(device))
    return warmed(prepare(model.to(device), inputs, runtime=runtime), inputs)


def warmed(run: Callable[..., object], inputs: Inputs) -> Call:
    """A call of ``run`` without arguments, called a few times already."""
    own = inputs.copy()
    is_on_gpu = any(tensor.is_cuda for tensor in own.tensors)

    def call() -> object:
        with torch.inference_mode():
            output = own.lend_to(run)
        if is_on_gpu:
            torch.cuda.synchronize()
        return output

    for _ in range(WARMUP_CALLS):
        call()
    return call


def take_runs(takers: Sequence[Take], once_ms: float, deadline: float, effort: Effort) -> tuple[Pairs, ...]:
    """One run of pairs from each of ``takers``, which take their turns, so that every one sees the same weather.

    There are at least 30 pairs in each, however long that takes, and at most 400. Whether they are enough is asked only
    after 30, 60, 120 and 240 of them: the more often one looks, the likelier chance is to please once.

    Args:
        takers: each takes so many pairs more.
        once_ms: how long a pair takes, about.
        deadline: on ``effort.clock``, after which no turn is begun that is not needed.
        effort: what is enough.
    """
    runs: list[list[tuple[float, float]]] = [[] for _ in takers]
    round_s = len(takers) * _TURN * once_ms / 1e3
    look_at = MIN_PAIRS
    while True:
        for run, take in zip(runs, takers, strict=True):
            run.extend(take(_TURN))
        taken = len(runs[0])
        if taken < MIN_PAIRS:
            continue
        if taken >= MAX_PAIRS or effort.clock() + round_s > deadline:
            break
        if taken >= look_at:
            look_at *= 2
            if effort.enough is not None and effort.enough([tuple(run) for run in runs]):
                break
    return tuple(tuple(run) for run in runs)


def time_measurement(metric: str, runs: Sequence[Pairs], device_class: str, notes: Sequence[str] = ()) -> Measurement:
    """The medians of all pairs, and the pairs themselves, process by process, for the ratio and its interval.

    Raises:
        MeasureError: if a call took no time, as a clock that stands still reports.
    """
    pairs = tuple(pair for run in runs for pair in run)
    if not pairs or min(map(min, pairs)) <= 0:
        raise MeasureError(f"{METRICS[metric].title}: the clock reported no time for some forward passes")
    return Measurement(
        metric=metric,
        dense=statistics.median(dense for dense, _ in pairs),
        compressed=statistics.median(compressed for _, compressed in pairs),
        device=device_class,
        pairs=pairs,
        run_lengths=tuple(map(len, runs)),
        notes=tuple(notes),
    )


def profiled_pairs(
    dense: Call,
    compressed: Call,
    activities: Sequence[ProfilerActivity],
    read_ms: Callable[[FunctionEvent], float],
    *,
    count: int = MIN_PAIRS,
) -> Pairs:
    """Pairs of calls taken under one profiler, whose start costs far more than a forward pass."""
    # Read when the profiler first starts: its progress messages would go to the user's terminal otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    numbers = itertools.count()

    def marked(call: Call) -> float:
        with record_function(_RANGE):
            call()
        return next(numbers)

    collecting = gc.isenabled()
    try:
        with profile(activities=activities, acc_events=True) as profiler:
            order = take_pairs(partial(marked, dense), partial(marked, compressed), count)
            # Of what was recorded torch now makes some 100,000 objects: the search for cycles among them takes as long.
            gc.disable()
        ranges = [event for event in profiler.events() or () if event.name == _RANGE]
    finally:
        if collecting:
            gc.enable()
    return tuple((read_ms(ranges[int(first)]), read_ms(ranges[int(second)])) for first, second in order)


def _forward(model: nn.Module, conditions: Conditions) -> Call:
    return warmed(ready(model, conditions), conditions.inputs)


def _cpu_ms(call: FunctionEvent) -> float:
    """All operations within the range; what the range spent itself is Python's time between them."""
    return float(call.cpu_time_total - call.self_cpu_time_total) / 1e3
