"""What measures one metric of a compressed model and the dense one it came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from compress.results import Measurement, Metric

Measure = Callable[["nn.Module", "nn.Module"], "Measurement"]

# Why what needs a CUDA device was not measured.
NO_CUDA = "no CUDA device"


@dataclass(frozen=True, kw_only=True)
class Meter:
    """Measures one metric: called with the compressed and the dense model, returns both values.

    Attributes:
        metric: its name.
        measure: what is called.
        declared: what it is, where it is none of :data:`compress.results.METRICS`.
    """

    metric: str
    measure: Measure
    declared: Metric | None = None

    def __call__(self, compressed: nn.Module, dense: nn.Module) -> Measurement:
        return self.measure(compressed, dense)
