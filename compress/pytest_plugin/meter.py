"""What measures one metric of a compressed model and the dense one it came from, and asks once what cannot change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from torch import nn

    from compress.results import Measurement, Metric

Found = TypeVar("Found")

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


def once_a_model(find_out: Callable[[nn.Module], Found]) -> Callable[[nn.Module], Found]:
    """The same, but asked once for each model: the dense one meets every recipe's."""
    known: WeakKeyDictionary[nn.Module, Found] = WeakKeyDictionary()

    def once(model: nn.Module) -> Found:
        if model not in known:
            known[model] = find_out(model)
        return known[model]

    return once
