"""Which tensors of a graph are rounded to 8 bits: those that int8 kernels of x86 take and hand on.

Convolutions and linear layers take integers. What lies between them hands integers on where it computes no new values,
as pooling and concatenation do, so that one kernel's output is the next one's input. A sum right behind a convolution
is fused into its kernel, and so its other operand is rounded too. All else is computed in float.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx

from compress.quantization.constants import constants_of

_aten = torch.ops.aten
_NOTHING: Mapping[fx.Node, fx.Node] = MappingProxyType({})

CONVOLUTIONS = {_aten.conv2d.default}
LINEAR = _aten.linear.default
# Operations with weights that no int8 kernel of x86 computes.
FLOAT_LAYERS = {
    _aten.conv1d.default, _aten.conv3d.default, _aten.conv3d.padding, _aten.bilinear.default,
    _aten.conv_transpose1d.default, _aten.conv_transpose2d.input, _aten.conv_transpose3d.input,
}  # fmt: skip
_KEY = "quantization_annotation"  # where torchao looks
_SUMS = {_aten.add.Tensor, _aten.add_.Tensor}
_RELU = {_aten.relu.default, _aten.relu_.default}
# What a kernel computes right behind its layer.
BEHIND_CONVOLUTION = _RELU | {
    _aten.hardtanh.default, _aten.hardtanh_.default, _aten.hardswish.default, _aten.hardswish_.default,
    _aten.relu6.default, _aten.relu6_.default, _aten.silu.default, _aten.silu_.default,
}  # fmt: skip
_BEHIND_LINEAR = _RELU | {
    _aten.leaky_relu.default, _aten.leaky_relu_.default, _aten.tanh.default, _aten.tanh_.default, _aten.gelu.default,
}  # fmt: skip
# Inductor moves rounding before these, takes what is moved for a sum to write into, and fails: YOLO adds a convolution
# to attention that was given the shape of an image.
_MOVED = {
    _aten.view.default, _aten.reshape.default, _aten.permute.default, _aten.transpose.int, _aten.flatten.using_ints,
    _aten.unflatten.int,
}  # fmt: skip
# What takes integers and hands on integers of the same scale.
_HANDED_ON = {
    _aten.max_pool2d.default, _aten.avg_pool2d.default, _aten.adaptive_avg_pool2d.default, _aten.cat.default,
    _aten.flatten.using_ints,
}  # fmt: skip


def annotate_(
    graph: fx.GraphModule, config: Any, *, in_float: Collection[str] = (), ends: Mapping[fx.Node, fx.Node] = _NOTHING
) -> None:
    """Write on every node which of its tensors torchao is to observe.

    Args:
        graph: in the form that :func:`compress.quantization.canonical.canonical_` gives it.
        config: torchao's specifications of activations and weights.
        in_float: nodes of layers to leave as they are.
        ends: of layers that will hold a batch norm, the node that puts out what they will.
    """
    constants, of_a_size = constants_of(graph), constants_of(graph, of_a_size=True)
    integers: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if node.target not in CONVOLUTIONS and node.target is not LINEAR:
            continue
        if node.name in in_float or node.args[1] not in constants or not _is_float(node.args[0]):
            continue
        # Computed once for each size, by whoever compiles: no kernel would run.
        if node.args[0] in of_a_size:
            continue
        _observe_(node, {node.args[0]: config.input_activation, node.args[1]: config.weight})
        integers.add(_end(node, ends.get(node, node), config))
    for node in graph.graph.nodes:
        if node.target in _HANDED_ON and _hands_on(node, integers):
            _share_(node, config)
            integers.add(node)


def _end(layer: fx.Node, out: fx.Node, config: Any) -> fx.Node:
    """The last of the nodes that the layer's kernel computes, from ``out`` on; observes what a fused sum adds."""
    user = _only_user(out)
    if user is None:
        return out
    if user.target in _SUMS and (other := _other_operand(user, out)) is not None and _KEY not in user.meta:
        if layer.target is not LINEAR:
            _observe_(user, {other: config.input_activation})
        after = _only_user(user)
        return after if after is not None and after.target in _RELU else user
    return user if user.target in (_BEHIND_LINEAR if layer.target is LINEAR else BEHIND_CONVOLUTION) else out


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _other_operand(total: fx.Node, out: fx.Node) -> fx.Node | None:
    """What is added to a layer's output, if it is another tensor of its shape, and a kernel can add to it."""
    others = [one for one in total.args[:2] if one is not out]
    if len(others) != 1 or total.kwargs or not _is_float(others[0]):
        return None
    (other,) = others
    assert isinstance(other, fx.Node)  # noqa: S101 - by the line above
    return other if other.meta["val"].shape == out.meta["val"].shape and other.target not in _MOVED else None


def _hands_on(node: fx.Node, integers: AbstractSet[fx.Node]) -> bool:
    """Whether all that comes in is integers, and what goes out is wanted as such."""
    sources = list(_sources(node))
    if not sources or not integers >= set(sources):
        return False
    # A flattening that no layer reads would round for nothing.
    return node.target is not _aten.flatten.using_ints or any(_reads_integers(user) for user in node.users)


def _reads_integers(node: fx.Node) -> bool:
    return node.target in CONVOLUTIONS | _HANDED_ON | {LINEAR}


def _sources(node: fx.Node) -> Iterator[fx.Node]:
    first = node.args[0]
    for source in first if isinstance(first, (list, tuple)) else [first]:
        assert isinstance(source, fx.Node)  # noqa: S101 - by the operations' schemas
        yield source


def _share_(node: fx.Node, config: Any) -> None:
    """One scale for all that goes in and out."""
    from torchao.quantization.pt2e.quantizer import SharedQuantizationSpec  # noqa: PLC0415 - optional

    first, *others = dict.fromkeys(_sources(node))
    shared = SharedQuantizationSpec((first, node))
    _observe_(node, {first: config.input_activation, **dict.fromkeys(others, shared)}, output=shared)


def _observe_(node: fx.Node, inputs: dict[Any, Any], *, output: Any = None) -> None:
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation  # noqa: PLC0415 - optional

    node.meta[_KEY] = QuantizationAnnotation(input_qspec_map=inputs, output_qspec=output, _annotated=True)


def _is_float(value: Any) -> bool:
    """Whether it is a node of a tensor of float32."""
    fake = value.meta.get("val") if isinstance(value, fx.Node) else None
    return isinstance(fake, Tensor) and fake.dtype == torch.float32
