"""Runtimes: what executes a model. A latency is always that of a model under one of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import CompressError, ConfigError, ModelError, first_line
from compress.exported import capture
from compress.exported.capture import quiet_torch
from compress.exported.compiling import compiled
from compress.exported.model import ExportedModel, uncompiled
from compress.exported.onnx import OnnxModel, to_onnx

Call = Callable[[Tensor], Any]


def prepare(model: nn.Module, example_input: Tensor, *, runtime: str = "eager") -> Call:
    """``model``, in eval mode, made ready to be called on inputs of ``example_input``'s shape, type and device.

    Whatever a runtime compiles, it compiles here: the first call of the result is as fast as any.

    Args:
        model: on the device of ``example_input``.
        example_input: ``[n, ...]``.
        runtime: one of :data:`RUNTIMES`: PyTorch's eager mode; Inductor (``torch.compile``) with frozen weights; ONNX
            Runtime, on the CPU; or the package of AOTInductor, which runs without Python.

    Raises:
        ConfigError: if there is no such runtime, or what it needs is not installed.
        ModelError: if the model cannot be captured or compiled.
    """
    check_runtime(runtime)
    model = model.eval()
    if isinstance(model, OnnxModel) and runtime != "onnxruntime":
        raise ConfigError(f"an ONNX model runs under onnxruntime alone, got runtime {runtime!r}")
    try:
        call = _PREPARE[runtime](model, example_input)
        with torch.inference_mode():
            call(example_input)
    except CompressError:
        raise
    except Exception as cause:
        reason = first_line(cause)
        raise ModelError(f"{type(model).__name__} does not run under {runtime}: {reason}") from cause
    return call


def check_runtime(runtime: str) -> None:
    """Refuse an unknown runtime.

    Raises:
        ConfigError: if it is not one of :data:`RUNTIMES`.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime must be one of {', '.join(RUNTIMES)}, got {runtime!r}")


def _eager(model: nn.Module, _: Tensor) -> Call:
    return uncompiled(model)


def _inductor(model: nn.Module, _: Tensor) -> Call:
    return compiled(uncompiled(model))


def _onnxruntime(model: nn.Module, example_input: Tensor) -> Call:
    if isinstance(model, OnnxModel):
        return model
    if example_input.device.type != "cpu":
        raise ConfigError(f"the runtime onnxruntime is for the CPU, got an input on {example_input.device}")
    return OnnxModel(to_onnx(model.program if isinstance(model, ExportedModel) else capture(model, example_input)))


def _aotinductor(model: nn.Module, example_input: Tensor) -> Call:
    program = capture(uncompiled(model), example_input, fixed=True)
    # Where gradients are on, Inductor does not freeze, and finds none of the patterns of int8: those need constants.
    with tempfile.TemporaryDirectory(prefix="compress-aotinductor-") as folder, quiet_torch(), torch.no_grad():
        package = str(Path(folder, "model.pt2"))
        torch._inductor.aoti_compile_and_package(program, package_path=package, inductor_configs={"freezing": True})
        loaded: Call = torch._inductor.aoti_load_package(package)
    return loaded


_PREPARE: dict[str, Callable[[nn.Module, Tensor], Call]] = {
    "eager": _eager,
    "inductor": _inductor,
    "onnxruntime": _onnxruntime,
    "aotinductor": _aotinductor,
}
RUNTIMES = tuple(_PREPARE)
