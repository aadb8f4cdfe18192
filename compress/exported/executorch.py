"""ExecuTorch: graphs as ``.pte`` files for one batch size, whose operations XNNPACK computes, and such files run.

XNNPACK multiplies signed integers, x86 unsigned ones by signed: an int8 graph is written with every activation and its
zero point 128 lower, which are the same numbers. A layer whose output stays in float is one of integers to XNNPACK only
where it rounds its own inputs, by the range that each call finds; such a layer does so here. What XNNPACK does not take
over runs on ExecuTorch's portable kernels, which are for correctness and not for speed, so each file says how many
operations those are.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_map_only

from compress.calling.batches import batch_size
from compress.calling.fidelity import SAME, check_same
from compress.calling.inputs import Inputs
from compress.errors import ArtifactError, CompressError, ConfigError, ModelError, first_line
from compress.exported.capture import capture, quiet_torch
from compress.exported.file_model import FileModel, signature_in
from compress.exported.model import uncompiled
from compress.exported.structure import Signature

# What the file is asked for what this module noted in it.
_NOTES = "compress_notes"
_EXTRA = "pip install 'pytest-compress[executorch]'"
_SHIFT = 128
# The least scale that a range found in a call may have.
_EPSILON = torch.finfo(torch.float32).eps
_OF_ACTIVATIONS = ("quantized_decomposed.quantize_per_tensor", "quantized_decomposed.dequantize_per_tensor")
_LAYERS = {
    torch.ops.aten.conv1d.default,
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv2d.padding,
    torch.ops.aten.linear.default,
}
# What XNNPACK computes in one with a layer.
_FUSED = {torch.ops.aten.relu.default, torch.ops.aten.relu_.default}
# The same integers in other kernels: single values that lie between two of them may fall either way.
_SAME_INT8 = 0.1


def to_pte(model: nn.Module, inputs: Inputs) -> bytes:
    """The bytes of a ``.pte`` file of ``model`` for inputs of exactly these shapes, tried on them.

    Args:
        model: in eval mode, on the CPU; a graph of int8 operations stays one.
        inputs: of the shapes, types and batch size that the file is to run on.

    Raises:
        ConfigError: if executorch is not installed, or an input is not on the CPU.
        ModelError: if the model cannot be captured or lowered, or the file computes something else.
    """
    for tensor in inputs.tensors:
        if tensor.device.type != "cpu":
            raise ConfigError(f"the runtime executorch is for the CPU, got an input on {tensor.device}")
    inputs = _plain_layout(inputs)
    module = uncompiled(model)
    is_int8 = isinstance(module, fx.GraphModule) and any(map(_rounds, module.graph.nodes))
    lowerable = _for_xnnpack(module) if isinstance(module, fx.GraphModule) and is_int8 else module
    program = capture(lowerable, inputs, fixed=True)
    try:
        with quiet_torch(), contextlib.redirect_stdout(io.StringIO()):
            content, portable = _lowered(program, inputs)
    except CompressError:
        raise
    # The passes of ExecuTorch raise whatever they meet.
    except Exception as cause:
        raise ModelError(f"the model cannot be written as .pte: {first_line(cause)}") from cause
    try:
        file = PteModel(content)
    except ArtifactError as cause:
        names = ", ".join(sorted(portable)) or "none"
        raise ModelError(f"ExecuTorch has no kernel for an operation that XNNPACK leaves to it: {names}") from cause
    check_same(module, file, inputs, "the .pte file", tolerance=_SAME_INT8 if is_int8 else SAME)
    return content


class PteModel(FileModel):
    """A ``.pte`` file as a module, run by ExecuTorch on the CPU, one batch of its own size at a time.

    Attributes:
        batch: how many inputs it takes at once; 0 where the file does not say.
        delegated: how many of its operations XNNPACK computes.
        portable: how many it does not, by the operation's name.
    """

    kind = "an ExecuTorch model"

    def _open(self, place: str) -> tuple[list[str], Signature | None]:
        library = _runtime()
        # The pool of threads belongs to the process, and a program that is loaded keeps the one it found.
        if library._legacy_module._threadpool_get_thread_count() != self._threads:
            library._legacy_module._unsafe_reset_threadpool(self._threads)
        try:
            self._program = library.load_program(self.content)
            self._method = self._program.load_method("forward")
            noted = _NOTES in self._program.method_names
            notes = json.loads(self._program.load_method(_NOTES).execute([])[0]) if noted else {}
            self.batch = int(notes.get("batch", 0))
            self.delegated = int(notes.get("delegated", 0))
            self.portable: dict[str, int] = dict(notes.get("portable", {}))
        # ExecuTorch's errors have no base of their own.
        except Exception as cause:
            raise ArtifactError(f"{place} is damaged, or cannot be run by ExecuTorch: {first_line(cause)}") from cause
        count = self._method.metadata.num_inputs()
        signature = signature_in(json.dumps(notes["signature"]), place) if "signature" in notes else None
        return [f"argument {number}" for number in range(count)], signature

    def _run(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        given = _plain_layout(Inputs(args=tuple(tensors)))
        try:
            return list(self._method.execute(given.args))
        except RuntimeError as cause:
            raise ModelError(f"the forward pass under ExecuTorch failed: {first_line(cause)}") from cause

    @property
    def delegation(self) -> str:
        """How much XNNPACK computes, in words."""
        left = ", ".join(f"{count} {name}" for name, count in sorted(self.portable.items()))
        whole = self.delegated + sum(self.portable.values())
        slow = f"; on slow portable kernels: {left}" if left else ""
        return f"{self.delegated} of {whole} operations delegated to XNNPACK{slow}"


def _runtime() -> Any:
    try:
        with quiet_torch():
            from executorch.runtime import Runtime  # noqa: PLC0415 - optional

            return Runtime.get()
    except ImportError as cause:
        raise ConfigError(f"the runtime executorch is not installed: {_EXTRA} ({cause})") from cause


def _lowered(program: ExportedProgram, inputs: Inputs) -> tuple[bytes, dict[str, int]]:
    """The file, and the operations that are left to portable kernels."""
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner  # noqa: PLC0415
        from executorch.exir import to_edge_transform_and_lower  # noqa: PLC0415 - optional
    except ImportError as cause:
        raise ConfigError(f"the runtime executorch is not installed: {_EXTRA} ({cause})") from cause
    # Lowering takes the program apart, so what is to be known of it is read before.
    notes: dict[str, Any] = {"signature": asdict(Signature.of(program)), "batch": batch_size(inputs)}

    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()], constant_methods={_NOTES: ""})
    delegated, portable = _shares(edge.exported_program())
    notes |= {"delegated": delegated, "portable": portable}
    edge._config_methods[_NOTES] = json.dumps(notes, sort_keys=True)
    content: bytes = edge.to_executorch().buffer
    return content, portable


def _shares(program: ExportedProgram) -> tuple[int, dict[str, int]]:
    """How many operations the delegates compute, and which are left, by name."""
    inside, outside = 0, Counter[str]()
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        name = str(getattr(node.target, "__name__", node.target))
        if "call_delegate" in name:
            lowered = getattr(program.graph_module, str(node.args[0]))
            inside += sum(_counts(one) for one in lowered.original_module.graph.nodes)
        elif _counts(node):
            outside[name.removeprefix("aten.").removesuffix(".default")] += 1
    return inside, dict(outside)


def _counts(node: fx.Node) -> bool:
    """Whether a node is an operation of the model: not one that picks, nor one that rounds for its neighbours."""
    name = str(getattr(node.target, "__name__", node.target))
    return node.op == "call_function" and not any(word in name for word in ("getitem", "quantize", "_to_dim_order"))


def _rounds(node: fx.Node) -> bool:
    """Whether a node makes integers of an activation, or numbers of those."""
    return str(node.target).startswith(_OF_ACTIVATIONS)


def _for_xnnpack(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy that rounds activations to -128..127 in place of 0..255; each int8 layer in it is one to XNNPACK."""
    graph = copy.deepcopy(graph)
    for node in filter(_rounds, graph.graph.nodes):
        value, scale, zero_point, *_, dtype = node.args
        if dtype == torch.uint8:
            node.args = (value, scale, zero_point - _SHIFT, -_SHIFT, _SHIFT - 1, torch.int8)
    for node in filter(_rounds, list(graph.graph.nodes)):
        _round_first_(graph, node)
    for node in list(graph.graph.nodes):
        if node.target in _LAYERS and str(node.args[1]).startswith("dequantize") and not _is_rounded(node):
            _round_anew_(graph, node)
    graph.graph.lint()
    graph.recompile()
    return graph


