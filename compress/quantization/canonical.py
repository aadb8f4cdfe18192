"""A captured graph in the form in which Inductor finds its int8 kernels, computing what it did before.

Each way to write a layer becomes one: ``x @ w`` a linear layer, padding by name a padding in numbers, a convolution
over time one over images of height 1, a weight that follows from parameters alone a parameter, and a number read from
a tensor of the model that number.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.fx.node import map_arg

from compress.quantization.annotation import BEHIND_CONVOLUTION
from compress.quantization.constants import add_constant, constant, constants_of, num_uses, tensor_of, writes

_aten = torch.ops.aten
_LINEAR = _aten.linear.default
# Operations with weights, by the places of these: first the weight, then the bias.
_PARAMETERS = (1, 2)
_WITH_WEIGHTS = {
    _LINEAR, _aten.conv1d.default, _aten.conv2d.default, _aten.conv3d.default,
    _aten.conv1d.padding, _aten.conv2d.padding, _aten.conv3d.padding,
    _aten.conv_transpose1d.default, _aten.conv_transpose2d.input, _aten.conv_transpose3d.input,
}  # fmt: skip
_BATCH_NORMS = {_aten.batch_norm.default}
_BY_NAME = {_aten.conv1d.padding: _aten.conv1d.default, _aten.conv2d.padding: _aten.conv2d.default}


def canonical_(graph: fx.GraphModule, *, training: bool = False) -> None:
    """Rewrite the graph in place.

    Args:
        graph: of operations as ``torch.export`` captures them.
        training: whether it is to be trained, so that what follows from parameters does not stay the same.
    """
    for node in graph.graph.nodes:
        if node.kwargs and node.target in _WITH_WEIGHTS | _BATCH_NORMS:
            _positional_(node)
    if not training:
        _products_to_linear_(graph)
        _weights_to_parameters_(graph)
        _items_to_numbers_(graph)
    for node in list(graph.graph.nodes):
        if node.target in _BY_NAME:
            _number_padding_(graph, node)
        if node.target is _aten.conv1d.default:
            _over_images_(graph, node, training=training)
    _dense_inputs_(graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _positional_(node: fx.Node) -> None:
    """Give the operation all of its arguments by place."""
    schema = node.target._schema.arguments[len(node.args) :]  # type: ignore[union-attr]  # an operation of aten
    node.args = (*node.args, *(node.kwargs.get(one.name, one.default_value) for one in schema))
    node.kwargs = {}


def _products_to_linear_(graph: fx.GraphModule) -> None:
    """``x @ w``, with a matrix ``w: [in, out]`` that is constant, as a linear layer with the weight ``[out, in]``."""
    constants = constants_of(graph)
    for node in list(graph.graph.nodes):
        operands = _product(node)
        if operands is None:
            continue
        bias, source, matrix = operands
        if matrix not in constants or source in constants:
            continue
        value = constant(graph, matrix)
        if value.ndim != 2 or (bias is not None and (bias not in constants or constant(graph, bias).ndim != 1)):  # noqa: PLR2004
            continue
        weight = add_constant(graph, node, "weight", value.t().contiguous())
        node.target, node.args, node.kwargs = _LINEAR, (source, weight, *([] if bias is None else [bias])), {}


def _items_to_numbers_(graph: fx.GraphModule) -> None:
    """Numbers that are read from constant tensors, as a detector's strides are: Inductor cannot compile the reading."""
    constants = constants_of(graph)
    for node in list(graph.graph.nodes):
        if node.target is not _aten.item.default or node not in constants:
            continue
        number = constant(graph, node)
        # Whole numbers may be sizes, which the graph asserts things of.
        if isinstance(number, float):
            _put_(number, node)


def _put_(number: float, node: fx.Node) -> None:
    """Give all that read ``node`` a number in its place."""

    def put(one: fx.Node) -> Any:
        return number if one is node else one

    for user in list(node.users):
        user.args, user.kwargs = map_arg((user.args, user.kwargs), put)


def _product(node: fx.Node) -> tuple[fx.Node | None, fx.Node, fx.Node] | None:
    """Bias, input and matrix of a product of tensors; None if the node is none."""
    if node.target in (_aten.matmul.default, _aten.mm.default):
        source, matrix = node.args
        bias = None
    elif node.target is _aten.addmm.default and not node.kwargs:
        bias, source, matrix = node.args
    else:
        return None
    return bias, source, matrix  # type: ignore[return-value]  # by the operations' schemas


def _weights_to_parameters_(graph: fx.GraphModule) -> None:
    """Weights and biases that follow from parameters alone, as with weight or spectral norm, computed once."""
    constants = constants_of(graph)
    for node in list(graph.graph.nodes):
        if node.target not in _WITH_WEIGHTS:
            continue
        for place, leaf in zip(_PARAMETERS, ("weight", "bias"), strict=True):
            value = node.args[place] if len(node.args) > place else None
            if isinstance(value, fx.Node) and value.op != "get_attr" and value in constants:
                node.update_arg(place, add_constant(graph, node, leaf, constant(graph, value).contiguous()))


