"""What factorization asks of a model, checked before any work."""

from __future__ import annotations

from torch import nn

from compress.errors import ModelError
from compress.modules.copying import check_given


def check_model(model: nn.Module) -> None:
    """Refuse what has no layers of its own to replace.

    Raises:
        ModelError: if the model is no module, scripted, compiled, or without its weights.
    """
    check_given(model, "factorize")
    for name, module in model.named_modules():
        if hasattr(module, "_orig_mod"):
            raise ModelError(f"the model must not be compiled: factorize the original (module '{name}')")
