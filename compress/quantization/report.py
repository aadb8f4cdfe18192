"""What became of each layer, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

INT8, FLOAT = "int8", "float32"
NOT_LOWERED = "Inductor finds no int8 kernel for it"


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """One layer that has weights.

    Attributes:
        name: of the module, or of the node in the graph where a module has several.
        precision: "int8" or "float32".
        reason: why it is not int8; "" if it is.
        sensitivity_db: signal-to-noise ratio of the model's outputs, in dB, with this layer alone in int8: the lower,
            the more the layer's rounding hurts. None where that makes no sense.
    """

    name: str
    precision: str
    reason: str = ""
    sensitivity_db: float | None = None


@dataclass(frozen=True, kw_only=True)
class RungReport:
    """One way to lose less accuracy, and what it brought.

    Attributes:
        name: of the way.
        accuracy_before, accuracy_after: of the simulated int8 model, as the contract sees them, in 0..1.
        is_kept: whether the int8 model has it: not where it lost accuracy.
    """

    name: str
    accuracy_before: float
    accuracy_after: float
    is_kept: bool

    def __str__(self) -> str:
        kept = "" if self.is_kept else ", not kept"
        return f"{self.name}: {self.accuracy_before:.2%} -> {self.accuracy_after:.2%}{kept}"


@dataclass(frozen=True, kw_only=True)
class QuantizationReport:
    """What quantization did to a model.

    Attributes:
        layers: in the order they run in.
        int8_kernels: how many int8 convolutions and matrix products one forward pass of the compiled model ran.
        accuracy_float, accuracy_int8: as the contract saw them, in 0..1.
        accuracy_measure: what that accuracy is of.
        output_snr_db: signal-to-noise ratio of the outputs against the float model's, on calibration inputs.
        reduce_range: whether activations use 7 bits, as a CPU without VNNI needs.
        rungs: what was tried before layers were left in float, in order; nothing where plain int8 held the contract.
    """

    layers: tuple[LayerReport, ...]
    int8_kernels: int
    accuracy_float: float
    accuracy_int8: float
    accuracy_measure: str
    output_snr_db: float
    reduce_range: bool
    rungs: tuple[RungReport, ...] = ()

    @property
    def accuracy_drop(self) -> float:
        """Of the int8 model against the float one, in 0..1; negative where it is the better one."""
        return self.accuracy_float - self.accuracy_int8

    @property
    def float_layers(self) -> tuple[LayerReport, ...]:
        """Those that are not int8."""
        return tuple(layer for layer in self.layers if layer.precision != INT8)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @staticmethod
    def from_json(content: dict[str, Any]) -> QuantizationReport:
        """What :meth:`to_json` returned."""
        layers = tuple(LayerReport(**layer) for layer in content["layers"])
        rungs = tuple(RungReport(**rung) for rung in content.get("rungs", ()))
        return QuantizationReport(**{**content, "layers": layers, "rungs": rungs})

    def __str__(self) -> str:
        summary = (
            f"{len(self.layers) - len(self.float_layers)} of {len(self.layers)} layers in int8,"
            f" {self.int8_kernels} int8 kernels run, {self.accuracy_measure} {self.accuracy_float:.2%}"
            f" -> {self.accuracy_int8:.2%}, outputs {self.output_snr_db:.1f} dB"
        )
        lines = [f"  tried {rung}" for rung in self.rungs]
        lines += [f"  {layer.name} stays in float: {layer.reason}" for layer in self.float_layers]
        if self.reduce_range:
            lines.append("  activations use 7 bits for want of VNNI, and int8 is hardly faster than float on this CPU")
        return "\n".join([summary, *lines])


def no_kernel(operation: str) -> str:
    """Why an operation that quantization knows nothing of stays in float."""
    return f"there is no int8 kernel for {operation}"
