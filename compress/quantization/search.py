"""Which layers of a calibrated model stay in float, so that its accuracy holds."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

from torch import Tensor, nn
from torch.export import ExportedProgram

from compress.cpu import has_vnni
from compress.exported import capture
from compress.quantization.contract import Accuracy, fewest
from compress.quantization.model import QuantizedModel, quantized_model
from compress.quantization.observed import Layer, Observer, calibrate_, converted, layers_of, observed
from compress.quantization.report import FLOAT, INT8, LayerReport, no_kernel
from compress.quantization.simulation import Simulation, sensitivities

# Inputs that the sensitivity of every layer is measured on; with a forward pass for each layer, few must do.
_SENSITIVITY_INPUTS = 16


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is known of a model before its layers are chosen.

    Attributes:
        program: in float.
        batches: calibration inputs.
        observer: how ranges were found.
        reduce_range: 7 bits for activations.
        simulation: of the model in int8.
        sensitivity_db: of each layer that can be int8, by its node.
        inputs, outputs: some calibration inputs, and what the float model makes of them.
    """

    program: ExportedProgram
    batches: list[Tensor]
    observer: Observer
    reduce_range: bool
    simulation: Simulation
    sensitivity_db: dict[str, float]
    inputs: Tensor
    outputs: Tensor

    @property
    def ranked(self) -> list[Layer]:
        """The layers that can be int8, the most sensitive first."""
        candidates = [layer for layer in self.simulation.layers if layer.observers]
        return sorted(candidates, key=lambda layer: self.sensitivity_db[layer.node])


def prepare(model: nn.Module, batches: list[Tensor], observer: Observer, *, progress: bool) -> Found:
    """Capture, observe and calibrate ``model``, which is in eval mode, and rank its layers."""
    program = capture(model, batches[0])
    reduce_range = not has_vnni()
    graph = observed(program, observer=observer, reduce_range=reduce_range)
    calibrate_(graph, batches, progress=progress)
    simulation = Simulation(graph, layers_of(graph))
    inputs = batches[0][:_SENSITIVITY_INPUTS]
    sensitivity_db = sensitivities(simulation, inputs, progress=progress)
    return Found(
        program=program,
        batches=batches,
        observer=observer,
        reduce_range=reduce_range,
        simulation=simulation,
        sensitivity_db=sensitivity_db,
        inputs=inputs,
        outputs=simulation.exact(inputs),
    )


def fewest_in_float(found: Found, accuracy: Accuracy, wanted: float, *, at_least: int) -> int | None:
    """How many of the most sensitive layers must stay in float to reach the accuracy wanted; None if all must."""
    ranked = found.ranked

    def holds(count: int) -> bool:
        found.simulation.in_float = ranked[:count]
        return accuracy(found.simulation) >= wanted

    return fewest(holds, below=len(ranked), at_least=at_least)


def built(found: Found, in_float: int) -> QuantizedModel:
    """The int8 model with that many of its most sensitive layers in float."""
    if in_float == 0:
        # Converting takes the observers out, and the simulation may be asked again.
        graph = copy.deepcopy(found.simulation.graph)
    else:
        nodes = {layer.node for layer in found.ranked[:in_float]}
        graph = observed(found.program, observer=found.observer, reduce_range=found.reduce_range, in_float=nodes)
        calibrate_(graph, found.batches, progress=False)
    return quantized_model(converted(graph), found.inputs)


def layer_reports(found: Found, in_float: int) -> tuple[LayerReport, ...]:
    """Every layer in the order they run in, the given number of the most sensitive ones in float."""
    kept = {layer.node for layer in found.ranked[:in_float]}
    return tuple(
        _layer_report(layer, found.sensitivity_db.get(layer.node), kept=layer.node in kept)
        for layer in found.simulation.layers
    )


def _layer_report(layer: Layer, sensitivity_db: float | None, *, kept: bool) -> LayerReport:
    if sensitivity_db is None:
        return LayerReport(name=layer.name, precision=FLOAT, reason=no_kernel(layer.operation))
    shown = round(sensitivity_db, 1) if math.isfinite(sensitivity_db) else None
    reason = f"the accuracy contract: alone in int8 it leaves the outputs {shown} dB" if kept else ""
    return LayerReport(name=layer.name, precision=FLOAT if kept else INT8, reason=reason, sensitivity_db=shown)
