"""Batch norms that still learn, in front of whose layers the weights are rounded as they will be once folded.

Source: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", arXiv:1806.08342, 2018,
section 3.2.2: the weight is scaled by the running statistics before it is rounded, and the output scaled back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from compress.quantization.constants import add_constant, constant, tensor_of
from compress.quantization.folding import Norm, along_outputs, foldable_norms, statistics_of

_aten = torch.ops.aten
_LAYERS = {_aten.conv2d.default, _aten.linear.default}


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """A layer whose weight is scaled by its norm, by the names of nodes, which outlive copies of the graph.

    Attributes:
        layer: the convolution or linear layer.
        weight, bias: what it had before; "" for no bias.
        scaled: its scaled weight, before it is rounded.
        norm: the batch norm.
    """

    layer: str
    weight: str
    bias: str
    scaled: str
    norm: str


def scale_weights_(graph: fx.GraphModule) -> tuple[Scaled, ...]:
    """Scale the weight of each layer before a norm that can be folded, and scale its output back."""
    norms = [norm for norm in foldable_norms(graph) if norm.layer.target in _LAYERS]
    scaled = tuple(_scale_(graph, norm) for norm in norms)
    graph.recompile()
    return scaled


def fold_scaled_(graph: fx.GraphModule, scaled: Iterable[Scaled]) -> None:
    """Fold each of the norms, after training: what rounds the scaled weight stays where it is."""
    nodes = {node.name: node for node in graph.graph.nodes}
    for one in scaled:
        layer, node = nodes[one.layer], nodes[one.norm]
        norm, weight = statistics_of(graph, node), tensor_of(graph, nodes[one.weight])
        assert norm is not None and weight is not None  # noqa: S101, PT018 - premises of foldable_norms
        shift = norm.shift(tensor_of(graph, nodes.get(one.bias)))
        folded = add_constant(graph, nodes[one.scaled], "weight", along_outputs(layer, norm.scale, weight) * weight)
        nodes[one.scaled].replace_all_uses_with(folded)
        source, rounded, _, *rest = layer.args
        layer.args = (source, rounded, add_constant(graph, layer, "bias", shift), *rest)
        node.replace_all_uses_with(layer)
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _scale_(graph: fx.GraphModule, norm: Norm) -> Scaled:
    layer = norm.layer
    arguments: Any = layer.args
    source, weight, *rest = arguments
    bias = rest[0] if rest else None
    _, gamma, _, _, var, *_ = norm.node.args
    shape = [-1, *[1] * (norm.node.meta["val"].ndim - 2)]
    with graph.graph.inserting_before(layer):
        scale = _call(graph, _aten.rsqrt.default, _call(graph, _aten.add.Tensor, var, norm.eps))
        if gamma is not None:
            scale = _call(graph, _aten.mul.Tensor, scale, gamma)
        # What a channel without weight is scaled with does not matter, but it must be possible to scale it back.
        scale = _call(graph, _aten.where.ScalarOther, _call(graph, _aten.ne.Scalar, scale, 0), scale, 1.0)
        columns = _call(graph, _aten.reshape.default, scale, [-1, *[1] * (constant(graph, weight).ndim - 1)])
        scaled = _call(graph, _aten.mul.Tensor, weight, columns)
    with graph.graph.inserting_before(norm.node):
        out = _call(graph, _aten.div.Tensor, layer, _call(graph, _aten.reshape.default, scale, shape))
        if bias is not None:
            out = _call(graph, _aten.add.Tensor, out, _call(graph, _aten.reshape.default, bias, shape))
    layer.args = (source, scaled, None, *rest[1:])
    norm.node.update_arg(0, out)
    return Scaled(
        layer=layer.name,
        weight=str(weight),
        bias="" if bias is None else str(bias),
        scaled=scaled.name,
        norm=norm.node.name,
    )


def _call(graph: fx.GraphModule, operation: Any, *args: Any) -> fx.Node:
    return graph.graph.call_function(operation, args)
