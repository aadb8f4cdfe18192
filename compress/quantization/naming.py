"""Where the constants of an int8 graph belong: under the path of the layer they serve, as its weight did before."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

# Between the path of a module and what tells its calls apart.
_CALL = "@"


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