def _is_rounded(layer: fx.Node) -> bool:
    """Whether what the layer puts out becomes integers at once, as XNNPACK's layers of integers do."""
    users = list(layer.users)
    if len(users) == 1 and users[0].target in _FUSED:
        users = list(users[0].users)
    return len(users) == 1 and _rounds(users[0])


def _round_first_(graph: fx.GraphModule, node: fx.Node) -> None:
    """Round what is flattened and then rounded before it too: XNNPACK flattens from one scale to the same one."""
    source = node.args[0]
    while isinstance(source, fx.Node) and source.target is torch.ops.aten.dropout.default:
        source = source.args[0]
    if not isinstance(source, fx.Node) or source.target is not torch.ops.aten.flatten.using_ints:
        return
    before, kind = source.args[0], node.args[1:]
    if isinstance(before, fx.Node) and _rounds(before) and before.args[1:] != kind and len(source.users) == 1:
        decomposed = torch.ops.quantized_decomposed
        with graph.graph.inserting_before(source):
            integers = graph.graph.call_function(decomposed.quantize_per_tensor.default, (before, *kind))
            numbers = graph.graph.call_function(decomposed.dequantize_per_tensor.default, (integers, *kind))
        source.update_arg(0, numbers)


def _round_anew_(graph: fx.GraphModule, layer: fx.Node) -> None:
    """Have the layer's inputs rounded by the range that they are found to have: such a layer may put out floats."""
    decomposed = torch.ops.quantized_decomposed
    bounds = (-_SHIFT, _SHIFT - 1)
    value = layer.args[0]
    with graph.graph.inserting_before(layer):
        found = graph.graph.call_function(decomposed.choose_qparams.tensor, (value, *bounds, _EPSILON, torch.int8))
        scale, zero_point = (graph.graph.call_function(operator.getitem, (found, place)) for place in (0, 1))
        kind = (scale, zero_point, *bounds, torch.int8)
        integers = graph.graph.call_function(decomposed.quantize_per_tensor.tensor, (value, *kind))
        numbers = graph.graph.call_function(decomposed.dequantize_per_tensor.tensor, (integers, *kind))
    layer.update_arg(0, numbers)


def _plain_layout(inputs: Inputs) -> Inputs:
    """The same with every tensor laid out by rows, as the file takes it.

    With one channel a tensor is both channels first and channels last to torch, but its strides are of one of the two,
    and ExecuTorch goes by the strides.
    """

    def plain(tensor: Tensor) -> Tensor:
        return tensor.clone(memory_format=torch.contiguous_format)

    args, kwargs = tree_map_only(Tensor, plain, (inputs.args, dict(inputs.kwargs)))
    return Inputs(args=args, kwargs=kwargs)
