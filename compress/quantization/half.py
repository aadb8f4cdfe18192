"""Half precision: weights and activations in bfloat16 or float16, in the memory format that its kernels are fast in."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from compress.errors import ConfigError, ModelError
from compress.modules.copying import check_given, copied

Precision = Literal["bfloat16", "float16"]


class HalfModel(nn.Module):
    """Takes and returns float32, and computes in between in half precision, channels last.

    Attributes:
        network: in half precision.
        precision: "bfloat16" or "float16".
    """

    def __init__(self, network: nn.Module, precision: str) -> None:
        super().__init__()
        check_precision(precision)
        self.precision = precision
        self.network = network.to(getattr(torch, precision)).to(memory_format=torch.channels_last)
        self.training = network.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map_only(Tensor, self._halved, (args, kwargs))
        return tree_map_only(Tensor, self._widened, self.network(*args, **kwargs))

    def _halved(self, tensor: Tensor) -> Tensor:
        """A tensor of float32 as the network takes it; others say which, not how much."""
        layout = torch.channels_last if tensor.ndim == 4 else torch.preserve_format  # noqa: PLR2004 - images
        half = getattr(torch, self.precision)
        return tensor.to(half, memory_format=layout) if tensor.dtype == torch.float32 else tensor

    def _widened(self, tensor: Tensor) -> Tensor:
        return tensor.float() if tensor.dtype == getattr(torch, self.precision) else tensor


def to_half(model: nn.Module, precision: Precision = "bfloat16") -> HalfModel:
    """A copy of ``model`` that computes in half precision; it takes and returns float32 as before.

    bfloat16 has float32's range, so no model overflows in it; float16 has three more bits of precision. Both are fast
    on GPUs since Volta (float16) and Ampere (bfloat16), and on CPUs with AVX512-BF16 or AMX.

    Raises:
        ConfigError: if ``precision`` is neither.
        ModelError: if the model is not in float32, or a weight would overflow.
    """
    check_precision(precision)
    check_given(model, "halve")
    largest = torch.finfo(getattr(torch, precision)).max
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        if tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ModelError(f"the model must be in float32 to be halved, '{name}' is {kind}")
        if tensor.numel() and not float(tensor.detach().abs().max()) <= largest:
            raise ModelError(f"weights must be at most {largest:g} in {precision}, '{name}' has a larger one")
    return HalfModel(copied(model), precision)


def check_precision(precision: str) -> None:
    """Refuse an unknown precision.

    Raises:
        ConfigError: if it is not one of :data:`Precision`.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
