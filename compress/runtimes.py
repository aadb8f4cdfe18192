"""Runtimes: what executes a model. A latency is always that of a model under one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import ConfigError

RUNTIMES = ("eager", "inductor")


def prepare(model: nn.Module, example_input: Tensor, *, runtime: str = "eager") -> Callable[[Tensor], Any]:
    """``model``, in eval mode, made ready to be called on inputs of ``example_input``'s shape, type and device.

    Args:
        model: on the device of ``example_input``.
        example_input: ``[n, ...]``.
        runtime: one of :data:`RUNTIMES`.

    Raises:
        ConfigError: if there is no such runtime.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime must be one of {', '.join(RUNTIMES)}, got {runtime!r}")
    model = model.eval()
    if runtime == "eager":
        return model
    compiled: Callable[[Tensor], Any] = torch.compile(model, dynamic=False, options={"freezing": True})
    with torch.inference_mode():
        # Compilation happens on the first call, and is not to be anyone's latency.
        compiled(example_input)
    return compiled
