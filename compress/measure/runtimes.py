"""The same models under several runtimes: compile times, files, agreement of outputs, and latencies called in turn."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from compress.artifacts.runtimes import Call, prepare
from compress.calling.batches import batch_size, first_of
from compress.calling.fidelity import relative_error
from compress.calling.inputs import Inputs, each_batch
from compress.calling.outputs import Outputs
from compress.calling.pairs import elapsed_ms
from compress.errors import CompressError
from compress.exported.executorch import PteModel
from compress.exported.file_model import FileModel
from compress.exported.packages import Package
from compress.measure.parity import Answered, answered, parity
from compress.measure.size import count_file_bytes
from compress.quality import Quality

MIN_ROUNDS = 10


@dataclass(kw_only=True)
class RuntimeRow:
    """One model under one runtime at one batch size.

    Attributes:
        runtime: one of :data:`~compress.artifacts.runtimes.RUNTIMES`.
        precision: which model: "float32" for the dense one, else the recipe's name.
        batch: inputs at once.
        prepare_s: seconds until it was ready, compilation included.
        difference: relative error of its outputs to the model's own in eager mode, on the inputs that are timed.
        file_bytes: of the file that the runtime executes.
        parity: on test examples, against the model itself in eager mode: of classifiers the share that gets another
            class, of others the relative error of the outputs.
        note: what else is to be known of it, one line; "" for nothing.
        unavailable: why it could not be run; "" if it could.
        call: a forward pass.
        latencies_ms: of every call, in the order taken; the i-th of all rows belong to one round.
    """

    runtime: str
    precision: str
    batch: int
    prepare_s: float = math.nan
    difference: float = math.nan
    file_bytes: int = 0
    parity: float = math.nan
    note: str = ""
    unavailable: str = ""
    call: Callable[[], object] | None = None
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """Of one forward pass."""
        return statistics.median(self.latencies_ms) if self.latencies_ms else math.nan

    def speedup_over(self, other: RuntimeRow) -> float:
        """How many times as fast as ``other``: the median over rounds, which a drifting clock leaves alone."""
        pairs = zip(other.latencies_ms, self.latencies_ms, strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs) if self.latencies_ms else math.nan


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Test examples, and what each model itself puts out for them in eager mode.

    Attributes:
        quality: what a runtime is held to the model by.
        outputs: which of what the models put out counts.
        answers: of each model, by precision.
    """

    quality: Quality
    outputs: Outputs | None
    answers: Mapping[str, Sequence[Answered]]

    @staticmethod
    def of(
        models: Mapping[str, nn.Module],
        batches: Iterable[Any],
        count: int,
        quality: Quality,
        outputs: Outputs | None = None,
    ) -> Examples:
        """The first ``count`` examples of batches as :func:`compress.calling.inputs.each_batch` takes them."""
        first: list[Inputs] = []
        for batch in each_batch(batches, name="test examples"):
            first.append(first_of(batch.inputs, min(count, batch_size(batch.inputs))))
            count -= batch_size(first[-1])
            if count <= 0:
                break
        answers = {}
        for precision, model in models.items():
            call = prepare(model, first[0], runtime="eager")
            answers[precision] = list(answered(call, first, outputs))
        return Examples(quality=quality, outputs=outputs, answers=answers)

    def parity(self, call: Call, precision: str, batch: int) -> float:
        """How ``call``, which takes ``batch`` of them at once, answers where the model itself answered."""
        return parity(call, self.answers[precision], self.quality, batch=batch, outputs=self.outputs).value


def prepare_rows(
    models: Mapping[str, nn.Module],
    inputs: Inputs,
    runtimes: Sequence[str],
    note: Callable[[str], None],
    *,
    examples: Examples | None = None,
) -> list[RuntimeRow]:
    """Each model made ready under each runtime for a batch of inputs, and compared with itself in eager mode.

    Args:
        models: by precision.
        inputs: typical ones, for agreement on noise says little.
        runtimes: of :data:`~compress.artifacts.runtimes.RUNTIMES`.
        note: told what is being prepared.
        examples: to compare answers on; None not to.
    """
    rows, batch = [], batch_size(inputs)
    for (precision, model), runtime in itertools.product(models.items(), runtimes):
        row = RuntimeRow(runtime=runtime, precision=precision, batch=batch)
        note(f"preparing {precision} under {runtime} at batch {batch}")
        start = time.perf_counter()
        try:
            prepared = prepare(model, inputs, runtime=runtime)
        except CompressError as cause:
            row.unavailable = str(cause)
        else:
            row.prepare_s = time.perf_counter() - start
            row.difference = _difference(prepared, prepare(model, inputs, runtime="eager"), inputs)
            row.file_bytes = _file_bytes(prepared, model)
            row.note = prepared.delegation if isinstance(prepared, PteModel) else ""
            if examples is not None:
                row.parity = examples.parity(prepared, precision, batch)
            row.call = _forward(prepared, inputs)
        rows.append(row)
    return rows


def time_rows(rows: Sequence[RuntimeRow], seconds: float) -> None:
    """Call all rows in turn for about ``seconds``, every other round backwards; each keeps its latencies."""
    ready = [row for row in rows if row.call is not None]
    end = time.perf_counter() + seconds
    for number in itertools.count():
        if number >= MIN_ROUNDS and time.perf_counter() > end:
            break
        for row in ready if number % 2 == 0 else reversed(ready):
            assert row.call is not None  # noqa: S101 - ready is
            row.latencies_ms.append(elapsed_ms(row.call))


def _forward(prepared: Call, inputs: Inputs) -> Callable[[], object]:
    own = inputs.copy()

    def call() -> object:
        with torch.inference_mode():
            return own.lend_to(prepared)

    return call


def _difference(prepared: Call, reference: Call, inputs: Inputs) -> float:
    with torch.inference_mode():
        return relative_error(inputs.call(reference), inputs.call(prepared))


def _file_bytes(prepared: Call, model: nn.Module) -> int:
    if isinstance(prepared, Package):
        return prepared.path.stat().st_size
    return len(prepared.content) if isinstance(prepared, FileModel) else count_file_bytes(model)
