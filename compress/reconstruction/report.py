"""What became of each layer that was to be fitted again, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LayerFit:
    """One weight, and how far the layer's outputs were from the dense network's, on examples held out.

    Attributes:
        name: of the layer; of the tensor where a layer has several.
        is_fitted: whether its weights are new ones.
        reason: why not; "" if they are.
        error_before, error_after: squared error of the outputs, in units of the variance of the dense network's, with
            the old weights and with those it has now; None where nothing was measured.
        ridge: how strongly the new weights were held to the old ones, in units of the mean square of an input.
        inputs: how many values each output is a weighted sum of.
        positions: how many were looked at, those held out too.
    """

    name: str
    is_fitted: bool = False
    reason: str = ""
    error_before: float | None = None
    error_after: float | None = None
    ridge: float | None = None
    inputs: int = 0
    positions: int = 0

    @property
    def is_short(self) -> bool:
        """Whether there were fewer positions than unknowns, so that the ridge alone decides some directions."""
        return 0 < self.positions < self.inputs

    def __str__(self) -> str:
        errors = ""
        if self.error_before is not None and self.error_after is not None:
            errors = f" {self.error_before:9.2e} -> {self.error_after:9.2e} "
        state = f" fitted, ridge {self.ridge:g}" if self.is_fitted else f" kept: {self.reason}"
        few = f"; only {self.positions} positions for {self.inputs} inputs, the ridge holds" if self.is_short else ""
        return f"{self.name}:{errors}{state}{few}"


@dataclass(frozen=True, kw_only=True)
class ReconstructionReport:
    """What a reconstruction did to a model.

    Attributes:
        layers: in the order they run in, then those that never ran.
        examples: how many the batches held.
        held_out: how many of them errors were measured on and nothing was chosen by but the ridge.
    """

    layers: tuple[LayerFit, ...]
    examples: int
    held_out: int

    @property
    def kept_layers(self) -> tuple[LayerFit, ...]:
        """Those whose weights are the old ones."""
        return tuple(layer for layer in self.layers if not layer.is_fitted)

    def __str__(self) -> str:
        fitted = len(self.layers) - len(self.kept_layers)
        summary = f"{fitted} of {len(self.layers)} layers fitted on {self.examples} examples, {self.held_out} held out"
        return "\n".join([summary, *(f"  {layer}" for layer in self.layers)])
