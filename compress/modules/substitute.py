"""Plain layers in the place of one layer of a network: how a technique that changes the module tree says so.

A saved model is rebuilt from what its factory builds, module by module. Where a technique put several layers in the
place of one, it wraps them in a :class:`Substitute`; the file then names the place, and the layers are built anew from
their attributes. Only the types listed here can come out of a file.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from compress.errors import ArtifactError
from compress.modules.composed import composed, composed_at_need, composed_shape

M = TypeVar("M", bound=nn.Module)
Modules = Mapping[str, Mapping[str, Any]]

# In a file, beside the attributes of a module stands its type, under a name that no attribute there can have.
TYPE = "_type"

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
    """Layers, one after another, that stand where the network's factory puts a layer of the type ``replaces``.

    Code that reads the replaced layer's weight, bias, widths or stride reads here what the layers amount to.

    Attributes:
        replaces: the type.
        inputs_first: whether a weight of that type is ``[in, out]``.
    """

    inputs_first = False

    # The default is for slices, which torch makes by calling the class.
    def __init__(self, *layers: Any, replaces: str = "", inputs_first: bool = False) -> None:
        super().__init__(*layers)
        self.replaces = replaces
        if inputs_first:
            self.inputs_first = True

    def __getattr__(self, name: str) -> Any:
        if name in READABLE and "_modules" in vars(self) and len(self):
            return READABLE[name](self)
        return super().__getattr__(name)

    def composed_weight(self) -> Tensor:
        """The weight that the layers amount to, as the replaced layer would store it."""
        weight = composed(list(self))
        return weight.T if self.inputs_first else weight


def _weight(chain: Substitute) -> Tensor:
    shape = composed_shape(list(chain))
    shape = shape[::-1] if chain.inputs_first else shape
    return composed_at_need(chain.composed_weight, shape, chain[0].get_parameter("weight"))


def _of_first(name: str) -> Callable[[Substitute], Any]:
    return lambda chain: getattr(chain[0], name)


def _of_last(name: str) -> Callable[[Substitute], Any]:
    return lambda chain: getattr(chain[-1], name)


def _along(name: str, together: Callable[[Sequence[int]], int]) -> Callable[[Substitute], Any]:
    """What a convolution does along each dimension: one of the layers does it, and the others do nothing there."""

    def read(chain: Substitute) -> Any:
        values = [getattr(layer, name) for layer in chain]
        words = [value for value in values if isinstance(value, str)]
        return words[0] if words else tuple(map(together, zip(*values, strict=True)))

    return read


def _padding_mode(chain: Substitute) -> Any:
    modes = [layer.padding_mode for layer in chain]
    return next((mode for mode in modes if mode != "zeros"), "zeros")


# What a replaced layer can be asked for.
READABLE: Mapping[str, Callable[[Substitute], Any]] = {
    "weight": _weight,
    "bias": _of_last("bias"),
    "in_features": _of_first("in_features"),
    "out_features": _of_last("out_features"),
    "nx": _of_first("in_features"),
    "nf": _of_last("out_features"),
    "in_channels": _of_first("in_channels"),
    "out_channels": _of_last("out_channels"),
    "kernel_size": _along("kernel_size", math.prod),
    "stride": _along("stride", math.prod),
    "dilation": _along("dilation", math.prod),
    "padding": _along("padding", sum),
    "output_padding": _along("output_padding", sum),
    "groups": _of_first("groups"),
    "padding_mode": _padding_mode,
}


def type_name(module: nn.Module) -> str:
    """A module's type as files name it."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def substitutes_in(model: nn.Module) -> dict[str, str]:
    """The names of the model's substitutes, and the type that each replaces."""
    return {name: module.replaces for name, module in model.named_modules() if isinstance(module, Substitute)}


def read_substitutes(substitutes: Any, modules: Container[str]) -> dict[str, str]:
    """What a file says of its substitutes.

    Raises:
        ValueError: if it is no table of names out of ``modules`` and of types.
    """
    if not isinstance(substitutes, dict) or not all(name in modules for name in substitutes):
        raise ValueError("a substitute stands for a module that is not there")
    return substitutes


def restored(model: M, substitutes: Mapping[str, str], modules: Modules, tensors: Container[str], path: Path) -> M:
    """The factory's ``model`` with new layers, their weights still to be set, wherever a file has a substitute.

    Args:
        model: edited in place.
        substitutes: from :func:`read_substitutes`.
        modules: type and attributes of every module in the file.
        tensors: the names of the file's tensors.
        path: the file, for messages.

    Raises:
        ArtifactError: if the model holds something else in a place than the substitute there replaces, or a
            substitute holds what none can.
    """
    built = dict(model.named_modules())
    replacements: dict[str, nn.Module] = {}
    for name, replaces in substitutes.items():
        found = type_name(built[name]) if name in built else "missing"
        if found != replaces:
            raise ArtifactError(
                f"{path} holds another network than the factory builds: module '{name}' stands for a {replaces}"
                f" in the file and is {found} in the model"
            )
        device = next((parameter.device for parameter in built[name].parameters()), torch.device("cpu"))
        try:
            layers = [_layer(modules[place], f"{place}.bias" in tensors, device) for place in _places(name, modules)]
        except (KeyError, TypeError, ValueError, RuntimeError) as cause:
            raise ArtifactError(f"{path} is damaged or no saved model: {cause} (module '{name}')") from cause
        replacements[name] = Substitute(*layers, replaces=replaces)
    return cast("M", replace_(model, replacements))


def _places(name: str, modules: Modules) -> Iterator[str]:
    """The names of a substitute's layers."""
    prefix = f"{name}." if name else ""
    for number in itertools.count():
        if (place := f"{prefix}{number}") not in modules:
            return
        yield place


def _layer(attributes: Mapping[str, Any], bias: bool, device: torch.device) -> nn.Module:  # noqa: FBT001
    kinds = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in _LAYERS}
    if attributes[TYPE] not in kinds:
        raise ValueError(f"a substitute cannot hold a {attributes[TYPE]}")
    kind = kinds[attributes[TYPE]]
    arguments = {key: attributes[key] for key in _LAYERS[kind]}
    # Its own initialization would be overwritten at once, and would use up random numbers.
    layer: nn.Module = skip_init(kind, **arguments, bias=bias, device=device)  # type: ignore[no-untyped-call]
    return layer


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
