"""How a test that times models spends its time, and how pytest-benchmark hears of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from compress.errors import CompressError, MeasureError
from compress.pytest_plugin.run import RUN

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture
    from torch import nn

    from compress.measure.latency import Effort
    from compress.results import Measurement


@dataclass
class PytestBenchmark:
    """Shows pytest-benchmark what was measured: its own fixture then holds the compressed model's times."""

    request: pytest.FixtureRequest
    _used: bool = False

    def refuse_if_disabled(self) -> None:
        """What the user does not want to be timed is not measured.

        Raises:
            MeasureError: if pytest-benchmark's benchmarks are disabled.
        """
        benchmark = self._benchmark()
        if benchmark.disabled:
            benchmark.skipped = True
            raise MeasureError("benchmarks are disabled, by --benchmark-disable or by pytest-xdist")

    @contextmanager
    def skipped_if_unmeasured(self) -> Iterator[None]:
        """What could not be measured says so itself, and needs no warning that the fixture was not used."""
        try:
            yield
        except CompressError:
            self._benchmark().skipped = True
            raise

    def show(self, measured: Measurement) -> None:
        """Have the fixture time as many rounds as there are pairs, by a clock that repeats what was measured."""
        if self._used:
            # The fixture serves once for a test; a second look at the same models is not another benchmark.
            return
        self._used = True
        benchmark = self._benchmark()
        times = itertools.chain.from_iterable((0.0, compressed / 1e3) for _, compressed in measured.pairs)

        def perf_counter() -> float:
            return next(times)

        benchmark._timer = perf_counter
        benchmark.group = benchmark.group or "time per image"
        benchmark.pedantic(lambda: None, rounds=len(measured.pairs))  # type: ignore[no-untyped-call]
        # pytest-benchmark's file can hold plain numbers only.
        benchmark.extra_info.update(dense_ms=measured.dense, ratio=measured.ratio)

    def _benchmark(self) -> BenchmarkFixture:
        fixture: BenchmarkFixture = self.request.getfixturevalue("benchmark")
        return fixture


@dataclass
class Looks:
    """How long a test may look at a pair of models, and then look again at what is in doubt."""

    config: pytest.Config
    # The models are kept with their efforts: others could be given the same ids once these are gone.
    _efforts: dict[tuple[int, ...], tuple[tuple[nn.Module, ...], Iterator[Effort]]] = field(default_factory=dict)

    def effort(self, *models: nn.Module) -> Effort:
        """For the next look at these models."""
        from compress.gate.checks import precise_enough
        from compress.gate.judge import RECORDED_LOOKS
        from compress.measure.latency import looks

        key = tuple(map(id, models))
        if key not in self._efforts:
            run = self.config.stash[RUN]
            first = RECORDED_LOOKS if run.recording else 1
            self._efforts[key] = models, looks(run.settings.seconds, precise_enough, first=first)
        return next(self._efforts[key][1])
