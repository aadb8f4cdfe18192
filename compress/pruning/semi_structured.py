"""Zeros that make a model faster: 2:4 weights packed for the sparse tensor cores of NVIDIA's GPUs.

Source: Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021, section 3.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.sparse import to_sparse_semi_structured

from compress.calling.inputs import device_of
from compress.errors import ModelError
from compress.modules.masks import make_permanent_
from compress.pruning.patterns import Pattern, holds

_TWO_OF_FOUR = Pattern(2, 4)
_DTYPES = (torch.float16, torch.bfloat16)
# Multiples that both of torch's kernels, CUTLASS and cuSPARSELt, take for those types.
_ROWS, _COLUMNS = 32, 64
_AMPERE = (8, 0)
_WHAT_WORKS = "linear layers in half precision, pruned to 2:4, on a CUDA device of compute capability 8.0 or newer"


def to_semi_structured_(
    model: nn.Module, convert: Callable[[Tensor], Tensor] = to_sparse_semi_structured
) -> tuple[str, ...]:
    """Pack the weights of linear layers that have the pattern 2:4, in place, and return the layers' names.

    For inference only, and after :func:`compress.save`: packed weights can neither be trained nor saved. Masks become
    permanent. Convolutions stay as they are, since PyTorch has no sparse kernel for them.

    Args:
        model: pruned by ``compress.prune_weights(model, pattern="2:4")``, in half precision, on a CUDA device.
        convert: packs one weight ``[out, in]``.

    Raises:
        ModelError: if nothing in the model can be packed, with the reason and what can.
    """
    device = device_of(model)
    if device.type != "cuda":
        raise ModelError(f"semi-structured tensors speed up {_WHAT_WORKS}, this model lies on {device.type}")
    if torch.cuda.get_device_capability(device) < _AMPERE:
        raise ModelError(f"semi-structured tensors speed up {_WHAT_WORKS}, this one is older")
    return pack_(model, convert)


def pack_(model: nn.Module, convert: Callable[[Tensor], Tensor]) -> tuple[str, ...]:
    """What :func:`to_semi_structured_` does once the device is known to be right."""
    make_permanent_(model)
    reasons = {name: _why_not(layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    ready = tuple(name for name, reason in reasons.items() if reason is None)
    if not ready:
        seen = ", ".join(f"'{name}' {reason}" for name, reason in list(reasons.items())[:3]) or "has no linear layer"
        raise ModelError(f"semi-structured tensors speed up {_WHAT_WORKS}, this model {seen}")
    for name in ready:
        layer = model.get_submodule(name)
        layer.weight = nn.Parameter(convert(layer.weight.detach().contiguous()), requires_grad=False)  # type: ignore[operator]
    return ready


def _why_not(layer: nn.Linear) -> str | None:
    """Why the layer's weight cannot be packed; None if it can."""
    weight = layer.weight
    if weight.dtype not in _DTYPES:
        return f"is in {str(weight.dtype).removeprefix('torch.')}"
    rows, columns = weight.shape
    if rows % _ROWS or columns % _COLUMNS:
        return f"of shape [{rows}, {columns}] is no multiple of [{_ROWS}, {_COLUMNS}]"
    return None if holds(weight, _TWO_OF_FOUR) else "is not 2:4 sparse"
