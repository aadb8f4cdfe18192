"""Unstructured pruning: weights of small magnitude are set to zero, and stay zero while the model is trained on.

Shapes do not change, so neither does the size of the file nor, on ordinary kernels, the time of a forward pass: what
it buys is sparsity that a compressor of files or a sparse kernel may use later, and a regularizer in training.

Source: Han, Pool, Tran and Dally, "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015,
section 3; one global threshold as in Frankle and Carbin, "The Lottery Ticket Hypothesis", ICLR 2019.
"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from compress.errors import ConfigError, ModelError

Scope = Literal["layer", "global"]
M = TypeVar("M", bound=nn.Module)

_MASK = "weight_mask"  # the name torch.nn.utils.prune gives it too

# Layers whose `weight` multiplies activations. Norms and biases are few and every one of them matters.
_PRUNABLE = (
    nn.Linear,
    nn.Bilinear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def prune_weights(model: M, sparsity: float = 0.2, scope: Scope = "layer") -> M:
    """A copy of ``model`` in which the ``sparsity`` smallest of its weights by magnitude are masked to zero.

    Exactly ``round(sparsity * n)`` of ``n`` weights go: of every layer's for the scope "layer", of all layers' together
    for "global". Shape, file size and speed stay as they are. The masks hold through training; :func:`compress.save`
    and :func:`make_permanent_` turn them into plain zeros.

    Raises:
        ConfigError: if ``sparsity`` is outside [0, 1) or ``scope`` is unknown.
        ModelError: if there is nothing to prune, or a weight is not a finite number.
    """
    check_settings(sparsity, scope)
    model = make_permanent_(deepcopy(model))
    weights = _weights(model)
    if not weights:
        raise ModelError(f"{type(model).__name__} has no linear or convolution layer whose weights could be pruned")
    if sparsity == 0:
        return model
    magnitudes = [weight.detach().abs().flatten() for weight in weights]
    if scope == "layer":
        keeps = [_keep_largest(magnitude, sparsity) for magnitude in magnitudes]
    else:
        together = _keep_largest(torch.cat([magnitude.cpu().double() for magnitude in magnitudes]), sparsity)
        keeps = list(torch.split(together, [magnitude.numel() for magnitude in magnitudes]))
    for (weight, layers), keep in zip(weights.items(), keeps, strict=True):
        mask = keep.reshape(weight.shape).to(weight.device)
        for layer in layers:
            layer.register_buffer(_MASK, mask)
    # On the model too, because attention reads the weight of its output projection without calling that layer.
    hooked: list[nn.Module] = [model, *(layer for layers in weights.values() for layer in layers if layer is not model)]
    for module in hooked:
        module.register_forward_pre_hook(_zero_pruned_)
    _zero_pruned_(model)
    return model


def check_settings(sparsity: float, scope: str) -> None:
    """Refuse settings of :func:`prune_weights` that make no sense.

    Raises:
        ConfigError: if ``sparsity`` is outside [0, 1) or ``scope`` is unknown.
    """
    if not 0 <= sparsity < 1:
        raise ConfigError(f"sparsity must be in [0, 1), got {sparsity}")
    if scope not in get_args(Scope):
        raise ConfigError(f"scope must be one of {', '.join(get_args(Scope))}, got {scope!r}")


def make_permanent_(model: M) -> M:
    """Turn every mask into plain zeros in the weights, in place; returns ``model``."""
    _zero_pruned_(model)
    for module in model.modules():
        if _MASK in module._buffers:
            delattr(module, _MASK)
        for key, hook in list(module._forward_pre_hooks.items()):
            if hook is _zero_pruned_:
                del module._forward_pre_hooks[key]
    return model


def _zero_pruned_(model: nn.Module, _inputs: object = None) -> None:
    """Forward pre-hook: take back what the last optimizer step did to pruned weights."""
    # The weight stays an ordinary leaf parameter this way. A parametrization would swap the layer's class, which copies
    # of the model share, so that removing it from one copy breaks the others.
    for layer in model.modules():
        if _MASK in layer._buffers:
            layer.weight.data.mul_(layer.get_buffer(_MASK))  # type: ignore[operator]


def _weights(model: nn.Module) -> dict[nn.Parameter, list[nn.Module]]:
    """Every weight that may be pruned, once, with the layers that share it."""
    found: dict[nn.Parameter, list[nn.Module]] = {}
    for name, module in model.named_modules():
        if not isinstance(module, _PRUNABLE) or not isinstance(module.weight, nn.Parameter):
            continue
        if not torch.isfinite(module.weight).all():
            raise ModelError(f"weights must be finite to be ranked by magnitude, '{name}.weight' is not")
        found.setdefault(module.weight, []).append(module)
    return found


def _keep_largest(magnitude: Tensor, sparsity: float) -> Tensor:
    """``[n]`` magnitudes to ``[n]`` booleans, exactly ``round(sparsity * n)`` of them False; ties fall to the first."""
    num_pruned = math.floor(sparsity * magnitude.numel() + 0.5)
    keep = torch.ones_like(magnitude, dtype=torch.bool)
    # A threshold would take all of equal magnitude or none; positions hit the count exactly.
    keep[magnitude.argsort(stable=True)[:num_pruned]] = False
    return keep
