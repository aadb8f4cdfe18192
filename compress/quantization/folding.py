"""Batch norms folded into the layer before them, where that changes nothing that anybody else reads.

Source: Jacob et al., CVPR 2018, section 3.2: ``weight * gamma / sqrt(var + eps)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from compress.quantization.constants import add_constant, num_uses, tensor_of

_aten = torch.ops.aten
_BATCH_NORM = _aten.batch_norm.default
_CONVOLUTIONS = {
    _aten.conv1d.default, _aten.conv2d.default, _aten.conv3d.default,
    _aten.conv1d.padding, _aten.conv2d.padding, _aten.conv3d.padding,
}  # fmt: skip
_TRANSPOSED = {_aten.conv_transpose1d.default, _aten.conv_transpose2d.input, _aten.conv_transpose3d.input}
_TRAINING = 5  # where a batch norm is told to take its batch's statistics
_GROUPS = 6  # where a transposed convolution is told how many it has


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A batch norm with statistics of its own.

    Attributes:
        node: its node.
        layer: the node before it.
        mean, var: the statistics ``[c]``.
        weight, bias: its parameters ``[c]``, ones and zeros where it has none.
        eps: what is added to the variance.
    """

    node: fx.Node
    layer: fx.Node
    mean: Tensor
    var: Tensor
    weight: Tensor
    bias: Tensor
    eps: float

    @property
    def scale(self) -> Tensor:
        """``[c]``: what the norm multiplies each channel with."""
        return self.weight * torch.rsqrt(self.var + self.eps)

    def shift(self, bias: Tensor | None) -> Tensor:
        """``[c]``: what it adds then, to a layer's output without that layer's bias."""
        return self.bias - (self.mean if bias is None else self.mean - bias.detach()) * self.scale


def foldable_norms(graph: fx.GraphModule) -> list[Norm]:
    """The batch norms that can be folded into the layer before them.

    Those that are the only reader of a convolution or a linear layer on ``[n, c]``, whose weight no other call reads:
    a second call would run with this one's norm in its weight.
    """
    nodes = [node for node in graph.graph.nodes if node.target is _BATCH_NORM and _is_foldable(graph, node)]
    return [norm for norm in (statistics_of(graph, node) for node in nodes) if norm is not None]


def fold_batch_norms_(graph: fx.GraphModule) -> None:
    """Fold all that :func:`foldable_norms` finds in a graph in eval mode; of the others make plain arithmetic.

    A norm that takes the statistics of its batch stays what it is.
    """
    for norm in foldable_norms(graph):
        if not norm.node.args[_TRAINING]:
            fold_(graph, norm)
    for node in list(graph.graph.nodes):
        if node.target is _BATCH_NORM and not node.args[_TRAINING]:
            _to_arithmetic_(graph, node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def fold_(graph: fx.GraphModule, norm: Norm) -> None:
    """Put the norm's scale into the weight of the layer before it, and the rest into its bias."""
    layer = norm.layer
    source, weight, *rest = layer.args
    old = tensor_of(graph, weight)
    assert old is not None  # noqa: S101 - a premise
    bias = tensor_of(graph, rest[0]) if rest else None
    scaled = add_constant(graph, layer, "weight", along_outputs(layer, norm.scale, old) * old)
    layer.args = (source, scaled, add_constant(graph, layer, "bias", norm.shift(bias)), *rest[1:])
    norm.node.replace_all_uses_with(layer)
    graph.graph.erase_node(norm.node)


def _to_arithmetic_(graph: fx.GraphModule, node: fx.Node) -> None:
    """A batch norm as a product and a sum, where all it takes are tensors of the module."""
    norm = statistics_of(graph, node)
    if norm is None:
        return
    shape = [-1, *[1] * (node.meta["val"].ndim - 2)]
    scale = add_constant(graph, node, "scale", norm.scale.reshape(shape))
    shift = add_constant(graph, node, "shift", norm.shift(None).reshape(shape))
    with graph.graph.inserting_before(node):
        product = graph.graph.call_function(_aten.mul.Tensor, (node.args[0], scale))
        total = graph.graph.call_function(_aten.add.Tensor, (product, shift))
    for new in (product, total):
        new.meta = {key: value for key, value in node.meta.items() if key in ("val", "nn_module_stack")}
    node.replace_all_uses_with(total)
    graph.graph.erase_node(node)


def along_outputs(layer: fx.Node, scale: Tensor, weight: Tensor) -> Tensor:
    """``scale: [c]``, shaped to be multiplied with the weight's output channels.

    Those of a transposed convolution, ``[in, c / groups, ...]``, lie group by group.
    """
    if layer.target not in _TRANSPOSED:
        return scale.reshape(-1, *[1] * (weight.ndim - 1))
    groups = layer.args[_GROUPS] if len(layer.args) > _GROUPS else 1
    assert isinstance(groups, int)  # noqa: S101 - by the operation's schema
    each = scale.reshape(groups, 1, -1).expand(groups, len(weight) // groups, -1)
    return each.reshape(len(weight), -1, *[1] * (weight.ndim - 2))


def _is_foldable(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a batch norm is all that follows a layer, and the layer all that reads its weight."""
    layer = node.args[0]
    if not isinstance(layer, fx.Node) or len(layer.users) != 1 or not _is_layer(layer):
        return False
    weight = tensor_of(graph, layer.args[1])
    return weight is not None and num_uses(graph, weight) == 1 and _is_known(graph, *layer.args[2:3])


def statistics_of(graph: fx.GraphModule, node: fx.Node) -> Norm | None:
    """What a batch norm takes; None if some of it is no tensor of the module."""
    layer, weight, bias, mean, var, _, _, eps, *_ = node.args
    running_mean, running_var = tensor_of(graph, mean), tensor_of(graph, var)
    if running_mean is None or running_var is None or not _is_known(graph, weight, bias):
        return None
    gamma, beta = tensor_of(graph, weight), tensor_of(graph, bias)
    return Norm(
        node=node,
        layer=layer,  # type: ignore[arg-type]  # by the operation's schema
        mean=running_mean.detach(),
        var=running_var.detach(),
        weight=torch.ones_like(running_var) if gamma is None else gamma.detach(),
        bias=torch.zeros_like(running_mean) if beta is None else beta.detach(),
        eps=float(eps),  # type: ignore[arg-type]
    )


def _is_known(graph: fx.GraphModule, *parameters: Any) -> bool:
    """Whether each of them is a tensor of the module, or left out."""
    return all(one is None or tensor_of(graph, one) is not None for one in parameters)


def _is_layer(node: fx.Node) -> bool:
    if node.target is _aten.linear.default:
        # Of an input with more dimensions, a batch norm normalizes the second and a linear layer puts out the last.
        return bool(node.meta["val"].ndim == 2)  # noqa: PLR2004 - [n, c]
    return node.target in _CONVOLUTIONS | _TRANSPOSED
