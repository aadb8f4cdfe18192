"""Two models called in turn, in one process: their times as pairs, whose ratio a drifting clock leaves alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

Pairs = tuple[tuple[float, float], ...]
Call = Callable[[], object]
Timer = Callable[[], float]
"""Makes a call and tells how many milliseconds it took."""


def elapsed_ms(call: Call) -> float:
    """Milliseconds that one call takes by the host's clock."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def take_pairs(dense: Timer, compressed: Timer, count: int) -> Pairs:
    """``count`` pairs of (dense, compressed) milliseconds, the dense model called first in every other pair."""
    pairs = []
    for i in range(count):
        # The order alternates, so that neither finds the caches always as the other left them.
        if i % 2 == 0:
            dense_ms, compressed_ms = dense(), compressed()
        else:
            compressed_ms, dense_ms = compressed(), dense()
        pairs.append((dense_ms, compressed_ms))
    return tuple(pairs)


def pair_ms(dense: Timer, compressed: Timer) -> float:
    """Milliseconds that a call of each takes together, about."""
    return statistics.median(dense() + compressed() for _ in range(3))


def ratio_of(pairs: Sequence[tuple[float, float]]) -> float:
    """Time of the compressed model in units of the dense one's: the median over pairs."""
    return statistics.median(compressed / dense for dense, compressed in pairs)


@contextmanager
def pinned_threads(threads: int) -> Iterator[None]:
    """Run operations on ``threads`` threads of this process."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
