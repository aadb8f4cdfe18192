"""What measures one metric of a compressed model and the dense one it came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from compress.results import Measurement

Measure = Callable[["nn.Module", "nn.Module"], "Measurement"]

# Why what needs a CUDA device was not measured.
NO_CUDA = "no CUDA device"


@dataclass(frozen=True, kw_only=True)
class Meter:
    """Measures one metric: called with the compressed and the dense model, returns both values.

    Attributes:
        metric: a key of :data:`compress.results.METRICS`.
        measure: what is called.
    """

    metric: str
    measure: Measure

    def __call__(self, compressed: nn.Module, dense: nn.Module) -> Measurement:
        return self.measure(compressed, dense)
