"""How long a cut model takes, in turn with the uncut one, while pruning looks for the cut to make."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from compress.channels.trace import Example
from compress.pruning.batches import device_of

Pairs = Sequence[tuple[float, float]]
PairedLatency = Callable[[nn.Module, nn.Module, Example], Pairs]
"""``(compressed, dense, example) -> [(dense_ms, compressed_ms), ...]``, the two called in turn."""

_WARMUP_CALLS = 3
_MIN_PAIRS, _MAX_PAIRS = 15, 200
_SECONDS = 1.5


def paired_latency(compressed: nn.Module, dense: nn.Module, example: Example) -> Pairs:
    """Milliseconds of forward passes by the host's clock: 15 to 200 pairs, in about 1.5 seconds if that is enough."""
    models = (dense.eval(), compressed.eval())
    once = sum(statistics.median(_elapsed_ms(model, example) for _ in range(_WARMUP_CALLS)) for model in models)
    count = max(_MIN_PAIRS, min(_MAX_PAIRS, int(_SECONDS * 1e3 / max(once, 1e-3))))
    pairs = []
    for turn in range(count):
        # The order alternates, so that neither finds the caches always as the other left them.
        first = turn % 2
        taken = {index: _elapsed_ms(models[index], example) for index in (first, 1 - first)}
        pairs.append((taken[0], taken[1]))
    return pairs


def ratio_of(pairs: Pairs) -> float:
    """Time of the compressed model in units of the dense one's: the median over pairs."""
    return statistics.median(compressed / dense for dense, compressed in pairs)


@contextmanager
def threads_of(count: int) -> Iterator[None]:
    """Run operations on ``count`` threads of the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _elapsed_ms(model: nn.Module, example: Example) -> float:
    cuda = device_of(model).type == "cuda"
    with torch.inference_mode():
        start = time.perf_counter()
        model(*example.args, **example.kwargs)
        if cuda:
            torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3
