"""A model whose weights and activations are 8-bit integers, and the count of the int8 kernels that it runs."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.profiler import ProfilerActivity, profile

from compress.calling.inputs import Inputs, inputs_of
from compress.errors import ModelError
from compress.exported import ExportedModel, capture
from compress.exported.compiling import Call, compiled
from compress.exported.libraries import require_torchao
from compress.quantization.constants import tensor_of
from compress.quantization.naming import DEQUANTIZE
from compress.quantization.report import QuantizationReport

KIND = "int8"
_INT8_KERNELS = ("onednn::qconv", "onednn::qlinear")


class QuantizedModel(ExportedModel):
    """A graph of int8 operations, which compiles itself when it is first called.

    Uncompiled the graph would imitate its integers in float, several times slower than the float model. It is compiled
    once for single inputs and once for batches of any size; where a convolution has a single input channel, for each
    size that comes.
    """

    def __init__(self, program: ExportedProgram, notes: Mapping[str, Any] | None = None) -> None:
        require_torchao()
        super().__init__(program, {**(notes or {}), "kind": KIND})
        self._run: Call | None = None

    @property
    def report(self) -> QuantizationReport:
        """What became of each layer."""
        return QuantizationReport.from_json(self.notes["report"])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        places, names = self.signature.arranged(args, kwargs)
        if torch.compiler.is_compiling():
            return self.graph(*places, **names)
        if self._run is None:
            self._run = compiled(self.graph, any_batch=not any(map(_sees_one_channel, self.graph.graph.nodes)))
        return self._run(*places, **names)

    def _apply(self, fn: Any, recurse: bool = True) -> QuantizedModel:  # noqa: FBT001, FBT002 - torch's own signature
        moved = fn(torch.zeros(1))
        if moved.device.type != "cpu" or moved.dtype != torch.float32:
            raise ModelError(
                f"an int8 model runs on the CPU as it is, it cannot become {moved.dtype} on {moved.device}"
            )
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _sees_one_channel(node: fx.Node) -> bool:
    """Whether a node is a convolution of an input with a single channel.

    Such an input lies in memory both as channels first and as channels last. Compiling for batches of any size,
    Inductor takes it for the former and plans an output in that order, but the kernel puts out the latter.
    """
    if node.target is not torch.ops.aten.conv2d.default:
        return False
    weight, groups = node.args[1], node.args[6:7]
    assert isinstance(weight, fx.Node)  # noqa: S101 - what an exported graph's arguments are
    return weight.meta["val"].shape[1] == 1 and groups in ((), (1,))


def layers_with_kernels(model: QuantizedModel, example_inputs: Any) -> list[bool]:
    """For each layer with integer weights, in the order they run in: whether Inductor makes an int8 kernel of it.

    Compiled once more, with a look at what Inductor makes of the graph. A weight that it still turns into floats is one
    of a layer in float; its scales say which.
    """
    from torch._inductor import config as inductor  # noqa: PLC0415 - see compiled

    in_float: list[Tensor] = []

    def look(graph: fx.Graph) -> None:
        owner = graph.owning_module
        scales = [node.args[1] for node in graph.nodes if str(node.target) == DEQUANTIZE]
        in_float.extend(value for value in (tensor_of(owner, one) for one in scales) if value is not None)

    with inductor.patch({"post_grad_custom_post_pass": look, "force_disable_caches": True}):
        inputs_of(example_inputs).call(copy.deepcopy(model))
    answers = []
    for node in model.graph.graph.nodes:
        if str(node.target) == DEQUANTIZE:
            scales = tensor_of(model.graph, node.args[1])
            match = next((one for one in in_float if scales is not None and one.equal(scales)), None)
            in_float = [one for one in in_float if one is not match]
            answers.append(match is None)
    return answers


def quantized_model(graph: fx.GraphModule, example_inputs: Any, alike: Sequence[Inputs] = ()) -> QuantizedModel:
    """The module of a converted graph; see :func:`compress.exported.capture` for the arguments."""
    return QuantizedModel(capture(graph, example_inputs, alike=alike))


def count_int8_kernels(model: QuantizedModel, example_inputs: Any) -> int:
    """How many int8 convolutions and matrix products one forward pass runs, as the profiler sees them."""
    inputs = inputs_of(example_inputs)
    inputs.call(model)
    # Read when the profiler first starts: its progress messages would go to the user's terminal otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        inputs.call(model)
    return sum(event.count for event in profiler.key_averages() if event.key.startswith(_INT8_KERNELS))
