"""What is changed about a graph beside rounding it, so that rounding costs less."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from torch import Tensor, fx

from compress.quantization.constants import add_constant, num_uses, tensor_of
from compress.quantization.observed import Layer


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Changes, by the names of the layers' nodes.

    Attributes:
        scales: what each layer's outputs are divided by, and the next layer's inputs multiplied with: ``[out]``.
        ranges: the least and the greatest weight of each output channel that is not cut off: ``[out]`` each.
        weights: other ones, such as are integers times their scale already.
        biases: other ones: ``[out]``.
    """

    scales: Mapping[str, Tensor] = field(default_factory=dict)
    ranges: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    biases: Mapping[str, Tensor] = field(default_factory=dict)


def node_of(graph: fx.GraphModule, name: str) -> fx.Node:
    """The node of that name."""
    found: fx.Node = next(node for node in graph.graph.nodes if node.name == name)
    return found


def weight_of(graph: fx.GraphModule, layer: Layer) -> Tensor | None:
    """The float weight of a layer with observers; None where others read it too, so that it must stay."""
    observer = node_of(graph, layer.observers[1])
    weight = tensor_of(graph, observer.args[0])
    return None if weight is None or num_uses(graph, weight) > 1 or len(observer.users) > 1 else weight


def bias_of(graph: fx.GraphModule, layer: Layer) -> Tensor | None:
    """The bias of a layer; None without one that is a tensor of the module."""
    args = node_of(graph, layer.node).args
    return tensor_of(graph, args[2]) if len(args) > 2 else None  # noqa: PLR2004 - input, weight, bias


def tune_(graph: fx.GraphModule, layers: Collection[Layer], tuning: Tuning) -> None:
    """Apply what is to be changed after calibration to those of ``layers`` that are int8, in place."""
    for layer in layers:
        if not layer.observers:
            continue
        if layer.node in tuning.ranges:
            observer = graph.get_submodule(str(node_of(graph, layer.observers[1]).target))
            low, high = tuning.ranges[layer.node]
            observer.min_val, observer.max_val = low.clone(), high.clone()
        if layer.node in tuning.weights:
            # A constant of its own: the graph's are those of the program, and of the model given.
            observed = node_of(graph, layer.observers[1])
            observed.args = (add_constant(graph, observed, "weight", tuning.weights[layer.node]),)
        if layer.node in tuning.biases:
            _set_bias_(graph, layer, tuning.biases[layer.node])
    graph.recompile()


def _set_bias_(graph: fx.GraphModule, layer: Layer, bias: Tensor) -> None:
    node = node_of(graph, layer.node)
    source, weight, *rest = node.args
    node.args = (source, weight, add_constant(graph, node, "bias", bias), *rest[1:])
