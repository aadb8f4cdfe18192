"""Runtimes: what executes a model. A latency is always that of a model under one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from compress.errors import CompressError, ConfigError, ModelError, first_line
from compress.exported import capture
from compress.exported.compiling import compiled
from compress.exported.model import ExportedModel, uncompiled
from compress.exported.onnx import OnnxModel, to_onnx
from compress.exported.packages import Package, package_of
from compress.fidelity import check_same
from compress.inputs import Inputs, inputs_of

Call = Callable[..., Any]


def prepare(model: nn.Module, example_inputs: Any, *, runtime: str = "eager") -> Call:
    """``model``, in eval mode, made ready to be called on inputs of the examples' shapes, types and device.

    Whatever a runtime compiles, it compiles here: the first call of the result is as fast as any.

    Args:
        model: on the device of the inputs.
        example_inputs: a tensor ``[n, ...]``, a tuple of positional arguments or a mapping of named ones.
        runtime: one of :data:`RUNTIMES`: PyTorch's eager mode; Inductor (``torch.compile``) with frozen weights; ONNX
            Runtime, on the CPU; or the package of AOTInductor, which runs without Python and is kept in the user's
            cache folder (:class:`compress.exported.packages.Package`).

    Raises:
        ConfigError: if there is no such runtime, or what it needs is not installed.
        ModelError: if the model cannot be captured or compiled, or what runs computes something else.
    """
    check_runtime(runtime)
    inputs = inputs_of(example_inputs)
    model = model.eval()
    if isinstance(model, OnnxModel) and runtime != "onnxruntime":
        raise ConfigError(f"an ONNX model runs under onnxruntime alone, got runtime {runtime!r}")
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
    return not isinstance(model, OnnxModel) and all(one.dtype in (torch.float32, torch.int64) for one in tensors)


def _eager(model: nn.Module, _: Inputs) -> Call:
    return uncompiled(model)


def _inductor(model: nn.Module, _: Inputs) -> Call:
    return compiled(uncompiled(model))


def _onnxruntime(model: nn.Module, inputs: Inputs) -> Call:
    if isinstance(model, OnnxModel):
        return model
    for tensor in inputs.tensors:
        if tensor.device.type != "cpu":
            raise ConfigError(f"the runtime onnxruntime is for the CPU, got an input on {tensor.device}")
    return OnnxModel(to_onnx(model.program if isinstance(model, ExportedModel) else capture(model, inputs)))


def _aotinductor(model: nn.Module, inputs: Inputs) -> Call:
    return Package(package_of(uncompiled(model), inputs))


_PREPARE: dict[str, Callable[[nn.Module, Inputs], Call]] = {
    "eager": _eager,
    "inductor": _inductor,
    "onnxruntime": _onnxruntime,
    "aotinductor": _aotinductor,
}
RUNTIMES = tuple(_PREPARE)
# Those that make a file of a model, which any process on this machine runs as it is.
PACKAGING = ("aotinductor",)
