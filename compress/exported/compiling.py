"""Compiling by Inductor, with the weights frozen into the code: only so do int8 and layout rewrites happen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._inductor import config

from compress.exported.capture import torch_warnings_ignored

Call = Callable[[Tensor], Any]


def compiled(module: nn.Module, *, dynamic: bool | None = None) -> Call:
    """``module``, compiled on its first call and again for each kind of input that the code at hand does not fit.

    Gradients are off in it. ``dynamic=False`` compiles for one shape at a time, else the batch may vary.
    """
    compiling: Call = torch.compile(module, dynamic=dynamic)

    def call(inputs: Tensor) -> Any:
        # torch.compile(options={"freezing": True}) comes too late for the parameters to be taken as constants; and
        # with gradients on nothing is frozen at all.
        with config.patch(freezing=True), torch.no_grad(), torch_warnings_ignored():
            return compiling(inputs)

    return call