def _number_padding_(graph: fx.GraphModule, node: fx.Node) -> None:
    """A convolution with padding "same" or "valid" as one with numbers, and zeros in front where sides differ."""
    _positional_(node)
    arguments: Any = node.args
    source, weight, bias, stride, padding, dilation, groups = arguments
    kernel = _shape(graph, weight)[2:]
    stride, dilation = (_for_each(value, len(kernel)) for value in (stride, dilation))
    total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
    if any(one % 2 for one in total):
        sides = [side for one in reversed(total) for side in (one // 2, one - one // 2)]
        with graph.graph.inserting_before(node):
            padded = graph.graph.call_function(_aten.constant_pad_nd.default, (source, sides, 0.0))
        _describe_(padded, source)
        source, total = padded, [0] * len(total)
    node.target = _BY_NAME[node.target]  # type: ignore[index]  # one of its keys
    node.args = (source, weight, bias, stride, [one // 2 for one in total], dilation, groups)


def _over_images_(graph: fx.GraphModule, node: fx.Node, *, training: bool) -> None:
    """A convolution over time, of a batch, as one over images of height 1; what its kernel computes too stays with it.

    Inductor takes the int8 kernel of a convolution over time for one of width 1, and so its output for longer than it
    is: what is compiled behind it would read past the end.
    """
    _positional_(node)
    arguments: Any = node.args
    source, weight, bias, stride, padding, dilation, groups = arguments
    if source.meta["val"].ndim < 3:  # noqa: PLR2004 - [n, c, length]
        return
    with graph.graph.inserting_before(node):
        image, kernel = (graph.graph.call_function(_aten.unsqueeze.default, (one, 2)) for one in (source, weight))
    for new, old in ((image, source), (kernel, weight)):
        _describe_(new, old)
        new.meta["val"] = old.meta["val"].unsqueeze(2)
    # A batch norm is folded into what is read. One that others read too, and that is trained, stays the same for all.
    known = weight in constants_of(graph)
    if training:
        own = tensor_of(graph, weight)
        known = own is not None and num_uses(graph, own) == 2  # noqa: PLR2004 - here, and in the line above
    if known:
        kernel = add_constant(graph, node, "weight", constant(graph, weight).unsqueeze(2), trained=training)
    sizes = ([first, *_for_each(one, 1)] for first, one in ((1, stride), (0, padding), (1, dilation)))
    node.target = _aten.conv2d.default
    node.args = (image, kernel, bias, *sizes, groups)
    last = _heighten_(node)
    with graph.graph.inserting_after(last):
        line = graph.graph.call_function(_aten.squeeze.dim, (last, 2))
    last.replace_all_uses_with(line, delete_user_cb=lambda user: user is not line)
    _describe_(line, last)
    line.meta["val"] = last.meta["val"].squeeze(2)


def _heighten_(layer: fx.Node) -> fx.Node:
    """Give what ``layer`` puts out a height, and what its kernel may compute behind it; returns the last of those."""
    while True:
        layer.meta["val"] = layer.meta["val"].unsqueeze(2)
        user = next(iter(layer.users)) if len(layer.users) == 1 else None
        if user is None or user.target not in _BATCH_NORMS | BEHIND_CONVOLUTION or user.args[0] is not layer:
            return layer
        layer = user


def _shape(graph: fx.GraphModule, node: fx.Node) -> torch.Size:
    tensor = tensor_of(graph, node)
    shape: torch.Size = (node.meta["val"] if tensor is None else tensor).shape
    return shape


def _for_each(value: Any, count: int) -> list[int]:
    """One number for each dimension."""
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values


def _dense_inputs_(graph: fx.GraphModule) -> None:
    """Let linear layers on more than ``[n, c]`` read tensors that are contiguous.

    Of another, as of a transposed view, Inductor makes a batched product, and its int8 pass fails on one of any batch
    size. Where the tensor is contiguous, this costs nothing.
    """
    dense: dict[fx.Node, fx.Node] = {}
    for node in list(graph.graph.nodes):
        if node.target is not _LINEAR:
            continue
        source = node.args[0]
        assert isinstance(source, fx.Node)  # noqa: S101 - by the operation's schema
        if source.meta["val"].ndim <= 2 or source.target is _LINEAR:  # noqa: PLR2004 - [n, c]
            continue
        if source not in dense or any(map(writes, source.users)):
            with graph.graph.inserting_before(node):
                dense[source] = graph.graph.call_function(_aten.contiguous.default, (source,))
            _describe_(dense[source], source)
        node.update_arg(0, dense[source])


def _describe_(new: fx.Node, like: fx.Node) -> None:
    """Let a new node be of the module and of the type of another; computing its size could fix that of the batch."""
    new.meta.update({key: like.meta[key] for key in ("val", "nn_module_stack") if key in like.meta})
