"""What quantization asks of a model, its calibration data and the machine, checked before any work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import ConfigError, DataError, ModelError
from compress.exported import ExportedModel

CUDA_INT8 = (
    "PyTorch has no int8 convolution on CUDA: use the step 'half' (bfloat16 or float16, channels-last, CUDA graphs),"
    " torchao's int8 or float8 weights for a model of linear layers, or the .onnx file of an int8 model under ONNX"
    " Runtime's CUDA or TensorRT provider"
)


def check_device(device: torch.device | str, model: nn.Module) -> None:
    """Refuse every device but the CPU.

    Raises:
        ConfigError: for CUDA, with what works there.
        ModelError: if the model lies elsewhere.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        raise ConfigError(f"{CUDA_INT8}, got device {str(device)!r}")
    if kind != "cpu":
        raise ConfigError(f"int8 runs on the CPU, got device {str(device)!r}")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.device.type != "cpu":
            raise ModelError(f"int8 runs on the CPU: move the model there, '{name}' lies on {tensor.device}")


def check_model(model: nn.Module) -> None:
    """Refuse what is quantized already, or is not in float32.

    Raises:
        ModelError: with the tensor or module named.
    """
    for name, module in model.named_modules():
        if isinstance(module, ExportedModel) or ".quantized" in type(module).__module__:
            where = f" (layer '{name}')" if name else ""
            raise ModelError(f"the model must not be quantized or exported already, {type(module).__name__} is{where}")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_quantized or tensor.dtype in (torch.int8, torch.uint8):
            raise ModelError(f"the model must not be quantized already, '{name}' is {_dtype(tensor)}")
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ModelError(f"the model must be in float32 to be quantized, '{name}' is {_dtype(tensor)}")


def calibration_batches(data: Tensor | Iterable[Any], batch_size: int = 64) -> list[Tensor]:
    """The calibration inputs as batches ``[n, ...]``.

    Args:
        data: a tensor ``[n, ...]``, or batches of one; of pairs (inputs, labels) the first is taken.
        batch_size: how many inputs of a tensor at once.

    Raises:
        DataError: if there are none, or they are no float32 tensors, not finite, or all the same value.
    """
    batches = list(torch.split(data, batch_size)) if isinstance(data, Tensor) else [_inputs(batch) for batch in data]
    batches = [batch for batch in batches if len(batch)]
    if not batches:
        raise DataError("calibration needs at least one input, got none")
    for batch in batches:
        if batch.dtype != torch.float32:
            raise DataError(f"calibration inputs must be float32, got {_dtype(batch)}")
        if not batch.isfinite().all():
            raise DataError("calibration inputs must be finite numbers, got NaN or infinity")
    lowest, highest = min(float(batch.min()) for batch in batches), max(float(batch.max()) for batch in batches)
    if lowest == highest:
        raise DataError(f"calibration inputs must differ, or no range can be read off them: all are {lowest:g}")
    return batches


def _inputs(batch: Any) -> Tensor:
    inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
    if not isinstance(inputs, Tensor):
        raise DataError(f"calibration data must be tensors, got {type(inputs).__name__}")
    return inputs


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
