"""What factorization asks of a model, checked before any work."""

from __future__ import annotations

from torch import nn
from torch.jit import ScriptModule

from compress.errors import ModelError


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
