"""What a factorization does to each layer, for people to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from compress.lowrank.config import Kind


@dataclass(frozen=True, kw_only=True)
class PlannedLayer:
    """What becomes of one weight.

    Attributes:
        names: of the layers that have it; more than one where it is tied.
        kind: how it is decomposed; None where it stays whole.
        ranks: channels between the first and the second new layer, and between the second and the third.
        error: share of the weight's energy, of its outputs' with calibration data, that is left out.
        macs_before, macs_after: multiply-accumulates on the example inputs.
        params_before, params_after: elements of the weights, without biases.
        reason: why it stays whole; None where it does not.
    """

    names: tuple[str, ...]
    kind: Kind | None = None
    ranks: tuple[int, ...] = ()
    error: float = 0.0
    macs_before: int = 0
    macs_after: int = 0
    params_before: int = 0
    params_after: int = 0
    reason: str | None = None

    def __str__(self) -> str:
        name = ", ".join(self.names)
        if self.reason is not None:
            return f"{'whole':>18}  {name}: {self.reason}"
        ranks = ", ".join(map(str, self.ranks))
        return (
            f"{self.kind or '':>8} {ranks:>9}  {name}: {self.macs_before:,} -> {self.macs_after:,} MACs,"
            f" {self.error:.2%} lost"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class FactorizationPlan:
    """A decision, made for one model, and the layers it takes.

    Attributes:
        layers: every linear and convolution layer, those that stay whole too.
        uncounted: what took part with weights and is in none of the counts of MACs.
        macs_before, macs_after: of the whole model on the example inputs.
        num_params_before, num_params_after: of the whole model.
        replacements: the new layers, by the name of the one that each takes the place of.
    """

    layers: Sequence[PlannedLayer]
    uncounted: tuple[str, ...] = ()
    macs_before: int
    macs_after: int
    num_params_before: int
    num_params_after: int
    replacements: Mapping[str, nn.Module]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """A summary, then a line for each layer."""
        macs = self.macs_after / self.macs_before if self.macs_before else 1.0
        params = self.num_params_after / self.num_params_before if self.num_params_before else 1.0
        yield (
            f"{self.macs_before:,} -> {self.macs_after:,} MACs ({macs:.1%}),"
            f" {self.num_params_before:,} -> {self.num_params_after:,} parameters ({params:.1%})"
        )
        if self.uncounted:
            yield f"not among the MACs, for their cost is unknown: {', '.join(self.uncounted)}"
        yield from map(str, self.layers)
