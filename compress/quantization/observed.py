"""A captured graph with observers in it, which see what ranges its tensors take."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.nn import functional

from compress.errors import ConfigError
from compress.exported.capture import quiet_torch
from compress.progress import track
from compress.quantization.naming import name_constants_

Observer = Literal["histogram", "minmax"]

_CALL = "@"  # between the name of a module and that of one of its operations
_EPS = 2**-12  # the least scale, as torchao's own default has it
_aten = torch.ops.aten

# Operations with weights; those of the second row have no int8 kernel to go to.
_LAYERS = (
    {_aten.conv1d.default, _aten.conv2d.default, _aten.linear.default},
    {_aten.conv1d.padding, _aten.conv2d.padding, _aten.conv3d.default, _aten.conv3d.padding, _aten.bilinear.default}
    | {_aten.conv_transpose1d.default, _aten.conv_transpose2d.input, _aten.conv_transpose3d.input},
)


class _Function(NamedTuple):
    """What an operation is in the quantizer's patterns."""

    module: str  # the class of torch.nn that calls it
    function: Callable[..., Tensor]


_FUNCTIONS: Mapping[Any, _Function] = {
    _aten.conv1d.default: _Function("Conv1d", functional.conv1d),
    _aten.conv2d.default: _Function("Conv2d", functional.conv2d),
    _aten.linear.default: _Function("Linear", functional.linear),
    _aten.relu.default: _Function("ReLU", functional.relu),
    _aten.relu_.default: _Function("ReLU", functional.relu),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """An operation with weights.

    Attributes:
        node: its name in the graph.
        name: of its module, or the node's where a module has several operations.
        observers: nodes of the observers of its input and its weight; none if it cannot be int8.
        operation: the operation's name.
    """

    node: str
    name: str
    observers: tuple[str, ...]
    operation: str


def check_observer(observer: str) -> None:
    """Refuse an unknown observer.

    Raises:
        ConfigError: if it is not one of :data:`Observer`.
    """
    if observer not in get_args(Observer):
        raise ConfigError(f"observer must be one of {', '.join(get_args(Observer))}, got {observer!r}")


def observed(
    program: ExportedProgram, *, observer: Observer, reduce_range: bool, in_float: Collection[str] = ()
) -> fx.GraphModule:
    """The graph with batch norms folded and an observer before each operation that will be int8.

    Args:
        program: captured in eval mode.
        observer: "histogram" cuts off rare extremes where that lessens the squared error, "minmax" keeps all.
        reduce_range: 7 bits for activations.
        in_float: nodes of layers to leave as they are.
    """
    from torchao.quantization.pt2e import MinMaxObserver  # noqa: PLC0415 - optional
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e  # noqa: PLC0415
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (  # noqa: PLC0415
        get_default_x86_inductor_quantization_config,
    )

    config = get_default_x86_inductor_quantization_config(reduce_range=reduce_range)
    if observer == "minmax":
        spec = dataclasses.replace(
            config.input_activation, observer_or_fake_quant_ctr=MinMaxObserver.with_args(eps=_EPS)
        )
        config = dataclasses.replace(config, input_activation=spec, output_activation=spec)
    with quiet_torch():
        graph: fx.GraphModule = prepare_pt2e(operations_of(program), quantizer(config, in_float))
    return graph


def operations_of(program: ExportedProgram) -> fx.GraphModule:
    """The graph as a module, each of its operations known as a call of its own.

    The quantizer takes all operations of a module together, those of a second call too, and fails where there are two,
    as of a residual block's ReLU. And it passes over functions that no module of their kind calls, as attention does.
    """
    graph = program.module(check_guards=False)
    assert isinstance(graph, fx.GraphModule)  # noqa: S101 - what module() of a program is
    for node in graph.graph.nodes:
        stack = dict(node.meta.get("nn_module_stack", {}))
        if stack:
            key = list(stack)[-1]
            name, kind = stack[key]
            node.meta["nn_module_stack"] = {**stack, key: (f"{name}{_CALL}{node.name}", kind)}
        function = _FUNCTIONS.get(node.target)
        if function and not (stack and _class_name(stack[key][1]) == function.module):
            node.meta["source_fn_stack"] = [(node.name, function.function)]
    return graph


def quantizer(config: Any, in_float: Collection[str]) -> Any:
    """The quantizer for x86, which leaves the nodes ``in_float`` alone."""
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86  # noqa: PLC0415 - optional

    class Partial(x86.X86InductorQuantizer):  # type: ignore[misc]
        def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
            for node in model.graph.nodes:
                if node.name in in_float:
                    # What is annotated already, the patterns pass over.
                    x86._annotate_nodes_not_quantize(node)
            annotated: fx.GraphModule = super().annotate(model)
            return annotated

    return Partial().set_global(config)


def _class_name(kind: type | str) -> str:
    """Without its module; graphs have some classes by name."""
    return (kind if isinstance(kind, str) else kind.__qualname__).rpartition(".")[2]


def calibrate_(graph: fx.GraphModule, batches: Sequence[Tensor], *, progress: bool) -> None:
    """Let the observers see the batches."""
    with torch.no_grad():
        for batch in track(batches, "calibrating", shown=progress):
            graph(batch)


def converted(graph: fx.GraphModule) -> fx.GraphModule:
    """The observed graph with integers in it: weights as int8, activations between quantize and dequantize."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e  # noqa: PLC0415 - optional

    with quiet_torch():
        graph = convert_pt2e(graph)
    name_constants_(graph)
    used = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    for name, _ in [*graph.named_parameters(), *graph.named_buffers()]:
        if name not in used:
            # The float weights, which the integers stand for now.
            place, _, leaf = name.rpartition(".")
            delattr(graph.get_submodule(place), leaf)
    return graph


def layers_of(graph: fx.GraphModule) -> list[Layer]:
    """All operations with weights in an observed graph, in the order they run in."""
    found = []
    for node in graph.graph.nodes:
        if node.op != "call_function" or not any(node.target in row for row in _LAYERS):
            continue
        inputs = node.args[:2]
        seen = node.target in _LAYERS[0] and all(one.op == "call_module" for one in inputs)
        stack = list(node.meta.get("nn_module_stack", {}).values())
        found.append(
            Layer(
                node=node.name,
                name=str(stack[-1][0]).partition(_CALL)[0] if stack else "",
                observers=tuple(one.name for one in inputs) if seen else (),
                operation=str(node.target).removeprefix("aten."),
            )
        )
    names = [layer.name for layer in found]
    return [
        layer if layer.name and names.count(layer.name) == 1 else dataclasses.replace(layer, name=_full(layer))
        for layer in found
    ]


def _full(layer: Layer) -> str:
    return f"{layer.name}:{layer.node}" if layer.name else layer.node
