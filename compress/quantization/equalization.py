"""Channels of activations brought to one range, so that one scale for all of them wastes little.

A layer's outputs are divided, and the weights of the layer that takes them in multiplied, by the same number for each
channel. In float that changes nothing where only what is homogeneous lies between, as a ReLU. Weights have a scale for
each output channel, so that behind a depthwise convolution it costs nothing at all.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.1;
with ranges of activations in place of weights as Xiao et al., "SmoothQuant", ICML 2023, equation 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, fx

from compress.calling.inputs import Inputs
from compress.quantization.annotation import CONVOLUTIONS, LINEAR
from compress.quantization.constants import add_constant, num_uses, tensor_of

_aten = torch.ops.aten
_HOMOGENEOUS = {_aten.relu.default, _aten.relu_.default, _aten.dropout.default, _aten.contiguous.default}
_GROUPS = 6
# How much of the difference between channels a layer that mixes them takes over into its weights.
_SHARE = 0.5
_MOST = 1e3


class _Pair(NamedTuple):
    """Two layers, and whether the second is depthwise."""

    first: fx.Node
    second: fx.Node
    is_depthwise: bool


def equalizing_scales(graph: fx.GraphModule, batches: Sequence[Inputs]) -> dict[str, Tensor]:
    """What to divide the outputs of layers by, by their nodes: ``[out]``.

    Args:
        graph: in float, batch norms folded, without observers.
        batches: that ranges are seen on.
    """
    found = {}
    pairs = list(_pairs(graph))
    highest = _highest(graph, [pair.second.args[0] for pair in pairs], batches)
    for pair in pairs:
        weight = tensor_of(graph, pair.second.args[1])
        assert weight is not None and isinstance(pair.second.args[0], fx.Node)  # noqa: S101, PT018 - premises of _pairs
        reach = highest[pair.second.args[0].name]
        alive = reach > 0
        scale = torch.ones_like(reach)
        if pair.is_depthwise:
            scale[alive] = reach[alive]
        else:
            columns = weight.detach().abs().transpose(0, 1).flatten(1).amax(1)
            alive &= columns > 0
            scale[alive] = reach[alive] ** _SHARE / columns[alive] ** (1 - _SHARE)
        if alive.any():
            # Only differences count; without bound a channel that is almost dead would blow up.
            scale[alive] /= scale[alive].log().mean().exp()
            found[pair.first.name] = scale.clamp(1 / _MOST, _MOST).where(alive, torch.ones(()))
    return found


def equalize_(graph: fx.GraphModule, scales: Mapping[str, Tensor]) -> None:
    """Divide and multiply, in place; the weights become tensors of their own."""
    for pair in list(_pairs(graph)):
        if pair.first.name not in scales:
            continue
        scale = scales[pair.first.name]
        own, bias = (tensor_of(graph, node) for node in [*pair.first.args[1:3], None][:2])
        weight = tensor_of(graph, pair.second.args[1])
        assert own is not None and weight is not None  # noqa: S101, PT018 - premises of _pairs
        # Constants of their own: the graph's are those of the program, and of the model given.
        _set_(graph, pair.first, 1, own / scale.reshape(-1, *[1] * (own.ndim - 1)))
        if bias is not None:
            _set_(graph, pair.first, 2, bias / scale)
        rows = (-1, 1) if pair.is_depthwise else (1, -1)
        _set_(graph, pair.second, 1, weight * scale.reshape(*rows, *[1] * (weight.ndim - 2)))
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _set_(graph: fx.GraphModule, layer: fx.Node, place: int, value: Tensor) -> None:
    layer.update_arg(place, add_constant(graph, layer, ("", "weight", "bias")[place], value))


def _pairs(graph: fx.GraphModule) -> Iterator[_Pair]:
    """Layers whose outputs one layer alone takes in, with nothing between that is not homogeneous."""
    for second in graph.graph.nodes:
        if second.target not in CONVOLUTIONS and second.target is not LINEAR:
            continue
        first = second.args[0]
        while isinstance(first, fx.Node) and first.target in _HOMOGENEOUS and len(first.users) == 1:
            first = first.args[0]
        if not isinstance(first, fx.Node) or (first.target is not LINEAR and first.target not in CONVOLUTIONS):
            continue
        if len(first.users) != 1 or not all(_is_own(graph, node) for node in (*first.args[1:3], *second.args[1:2])):
            continue
        groups = second.args[_GROUPS] if len(second.args) > _GROUPS else 1
        weight = tensor_of(graph, second.args[1])
        is_depthwise = groups != 1 and weight is not None and groups == len(weight) and weight.shape[1] == 1
        if groups == 1 or is_depthwise:
            yield _Pair(first, second, is_depthwise)


def _is_own(graph: fx.GraphModule, node: object) -> bool:
    """Whether a weight or bias is read here alone, or there is none."""
    tensor = tensor_of(graph, node)
    return node is None or (tensor is not None and num_uses(graph, tensor) == 1)


def _highest(graph: fx.GraphModule, nodes: Sequence[object], batches: Sequence[Inputs]) -> dict[str, Tensor]:
    """The greatest absolute value of each channel that the nodes put out: ``[channels]``."""
    watched = {node.name: node for node in nodes if isinstance(node, fx.Node)}
    axes = {user.args[0].name: 1 if user.target in CONVOLUTIONS else -1 for one in watched.values()
            for user in one.users if isinstance(user.args[0], fx.Node)}  # fmt: skip
    found: dict[str, Tensor] = {}

    class Watching(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            value = super().run_node(n)
            if n.name in watched:
                reach = value.detach().abs().movedim(axes[n.name], 0).flatten(1).amax(1)
                found[n.name] = torch.maximum(found[n.name], reach) if n.name in found else reach
            return value

    with torch.no_grad():
        for batch in batches:
            own = batch.copy()
            leaves = torch.utils._pytree.tree_leaves((tuple(own.args), dict(own.kwargs)))
            Watching(graph).run(*leaves, enable_io_processing=False)
    return found
