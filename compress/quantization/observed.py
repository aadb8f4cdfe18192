"""A captured graph with observers in it, which see what ranges its tensors take."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Container, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.export import ExportedProgram

from compress.calling.inputs import Inputs
from compress.calling.randomness import own_random_state
from compress.errors import ConfigError
from compress.exported.capture import quiet_torch
from compress.quantization.annotation import CONVOLUTIONS, FLOAT_LAYERS, LINEAR, annotate_
from compress.quantization.canonical import canonical_
from compress.quantization.constants import constants_of
from compress.quantization.equalization import equalize_
from compress.quantization.folding import fold_batch_norms_
from compress.quantization.kernels import pair_channels_
from compress.quantization.naming import give_each_call_its_weight_, name_constants_
from compress.system.progress import track

Observer = Literal["histogram", "minmax"]

_CALL = "@"  # between the name of a module and that of one of its operations
_EPS = 2**-12  # the least scale, as torchao's own default has it
_WITH_KERNELS = {*CONVOLUTIONS, LINEAR}
_LAYERS = {*_WITH_KERNELS, *FLOAT_LAYERS}
_COPIES = {torch.ops.aten.dropout.default, torch.ops.aten.repeat.default}  # and dropout in eval mode is one
_PICKS = torch.ops.aten.index.Tensor  # by constants, as a table of biases for relative positions, it copies too
_SHAPES = {torch.ops.aten.zeros_like.default, torch.ops.aten.ones_like.default, torch.ops.aten.full_like.default}
_ONCE = " of constants, which is computed once"
_MATRIX = 2  # dimensions of more than one number that a weight has; a scale or a shift for each channel is no layer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """An operation with weights.

    Attributes:
        node: its name in the graph.
        name: of its module, or the node's where a module has several operations.
        observers: nodes of the observers of its input and its weight; none if it cannot be int8.
        operation: the operation's name, and whether it is of constants alone.
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


def folded(program: ExportedProgram) -> fx.GraphModule:
    """The graph in float, with batch norms folded."""
    graph = operations_of(program)
    canonical_(graph)
    fold_batch_norms_(graph)
    return graph


def observed(
    program: ExportedProgram,
    *,
    observer: Observer,
    reduce_range: bool,
    in_float: Collection[str] = (),
    scales: Mapping[str, Tensor] = MappingProxyType({}),
) -> fx.GraphModule:
    """The graph with batch norms folded and an observer before each operation that will be int8.

    Args:
        program: captured in eval mode.
        observer: "histogram" cuts off rare extremes where that lessens the squared error, "minmax" keeps all.
        reduce_range: 7 bits for activations.
        in_float: nodes of layers to leave as they are.
        scales: see :func:`~compress.quantization.equalization.equalize_`.
    """
    from torchao.quantization.pt2e import MinMaxObserver  # noqa: PLC0415 - optional

    config = specifications(reduce_range=reduce_range)
    if observer == "minmax":
        spec = dataclasses.replace(
            config.input_activation, observer_or_fake_quant_ctr=MinMaxObserver.with_args(eps=_EPS)
        )
        config = dataclasses.replace(config, input_activation=spec)
    graph = folded(program)
    equalize_(graph, scales)
    annotate_(graph, config, in_float=in_float)
    return prepared(graph, training=False)


def operations_of(program: ExportedProgram) -> fx.GraphModule:
    """The graph as a module of its own."""
    graph = program.module(check_guards=False)
    assert isinstance(graph, fx.GraphModule)  # noqa: S101 - what module() of a program is
    return graph


def specifications(*, reduce_range: bool, training: bool = False) -> Any:
    """How x86 wants activations and weights rounded: the former per tensor, the latter per channel.

    Args:
        reduce_range: 7 bits for activations.
        training: simulate the rounding, so that it can be learned with, instead of observing ranges alone.
    """
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86  # noqa: PLC0415 - optional

    return x86.get_default_x86_inductor_quantization_config(is_qat=training, reduce_range=reduce_range)


def prepared(graph: fx.GraphModule, *, training: bool) -> fx.GraphModule:
    """The annotated graph with its observers, or with simulated rounding in their places where it is to be trained.

    torchao's public way folds batch norms first, those too whose layer or weight somebody else reads.
    """
    from torchao.quantization.pt2e.prepare import prepare  # noqa: PLC0415 - optional

    with quiet_torch():
        observed: fx.GraphModule = prepare(graph, {}, is_qat=training)
    return observed


def calibrate_(graph: fx.GraphModule, batches: Sequence[Inputs], *, progress: bool) -> None:
    """Let the observers see the batches."""
    with torch.no_grad():
        for batch in track(batches, "calibrating", shown=progress):
            batch.call(graph)


def converted(graph: fx.GraphModule) -> fx.GraphModule:
    """The observed graph with integers in it: weights as int8, activations between quantize and dequantize."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e  # noqa: PLC0415 - optional

    # Folding a norm into its convolution, it draws random inputs.
    with quiet_torch(), own_random_state([]):
        graph = convert_pt2e(graph)
    give_each_call_its_weight_(graph)
    pair_channels_(graph)
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
    constants = constants_of(graph, of_a_size=True)
    weights = _weights_of(graph, constants)
    for node in graph.graph.nodes:
        reads = node not in weights and not weights.isdisjoint(node.all_input_nodes)
        if node.target not in _LAYERS and not (reads and _multiplies(node)):
            continue
        inputs = node.args[:2]
        seen = node.target in _WITH_KERNELS and all(one.op == "call_module" for one in inputs)
        stack = list(node.meta.get("nn_module_stack", {}).values())
        found.append(
            Layer(
                node=node.name,
                name=str(stack[-1][0]).partition(_CALL)[0] if stack else "",
                observers=tuple(one.name for one in inputs) if seen else (),
                operation=str(node.target).removeprefix("aten.") + (_ONCE if node in constants else ""),
            )
        )
    names = [layer.name for layer in found]
    return [
        layer if layer.name and names.count(layer.name) == 1 else dataclasses.replace(layer, name=_full(layer))
        for layer in found
    ]


def _weights_of(graph: fx.GraphModule, constants: Container[fx.Node]) -> set[fx.Node]:
    """The nodes of weights that no observer watches, and of views and copies of them.

    Whatever reads one computes in float: recurrent layers, embeddings and products written out by hand, whose weights
    int8 knows nothing of.
    """
    named = graph.named_parameters(remove_duplicate=False)
    parameters = {name for name, one in named if sum(size > 1 for size in one.shape) >= _MATRIX}
    found: set[fx.Node] = set()
    for node in graph.graph.nodes:
        is_view = isinstance(node.target, OpOverload) and node.target.is_view
        is_copy = node.target in _COPIES or (node.target is _PICKS and node in constants)
        hands_on = (is_view or is_copy) and node.args[0] in found
        if hands_on or (node.op == "get_attr" and node.target in parameters):
            found.add(node)
    return found


def _multiplies(node: fx.Node) -> bool:
    """Whether an operation does more with its weights than add or scale by them number by number, as with positions."""
    is_pointwise = isinstance(node.target, OpOverload) and torch.Tag.pointwise in node.target.tags
    return isinstance(node.target, OpOverload) and not is_pointwise and node.target not in _SHAPES


def _full(layer: Layer) -> str:
    return f"{layer.name}:{layer.node}" if layer.name else layer.node
