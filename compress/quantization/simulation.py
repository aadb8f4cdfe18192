"""The int8 model in float arithmetic, with any set of layers left out: fast enough to search with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten

from compress.calling.fidelity import snr_db
from compress.calling.inputs import Inputs
from compress.exported.structure import Signature
from compress.quantization.observed import Layer
from compress.system.progress import track

Watch = Callable[[fx.Node, Any, Sequence[Any]], Any]
"""``(node, value, arguments) -> value``: sees what an operation puts out, and may put out something else."""


class Simulation(nn.Module):
    """A calibrated graph whose observers round what passes, as the integers of the int8 model will.

    Attributes:
        signature: of the program that the graph is of.
        in_float: layers that round nothing.
        only: if given, the observers that round; all others let pass.
    """

    def __init__(self, graph: fx.GraphModule, layers: Sequence[Layer], signature: Signature) -> None:
        super().__init__()
        self.graph = graph
        self.signature = signature
        self.layers = layers
        self.in_float: Collection[Layer] = ()
        self.only: Collection[str] | None = None
        self.scales: dict[str, tuple[Tensor, Tensor]] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(self._rounding(), *self.signature.arranged(args, kwargs))

    def exact(self, inputs: Inputs) -> Any:
        """What the graph puts out in float."""
        inputs = inputs.copy()
        return self._run((), *self.signature.arranged(inputs.args, inputs.kwargs))

    def watched(self, inputs: Inputs, watch: Watch, *, rounding: bool) -> None:
        """Run with all layers in int8, or in float, and hand on what ``watch`` makes of each operation's result."""
        observers = self._rounding() if rounding else ()
        inputs = inputs.copy()
        self._run(observers, *self.signature.arranged(inputs.args, inputs.kwargs), watch=watch)

    def _run(
        self, rounding: Collection[str], args: Sequence[Any], kwargs: Mapping[str, Any], watch: Watch | None = None
    ) -> Any:
        leaves, _ = tree_flatten((tuple(args), kwargs))
        with torch.no_grad():
            outputs = _Rounding(self, rounding, watch).run(*leaves, enable_io_processing=False)
        return self.graph.graph.process_outputs(outputs)

    def _rounding(self) -> set[str]:
        """The observers' nodes that round: those with a use that is not a layer in float."""
        if self.only is not None:
            return set(self.only)
        in_float = {layer.node for layer in self.in_float}
        return {
            node.name
            for node in self.graph.graph.nodes
            if node.op == "call_module" and any(user.name not in in_float for user in node.users)
        }

    def train(self, mode: bool = True) -> Simulation:  # noqa: FBT001, FBT002 - torch's own signature
        """Nothing: an exported graph has one mode."""
        del mode
        return self


class _Rounding(fx.Interpreter):
    """Runs the graph, with some observers as rounding and the others as nothing."""

    def __init__(self, simulation: Simulation, rounding: Collection[str], watch: Watch | None) -> None:
        super().__init__(simulation.graph)
        self.watch = watch
        self.scales, self.rounding = simulation.scales, rounding
        self.node = ""

    def run_node(self, n: fx.Node) -> Any:
        self.node = n.name
        value = super().run_node(n)
        if self.watch is None or n.op != "call_function":
            return value
        args, _ = self.fetch_args_kwargs_from_env(n)
        return self.watch(n, value, args)

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        del kwargs
        (x,) = args
        if self.node not in self.rounding:
            return x
        observer = self.fetch_attr(target)
        if target not in self.scales:
            self.scales[target] = observer.calculate_qparams()
        scale, zero_point = self.scales[target]
        low, high = observer.quant_min, observer.quant_max
        if observer.qscheme in (torch.per_channel_symmetric, torch.per_channel_affine):
            zero_point = zero_point.to(torch.int32)
            return torch.fake_quantize_per_channel_affine(x, scale, zero_point, observer.ch_axis, low, high)
        return torch.fake_quantize_per_tensor_affine(x, float(scale), int(zero_point), low, high)


def sensitivities(simulation: Simulation, inputs: Inputs, *, progress: bool) -> dict[str, float]:
    """For each layer that can be int8, by its node: the outputs' signal-to-noise ratio in dB, with it alone in int8."""
    candidates = [layer for layer in simulation.layers if layer.observers]
    exact = simulation.exact(inputs)
    found = {}
    for layer in track(candidates, "sensitivity of layers", shown=progress):
        simulation.only = layer.observers
        found[layer.node] = snr_db(exact, inputs.call(simulation))
    simulation.only = None
    return found
