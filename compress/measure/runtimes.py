"""The same models under several runtimes: compile times, files, agreement of outputs, and latencies called in turn."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from compress.artifacts.runtimes import Call, prepare
from compress.calling.outputs import Outputs
from compress.calling.pairs import elapsed_ms
from compress.data import Split
from compress.errors import CompressError
from compress.exported.executorch import PteModel
from compress.exported.file_model import FileModel
from compress.exported.packages import Package
from compress.measure.parity import Answered, answered, parity
from compress.measure.size import count_file_bytes
from compress.quality import Quality

MIN_ROUNDS = 10
_BATCH = 64


@dataclass(kw_only=True)
class RuntimeRow:
    """One model under one runtime at one batch size.

    Attributes:
        runtime: one of :data:`~compress.artifacts.runtimes.RUNTIMES`.
        precision: which model: "float32" for the dense one, else the recipe's name.
        batch: inputs at once.
        prepare_s: seconds until it was ready, compilation included.
        difference: largest difference of its outputs to the model's own in eager mode, relative to the largest output.
        file_bytes: of the file that the runtime executes.
        changed: share of test examples that get another class than from the model itself in eager mode, in 0..1.
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
    changed: float = math.nan
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
        models: Mapping[str, nn.Module], split: Split, count: int, quality: Quality, outputs: Outputs | None = None
    ) -> Examples:
        """The first ``count`` examples of a split."""
        images = torch.cat([images for images, _ in itertools.islice(split.batches(_BATCH), -(-count // _BATCH))])
        batches = torch.split(images[:count], _BATCH)
        answers = {}
        for precision, model in models.items():
            call = prepare(model, batches[0], runtime="eager")
            answers[precision] = list(answered(call, batches, outputs))
        return Examples(quality=quality, outputs=outputs, answers=answers)

    def share_changed(self, call: Call, precision: str, batch: int) -> float:
        """How many of them ``call``, which takes ``batch`` at once, answers otherwise than the model itself."""
        return parity(call, self.answers[precision], self.quality, batch=batch, outputs=self.outputs).value


def prepare_rows(
    models: Mapping[str, nn.Module],
    inputs: Tensor,
    runtimes: Sequence[str],
    note: Callable[[str], None],
    *,
    examples: Examples | None = None,
) -> list[RuntimeRow]:
    """Each model made ready under each runtime for ``inputs: [batch, ...]``, and compared with itself in eager mode.

    Args:
        models: by precision.
        inputs: typical ones, for agreement on noise says little.
        runtimes: of :data:`~compress.artifacts.runtimes.RUNTIMES`.
        note: told what is being prepared.
        examples: to count changed answers on; None not to.
    """
    rows = []
    for (precision, model), runtime in itertools.product(models.items(), runtimes):
        row = RuntimeRow(runtime=runtime, precision=precision, batch=len(inputs))
        note(f"preparing {precision} under {runtime} at batch {len(inputs)}")
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
                row.changed = examples.share_changed(prepared, precision, len(inputs))
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


def _forward(prepared: Call, inputs: Tensor) -> Callable[[], object]:
    def call() -> object:
        with torch.inference_mode():
            return prepared(inputs)

    return call


def _difference(prepared: Call, reference: Call, inputs: Tensor) -> float:
    with torch.inference_mode():
        outputs, expected = prepared(inputs), reference(inputs)
    return float((outputs - expected).abs().max() / expected.abs().max())


def _file_bytes(prepared: Call, model: nn.Module) -> int:
    if isinstance(prepared, Package):
        return prepared.path.stat().st_size
    return len(prepared.content) if isinstance(prepared, FileModel) else count_file_bytes(model)
