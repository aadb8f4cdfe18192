"""What a graph holds and does not compute from its inputs: its parameters, its buffers, and what follows from them."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

_Overload = torch._ops.OpOverload
_aten = torch.ops.aten
# What is read of a tensor is its size alone, and the type of its numbers.
_OF_SIZES = {
    _aten.sym_size.int, _aten.sym_numel.default, _aten.zeros_like.default, _aten.ones_like.default,
    _aten.full_like.default, _aten.new_zeros.default, _aten.new_ones.default, _aten.new_full.default,
}  # fmt: skip


def tensor_of(graph: nn.Module | None, node: Any) -> Tensor | None:
    """The tensor that a node reads from the module; None if it is no such node."""
    if graph is None or not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    place, _, leaf = str(node.target).rpartition(".")
    value = getattr(graph.get_submodule(place), leaf)
    return value if isinstance(value, Tensor) else None


def num_uses(graph: fx.GraphModule, tensor: Tensor) -> int:
    """How many operations read ``tensor`` or another view of its memory, under whatever names."""
    memory = tensor.untyped_storage().data_ptr()
    found = 0
    for node in graph.graph.nodes:
        other = tensor_of(graph, node)
        if other is not None and other.untyped_storage().data_ptr() == memory:
            found += len(node.users)
    return found


def add_constant(graph: fx.GraphModule, near: fx.Node, leaf: str, tensor: Tensor, *, trained: bool = False) -> fx.Node:
    """A node before ``near`` that reads ``tensor``, registered as ``leaf`` of the module that ``near`` belongs to."""
    stack = list(near.meta.get("nn_module_stack", {}).values())
    place = str(stack[-1][0]) if stack else ""
    if place and place not in dict(graph.named_modules()):
        graph.add_submodule(place, nn.Module())
    home, name, count = graph.get_submodule(place), leaf, 0
    while hasattr(home, name):
        count += 1
        name = f"{leaf}_{count}"
    home.register_parameter(name, nn.Parameter(tensor.detach(), requires_grad=trained))
    with graph.graph.inserting_before(near):
        node = graph.graph.get_attr(f"{place}.{name}" if place else name)
    fake = near.meta["val"].fake_mode if isinstance(near.meta.get("val"), Tensor) else None
    if fake is not None:
        node.meta["val"] = fake.from_tensor(tensor.detach(), static_shapes=True)
    return node


def constants_of(graph: fx.GraphModule, *, of_a_size: bool = False) -> set[fx.Node]:
    """The nodes whose value is the same in every forward pass: the module's tensors, and what is made of such alone.

    What an operation writes into is not: its value depends on the order.

    Args:
        graph: an exported one.
        of_a_size: find also what is the same in every forward pass of inputs of one size: what is made of that size,
            as a decoder's queries are, which are repeated for each example.
    """
    found: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if any(writes(user) for user in node.users):
            continue
        computed = isinstance(node.target, _Overload) and not writes(node) and not _is_random(node)
        computed = computed or node.target is operator.getitem or (of_a_size and _is_arithmetic(node))
        known = found.issuperset(node.all_input_nodes) or (of_a_size and node.target in _OF_SIZES)
        if node.op == "get_attr" or (computed and known):
            found.add(node)
    return found


def constant(graph: fx.GraphModule, node: fx.Node) -> Any:
    """The value of one of :func:`constants_of`."""
    known = tensor_of(graph, node)
    if known is not None:
        return known.detach()
    args, kwargs = map_arg((node.args, node.kwargs), lambda one: constant(graph, one))
    with torch.no_grad():
        return node.target(*args, **kwargs)  # type: ignore[operator]  # an operation


def writes(node: fx.Node) -> bool:
    """Whether an operation changes what it is given."""
    return isinstance(node.target, _Overload) and node.target._schema.is_mutable


def _is_arithmetic(node: fx.Node) -> bool:
    """Whether an operation computes sizes of sizes."""
    return node.target in vars(operator).values()


def _is_random(node: fx.Node) -> bool:
    if node.target is torch.ops.aten.dropout.default:
        return bool(node.args[2])  # whether in train mode
    return isinstance(node.target, _Overload) and torch.Tag.nondeterministic_seeded in node.target.tags
