"""Running a model once on inputs, whatever form they have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule

from compress.errors import CompressError, ConfigError, ModelError, first_line

Inputs = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]


def check_model(model: object) -> None:
    """Refuse what has no layers of its own to replace.

    Raises:
        ModelError: if the model is no module, scripted or compiled.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"the model must be a torch.nn.Module, got {type(model).__name__}")
    for name, module in model.named_modules():
        if isinstance(module, ScriptModule) or hasattr(module, "_orig_mod"):
            kind = "scripted" if isinstance(module, ScriptModule) else "compiled"
            raise ModelError(f"the model must not be {kind}: factorize the original (module '{name}')")


def run(model: nn.Module, inputs: Inputs) -> Any:
    """What the model puts out, in eval mode and without gradients; ``inputs`` as in :func:`compress.factorize`.

    Raises:
        ConfigError: if the inputs are no tensor, tuple, list or mapping.
        ModelError: if the forward pass fails.
    """
    if not isinstance(inputs, (Tensor, tuple, list, Mapping)):
        kind = type(inputs).__name__
        raise ConfigError(f"inputs must be a tensor, a tuple of arguments or a mapping of them, got {kind}")
    # Inference tensors could not be used in a later training, no_grad's can.
    with _evaluating(model), torch.no_grad():
        try:
            if isinstance(inputs, Mapping):
                return model(**inputs)
            return model(inputs) if isinstance(inputs, Tensor) else model(*inputs)
        except CompressError:
            raise
        except Exception as cause:
            reason = first_line(cause)
            raise ModelError(f"the forward pass on the given inputs failed: {reason}") from cause


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode, and afterwards each module's own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
