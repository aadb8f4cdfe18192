"""What quantization asks of a model, its calibration data and the machine, checked before any work."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compress.calling import batches as calling_batches
from compress.calling.inputs import Inputs, each_batch, inputs_of
from compress.errors import ConfigError, DataError, ModelError
from compress.exported import ExportedModel
from compress.modules.copying import check_given

CUDA_INT8 = (
    "PyTorch has no int8 convolution on CUDA: use the step 'half' (bfloat16 or float16, channels-last, CUDA graphs),"
    " torchao's int8 or float8 weights for a model of linear layers, or the .onnx file of an int8 model under ONNX"
    " Runtime's CUDA or TensorRT provider"
)


def check_device(device: torch.device | str, model: nn.Module) -> None:
    """Refuse every device but the CPU.

    Raises:
        ConfigError: for CUDA, with what works there.
        ModelError: if the model lies elsewhere, or is none that could be quantized.
    """
    check_given(model, "quantize")
    kind = torch.device(device).type
    if kind == "cuda":
        raise ConfigError(f"{CUDA_INT8}, got device {str(device)!r}")
    if kind != "cpu":
        raise ConfigError(f"int8 runs on the CPU, got device {str(device)!r}")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.device.type != "cpu":
            raise ModelError(f"int8 runs on the CPU: move the model there, '{name}' lies on {tensor.device}")


def check_model(model: nn.Module) -> None:
    """Refuse what is quantized already, not in float32, not a number, or has no forward pass in Python.

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
        if isinstance(tensor, nn.Parameter) and not tensor.isfinite().all():
            raise ModelError(f"weights must be finite numbers to be quantized, '{name}' holds NaN or infinity")
        if tensor.is_floating_point() and tensor.isnan().any():
            raise ModelError(f"a model must hold numbers to be quantized, '{name}' holds NaN")


def calibration_batches(data: Any, model: nn.Module | None = None, batch_size: int = 64) -> list[Inputs]:
    """The calibration inputs as batches.

    Args:
        data: a tensor ``[n, ...]``, a mapping of named ones, or batches: tensors, tuples of positional arguments,
            mappings of named ones; of pairs (inputs, targets) the inputs are taken.
        model: what they are for; a tuple of two tensors is a batch of its own where it takes two arguments.
        batch_size: how many inputs of a tensor at once.

    Raises:
        DataError: if there are none, their numbers are not float32 or not finite, all the same, or the batches are not
            alike.
    """
    batches = _batches(data, model, batch_size)
    batches = [batch for batch in batches if batch.tensors and calling_batches.batch_size(batch)]
    if not batches:
        raise DataError("calibration needs at least one input, got none")
    for batch in batches:
        if _form(batch) != _form(batches[0]):
            raise DataError("calibration batches must hold the same arguments, of as many dimensions each")
        for tensor in batch.tensors:
            _check_numbers(tensor, alone=len(batch.tensors) == 1)
    columns = list(zip(*(batch.tensors for batch in batches), strict=True))
    ends = [(min(_end(one, "amin") for one in column), max(_end(one, "amax") for one in column)) for column in columns]
    if all(lowest == highest for lowest, highest in ends):
        raise DataError(f"calibration inputs must differ, or no range can be read off them: all are {ends[0][0]:g}")
    return batches


def _batches(data: Any, model: nn.Module | None, batch_size: int) -> list[Inputs]:
    if isinstance(data, Tensor):
        return [inputs_of(batch) for batch in torch.split(data, batch_size)] if len(data) else []
    if isinstance(data, (Inputs, Mapping)):
        return [inputs_of(data)]
    like = Inputs(args=(None, None)) if model is not None and _takes_two(model) else None
    try:
        batches = list(data)
        return [batch.inputs for batch in each_batch(batches, name="calibration data", like=like)] if batches else []
    except (ConfigError, TypeError) as cause:
        kinds = {type(one).__name__ for one in data} if isinstance(data, (list, tuple)) else {type(data).__name__}
        raise DataError(
            f"calibration data must be tensors, or batches of them, got {', '.join(sorted(kinds))}"
        ) from cause


def _takes_two(model: nn.Module) -> bool:
    """Whether the forward pass cannot do with one argument."""
    parameters = inspect.signature(model.forward).parameters.values()
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.kind in places and one.default is one.empty for one in parameters) > 1


def _form(batch: Inputs) -> tuple[Any, ...]:
    return len(batch.args), sorted(batch.kwargs), [(tensor.ndim, tensor.dtype) for tensor in batch.tensors]


def _check_numbers(tensor: Tensor, *, alone: bool) -> None:
    if not tensor.is_floating_point():
        return
    if tensor.dtype != torch.float32:
        raise DataError(f"calibration inputs must be float32, got {_dtype(tensor)}")
    # A mask beside other inputs says by minus infinity what is not to be seen.
    if not (tensor if alone else tensor[tensor != -math.inf]).isfinite().all():
        raise DataError("calibration inputs must be finite numbers, got NaN or infinity")


def _end(tensor: Tensor, which: str) -> float:
    """The lowest or the highest value."""
    return float(getattr(tensor.detach().float(), which)()) if tensor.numel() else 0.0


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
