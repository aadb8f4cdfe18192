"""What structured pruning asks of a model, its example inputs and its settings, checked before any work."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from compress.calling.inputs import Inputs, inputs_of
from compress.errors import ConfigError, ModelError
from compress.exported import ExportedModel
from compress.modules.copying import check_given
from compress.modules.masks import is_masked

_QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")


def check_ratio(ratio: float) -> None:
    """Refuse a share of channels that leaves none, or is no share.

    Raises:
        ConfigError: if ``ratio`` is not a number in [0, 1).
    """
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 <= ratio < 1:
        raise ConfigError(f"pruning_ratio must be in [0, 1), got {ratio!r}")


def check_model(model: nn.Module) -> None:
    """Refuse what has no channels of its own to cut.

    Raises:
        ModelError: if the model is no module, lazy, without its weights, quantized, scripted, compiled or masked.
    """
    check_given(model, "prune")
    for name, module in model.named_modules():
        why = _why_not(module)
        if why is not None:
            raise ModelError(f"the model must not be {why} (layer '{name}', {type(module).__name__})")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_quantized:
            raise ModelError(f"the model must not be quantized: prune before quantizing (tensor '{name}')")


def _why_not(module: nn.Module) -> str | None:
    """What a module is that cannot be cut, and what to do instead; None if it can."""
    if isinstance(module, ExportedModel):
        return "exported or quantized: prune before"
    if hasattr(module, "_orig_mod"):
        return "compiled: prune the original"
    if type(module).__module__.startswith(_QUANTIZED):
        return "quantized: prune before quantizing"
    if is_masked(module):
        return "masked: prune channels before weights, or make masks permanent"
    return None


def check_ignore(model: nn.Module, ignore: Collection[str]) -> None:
    """Refuse names of modules that do not exist.

    Raises:
        ConfigError: if ``ignore`` is a string, or names an unknown module.
    """
    if isinstance(ignore, str):
        raise ConfigError(f"ignore must be a collection of module names, got the string {ignore!r}")
    known = {name for name, _ in model.named_modules()}
    for name in ignore:
        if name not in known:
            raise ConfigError(f"ignore must name modules of the model, got {name!r}")


def check_example(model: nn.Module, example_inputs: Any) -> Inputs:
    """The example inputs as arguments of a forward pass.

    Raises:
        ConfigError: if they are no tensor, tuple, list or mapping.
        ModelError: if they lie on another device than the model.
    """
    example = inputs_of(example_inputs)
    devices = {tensor.device for tensor in [*model.parameters(), *model.buffers()]}
    for tensor in example.tensors:
        if devices and tensor.device not in devices:
            there = ", ".join(sorted(str(device) for device in devices))
            raise ModelError(f"example_inputs must lie on the model's device, {there}, got {tensor.device}")
    return example
