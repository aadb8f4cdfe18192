"""Where the constants of an int8 graph belong: under the path of the layer they serve, as its weight did before."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn

from compress.quantization.constants import tensor_of

# Between the path of a module and what tells its calls apart.
_CALL = "@"
# Of weights, by name: the operation is there only once torchao is imported.
DEQUANTIZE = "quantized_decomposed.dequantize_per_channel.default"


def give_each_call_its_weight_(graph: fx.GraphModule) -> None:
    """Let every layer read its integers by a name of its own, in the same memory.

    Inductor takes equal operations on one tensor for one, and finds no int8 kernel in a weight that two layers read.
    """
    known: set[str] = set()
    for node in list(graph.graph.nodes):
        if str(node.target) != DEQUANTIZE:
            continue
        for user in list(node.users)[1:]:
            with graph.graph.inserting_before(user):
                user.replace_input_with(node, graph.graph.node_copy(node))
    for node in list(graph.graph.nodes):
        if str(node.target) != DEQUANTIZE:
            continue
        integers = node.args[0]
        name, tensor = str(integers.target), tensor_of(graph, integers)
        if tensor is not None and name in known:
            name = next(one for one in (f"{name}_{count}" for count in itertools.count(1)) if one not in known)
            place, _, leaf = name.rpartition(".")
            graph.get_submodule(place).register_buffer(leaf, _alias(tensor))
            with graph.graph.inserting_before(node):
                node.update_arg(0, graph.graph.get_attr(name))
        known.add(name)
    graph.recompile()


def name_constants_(graph: fx.GraphModule) -> None:
    """Move integer weights, scales and zero points, which conversion leaves at the root, to their layer's module.

    So a reader of the model's tensors can tell what became of each layer. What several layers share stays where it is.
    """
    homes: dict[str, set[str]] = {}
    for node in graph.graph.nodes:
        stack = list(node.meta.get("nn_module_stack", {}).values())
        if stack:
            for constant in _unpacked(node):
                homes.setdefault(constant, set()).add(str(stack[-1][0]).partition(_CALL)[0])
    moved = {name: _move_(graph, name, *paths) for name, paths in homes.items() if len(paths) == 1 and "." not in name}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            node.target = moved.get(str(node.target), node.target)
    graph.recompile()


def _alias(tensor: Tensor) -> Tensor:
    """Another tensor in the same memory, and no view of the first, which a copy or a file would tie to it."""
    storage, offset = tensor.untyped_storage(), tensor.storage_offset()
    return torch.empty(0, dtype=tensor.dtype).set_(storage, offset, tensor.shape, tensor.stride())


def _unpacked(node: fx.Node) -> Iterator[str]:
    """Names of the constants that an operation reads through what only unpacks them."""
    for source in node.all_input_nodes:
        if source.op == "call_function" and all(one.op == "get_attr" for one in source.all_input_nodes):
            yield from (str(one.target) for one in source.all_input_nodes)


def _move_(graph: fx.GraphModule, name: str, path: str) -> str:
    """Give a buffer of the root to the module at ``path``; its name from then on."""
    if not path:
        return name
    if path not in dict(graph.named_modules()):
        graph.add_submodule(path, nn.Module())
    graph.get_submodule(path).register_buffer(name, getattr(graph, name))
    delattr(graph, name)
    return f"{path}.{name}"
