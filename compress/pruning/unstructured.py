"""Unstructured pruning: weights of small magnitude are set to zero, and stay zero while the model is trained on.

Shapes do not change, so neither does the size of the file nor, on ordinary kernels, the time of a forward pass: what
it buys is sparsity that a compressor of files or a sparse kernel may use later (for the pattern 2:4 see
:mod:`compress.pruning.semi_structured`), and a regularizer in training.

Source: Han, Pool, Tran and Dally, "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015,
section 3; one global threshold as in Frankle and Carbin, "The Lottery Ticket Hypothesis", ICLR 2019.
"""

from __future__ import annotations

import math
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from compress.errors import ConfigError, ModelError
from compress.modules.copying import check_given, copied
from compress.modules.masks import make_permanent_, mask_
from compress.pruning.patterns import fits, keep_by_pattern, pattern_of

Scope = Literal["layer", "global"]
M = TypeVar("M", bound=nn.Module)

DEFAULT_SPARSITY = 0.2

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


def prune_weights(model: M, sparsity: float | None = None, scope: Scope = "layer", *, pattern: str | None = None) -> M:
    """A copy of ``model`` in which weights of small magnitude are masked to zero.

    Exactly ``round(sparsity * n)`` of ``n`` weights go, 20 % if nothing is said: of every layer's for the scope
    "layer", of all layers' together for "global". With a ``pattern`` "n:m", of every ``m`` neighbours along a layer's
    input dimension the ``n`` largest stay; layers whose inputs are no multiple of ``m`` are left whole.

    Shape, file size and speed stay as they are. The masks hold through training; :func:`compress.save` and
    :func:`compress.make_permanent_` turn them into plain zeros.

    Raises:
        ConfigError: if ``sparsity`` is outside [0, 1), ``scope`` is unknown, or ``pattern`` is none.
        ModelError: if there is nothing to prune, a weight is not a finite number, or the model cannot be copied.
    """
    check_settings(sparsity, scope, pattern)
    check_given(model, "prune")
    model = make_permanent_(copied(model))
    weights = _weights(model)
    if not weights:
        raise ModelError(f"{type(model).__name__} has no linear or convolution layer whose weights could be pruned")
    if pattern is not None:
        masks = _masks_by_pattern(model, weights, pattern)
    else:
        masks = _masks_by_rank(weights, DEFAULT_SPARSITY if sparsity is None else sparsity, scope)
    if not masks:
        return model
    mask_(model, {layer: mask for weight, mask in masks.items() for layer in weights[weight]})
    return model


def check_settings(sparsity: float | None, scope: str, pattern: str | None = None) -> None:
    """Refuse settings of :func:`prune_weights` that make no sense.

    Raises:
        ConfigError: if ``sparsity`` is outside [0, 1), ``scope`` is unknown, or ``pattern`` is none.
    """
    if scope not in get_args(Scope):
        raise ConfigError(f"scope must be one of {', '.join(get_args(Scope))}, got {scope!r}")
    if pattern is not None:
        pattern_of(pattern)
        if sparsity is not None or scope != "layer":
            raise ConfigError(f"a pattern fixes sparsity and scope, give neither beside pattern = {pattern!r}")
    elif sparsity is not None and not 0 <= sparsity < 1:
        raise ConfigError(f"sparsity must be in [0, 1), got {sparsity}")


_Weights = dict[nn.Parameter, list[nn.Module]]
_Masks = dict[nn.Parameter, Tensor]


def _masks_by_rank(weights: _Weights, sparsity: float, scope: Scope) -> _Masks:
    if sparsity == 0:
        return {}
    magnitudes = [weight.detach().abs().flatten() for weight in weights]
    if scope == "layer":
        keeps = [_keep_largest(magnitude, sparsity) for magnitude in magnitudes]
    else:
        together = _keep_largest(torch.cat([magnitude.cpu().double() for magnitude in magnitudes]), sparsity)
        keeps = list(torch.split(together, [magnitude.numel() for magnitude in magnitudes]))
    return {weight: keep.reshape(weight.shape).to(weight.device) for weight, keep in zip(weights, keeps, strict=True)}


def _masks_by_pattern(model: nn.Module, weights: _Weights, text: str) -> _Masks:
    pattern = pattern_of(text)
    # Layers that share a weight read it alike.
    fitting = {weight: layers[0] for weight, layers in weights.items() if fits(layers[0], weight, pattern)}
    if not fitting:
        raise ModelError(
            f"{type(model).__name__} has no layer whose inputs are a multiple of {pattern.of}, as {text!r} needs"
        )
    return {weight: keep_by_pattern(layer, weight, pattern) for weight, layer in fitting.items()}


def _weights(model: nn.Module) -> _Weights:
    """Every weight that may be pruned, once, with the layers that share it."""
    found: _Weights = {}
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
