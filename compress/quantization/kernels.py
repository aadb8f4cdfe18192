"""What an int8 graph must not ask of oneDNN's kernels."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from compress.quantization.constants import tensor_of
from compress.quantization.naming import DEQUANTIZE

_CONVOLUTION = torch.ops.aten.conv2d.default
_GROUPS = 6
# Of the depthwise convolution whose kernel never returns: its channels, as many as one register holds, and the width
# up to which it does.
_CHANNELS, _WIDTH = 16, 13


def pair_channels_(graph: fx.GraphModule) -> None:
    """Let wide depthwise convolutions of 16 channels take these in pairs, each with a weight of zero for the other.

    oneDNN's own kernel for them, as of 3.12 and with VNNI of 512 bits, loops without end where the kernel is wider than
    13 and the output wider than what one pass computes. Zeros are exact in integers: what comes out is the same.
    """
    for node in graph.graph.nodes:
        if node.target is not _CONVOLUTION or len(node.args) <= _GROUPS or node.args[_GROUPS] != _CHANNELS:
            continue
        weight = node.args[1]
        if str(getattr(weight, "target", "")) != DEQUANTIZE:
            continue
        integers = tensor_of(graph, weight.args[0])
        if integers is None or len(integers) != _CHANNELS or integers.shape[-1] <= _WIDTH:
            continue
        place, _, leaf = str(weight.args[0].target).rpartition(".")
        graph.get_submodule(place).register_buffer(leaf, _paired(integers))
        node.update_arg(_GROUPS, _CHANNELS // 2)
        for one in (weight, weight.args[0]):
            one.meta.pop("val", None)


def _paired(weight: Tensor) -> Tensor:
    """``[c, 1, h, w] -> [c, 2, h, w]``: a channel's own place in its pair holds its weight."""
    own = torch.arange(len(weight)) % 2
    places = torch.nn.functional.one_hot(own, 2).to(weight.dtype)
    return weight * places[:, :, None, None]
