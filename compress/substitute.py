"""Plain layers in the place of one layer of a network: how a technique that changes the module tree says so.

A saved model is rebuilt from what its factory builds, module by module. Where a technique put several layers in the
place of one, it wraps them in a :class:`Substitute`; the file then names the place, and the layers are built anew from
their attributes. Only the types listed here can come out of a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils import skip_init

_LINEAR = ("in_features", "out_features")
_CONV = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")

# Layer -> the attributes that are arguments of its constructor; the bias comes on top.
_LAYERS: Mapping[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: _LINEAR,
    nn.Conv1d: _CONV,
    nn.Conv2d: _CONV,
    nn.Conv3d: _CONV,
    nn.ConvTranspose1d: (*_CONV, "output_padding"),
    nn.ConvTranspose2d: (*_CONV, "output_padding"),
    nn.ConvTranspose3d: (*_CONV, "output_padding"),
}


class Substitute(nn.Sequential):
    """Layers, one after another, that stand where the network's factory puts a layer of the type ``replaces``."""

    def __init__(self, *layers: nn.Module, replaces: str) -> None:
        super().__init__(*layers)
        self.replaces = replaces


def type_name(module: nn.Module) -> str:
    """A module's type as files name it."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def rebuilt(layers: Sequence[tuple[str, Mapping[str, Any], bool]], replaces: str, device: torch.device) -> Substitute:
    """A substitute with weights of no meaning: ``layers`` are each one's type, attributes, and whether it has a bias.

    Raises:
        ValueError: if a type is not one that substitutes are made of, or its attributes make no layer.
    """
    kinds = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in _LAYERS}
    built: list[nn.Module] = []
    for name, attributes, bias in layers:
        if name not in kinds:
            raise ValueError(f"a substitute cannot hold a {name}")
        arguments = {key: attributes[key] for key in _LAYERS[kinds[name]]}
        # Its own initialization would be overwritten at once, and would use up random numbers.
        built.append(skip_init(kinds[name], **arguments, bias=bias, device=device))  # type: ignore[no-untyped-call]
    return Substitute(*built, replaces=replaces)


def replace_(model: nn.Module, replacements: Mapping[str, nn.Module]) -> nn.Module:
    """Put modules in the places of others, in place, under every name that a place has; returns the model.

    Where a name is "", the model itself, that replacement is returned.
    """
    modules = dict(model.named_modules())
    new = {id(modules[name]): replacement for name, replacement in replacements.items()}
    if id(model) in new:
        return new[id(model)]
    for parent in modules.values():
        for leaf, child in parent._modules.items():
            if id(child) in new:
                parent._modules[leaf] = new[id(child)]
    return model
