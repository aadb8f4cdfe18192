"""Runtimes: what executes a model. A latency is always that of a model under one of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compress.calling.fidelity import check_same
from compress.calling.inputs import Inputs, inputs_of
from compress.errors import CompressError, ConfigError, ModelError, first_line
from compress.exported import capture
from compress.exported.compiling import compiled
from compress.exported.executorch import PteModel, to_pte
from compress.exported.file_model import FileModel
from compress.exported.model import ExportedModel, uncompiled
from compress.exported.onnx import OnnxModel, to_onnx
from compress.exported.openvino import OpenVinoModel
from compress.exported.packages import Package, package_of
from compress.modules.copying import copied
from compress.quantization.half import HalfModel

Call = Callable[..., Any]


def prepare(model: nn.Module, example_inputs: Any, *, runtime: str = "eager") -> Call:
    """``model``, in eval mode, made ready to be called on inputs of the examples' shapes, types and device.

    Whatever a runtime compiles, it compiles here: the first call of the result is as fast as any.

    Args:
        model: on the device of the inputs.
        example_inputs: a tensor ``[n, ...]``, a tuple of positional arguments or a mapping of named ones.
        runtime: one of :data:`RUNTIMES`: PyTorch's eager mode; Inductor (``torch.compile``) with frozen weights; ONNX
            Runtime, OpenVINO or ExecuTorch with XNNPACK, on the CPU; or the package of AOTInductor, which runs without
            Python and is kept in the user's cache folder (:class:`compress.exported.packages.Package`). A model of
            :func:`compress.to_half` runs in bfloat16 under OpenVINO, where the processor does, from a file in float32.

    Raises:
        ConfigError: if there is no such runtime, or what it needs is not installed.
        ModelError: if the model cannot be captured or compiled, or what runs computes something else.
    """
    check_runtime(runtime)
    inputs = inputs_of(example_inputs)
    model = model.eval()
    if isinstance(model, FileModel) and runtime not in _OF_FILES[type(model)]:
        raise ConfigError(f"{model.kind} runs under {' or '.join(_OF_FILES[type(model)])} alone, got {runtime!r}")
    try:
        call = _PREPARE[runtime](model, inputs)
        with torch.inference_mode():
            inputs.call(call)
    except CompressError:
        raise
    except Exception as cause:
        reason = first_line(cause)
        raise ModelError(f"{type(model).__name__} does not run under {runtime}: {reason}") from cause
    if runtime != "eager" and _is_float32(model):
        check_same(model, call, inputs, f"the runtime {runtime}")
    return call


def check_runtime(runtime: str) -> None:
    """Refuse an unknown runtime.

    Raises:
        ConfigError: if it is not one of :data:`RUNTIMES`.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime must be one of {', '.join(RUNTIMES)}, got {runtime!r}")


def _is_float32(model: nn.Module) -> bool:
    """Whether two ways to run the model differ by the order of additions alone; integers and halves round on top."""
    tensors = [*model.parameters(), *model.buffers()]
    return not isinstance(model, FileModel) and all(one.dtype in (torch.float32, torch.int64) for one in tensors)


def _eager(model: nn.Module, _: Inputs) -> Call:
    return uncompiled(model)


def _inductor(model: nn.Module, _: Inputs) -> Call:
    return compiled(uncompiled(model))


def _onnxruntime(model: nn.Module, inputs: Inputs) -> Call:
    if isinstance(model, OnnxModel):
        return model
    return OnnxModel(_as_onnx(model, inputs, "onnxruntime"))


def _openvino(model: nn.Module, inputs: Inputs) -> Call:
    if isinstance(model, OnnxModel):
        return OpenVinoModel(model.content)
    if isinstance(model, HalfModel) and model.precision == "bfloat16":
        # ONNX files are in float32, and OpenVINO rounds weights to bfloat16 as they were rounded before.
        network: nn.Module = model.network
        return OpenVinoModel(_as_onnx(copied(network).float(), inputs, "openvino"), bfloat16=True)
    return OpenVinoModel(_as_onnx(model, inputs, "openvino"))


def _executorch(model: nn.Module, inputs: Inputs) -> Call:
    return model if isinstance(model, PteModel) else PteModel(to_pte(model, inputs))


def _as_onnx(model: nn.Module, inputs: Inputs, runtime: str) -> bytes:
    for tensor in inputs.tensors:
        if tensor.device.type != "cpu":
            raise ConfigError(f"the runtime {runtime} is for the CPU, got an input on {tensor.device}")
    return to_onnx(model.program if isinstance(model, ExportedModel) else capture(model, inputs))


def _aotinductor(model: nn.Module, inputs: Inputs) -> Call:
    return Package(package_of(uncompiled(model), inputs))


_PREPARE: dict[str, Callable[[nn.Module, Inputs], Call]] = {
    "eager": _eager,
    "inductor": _inductor,
    "onnxruntime": _onnxruntime,
    "aotinductor": _aotinductor,
    "openvino": _openvino,
    "executorch": _executorch,
}
_OF_FILES: dict[type[FileModel], tuple[str, ...]] = {
    OnnxModel: ("onnxruntime", "openvino"),
    OpenVinoModel: ("openvino",),
    PteModel: ("executorch",),
}
RUNTIMES = tuple(_PREPARE)
# Those that make a file of a model, which any process on this machine runs as it is.
PACKAGING = ("aotinductor", "onnxruntime", "openvino", "executorch")
# Those that run no operation of PyTorch's, so that its profiler sees nothing of a forward pass.
OUTSIDE_TORCH = ("onnxruntime", "openvino", "executorch")


def call_of(path: Path, runtime: str, *, bfloat16: bool = False, scratch: Path | None = None) -> Call:
    """What the file of a :data:`PACKAGING` runtime computes.

    Args:
        path: the file.
        runtime: which made it.
        bfloat16: whether OpenVINO is to compute in it.
        scratch: where a package is unpacked.
    """
    if runtime == "aotinductor":
        return Package(path, scratch)
    content = path.read_bytes()
    if runtime == "openvino":
        return OpenVinoModel(content, bfloat16=bfloat16)
    return PteModel(content) if runtime == "executorch" else OnnxModel(content)
