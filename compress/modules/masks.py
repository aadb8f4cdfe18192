"""Masks that hold weights at zero, our own and those of ``torch.nn.utils.prune``, and how they become plain zeros."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.prune import remove as remove_torch_mask_

from compress.modules.copying import copied

M = TypeVar("M", bound=nn.Module)

MASK = "weight_mask"  # the name torch.nn.utils.prune gives it too


def mask_(model: nn.Module, masks: dict[nn.Module, Tensor]) -> None:
    """Hold the weight of each layer at zero where its mask is False, through training too, in place."""
    for layer, mask in masks.items():
        layer.register_buffer(MASK, mask)
    # On the model too, because attention reads the weight of its output projection without calling that layer.
    for module in dict.fromkeys((model, *masks)):
        module.register_forward_pre_hook(_zero_pruned_)
    _zero_pruned_(model)


def is_masked(module: nn.Module) -> bool:
    """Whether a mask of either kind is on a tensor of the module's own."""
    hooks = module._forward_pre_hooks.values()
    return MASK in module._buffers or any(isinstance(hook, BasePruningMethod) for hook in hooks)


def without_masks(model: M) -> M:
    """A copy with plain zeros in place of masks; the model itself where it has none."""
    return make_permanent_(copied(model)) if any(map(is_masked, model.modules())) else model


def make_permanent_(model: M) -> M:
    """Turn every mask into plain zeros in the weights, in place; returns ``model``.

    Masks of :func:`compress.prune_weights`, and of ``torch.nn.utils.prune`` on whatever tensor.
    """
    for module in model.modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, BasePruningMethod):
                remove_torch_mask_(module, hook._tensor_name)  # type: ignore[no-untyped-call]
    _zero_pruned_(model)
    for module in model.modules():
        if MASK in module._buffers:
            delattr(module, MASK)
        for key, hook in list(module._forward_pre_hooks.items()):
            if hook is _zero_pruned_:
                del module._forward_pre_hooks[key]
    return model


def _zero_pruned_(model: nn.Module, _inputs: object = None) -> None:
    """Forward pre-hook: take back what the last optimizer step did to pruned weights."""
    # The weight stays an ordinary leaf parameter this way. A parametrization would swap the layer's class, which copies
    # of the model share, so that removing it from one copy breaks the others.
    for layer in model.modules():
        if MASK in layer._buffers:
            layer.weight.data.mul_(layer.get_buffer(MASK))  # type: ignore[operator]
