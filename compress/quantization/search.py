"""Which layers of a calibrated model stay in float, so that its accuracy holds."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from torch import fx, nn
from torch.export import ExportedProgram

from compress.calling.batches import first_of
from compress.calling.fidelity import check_same
from compress.calling.inputs import Inputs
from compress.exported import capture
from compress.exported.structure import Signature
from compress.quantization.contract import Accuracy, fewest
from compress.quantization.model import QuantizedModel, layers_with_kernels, quantized_model
from compress.quantization.observed import Layer, Observer, calibrate_, converted, layers_of, observed
from compress.quantization.report import FLOAT, INT8, NOT_LOWERED, LayerReport, no_kernel
from compress.quantization.simulation import Simulation, sensitivities
from compress.quantization.tuning import Tuning, tune_
from compress.system.cpu import has_vnni

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
        inputs: some of the calibration inputs.
        without_kernel: nodes of layers that Inductor ran in float, and that are left in float since.
        tuning: what is changed so that rounding costs less.
    """

    program: ExportedProgram
    batches: list[Inputs]
    observer: Observer
    reduce_range: bool
    simulation: Simulation
    sensitivity_db: dict[str, float]
    inputs: Inputs
    without_kernel: set[str] = field(default_factory=set)
    tuning: Tuning = field(default_factory=Tuning)

    @property
    def ranked(self) -> list[Layer]:
        """The layers that can be int8, the most sensitive first."""
        layers = self.simulation.layers
        candidates = [layer for layer in layers if layer.observers and layer.node not in self.without_kernel]
        return sorted(candidates, key=lambda layer: self.sensitivity_db[layer.node])

    def num_int8(self, in_float: int) -> int:
        """How many layers are int8 with that many of the most sensitive ones in float."""
        return len(self.ranked) - in_float


def prepare(model: nn.Module, given: nn.Module, batches: list[Inputs], observer: Observer, *, progress: bool) -> Found:
    """Capture, observe and calibrate ``model``, which is in eval mode, and rank its layers.

    Args:
        model: a copy of the one given, which may be changed.
        given: the one that the graph is held against.
        batches: calibration inputs.
        observer: how ranges are found.
        progress: whether to show how far it is.

    Raises:
        ModelError: if the model cannot be captured, or the graph computes something else.
    """
    program = capture(model, batches[0], alike=batches)
    reduce_range = not has_vnni()
    graph = observed(program, observer=observer, reduce_range=reduce_range)
    calibrate_(graph, batches, progress=progress)
    simulation = Simulation(graph, layers_of(graph), Signature.of(program))
    inputs = first_of(batches[0], _SENSITIVITY_INPUTS)
    simulation.only = ()
    check_same(given, simulation, inputs, "the graph")
    simulation.only = None
    return Found(
        program=program,
        batches=batches,
        observer=observer,
        reduce_range=reduce_range,
        simulation=simulation,
        sensitivity_db=sensitivities(simulation, inputs, progress=progress),
        inputs=inputs,
    )


def retuned(found: Found, tuning: Tuning) -> Found:
    """The same with other changes to the graph; layers stay ranked as they are."""
    graph = _calibrated(found, tuning, ())
    return replace(found, simulation=Simulation(graph, layers_of(graph), found.simulation.signature), tuning=tuning)


def reference(found: Found) -> Simulation:
    """The graph in float, with nothing changed about it but the equalization."""
    graph = _observed(found, found.tuning, ())
    return Simulation(graph, layers_of(graph), found.simulation.signature)


def ranked_anew(found: Found, *, progress: bool) -> Found:
    """The same with the layers' sensitivities as they are after all changes."""
    return replace(found, sensitivity_db=sensitivities(found.simulation, found.inputs, progress=progress))


def _calibrated(found: Found, tuning: Tuning, in_float: Collection[str]) -> fx.GraphModule:
    graph = _observed(found, tuning, in_float)
    calibrate_(graph, found.batches, progress=False)
    tune_(graph, layers_of(graph), tuning)
    return graph


def _observed(found: Found, tuning: Tuning, in_float: Collection[str]) -> fx.GraphModule:
    return observed(
        found.program,
        observer=found.observer,
        reduce_range=found.reduce_range,
        in_float=in_float,
        scales=tuning.scales,
    )


def fewest_in_float(found: Found, accuracy: Accuracy, wanted: float, *, at_least: int, all_int8: float) -> int | None:
    """How many of the most sensitive layers must stay in float to reach the accuracy wanted; None if all must.

    ``all_int8`` is the accuracy with none in float, which is known: to measure one takes a pass over all examples.
    """
    ranked = found.ranked

    def holds(count: int) -> bool:
        in_float = [*ranked[:count], *_without_kernel(found)]
        if not in_float:
            return all_int8 >= wanted
        found.simulation.in_float = in_float
        return accuracy(found.simulation) >= wanted

    return fewest(holds, below=len(ranked), at_least=at_least)


def built(found: Found, in_float: int) -> QuantizedModel:
    """The int8 model with that many of its most sensitive layers in float."""
    nodes = {layer.node for layer in found.ranked[:in_float]} | found.without_kernel
    # Converting takes the observers out, and the simulation may be asked again.
    graph = _calibrated(found, found.tuning, nodes) if nodes else copy.deepcopy(found.simulation.graph)
    return quantized_model(converted(graph), found.inputs, found.batches)


def layer_reports(found: Found, in_float: int) -> tuple[LayerReport, ...]:
    """Every layer in the order they run in, the given number of the most sensitive ones in float."""
    kept = {layer.node for layer in found.ranked[:in_float]}
    return tuple(
        _layer_report(layer, found.sensitivity_db.get(layer.node), kept=layer.node in kept)
        if layer.node not in found.without_kernel
        else LayerReport(name=layer.name, precision=FLOAT, reason=NOT_LOWERED)
        for layer in found.simulation.layers
    )


def note_float_layers_(found: Found, in_float: int, quantized: QuantizedModel) -> bool:
    """Note which layers of the int8 model Inductor runs in float all the same; False if there are none."""
    left = found.without_kernel | {layer.node for layer in found.ranked[:in_float]}
    layers = [layer for layer in found.simulation.layers if layer.observers and layer.node not in left]
    lowered = layers_with_kernels(quantized, found.batches[0])
    missing = {layer.node for layer, is_int8 in zip(layers, lowered, strict=True) if not is_int8}
    found.without_kernel.update(missing)
    return bool(missing)


def _without_kernel(found: Found) -> list[Layer]:
    return [layer for layer in found.simulation.layers if layer.node in found.without_kernel]


def _layer_report(layer: Layer, sensitivity_db: float | None, *, kept: bool) -> LayerReport:
    if sensitivity_db is None:
        return LayerReport(name=layer.name, precision=FLOAT, reason=no_kernel(layer.operation))
    shown = round(sensitivity_db, 1) if math.isfinite(sensitivity_db) else None
    reason = f"the accuracy contract: alone in int8 it leaves the outputs {shown} dB" if kept else ""
    return LayerReport(name=layer.name, precision=FLOAT if kept else INT8, reason=reason, sensitivity_db=shown)
